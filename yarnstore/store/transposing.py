"""Makes the chunks of encoding 7: parts of tensors of stored versions, with rows and columns exchanged.

A tensor is transposed in strips of its columns, each of which is made once for the chunks in it and is only
in memory.  All chunks of the tensor are hashed when they are read, and each part before it is used.
`core/transposed` has the payload.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from yarnstore.core.codec import Encoding, verified
from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.index import id_bytes
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.core.transposed import (
    COLUMN_LIMIT_BYTES,
    TENSOR_LIMIT_BYTES,
    Elements,
    TensorPart,
    elements_of,
    encode_part,
    parse_part,
    put_columns,
)
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store.pipeline import ordered_map

# All strips in memory, with the one that is made.
_STRIPS_BYTES: Final = 64 * MIB
_WINDOW: Final = 4
# What is read for all parts together: a tensor of 512 MiB is read 16 times for its parts, in order.  Parts in
# an order that needs more are not made.
_READ_SHARE: Final = 32
_READ_MARGIN_BYTES: Final = 2 * TENSOR_LIMIT_BYTES

# A tensor, as a part from 0 on, and the number of a strip of it.
_Strip: TypeAlias = tuple[TensorPart, int]


class Transposer:
    """Makes parts of transposed tensors, from chunks that `read_chunk` returns verified; thread-safe."""

    def __init__(
        self,
        read_manifest: Callable[[Sha256], Manifest],
        read_chunk: Callable[[bytes], Buffer],
        *,
        strip_bytes: int = COLUMN_LIMIT_BYTES,
    ) -> None:
        """A strip has about `strip_bytes`, and at least one column."""
        self._read_manifest = read_manifest
        self._read_chunk = read_chunk
        self._strip_bytes = strip_bytes
        self._lock = threading.Lock()
        self._strips: OrderedDict[_Strip, Elements] = OrderedDict()
        self._manifest: Manifest | None = None
        self._read_bytes = self._made_bytes = 0

    def decode(self, entry: Entry) -> Buffer:
        """Return the verified bytes of an entry of encoding 7.

        Raises: IntegrityError (FormatError), NotFoundError if the tensor is not whole in the store, or not
        what the entry says; StorageError.
        """
        part = parse_part(entry.payload, entry.plain_bytes)
        return verified(entry.chunk_id, self.read(part, entry.plain_bytes))

    def make_entry(self, part: TensorPart, chunk_id: bytes, length: int) -> Entry:
        """Return the entry of a part with this hash.  Raises: as `decode`."""
        manifest = self._manifest_of(part)
        ids, lengths = manifest.files[part.file].chunk_list()
        first = int(np.searchsorted(np.cumsum(lengths), part.offset, "right"))
        base = id_bytes(ids, first)
        return Entry(chunk_id, length, Encoding.TRANSPOSED, encode_part(part), base)

    def read(self, part: TensorPart, length: int) -> bytes:
        """Return the bytes of a part, not verified.  Raises: as `decode`."""
        found: list[bytes] = []
        at, end = part.start, part.start + length
        per_strip = self._columns(part) * part.column_bytes
        while at < end:
            number, within = divmod(at, per_strip)
            stop = min(end - number * per_strip, per_strip)
            with self._lock:
                self._made_bytes += stop - within
                strip = self._strip(part._replace(start=0), number)
                found.append(strip.reshape(-1).view(np.uint8)[within:stop].tobytes())
            at += stop - within
        return found[0] if len(found) == 1 else b"".join(found)

    def _columns(self, part: TensorPart) -> int:
        """Return how many columns a strip has."""
        return max(1, self._strip_bytes // part.column_bytes)

    def _strip(self, tensor: TensorPart, number: int) -> Elements:
        strip = self._strips.pop((tensor, number), None)
        if strip is None:
            first = number * self._columns(tensor)
            count = min(self._columns(tensor), tensor.columns - first)
            room = _STRIPS_BYTES - count * tensor.column_bytes
            while self._strips and sum(one.nbytes for one in self._strips.values()) > room:
                self._strips.popitem(last=False)
            strip = self._make(tensor, first, count)
        self._strips[tensor, number] = strip
        return strip

    def _make(self, tensor: TensorPart, first: int, count: int) -> Elements:
        """Return `count` columns of a tensor, from `first` on, as rows."""
        file = self._manifest_of(tensor).files[tensor.file]
        start, stop = tensor.offset, tensor.offset + tensor.tensor_bytes
        self._read_bytes += tensor.tensor_bytes
        if self._read_bytes > _READ_SHARE * self._made_bytes + _READ_MARGIN_BYTES:
            raise IntegrityError("transposed chunks", why="need too much to be read of their tensors")
        ids, lengths = file.chunk_list()
        ends = np.cumsum(lengths)
        begin_at, last = np.searchsorted(ends, [start, stop - 1], "right").tolist()
        chunks = range(begin_at, last + 1)
        strip = np.empty((count, tensor.rows), f"<u{tensor.width}")
        names = (id_bytes(ids, n) for n in chunks)
        for n, data in zip(chunks, ordered_map(self._read_chunk, names, window=_WINDOW), strict=True):
            end, length = int(ends[n]), int(lengths[n])
            if len(data) != length:
                raise IntegrityError("chunk", why="does not have the length that its manifest says")
            begin = end - length
            wanted = memoryview(data)[max(start - begin, 0) : min(stop, end) - begin]
            at, rest = divmod(max(begin, start) - start, tensor.width)
            if rest:
                raise IntegrityError("tensor", why="is not cut between its elements")
            put_columns(strip, first, tensor.columns, at, elements_of(wanted, tensor.width))
        return strip

    def _manifest_of(self, part: TensorPart) -> Manifest:
        """Return the manifest of a part, which has its tensor."""
        manifest = self._manifest
        if manifest is None or manifest.digest != part.manifest:
            manifest = self._manifest = self._read_manifest(part.manifest)
        if part.file >= len(manifest.files):
            raise NotFoundError("file", str(part.file), where=manifest.label)
        if part.offset + part.tensor_bytes > manifest.files[part.file].size_bytes:
            raise IntegrityError("tensor", why="is not within its file")
        return manifest
