"""Read the files of a version or of a folder in ranges, for `diff` and `inspect`.

Files of both kinds have tensors, chunks and bytes.  For a version the manifest has the chunks; a file outside
of the store is cut and hashed here as `import` would do it, so that equal tensors are found without comparing
their numbers.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from blake3 import blake3

from yarnstore.core.chunking import Piece, iter_chunk_batches
from yarnstore.core.digest import Buffer
from yarnstore.core.index import Ids, id_bytes
from yarnstore.core.layouts import Layout, cut_segments
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.pairing import file_layout
from yarnstore.errors import FormatError, NotFoundError, SpecError, UsageError
from yarnstore.ops.fetching.fetch import ensure_version
from yarnstore.ops.session.lookup import Found, lookup, of_installed
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.registry.spec import Spec
from yarnstore.store import fsread, native, paths
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.ingest import read_layouts
from yarnstore.store.layout import StoreLayout
from yarnstore.store.native import AnyPath
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.source_files import SourceFile, list_sources

Subject: TypeAlias = Spec | Path
# The chunks of a range, and its offset in the first of them: equal keys mean equal bytes.
RangeKey: TypeAlias = tuple[int, int, bytes]

# The end of the name of a file, which few models have.
_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9_]{1,11}$")
_WINDOW = 16
# The number of cached decoded chunks: the base of the next delta, and the current group of small tensors.
_CACHE_BYTES = 24 * MIB


@dataclass(frozen=True)
class Chunks:
    """The chunks of a file in order: ids as `S32` of shape (n,), and the offset of each."""

    ids: Ids
    starts: list[int]

    @classmethod
    def of(cls, file: ManifestFile) -> Chunks:
        """Decode the chunk list of a manifest's file.  Raises: FormatError."""
        ids, lengths = file.chunk_list()
        return cls(ids, (np.cumsum(lengths) - lengths).tolist())

    def key(self, offset: int, length: int) -> RangeKey:
        """Return a key that identifies the bytes of a range, without reading them."""
        if not length or not self.starts:
            return 0, length, b""
        first = bisect_right(self.starts, offset) - 1
        last = bisect_left(self.starts, offset + length)
        return offset - self.starts[first], length, self.ids[first:last].tobytes()

    def cuts(self, offset: int, length: int) -> list[int] | None:
        """Return where chunks begin within a range of whole chunks, from its start; None for another
        range.
        """
        first = bisect_left(self.starts, offset)
        last = bisect_left(self.starts, offset + length)
        cuts = [start - offset for start in self.starts[first:last]]
        ends_here = last == len(self.starts) or self.starts[last] == offset + length
        return cuts if cuts and cuts[0] == 0 and ends_here else None


@dataclass(eq=False)
class Content:
    """One file.

    `read` returns exactly the bytes of a range; `chunks` are unknown until they are needed, and so is
    `sha256` unless a manifest has it.
    """

    path: str
    size_bytes: int
    layout: Layout | None
    read: Callable[[int, int], Buffer]
    sha256: str | None = None
    source: AnyPath | None = None
    chunks: Chunks = field(default_factory=lambda: Chunks(np.empty(0, "S32"), []))

    def read_all(self, ranges: Iterable[tuple[int, int]]) -> bytes:
        """Return the bytes of several ranges `(offset, length)`, joined."""
        return b"".join(self.read(offset, length) for offset, length in ranges)


# --- parsing the two sides -------------------------------------------------------------------


def parse_place(text: str, *, beside: Subject | None = None) -> Subject:
    """Parse the spec or the path that the user gave.

    It is a path if it begins with `.` or a root, or if it exists and contains no `@`; `@1.1.0` alone is that
    version of the model `beside`.

    Raises: SpecError, UsageError, NotFoundError.
    """
    if text.startswith("@"):
        if not isinstance(beside, Spec):
            raise UsageError(f"{text} is a version without a model", hint="give MODEL@VERSION")
        variant = f":{beside.variant}" if beside.variant else ""
        return Spec.parse(f"{beside.model}{variant}{text}")
    path = Path(text)
    if text.startswith(".") or path.is_absolute() or ("@" not in text and path.exists()):
        return paths.source_path(text)
    try:
        return Spec.parse(text)
    except SpecError:
        if os.sep in text and "@" not in text:
            raise paths.missing("file, folder or model", text) from None
        raise


def find_version(session: Session, spec: Spec) -> Found:
    """Return the version that a spec selects, the installed one for a bare model.

    Raises: as `lookup`; NotFoundError that names a file if the spec looks like the path of one.
    """
    try:
        return lookup(session, of_installed(session, spec))
    except NotFoundError as error:
        text = str(spec)
        if "@" in text or not _FILE.search(text) or error.fields.get("what") not in ("model", "registry"):
            raise
        also = "`ystore search` lists the models of registries"
        raise paths.missing("file, folder or model", text, also=also) from error


