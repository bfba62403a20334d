"""Which chunks with deflate streams correspond in two versions, and the streams in them.

A stream corresponds to the one of its name, or number, in the corresponding file.  `core/stream_cuts` says
how files with streams are cut, `core/deflated` encodes their chunks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from yarnstore.core.deflated import PLAIN_LIMIT_BYTES, ChunkStreams, Packed, PairedStreams
from yarnstore.core.layouts.deflated import DeflateStream, find_streams, has_streams
from yarnstore.core.layouts.limits import SMALL_TENSOR_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.pairing import PlacedChunk, pair_files, place_chunks
from yarnstore.core.stream_cuts import StreamPart, walk_stream
from yarnstore.errors import FormatError
from yarnstore.store.chunks import PackReader
from yarnstore.store.contents import ChunkedFile


class DeflatedPair(NamedTuple):
    """A chunk and the corresponding one of the base version, with their streams."""

    chunk: PlacedChunk
    base: PlacedChunk
    streams: PairedStreams


def iter_deflated_pairs(new: Manifest, base: Manifest, reader: PackReader) -> Iterator[DeflatedPair]:
    """Yield the pairs of chunks with streams that are not the same in both versions.

    Raises: NotFoundError, IntegrityError, StorageError if a chunk cannot be read.
    """
    for file, other in pair_files(new, base):
        if file.sha256 == other.sha256 or (ours := _open(file, reader)) is None:
            continue
        if (theirs := _open(other, reader)) is not None:
            pairs = _iter_pairs(ours, theirs)
            yield from (pair for pair in pairs if pair.chunk.chunk_id != pair.base.chunk_id)


class _File:
    """A published file and its streams: those that are whole in a chunk, and those over several."""

    def __init__(self, file: ManifestFile, source: ChunkedFile, streams: list[DeflateStream]) -> None:
        self.placed = place_chunks(file)
        self.source = source
        self.groups: dict[int, list[DeflateStream]] = {}
        self.place_of: dict[str, tuple[int, int]] = {}
        self.long: dict[str, DeflateStream] = {}
        for stream in streams:
            n = bisect_right(self.placed.starts, stream.offset) - 1
            chunk = self.placed.chunks[n]
            if stream.end <= chunk.end:
                group = self.groups.setdefault(n, [])
                self.place_of[stream.key] = n, len(group)
                group.append(stream)
            else:
                self.long[stream.key] = stream

    def in_chunk(self, n: int) -> ChunkStreams:
        """Return the streams that are whole in a chunk."""
        start = self.placed.starts[n]
        packed = (Packed(one.offset - start, one.length, one.size) for one in self.groups[n])
        return ChunkStreams(tuple(packed))

    def walk(self, key: str) -> Iterator[tuple[PlacedChunk, ChunkStreams] | None]:
        """Yield the chunks of a stream over several; None for one that cannot be made by itself."""
        stream, starts = self.long[key], self.placed.starts
        first, last = bisect_right(starts, stream.offset), bisect_left(starts, stream.end)
        chunks = self.placed.chunks[first - 1 : last]
        for chunk, stretch in zip(chunks, walk_stream(self.source, stream, starts[first:last]), strict=True):
            yield (chunk, _of_stretch(chunk, stretch)) if stretch is not None else None


def _of_stretch(chunk: PlacedChunk, stretch: StreamPart) -> ChunkStreams:
    packed = Packed(stretch.offset - chunk.offset, stretch.length, PLAIN_LIMIT_BYTES, stretch.bits)
    return ChunkStreams((packed,), stretch.window, stretch.position, stretch.ahead_at, stretch.ahead)


def _open(file: ManifestFile, reader: PackReader) -> _File | None:
    """Return a file with its streams; None if it has none."""
    if file.size_bytes < SMALL_TENSOR_BYTES:
        return None
    source = ChunkedFile(reader, place_chunks(file))
    if not has_streams(source.read(0, 8)):
        return None
    streams = find_streams(source)
    return _File(file, source, streams) if streams else None


def _iter_pairs(ours: _File, theirs: _File) -> Iterator[DeflatedPair]:
    for n, group in ours.groups.items():
        places = [theirs.place_of.get(stream.key, (-1, -1)) for stream in group]
        there = next((at for at, _ in places if at >= 0), None)
        if there is not None:
            partners = tuple(index if at == there else -1 for at, index in places)
            streams = PairedStreams(ours.in_chunk(n), theirs.in_chunk(there), partners)
            yield DeflatedPair(ours.placed.chunks[n], theirs.placed.chunks[there], streams)
    for key in ours.long.keys() & theirs.long.keys():
        yield from _iter_long(ours, theirs, key)


def _iter_long(ours: _File, theirs: _File, key: str) -> Iterator[DeflatedPair]:
    try:
        for one, other in zip(ours.walk(key), theirs.walk(key), strict=False):
            if one is not None and other is not None:
                yield DeflatedPair(one[0], other[0], PairedStreams(one[1], other[1], (0,)))
    except FormatError:
        return  # the stream is malformed: its chunks are not deltas
