"""Pairing: the choice of a chunk of an older version to encode a chunk against.

By tensor name first, then by position; docs/format/encodings.md explains why a bad pairing costs bytes but
not correctness.  Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from yarnstore.core.index import id_bytes
from yarnstore.core.layouts import BYTES, ElementType, Layout, Tensor, layout_from_json
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import FormatError


class PlacedChunk(NamedTuple):
    """A chunk, its position in a file in bytes, and the type of its elements if the layout has it."""

    offset: int
    length: int
    chunk_id: bytes
    element: ElementType


class Pair(NamedTuple):
    """A chunk, and the corresponding chunk of the base version."""

    chunk: PlacedChunk
    base_id: bytes


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

    def chunk_at(self, offset: int) -> PlacedChunk | None:
        """The chunk at an offset; the nearest if it is outside the file."""
        if not self.chunks:
            return None
        return self.chunks[max(0, bisect_right(self.starts, offset) - 1)]

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


def iter_pairs(new: Manifest, base: Manifest) -> Iterator[Pair]:
    """Yield each chunk of `new` that is not in `base`, once, with its base chunk.

    Files are paired by path, the remaining ones in order.  Within a pair of files, a chunk that begins in a
    tensor is paired with the chunk at the same offset within the tensor of that name and type; any other with
    the chunk at its own offset, plus the shift of the last chunk that both files have.
    """
    seen = {
        id_bytes(ids, n) for file in base.files for ids in [file.chunk_list()[0]] for n in range(len(ids))
    }
    for file, other in _pair_files(new, base):
        ours, theirs = place_chunks(file), place_chunks(other)
        shift = 0
        for chunk in ours.chunks:
            known = theirs.ids.get(chunk.chunk_id)
            if known is not None:
                shift = known - chunk.offset
            if chunk.chunk_id in seen:
                continue
            seen.add(chunk.chunk_id)
            found = theirs.chunk_at(_counterpart(chunk, ours, theirs, shift))
            if found is not None:
                yield Pair(chunk, found.chunk_id)


def _pair_files(new: Manifest, base: Manifest) -> Iterator[tuple[ManifestFile, ManifestFile]]:
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


def _counterpart(chunk: PlacedChunk, ours: PlacedFile, theirs: PlacedFile, shift: int) -> int:
    tensor = ours.tensor_at(chunk.offset)
    if tensor is not None:
        other = theirs.tensors.get(tensor.name)
        if other is not None and other.dtype is tensor.dtype:
            return other.offset + chunk.offset - tensor.offset
    return chunk.offset + shift
