"""Where files with deflate streams are cut, so that a chunk has whole streams, or begins with a block of one.

The cuts follow the plain bytes, so that chunk i of a stream has the numbers of chunk i in the version before,
though both are compressed to other lengths.  docs/format/chunking.md governs it; `core/deflated` encodes such
chunks.  Pure.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from yarnstore.core.deflate import AHEAD_BYTES, LEVELS, WINDOW_BYTES, BlockEnds, find_bits, may_be_level
from yarnstore.core.layouts import Source
from yarnstore.core.layouts.deflated import DeflateStream, inflate_blocks
from yarnstore.core.limits import KIB, MIB
from yarnstore.errors import FormatError

# A longer stream is cut at the first end of a block after so many plain bytes: the chunk, compressed or not,
# is within the limit of 4 MiB, and what is stored to continue from there is less than a hundredth of it.
STRETCH_BYTES: Final = 7 * MIB // 2
# Smaller neighbouring streams share a chunk, up to so many plain bytes.
_GROUP_BYTES: Final = 1 * MIB
_GROUP_LEAST_BYTES: Final = 256 * KIB
_GROUP_STREAMS: Final = 512
_NAMES_PER_CUT: Final = 4
# Between streams of a chunk: headers of zip, tables of HDF5.
_GAP_LIMIT_BYTES: Final = 16 * KIB
_PROBE_BYTES: Final = 256 * KIB
_STEP_BYTES: Final = 1 * MIB
# Of the end of a chunk, what its bytes alone may not yield.
_BEHIND_BYTES: Final = 64
_TAIL_BYTES: Final = WINDOW_BYTES + _BEHIND_BYTES + 8
# What is compared to find the bit at which a block begins.
_SAMPLE_BYTES: Final = 64 * KIB


def cut_streams(source: Source, streams: Sequence[DeflateStream]) -> list[tuple[int, int]]:
    """Return the parts of a file, from and to, ascending, that are chunks because of their streams."""
    parts: list[tuple[int, int]] = []
    group: list[DeflateStream] = []

    def close() -> None:
        if group and group[-1].end - group[0].offset >= _GROUP_LEAST_BYTES // 4:
            parts.append((group[0].offset, group[-1].end))
        group.clear()

    for stream in streams:
        if stream.size > STRETCH_BYTES:
            close()
            cuts = [stream.offset, *_cuts_within(source, stream), stream.end]
            if len(cuts) > 2:
                parts += list(pairwise(cuts))
            continue
        size = sum(one.size for one in group)
        if group and (
            size + stream.size > _GROUP_BYTES
            or len(group) == _GROUP_STREAMS
            or stream.offset - group[-1].end > _GAP_LIMIT_BYTES
            or (size >= _GROUP_LEAST_BYTES and zlib.crc32(stream.key.encode()) % _NAMES_PER_CUT == 0)
        ):
            close()
        group.append(stream)
    close()
    return parts


def _cuts_within(source: Source, stream: DeflateStream) -> list[int]:
    """Return the offsets at which blocks of a long stream end, one in each stretch; none if zlib does not
    make this stream.
    """
    best: list[int] = []
    with contextlib.suppress(FormatError):
        plain = b""
        for block in inflate_blocks(source, stream):
            plain += block
            if len(plain) >= _PROBE_BYTES:
                break
        packed = source.read(stream.offset, min(stream.length, _PROBE_BYTES))
        for level in LEVELS:
            if not may_be_level(plain, packed, level):
                continue
            cuts, is_whole = _cuts_at_level(source, stream, level)
            if is_whole:
                return cuts
            if len(cuts) > len(best):
                best = cuts
    return best


def _cuts_at_level(source: Source, stream: DeflateStream, level: int) -> tuple[list[int], bool]:
    ends = BlockEnds(level)
    cuts: list[int] = []
    done = 0
    for block in inflate_blocks(source, stream):
        for plain_bytes, packed in ends.feed(block):
            if source.read(stream.offset + done, len(packed)) != packed:
                return cuts, False
            done += len(packed)
            if plain_bytes >= (len(cuts) + 1) * STRETCH_BYTES and done < stream.length:
                cuts.append(stream.offset + done)
    return cuts, source.read(stream.offset + done, stream.length - done) == ends.finish()


class StreamPart(NamedTuple):
    """A part of a stream that is cut from others: from bit `bits` of the byte at `offset`, `length` bytes.

    `position` is where the plain bytes of `window` begin, counted from the first of the stream: those that
    the part refers to.  `ahead` are plain bytes from `position` + `ahead_at` on: the last of the part and
    those after it, without which the part cannot be made.
    """

    offset: int
    length: int
    bits: int
    position: int
    window: bytes
    ahead_at: int = 0
    ahead: bytes = b""


def walk_stream(source: Source, stream: DeflateStream, cuts: Sequence[int]) -> Iterator[StreamPart | None]:
    """Yield the parts of a stream between offsets at which it is cut; None if no block begins there.

    Raises: FormatError.
    """
    plain = _Plain(source, stream)
    begin, start, bits, window, position = stream.offset, 0, 0, b"", 0
    known = True
    for end in cuts:
        # The header of the next block takes more than two bytes, and yields none.
        following = plain.advance(end + 2)
        stop = plain.size
        ahead_from = max(start, stop - _BEHIND_BYTES)
        ahead = plain.since(ahead_from) + following[:AHEAD_BYTES]
        found = StreamPart(
            offset=begin,
            length=end - begin,
            bits=bits,
            position=position,
            window=window,
            ahead_at=ahead_from - position,
            ahead=ahead,
        )
        yield found if known else None
        # Aligned, so that numbers begin with it.
        position = max(0, stop - WINDOW_BYTES) // 8 * 8
        window = plain.since(position)
        at_bit = find_bits(source.read(end, _SAMPLE_BYTES), following, window)
        begin, start, bits, known = end, stop, at_bit or 0, at_bit is not None
    last = StreamPart(begin, stream.end - begin, bits, position, window)
    yield last if known else None


class _Plain:
    """The plain bytes of a stream up to a place: how many, and the last of them."""

    def __init__(self, source: Source, stream: DeflateStream) -> None:
        self._source = source
        self._end = stream.end
        self._at = stream.offset
        self._inflater = zlib.decompressobj(-15)
        self._tail = b""
        self.size = 0

    def advance(self, offset: int) -> bytes:
        """Inflate the stream up to an offset in the file; return some of the plain bytes after it."""
        while self._at < offset:
            data = self._source.read(self._at, min(_SAMPLE_BYTES, offset - self._at))
            self._at += max(1, len(data))
            while data:
                plain = _inflate(self._inflater, data, _STEP_BYTES)
                data = self._inflater.unconsumed_tail
                self.size += len(plain)
                self._tail = (self._tail + plain)[-_TAIL_BYTES:]
        return _inflate(
            self._inflater.copy(),
            self._source.read(offset, min(_SAMPLE_BYTES, self._end - offset)),
            _SAMPLE_BYTES,
        )

    def since(self, position: int) -> bytes:
        """Return the plain bytes from a position on."""
        return self._tail[len(self._tail) - (self.size - position) :]


def _inflate(inflater: zlib._Decompress, data: bytes, size_bytes: int) -> bytes:
    try:
        return inflater.decompress(data, size_bytes)
    except zlib.error:
        raise FormatError("deflate stream", "is malformed") from None
