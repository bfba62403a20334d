"""Pairing: the choice of a chunk of an older version to encode a chunk against.

By runs of equal or similar numbers if the caller has found them (`store/matching`), else by tensor name, then
by position; docs/format/encodings.md explains why a bad pairing costs bytes but not correctness.  Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from yarnstore.core.index import id_bytes
from yarnstore.core.layouts import BYTES, ElementType, Layout, Tensor, layout_from_json
from yarnstore.core.layouts.limits import GROUP_MIN_BYTES
from yarnstore.core.limits import KIB
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import FormatError

# Files of a base version that are placed at a time: shards name each other's tensors.
_PLACED_FILES = 4
# By how much bytes may have moved within a file since the last chunk that is the same.
_MARGIN_BYTES = 16 * KIB


class PlacedChunk(NamedTuple):
    """A chunk, its position in a file in bytes, and the type of its elements if the layout has it."""

    offset: int
    length: int
    chunk_id: bytes
    element: ElementType

    @property
    def end(self) -> int:
        return self.offset + self.length


class Pair(NamedTuple):
    """A chunk, and the corresponding chunk of the base version, with the type of its elements."""

    chunk: PlacedChunk
    base_id: bytes
    base_element: ElementType


class Stretch(NamedTuple):
    """`length` bytes from `start` of the file `path` whose numbers correspond to those from `base_start` of
    the base version's file `base_path`.

    `width` bytes correspond to `base_width` bytes if the types differ.  `is_group` for a run of small
    tensors.
    """

    path: str
    start: int
    length: int
    base_path: str
    base_start: int
    width: int = 1
    base_width: int = 1
    is_group: bool = False

    @property
    def end(self) -> int:
        return self.start + self.length

    @property
    def base_length(self) -> int:
        return self.length * self.base_width // self.width

    def turned(self) -> Stretch:
        """The same run, seen from the base version."""
        places = self.base_path, self.base_start, self.base_length, self.path, self.start
        return Stretch(*places, self.base_width, self.width)

    def base_at(self, offset: int) -> int:
        """Return the offset in the base's file that corresponds to one in the run."""
        return self.base_start + (offset - self.start) * self.base_width // self.width

    def from_base(self, offset: int) -> int:
        """Return the offset that corresponds to one in the base's file."""
        return self.start + (offset - self.base_start) * self.width // self.base_width


@dataclass(frozen=True)
class PlacedFile:
    """The chunks of a file in order, and its tensors."""

    path: str
    chunks: list[PlacedChunk]
    starts: list[int]
    ids: dict[bytes, int]  # chunk id → offset of its first occurrence
    tensors: dict[str, Tensor]
    tensor_starts: list[int]
    tensor_list: list[Tensor]

    @property
    def end(self) -> int:
        return self.chunks[-1].end if self.chunks else 0

    def next_start(self, offset: int) -> int:
        """The first byte of a chunk from an offset on; the end of the file if no chunk begins there."""
        n = bisect_left(self.starts, offset)
        return self.starts[n] if n < len(self.starts) else self.end

    def chunk_at(self, offset: int) -> PlacedChunk | None:
        """The chunk at an offset; the nearest if it is outside the file."""
        if not self.chunks:
            return None
        return self.chunks[max(0, bisect_right(self.starts, offset) - 1)]

    def any_begins(self, tensor: Tensor, wanted: Collection[bytes]) -> bool:
        """Whether any of some chunks begins in a tensor."""
        first, stop = bisect_left(self.starts, tensor.offset), bisect_left(self.starts, tensor.end)
        return any(chunk.chunk_id in wanted for chunk in self.chunks[first:stop])

    def is_in_any(self, tensor: Tensor, wanted: Collection[bytes]) -> bool:
        """Whether a tensor begins in any of some chunks."""
        chunk = self.chunk_at(tensor.offset)
        return chunk is not None and chunk.chunk_id in wanted

    def tensor_at(self, offset: int) -> Tensor | None:
        """The tensor at an offset."""
        n = bisect_right(self.tensor_starts, offset) - 1
        return self.tensor_list[n] if n >= 0 and offset < self.tensor_list[n].end else None


def file_layout(file: ManifestFile) -> Layout | None:
    """Return the tensors of a file; None if it has none, or a layout that this release does not know."""
    found = file.extra.get("layout")
    try:
        return None if found is None else layout_from_json(found, file.size_bytes)
    except FormatError:
        return None


