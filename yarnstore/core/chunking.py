"""Chunking: the cutting of a file into chunks.

docs/format/chunking.md governs it.  The publisher chooses the cut points and readers follow the manifest, so
the choice can change without a change of format.  Pure.
"""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple, TypeAlias

from pyfastcdc import FastCDC

from yarnstore.core.encodings import guess_encoding
from yarnstore.core.layouts import (
    BYTES,
    LIKELY_TYPES,
    BytesSource,
    ElementType,
    Layout,
    Segment,
    Source,
    cut_segments,
)
from yarnstore.core.layouts.deflated import find_streams
from yarnstore.core.limits import CHUNK_AVG_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, KIB, MIB
from yarnstore.core.stream_cuts import cut_streams

# Deflate streams: bytes that are not cut by their content.
_STREAMS = ElementType("streams", 1, 1, "bytes")

# Reads the next n bytes of a file, fewer only at its end.
ReadNext: TypeAlias = Callable[[int], bytes]

# Bytes searched for cuts at once.  Much larger than the largest chunk, since the bytes after the last certain
# cut are searched again.
_WINDOW_BYTES = 8 * MIB
# Chunks are yielded in batches of about this size: one lookup and one task for each batch.
_BATCH_BYTES = 2 * MIB


# Positions at which a file of unknown format is sampled to see whether it holds numbers.
_SAMPLES = 8
_SAMPLE_BYTES = 32 * KIB


def plan_segments(
    source: Source, layout: Layout | None, cuts: Sequence[int] = (), *, at_streams: bool = False
) -> list[Segment]:
    """Return the segments to cut a file into.

    A file with a layout is cut at its tensors, and within them also at `cuts`, offsets in the file.  With
    `at_streams`, what is between, and a file without a layout, is cut at its deflate streams, as
    `stream_cuts` says, which compresses long ones again.  A file without either that consists of numbers is
    cut every 1 MiB, so that chunk i of a fine-tune is compared with chunk i of its base.  Other bytes are cut
    by their content.
    """
    parts = cut_streams(source, find_streams(source)) if at_streams else []
    guess = None if layout is not None or parts else guess_numbers(source)
    if guess is None:
        return list(_with_parts(cut_segments(layout, source.size, cuts), parts))
    element, phase = guess
    ends = list(range(CHUNK_MAX_BYTES - (8 - phase if phase else 0), source.size, CHUNK_MAX_BYTES))
    starts = [0, *ends]
    return [
        Segment(start, end - start, element)
        for start, end in zip(starts, [*ends, source.size], strict=True)
        if end > start
    ]


def _with_parts(segments: Iterable[Segment], parts: Sequence[tuple[int, int]]) -> Iterator[Segment]:
    """Yield segments, of which those of bytes are cut where parts of a file begin and end; these are one
    chunk each.
    """
    ahead = deque(parts)
    for segment in segments:
        offset, end = segment.offset, segment.offset + segment.length
        while ahead and ahead[0][0] < end:
            start, stop = ahead.popleft()
            if segment.dtype is BYTES and offset <= start and stop <= end:
                if start > offset:
                    yield Segment(offset, start - offset, BYTES)
                yield Segment(start, stop - start, _STREAMS)
                offset = stop
        if offset == segment.offset:
            yield segment
        elif end > offset:
            yield Segment(offset, end - offset, BYTES)


def guess_numbers(source: Source) -> tuple[ElementType, int] | None:
    """Guess the element type of most of a file, and the offset modulo 8 at which elements begin.

    None if the file is small or its samples disagree.
    """
    if source.size < _SAMPLES * _SAMPLE_BYTES:
        return None
    step = (source.size - _SAMPLE_BYTES) // (_SAMPLES - 1) // 8 * 8
    guesses = [guess_encoding(source.read(n * step, _SAMPLE_BYTES)) for n in range(_SAMPLES)]
    common, count = Counter(guesses).most_common(1)[0]
    if common.kind != "planes" or count < _SAMPLES - 2:
        return None
    return LIKELY_TYPES[common.width], common.phase


class Piece(NamedTuple):
    """A chunk's bytes, and the type of its elements if the file's layout gives it."""

    data: memoryview
    element: ElementType


def iter_chunk_batches(read_next: ReadNext, segments: Iterable[Segment]) -> Iterator[list[Piece]]:
    """The chunks of a file in order, in batches.

    `segments` cover the file.  A segment of numbers is one chunk; other bytes are cut by their content
    (FastCDC, Xia et al. 2016).  If the file is shorter than its segments, the chunks end with it.
    """
    batch: list[Piece] = []
    size = 0
    for segment in segments:
        for data in _cut(read_next, segment):
            batch.append(Piece(memoryview(data), segment.dtype))
            size += len(data)
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def cut_in_memory(source: BytesSource, layout: Layout | None, *, at_streams: bool = False) -> list[Piece]:
    """Return the chunks of a file in memory, in order."""
    if layout is None and source.size <= CHUNK_MIN_BYTES:  # one chunk, whatever it holds
        return [Piece(memoryview(source.data), BYTES)] if source.data else []
    batches = iter_chunk_batches(
        io.BytesIO(source.data).read, plan_segments(source, layout, at_streams=at_streams)
    )
    return list(chain.from_iterable(batches))


def _cut(read_next: ReadNext, segment: Segment) -> Iterator[bytes | memoryview]:
    if segment.dtype is BYTES:
        yield from _cut_bytes(read_next, segment.length)
    elif data := read_next(segment.length):
        yield data


def _cut_bytes(read_next: ReadNext, length: int) -> Iterator[memoryview]:
    if length <= CHUNK_MIN_BYTES:  # one chunk, whatever it holds
        if block := read_next(length) if length else b"":
            yield memoryview(block)
        return
    cutter = FastCDC(avg_size=CHUNK_AVG_BYTES, min_size=CHUNK_MIN_BYTES, max_size=CHUNK_MAX_BYTES)
    rest = b""
    while True:
        wanted = min(_WINDOW_BYTES, length)
        block = read_next(wanted) if wanted else b""
        length -= len(block)
        window = rest + block if rest else block
        if not window:
            return
        at_end = len(block) < wanted or not length
        start = 0
        view = memoryview(window)
        for end in _cut_ends(cutter.cut_buf(window)):
            # Closer to the window's end than the largest chunk, a cut may be caused by the end.
            if not at_end and start + CHUNK_MAX_BYTES > len(window):
                break
            yield view[start:end]
            start = end
        if at_end:
            return
        rest = window[start:]


def _cut_ends(chunks: Iterable[object]) -> Iterator[int]:
    for chunk in chunks:
        yield chunk.offset + chunk.length  # type: ignore[attr-defined]
