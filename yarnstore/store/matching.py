"""Find where the numbers of a version are in an earlier one, by content: tensors with another name, in
another order or file, with rows in front of them, several in one.

Large tensors are compared by the sketches of `core/sketch`, of which each takes one chunk of a tensor.  All
rows are compared only for tensors that no whole tensor of the earlier version is like.  Small tensors, as
adapters have, are compared if none has their name; those that follow one another in both versions are a run.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import NamedTuple

import numpy as np
from blake3 import blake3

from yarnstore.core.encodings.mapped import MAPPED_FLOATS
from yarnstore.core.layouts import BYTES, Source, Tensor, cut_segments
from yarnstore.core.layouts.limits import GROUP_GAP_LIMIT_BYTES, SMALL_TENSOR_BYTES
from yarnstore.core.limits import KIB, MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import (
    Pair,
    PlacedChunk,
    PlacedFile,
    Stretch,
    file_layout,
    iter_pairs,
    place_chunks,
)
from yarnstore.core.sketch import (
    Floats,
    Words,
    are_alike,
    head_bytes,
    head_sketch,
    match_rows,
    most_alike,
    row_head_bytes,
    row_runs,
    row_words,
)
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store.chunks import PackReader
from yarnstore.store.ingest import read_layouts
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.source_files import SourceFile, open_file

# Tensors or chunks that are read ahead.
_WINDOW = 12
# Rows of either version that are compared: 32 bytes each, and their votes 64.
_ROWS_LIMIT = 1 << 20
_BLOCK_BYTES = 1 * MIB
# Small tensors of either version that are compared: 2 KiB for each sketch.
_SMALL_LIMIT = 16_384
# Of longer rows, only the start is read.
_LONG_ROW_BYTES = 64 * KIB


class Numbers(NamedTuple):
    """A tensor, and the path of its file."""

    path: str
    tensor: Tensor

    @property
    def kind(self) -> tuple[str, tuple[int, ...]]:
        """Type and shape: only tensors in which these are equal are compared as wholes.

        Floats that can be converted have one type.
        """
        name = self.tensor.dtype.name
        return "float" if name in MAPPED_FLOATS else name, self.tensor.shape

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
        self._sketches: dict[tuple[str, int], Floats | None] = {}

    def sketch(self, item: Numbers, at: int = 0) -> Floats | None:
        """Return the sketch of the numbers at a byte of a tensor, made once.  Raises: as `opened`."""
        place = item.path, item.tensor.offset + at
        if place not in self._sketches:
            dtype = item.tensor.dtype
            with self.opened(item.path) as source:
                self._sketches[place] = head_sketch(source.read(place[1], head_bytes(dtype)), dtype)
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
        self._manifest = manifest
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

    @cached_property
    def _cut_by_names(self) -> set[str]:
        """The files of which all groups of small tensors begin where `cut_segments` lets them by itself."""
        found = set()
        for file in self._manifest.files:
            layout = file_layout(file)
            if layout is not None:
                small = {item.offset for item in layout.tensors if item.length < SMALL_TENSOR_BYTES}
                groups = {segment.offset for segment in cut_segments(layout, file.size_bytes)} & small
                if groups <= set(self._files[file.path].starts):
                    found.add(file.path)
        return found

    def is_cut_by_names(self, path: str) -> bool:
        """Whether groups of small tensors are cut where their names say, and not like another version."""
        return path in self._cut_by_names

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
        last = file.chunks[-1]
        self.size = last.offset + last.length

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


def find_pairs(
    new: Manifest, base: Manifest, reader: PackReader, wanted: Collection[bytes], *, by_rows: bool = True
) -> Iterator[Pair]:
    """Yield those of `wanted` chunks of a version that are not in `base`, each once, with the chunk of `base`
    that has the same or similar numbers.

    Reads one chunk of each large tensor that has such chunks, and, unless told otherwise, all rows of those
    that are not found by that.  Raises: StorageError.
    """
    runs = find_runs(StoredContent(new, reader, wanted), StoredContent(base, reader), by_rows=by_rows)
    return (pair for pair in iter_pairs(new, base, runs) if pair.chunk.chunk_id in wanted)


def find_runs(ours: AnyContent, theirs: StoredContent, *, by_rows: bool = True) -> list[Stretch]:
    """Return runs of numbers that both versions have, equal or similar, whatever their tensors are named.

    A tensor is compared with the one of its name first.  What cannot be read is not found.

    Raises: StorageError.
    """
    return sorted([*_find_large(ours, theirs, by_rows=by_rows), *_find_small(ours, theirs)])


def _find_large(ours: AnyContent, theirs: StoredContent, *, by_rows: bool) -> Iterator[Stretch]:
    if not theirs.tensors:
        return
    names = Names(theirs.tensors)

    def check(item: Numbers) -> Stretch | None:
        other = names.find(item)
        return _run(item, other) if other is not None and _is_version_of(ours, theirs, item, other) else None

    left: list[Numbers] = []
    for item, run in zip(ours.tensors, ordered_map(check, ours.tensors, window=_WINDOW), strict=True):
        if run is not None:
            yield run
        else:
            left.append(item)
    whole = _match_wholes(ours, theirs, left, theirs.tensors)
    yield from whole.values()
    left = [item for item in left if (item.path, item.tensor.offset) not in whole]
    if by_rows:
        yield from _match_rows(ours, theirs, left)


def _find_small(ours: AnyContent, theirs: StoredContent) -> Iterator[Stretch]:
    """Yield the runs of small tensors that follow one another in both versions, from the first chunk of the
    base version that begins in them: those without namesakes, and all of files that were cut like such runs.

    Those between two that correspond count too: biases and norms say too little to be compared.
    """
    names = Names(theirs.small)
    named: dict[tuple[str, int], Stretch] = {}
    left: list[Numbers] = []
    for item in ours.small:
        other = names.find(item)
        if other is None or other.kind != item.kind:
            left.append(item)
        elif not theirs.is_cut_by_names(other.path):
            named[item.path, item.tensor.offset] = _run(item, other)
    items = [item for item in ours.small if (item.path, item.tensor.offset) in named] + left
    if sum(item.tensor.length for item in items) < SMALL_TENSOR_BYTES:
        return
    found = named
    if max(len(left), len(theirs.small)) <= _SMALL_LIMIT:
        found = named | _match_wholes(ours, theirs, left, theirs.small)
    items.sort(key=lambda item: (item.path, item.tensor.offset))
    for run in _joined(items, found):
        first = theirs.next_chunk_start(run.base_path, run.base_start) - run.base_start
        if run.length - first >= SMALL_TENSOR_BYTES:
            places = run.start + first, run.length - first, run.base_path, run.base_start + first
            yield Stretch(run.path, *places, is_group=True)


def _joined(items: list[Numbers], found: dict[tuple[str, int], Stretch]) -> Iterator[Stretch]:
    """Yield the runs of tensors, `found` by file and offset, that are at one distance from their bases."""
    run: Stretch | None = None
    end = 0
    for item in items:
        one = found.get((item.path, item.tensor.offset))
        if run is not None and (item.path != run.path or item.tensor.offset - end > GROUP_GAP_LIMIT_BYTES):
            yield run
            run = None
        end = item.tensor.end
        if one is None or one.width != one.base_width:
            continue
        if run is not None and (run.base_path, run.base_at(one.start)) == (one.base_path, one.base_start):
            run = run._replace(length=end - run.start)
            continue
        if run is not None:
            yield run
        run = one._replace(width=1, base_width=1)
    if run is not None:
        yield run


class Names:
    """Tensors by file and name, or by name alone."""

    def __init__(self, tensors: list[Numbers]) -> None:
        self._placed = {(item.path, item.tensor.name): item for item in tensors}
        self._named: dict[str, Numbers] = {}
        for item in tensors:
            self._named.setdefault(item.tensor.name, item)

    def find(self, item: Numbers) -> Numbers | None:
        """Return the tensor with the name of another, if their types fit."""
        name = item.tensor.name
        other = self._placed.get((item.path, name)) or self._named.get(name)
        if other is None or (other.tensor.dtype is not item.tensor.dtype and other.kind != item.kind):
            return None
        return other


def _run(item: Numbers, other: Numbers) -> Stretch:
    ours, theirs = item.tensor, other.tensor
    places = item.path, ours.offset, min(ours.length, theirs.length), other.path, theirs.offset
    if ours.dtype is theirs.dtype:
        return Stretch(*places)
    return Stretch(*places, ours.dtype.width, theirs.dtype.width)._replace(length=ours.length)


def _is_version_of(ours: AnyContent, theirs: StoredContent, item: Numbers, other: Numbers) -> bool:
    """Whether a tensor begins like the one of its name; of another length, also whether it goes on like it.

    A tensor without a sketch counts as a version of the other.
    """
    chunk = theirs.chunk_at(other.path, other.tensor.offset)
    length = min(item.tensor.length, other.tensor.length)
    size = min(head_bytes(item.tensor.dtype), length)
    places = [] if item.tensor.shape == other.tensor.shape else [length - size]
    with contextlib.suppress(IntegrityError, NotFoundError):
        if chunk is None or not ours.has_chunk(chunk, item.path, item.tensor.offset):
            places.append(0)
        for at in places:
            one, two = ours.sketch(item, at), theirs.sketch(other, at)
            if one is not None and two is not None and not are_alike(one, two):
                return False
    return True


def _match_wholes(
    ours: AnyContent, theirs: StoredContent, left: list[Numbers], others: list[Numbers]
) -> dict[tuple[str, int], Stretch]:
    """Return the runs of tensors that are like one of `others` of the same type and shape, by file and
    offset."""
    kinds = {item.kind for item in left}
    there: dict[object, list[tuple[Numbers, Floats]]] = {}
    for other, sketch in _sketches(theirs, [item for item in others if item.kind in kinds]):
        there.setdefault(other.kind, []).append((other, sketch))
    here: dict[object, list[tuple[Numbers, Floats]]] = {}
    for item, sketch in _sketches(ours, [item for item in left if item.kind in there]):
        here.setdefault(item.kind, []).append((item, sketch))
    found = {}
    for kind, items in here.items():
        candidates = there[kind]
        best = most_alike([sketch for _, sketch in items], [sketch for _, sketch in candidates])
        for (item, _), n in zip(items, best, strict=True):
            if n >= 0:
                found[item.path, item.tensor.offset] = _run(item, candidates[n][0])
    return found


def _sketches(content: AnyContent, items: list[Numbers]) -> Iterator[tuple[Numbers, Floats]]:
    def make(item: Numbers) -> Floats | None:
        with contextlib.suppress(IntegrityError, NotFoundError):
            return content.sketch(item)
        return None

    for item, sketch in zip(items, ordered_map(make, items, window=_WINDOW), strict=True):
        if sketch is not None:
            yield item, sketch


def _match_rows(ours: AnyContent, theirs: StoredContent, left: list[Numbers]) -> Iterator[Stretch]:
    """Yield the runs of rows of tensors that are in tensors with rows of the same type and length."""
    groups: dict[tuple[str, int], list[Numbers]] = {}
    for item in left:
        if item.row_bytes and row_head_bytes(item.row_bytes, item.tensor.dtype):
            groups.setdefault((item.tensor.dtype.name, item.row_bytes), []).append(item)
    for (dtype, row_bytes), items in groups.items():
        others = [o for o in theirs.tensors if o.row_bytes == row_bytes and o.tensor.dtype.name == dtype]
        others = _first_rows(others)
        if not others:
            continue
        there = np.concatenate(list(_all_words(theirs, others)))
        owners = np.repeat(np.arange(len(others)), [item.tensor.shape[0] for item in others])
        begins = np.cumsum([0, *(item.tensor.shape[0] for item in others)])
        least = -(-SMALL_TENSOR_BYTES // row_bytes)
        items = _first_rows(items)
        for item, words in zip(items, _all_words(ours, items), strict=True):
            for start, stop, base in row_runs(match_rows(words, there), owners, least):
                n = int(owners[base])
                yield Stretch(
                    item.path,
                    item.tensor.offset + start * row_bytes,
                    (stop - start) * row_bytes,
                    others[n].path,
                    others[n].tensor.offset + (base - int(begins[n])) * row_bytes,
                )


def _first_rows(items: list[Numbers]) -> list[Numbers]:
    """Return the first tensors, as far as their rows are few enough to be compared."""
    rows = np.cumsum([item.tensor.shape[0] for item in items])
    return items[: int(np.searchsorted(rows, _ROWS_LIMIT, side="right"))]


def _all_words(content: AnyContent, items: list[Numbers]) -> Iterator[Words]:
    """Yield the words of each tensor's rows; those that cannot be read are 0."""

    def make(item: Numbers) -> Words:
        rows = item.tensor.shape[0]
        try:
            with content.opened(item.path) as source:
                return _read_words(source.read, item)
        except (IntegrityError, NotFoundError):
            return np.zeros((rows, 8), np.uint32)

    return ordered_map(make, items, window=_WINDOW)


def _read_words(read: Callable[[int, int], bytes], item: Numbers) -> Words:
    tensor, row_bytes = item.tensor, item.row_bytes
    head = row_head_bytes(row_bytes, tensor.dtype)
    step = 1 if row_bytes > _LONG_ROW_BYTES else _BLOCK_BYTES // row_bytes
    found = []
    for first in range(0, tensor.shape[0], step):
        count = min(step, tensor.shape[0] - first)
        wanted = head if step == 1 else count * row_bytes
        data = read(tensor.offset + first * row_bytes, wanted)
        if len(data) < wanted:
            raise IntegrityError(item.path, why="was truncated while it was read")
        found.append(row_words(np.frombuffer(data, np.uint8).reshape(count, -1)[:, :head], tensor.dtype))
    return np.concatenate(found)