def place_chunks(file: ManifestFile) -> PlacedFile:
    """Compute the offsets of a file's chunks and tensors.  Raises: FormatError for a bad chunk list."""
    layout = file_layout(file)
    tensors = list(layout.tensors) if layout is not None else []
    tensor_starts = [tensor.offset for tensor in tensors]
    ids, lengths = file.chunk_list()
    offsets = np.cumsum(lengths) - lengths
    chunks = []
    at = 0
    for n in range(len(ids)):
        offset, length = int(offsets[n]), int(lengths[n])
        while at < len(tensors) and tensors[at].end <= offset:
            at += 1
        within = at < len(tensors) and tensors[at].offset <= offset
        chunks.append(PlacedChunk(offset, length, id_bytes(ids, n), tensors[at].dtype if within else BYTES))
    first: dict[bytes, int] = {}
    for chunk in chunks:
        first.setdefault(chunk.chunk_id, chunk.offset)
    return PlacedFile(
        path=file.path,
        chunks=chunks,
        starts=[chunk.offset for chunk in chunks],
        ids=first,
        tensors={tensor.name: tensor for tensor in tensors},
        tensor_starts=tensor_starts,
        tensor_list=tensors,
    )


def chunk_elements(manifests: Iterable[Manifest]) -> dict[bytes, ElementType]:
    """Return the element type of each chunk, if a layout has it."""
    placed = (place_chunks(file) for manifest in manifests for file in manifest.files)
    return {chunk.chunk_id: chunk.element for file in placed for chunk in file.chunks}


class Displaced(NamedTuple):
    """A chunk with its place and its length in the base's file, where no chunk begins at that place, or none
    has all of it.
    """

    chunk: PlacedChunk
    base_path: str
    base_start: int
    base_length: int
    base_element: ElementType


def iter_pairs(new: Manifest, base: Manifest, runs: Iterable[Stretch] = ()) -> Iterator[Pair]:
    """Yield each chunk of `new` that is not in `base`, once, with its base chunk.

    A chunk that begins in one of `runs` is paired with the chunk that begins at the corresponding place, and
    with none if no chunk begins there.  Any other chunk that begins in a tensor is paired with the chunk at
    the same offset within the tensor of that name and type, in the corresponding file if that has one.  The
    remaining ones are paired within corresponding files, with the chunk at their own offset, plus the shift
    of the last chunk that both files have.  Files correspond by path, the remaining ones by kind and size.
    """
    return (found for found in _iter_found(new, base, runs) if isinstance(found, Pair))


def iter_displaced(new: Manifest, base: Manifest, runs: Iterable[Stretch]) -> Iterator[Displaced]:
    """Yield each chunk of `new` that `iter_pairs` leaves without a base chunk because of where its run is,
    and those outside of tensors whose base chunk has only a part of what is at their place in its file.
    """
    return (found for found in _iter_found(new, base, runs) if isinstance(found, Displaced))


def _iter_found(new: Manifest, base: Manifest, runs: Iterable[Stretch]) -> Iterator[Pair | Displaced]:
    seen = {
        id_bytes(ids, n) for file in base.files for ids in [file.chunk_list()[0]] for n in range(len(ids))
    }
    known = _Base(base)
    found_runs = _Runs(runs)
    others = {file.path: other for file, other in pair_files(new, base)}
    for file in new.files:
        ours = place_chunks(file)
        theirs = known.placed(others[file.path].path) if file.path in others else None
        shift = 0
        for chunk in ours.chunks:
            same = theirs.ids.get(chunk.chunk_id) if theirs is not None else None
            if same is not None:
                shift = same - chunk.offset
            if chunk.chunk_id in seen:
                continue
            seen.add(chunk.chunk_id)
            run = found_runs.at(file.path, chunk.offset)
            if run is None:
                found = known.counterpart(chunk, ours, theirs, shift)
                if found is not None and theirs is not None and chunk.element is BYTES:
                    yield from _between(chunk, theirs, shift, found)
            else:
                found = known.chunk_from(run.base_path, run.base_at(chunk.offset))
                if found is None and chunk.end <= run.end + GROUP_MIN_BYTES:
                    yield known.displaced(chunk, run)
            if found is not None:
                yield Pair(chunk, found.chunk_id, found.element)


def _between(chunk: PlacedChunk, theirs: PlacedFile, shift: int, found: PlacedChunk) -> Iterator[Displaced]:
    """Yield the place of bytes in the base's file if `found` has not all of it: a change moves cuts, since
    bytes are cut by their content.
    """
    start = chunk.offset + shift
    end = min(start + chunk.length, theirs.end)
    if found.offset > start + _MARGIN_BYTES or found.end < end - _MARGIN_BYTES:
        start = max(0, start - _MARGIN_BYTES)
        yield Displaced(chunk, theirs.path, start, min(end + _MARGIN_BYTES, theirs.end) - start, BYTES)


class _Runs:
    """Runs by the place of a byte in the newer version."""

    def __init__(self, runs: Iterable[Stretch]) -> None:
        self._by_path: dict[str, list[Stretch]] = {}
        for run in sorted(runs):
            self._by_path.setdefault(run.path, []).append(run)

    def at(self, path: str, offset: int) -> Stretch | None:
        runs = self._by_path.get(path, [])
        n = bisect_right(runs, offset, key=lambda run: run.start) - 1
        return runs[n] if n >= 0 and offset < runs[n].end else None