def ensure_stored(session: Session, spec: Spec, chunks: ChunkStore) -> Manifest:
    """Return the manifest of a version that is stored; it is fetched if necessary, as for `export`.

    A bare model means its installed version, if it has one.  Raises: as `fetch`.
    """
    found = find_version(session, spec)
    _, manifest, _ = ensure_version(session, found, chunks)
    return manifest


def version_label(manifest: Manifest) -> str:
    """Return `phi-3-mini 1.1.0`, with the variant unless it is the default one."""
    variant = "" if manifest.variant == DEFAULT_VARIANT else f":{manifest.variant}"
    return f"{manifest.model}{variant} {manifest.version}"


# --- files of a store -------------------------------------------------------------------------


class CachedChunks(ChunkStore):
    """The chunks of a store, with the last ones kept in memory.

    Two versions are read side by side, and the chunks of one are often the bases of the other's.  The last
    chunk is kept however large it is.
    """

    def __init__(self, layout: StoreLayout, cache_bytes: int = _CACHE_BYTES) -> None:
        self._cache_bytes = cache_bytes
        self._kept: OrderedDict[bytes, Buffer] = OrderedDict()
        self._kept_bytes = 0
        self._kept_lock = threading.Lock()
        super().__init__(layout)

    def read(self, chunk_id: bytes, row: int, *, depth: int = 0) -> Buffer:
        """Read a chunk as `ChunkStore.read` does."""
        with self._kept_lock:
            if chunk_id in self._kept:
                self._kept.move_to_end(chunk_id)
                return self._kept[chunk_id]
        data = super().read(chunk_id, row, depth=depth)
        with self._kept_lock:
            if chunk_id not in self._kept:
                self._kept[chunk_id] = data
                self._kept_bytes += len(data)
            while self._kept_bytes > self._cache_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._kept_bytes -= len(dropped)
        return data


def stored_contents(manifest: Manifest, store: ChunkStore) -> list[Content]:
    """Return the files of a version, readable as long as `store` is open.  Raises: FormatError."""
    return [stored_content(file, store) for file in manifest.files]


def stored_content(file: ManifestFile, store: ChunkStore) -> Content:
    """Return one file of a version, readable as long as `store` is open.  Raises: FormatError."""
    chunks = Chunks.of(file)
    rows = store.table.find(chunks.ids)

    def read(offset: int, length: int) -> Buffer:
        parts: list[Buffer] = []
        n = bisect_right(chunks.starts, offset) - 1
        end = offset + length
        while length and n < len(chunks.starts) and chunks.starts[n] < end:
            data = store.read(id_bytes(chunks.ids, n), int(rows[n]))
            start = chunks.starts[n]
            parts.append(memoryview(data)[max(0, offset - start) : end - start])
            n += 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return Content(file.path, file.size_bytes, file_layout(file), read, sha256=file.sha256.hex, chunks=chunks)


# --- files outside ----------------------------------------------------------------------------


def local_contents(source: Path) -> list[Content]:
    """Return a file, or the files of a folder; only their headers are read.

    Raises: NotFoundError, UsageError, StorageError.
    """
    sources = list_sources(source).files
    layouts = read_layouts(sources)
    return [_local(item, layouts.get(item.path)) for item in sources]


def _local(item: SourceFile, layout: Layout | None) -> Content:
    def read(offset: int, length: int) -> Buffer:
        with fsread.translating(item.source), fsread.open_source(item.source) as file:
            data = native.pread(file.fileno(), length, offset) if length else b""
        if len(data) != length:
            raise FormatError(str(item.source), "was truncated while it was read")
        return data

    return Content(item.path, item.size_bytes, layout, read, source=item.source)


def cut_content(content: Content, meter: Meter) -> None:
    """Compute the chunks and the SHA-256 of a file outside of the store.

    Raises: FormatError if it shrinks meanwhile, StorageError.
    """
    if content.source is None:
        return
    sha256 = hashlib.sha256()
    ids: list[bytes] = []
    lengths: list[int] = []
    with fsread.translating(content.source), fsread.open_source(content.source) as file:

        def read_next(count: int) -> bytes:
            block = file.read(count) or b""
            while len(block) < count and (more := file.read(count - len(block))):
                block += more
            return block

        def name(batch: list[Piece]) -> list[tuple[bytes, int]]:
            for piece in batch:
                sha256.update(piece.data)
            return [(blake3(piece.data).digest(), len(piece.data)) for piece in batch]

        segments = cut_segments(content.layout, content.size_bytes)
        # One thread: SHA-256 takes the pieces in order.
        for named in ordered_map(name, iter_chunk_batches(read_next, segments), threads=1, window=_WINDOW):
            for chunk_id, length in named:
                ids.append(chunk_id)
                lengths.append(length)
                meter.add(length)
    if sum(lengths) != content.size_bytes:
        raise FormatError(str(content.source), "was truncated while it was read")
    ends = np.cumsum(np.array(lengths, np.int64))
    content.chunks = Chunks(np.array(ids, "S32"), (ends - np.array(lengths, np.int64)).tolist())
    content.sha256 = sha256.hexdigest()
