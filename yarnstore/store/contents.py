"""The tensors of a version and the bytes of its files, so that versions can be compared: of one that is being
published, from its source, and of one that is stored, from its chunks.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from yarnstore.core.encodings.mapped import MAPPED_FLOATS
from yarnstore.core.layouts import BYTES, Source, Tensor
from yarnstore.core.layouts.limits import SMALL_TENSOR_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import PlacedChunk, PlacedFile, place_chunks
from yarnstore.core.sketch import Floats, head_bytes, head_sketch
from yarnstore.store.chunks import PackReader
from yarnstore.store.ingest import read_layouts
from yarnstore.store.source_files import SourceFile, open_file

# A file, and an offset in it, as of a tensor.
Place: TypeAlias = tuple[str, int]


class Numbers(NamedTuple):
    """A tensor, and the path of its file."""

    path: str
    tensor: Tensor

    @property
    def place(self) -> Place:
        return self.path, self.tensor.offset

    @property
    def kind(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape: only tensors in which these are equal are compared as wholes.

        Floats that can be converted have one type.
        """
        name = self.tensor.dtype.name
        return "float" if name in MAPPED_FLOATS else name, self.tensor.shape

    def matrices(self) -> Iterator[Numbers]:
        """Yield the tensor as each matrix that it is: its first dimensions are joined, and its last ones."""
        shape = self.tensor.shape
        for folded in sorted({(prod(shape[:n]), prod(shape[n:])) for n in range(1, len(shape))}):
            yield self._replace(tensor=self.tensor._replace(shape=folded))

    @property
    def row_bytes(self) -> int:
        """The length of a row; 0 if the tensor is not made of several rows of whole elements."""
        tensor = self.tensor
        if len(tensor.shape) < 2 or tensor.shape[0] < 2 or tensor.length % tensor.shape[0]:
            return 0
        size = tensor.length // tensor.shape[0]
        return size if size % tensor.dtype.block_bytes == 0 else 0


class AnyContent(ABC):
    """The large and the small tensors of a version, and the bytes of its files."""

    tensors: list[Numbers]
    small: list[Numbers]

    def __init__(self) -> None:
        self._sketches: dict[Place, Floats | None] = {}

    def sketch(self, item: Numbers, at: int = 0) -> Floats | None:
        """Return the sketch of the numbers at a byte of a tensor, made once; None if they say too little.

        Raises: as `opened`.
        """
        place = item.path, item.tensor.offset + at
        if place not in self._sketches:
            dtype = item.tensor.dtype
            length = min(head_bytes(dtype), item.tensor.length - at)
            with self.opened(item.path) as source:
                self._sketches[place] = head_sketch(source.read(place[1], length), dtype)
        return self._sketches[place]

    @abstractmethod
    def opened(self, path: str) -> AbstractContextManager[Source]:
        """Open a file.  Raises: NotFoundError, IntegrityError, StorageError, also for reading in it."""

    @abstractmethod
    def has_chunk(self, chunk: PlacedChunk, path: str, offset: int) -> bool:
        """Whether a chunk is at an offset in a file.  Raises: as `opened`."""


class SourceContent(AnyContent):
    """A version that is being published, of which the headers are read.

    Raises: NotFoundError, StorageError.
    """

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        super().__init__()
        large = [i for i in sources if i.size_bytes >= SMALL_TENSOR_BYTES or i.path.endswith(".onnx")]
        self._sources = {item.path: item for item in large}
        layouts = read_layouts(large).items()
        self.tensors = [item for path, layout in layouts for item in iter_large(path, layout.tensors)]
        self.small = [item for path, layout in layouts for item in _iter_small(path, layout.tensors)]

    def opened(self, path: str) -> AbstractContextManager[Source]:
        return open_file(self._sources[path].source)

    def has_chunk(self, chunk: PlacedChunk, path: str, offset: int) -> bool:
        with self.opened(path) as source:
            return blake3(source.read(offset, chunk.length)).digest() == chunk.chunk_id


class StoredContent(AnyContent):
    """A version whose chunks are in packs, or in files of a store."""

    def __init__(
        self, manifest: Manifest, reader: PackReader, wanted: Collection[bytes] | None = None
    ) -> None:
        """Place the chunks; with `wanted`, only the tensors in which any of these chunks begins count, and
        small ones that begin in one.
        """
        super().__init__()
        self._reader = reader
        self._files = {file.path: place_chunks(file) for file in manifest.files if "layout" in file.extra}
        self.tensors = [
            item
            for path, file in self._files.items()
            for item in iter_large(path, file.tensor_list)
            if wanted is None or file.any_begins(item.tensor, wanted)
        ]
        self.small = [
            item
            for path, file in self._files.items()
            for item in _iter_small(path, file.tensor_list)
            if wanted is None or file.is_in_any(item.tensor, wanted)
        ]
        self._last = threading.local()

    def opened(self, path: str) -> AbstractContextManager[Source]:
        # A thread goes through a file in order, and small tensors share chunks.
        last: ChunkedFile | None = getattr(self._last, "file", None)
        if last is None or last.path != path:
            last = self._last.file = ChunkedFile(self._reader, self._files[path])
        return contextlib.nullcontext(last)

    def has_chunk(self, chunk: PlacedChunk, path: str, offset: int) -> bool:
        found = self.chunk_at(path, offset)
        return found is not None and found.chunk_id == chunk.chunk_id

    def chunk_at(self, path: str, offset: int) -> PlacedChunk | None:
        """Return the chunk that begins at an offset."""
        found = self._files[path].chunk_at(offset)
        return found if found is not None and found.offset == offset else None

    def next_chunk_start(self, path: str, offset: int) -> int:
        """Return where the first chunk begins from an offset on."""
        return self._files[path].next_start(offset)


class ChunkedFile:
    """A file as a source, made from its chunks; the last one is kept."""

    def __init__(self, reader: PackReader, file: PlacedFile) -> None:
        self.path = file.path
        self._reader = reader
        self._file = file
        self._last = b""
        self._data = memoryview(b"")
        self.size = file.end

    def read(self, offset: int, length: int) -> bytes:
        parts = []
        end = min(offset + length, self.size)
        while offset < end and (chunk := self._file.chunk_at(offset)) is not None:
            if chunk.chunk_id != self._last:
                data = self._reader.read_base(chunk.chunk_id, depth=0)
                self._last, self._data = chunk.chunk_id, memoryview(data)
            parts.append(self._data[offset - chunk.offset : end - chunk.offset])
            offset += len(parts[-1])
        return b"".join(parts)


def iter_large(path: str, tensors: Sequence[Tensor]) -> Iterator[Numbers]:
    """Yield the tensors of a file that are large enough to be compared."""
    for tensor in tensors:
        if tensor.length >= SMALL_TENSOR_BYTES and tensor.dtype is not BYTES:
            yield Numbers(path, tensor)


def _iter_small(path: str, tensors: Sequence[Tensor]) -> Iterator[Numbers]:
    for tensor in tensors:
        if 0 < tensor.length < SMALL_TENSOR_BYTES and tensor.dtype is not BYTES:
            yield Numbers(path, tensor)