class _Base:
    """The files of the base version, placed when they are needed."""

    def __init__(self, manifest: Manifest) -> None:
        self._files = {file.path: file for file in manifest.files}
        self.placed = lru_cache(_PLACED_FILES)(lambda path: place_chunks(self._files[path]))

    def chunk_from(self, path: str, offset: int) -> PlacedChunk | None:
        """The chunk that begins at an offset."""
        found = self.placed(path).chunk_at(offset)
        return found if found is not None and found.offset == offset else None

    def displaced(self, chunk: PlacedChunk, run: Stretch) -> Displaced:
        """The place in a run that a chunk is found at, as far as the file goes."""
        file = self.placed(run.base_path)
        start = run.base_at(chunk.offset)
        length = min(chunk.length // run.width * run.base_width, file.end - start)
        tensor = file.tensor_at(start)
        return Displaced(chunk, run.base_path, start, length, tensor.dtype if tensor is not None else BYTES)

    def counterpart(
        self, chunk: PlacedChunk, ours: PlacedFile, theirs: PlacedFile | None, shift: int
    ) -> PlacedChunk | None:
        tensor = ours.tensor_at(chunk.offset)
        if tensor is not None:
            other = theirs.tensors.get(tensor.name) if theirs is not None else None
            if other is not None and other.dtype is not tensor.dtype:
                other = None
            if other is None and (place := self._by_name.get((tensor.name, tensor.dtype.name))) is not None:
                theirs, other = self.placed(place[0]), place[1]
            if other is not None and theirs is not None:
                return theirs.chunk_at(other.offset + chunk.offset - tensor.offset)
        return theirs.chunk_at(chunk.offset + shift) if theirs is not None else None

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], tuple[str, Tensor]]:
        """The file and the place of each tensor, the first of those with one name and type."""
        found: dict[tuple[str, str], tuple[str, Tensor]] = {}
        for file in self._files.values():
            layout = file_layout(file)
            for tensor in layout.tensors if layout is not None else ():
                found.setdefault((tensor.name, tensor.dtype.name), (file.path, tensor))
        return found


def inherited_cuts(runs: Iterable[Stretch], base: Manifest) -> dict[str, list[int]]:
    """Return by path where to cut the files that `runs` are found in, so that their chunks begin where the
    base version's do: offsets in each file, ascending.
    """
    files = {file.path: file for file in base.files}
    starts: dict[str, list[int]] = {}
    cuts: dict[str, set[int]] = {}
    runs = sorted(runs)
    for run, after in zip_longest(runs, runs[1:]):
        if run.base_path not in starts:
            _, lengths = files[run.base_path].chunk_list()
            starts[run.base_path] = (np.cumsum(lengths) - lengths).tolist()
        there = starts[run.base_path]
        end = run.base_start + run.base_length
        within = slice(bisect_left(there, run.base_start), bisect_left(there, end))
        found = cuts.setdefault(run.path, set())
        found.add(run.start)
        # Small tensors that are too few for a chunk of their own stay with those before them.
        if run.is_group and not (
            after is not None and after.path == run.path and after.start < run.end + GROUP_MIN_BYTES
        ):
            found.add(run.end)
        found.update(run.from_base(at) for at in there[within])
    return {path: sorted(found) for path, found in cuts.items()}


def pair_files(new: Manifest, base: Manifest) -> Iterator[tuple[ManifestFile, ManifestFile]]:
    """Yield the files that correspond: by path, the remaining ones by kind and size."""
    there = {file.path: file for file in base.files}
    ours = {file.path for file in new.files}
    left = _BySize([file for file in base.files if file.path not in ours])
    for file in new.files:
        if file.path in there:
            yield file, there[file.path]
        elif (other := left.nearest(file)) is not None:
            yield file, other


class _BySize:
    """Files by size: a file of the same kind is preferred, then the first."""

    def __init__(self, files: list[ManifestFile]) -> None:
        self._files = files
        self._all = sorted((file.size_bytes, n) for n, file in enumerate(files))
        self._kinds: dict[str, list[tuple[int, int]]] = {}
        for size_bytes, n in self._all:
            self._kinds.setdefault(_kind(files[n]), []).append((size_bytes, n))

    def nearest(self, file: ManifestFile) -> ManifestFile | None:
        among = self._kinds.get(_kind(file), self._all)
        if not among:
            return None
        at = bisect_left(among, (file.size_bytes, 0))
        found = among[at : at + 1]
        if at > 0:
            found.append(among[bisect_left(among, (among[at - 1][0], 0))])
        return self._files[min((abs(size - file.size_bytes), n) for size, n in found)[1]]


def _kind(file: ManifestFile) -> str:
    return file.path.rpartition(".")[2]
