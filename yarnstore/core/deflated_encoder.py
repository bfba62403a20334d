"""Encodes chunks with deflate streams as the difference of what they inflate to: encoding 6.

Owns: which level zlib made the streams at, and what their plain bytes are compared with.  Only a chunk whose
streams zlib makes again, bit by bit, gets a payload; a stream that it does not make is bytes as they are.
`deflated` has the format and the decoder.  Pure.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final, NamedTuple

from yarnstore.core.codec import DELTAS, encode_chunk, encode_difference, pack_zstd
from yarnstore.core.deflate import LEVELS, WINDOW_BYTES, deflate, inflate, may_be_level
from yarnstore.core.deflated import (
    COUNT_LIMIT,
    FORMAT,
    HEADER,
    PLAIN_LIMIT_BYTES,
    SHUFFLED,
    ZLIB,
    ChunkStreams,
    DeflatedPart,
    Packed,
    PairedStreams,
    Table,
    gather,
    plain_limit,
    plain_of,
)
from yarnstore.core.digest import Buffer
from yarnstore.core.limits import KIB, MIB
from yarnstore.errors import FormatError

_PART_BYTES: Final = 1 * MIB
_WINDOWS: Final = 8
_WINDOW_BYTES: Final = 8 * KIB
_PROBE_BYTES: Final = 64 * KIB
# So much smaller is a sample of shuffled elements as elements.
_SHUFFLED_SHARE: Final = 0.98


def encode_deflated(data: Buffer, base: Buffer, streams: PairedStreams) -> bytes | None:
    """The payload, or None if a stream of one of them does not inflate by itself, zlib does not make the
    streams of `data`, or it would not be smaller.

    A malformed stream does not; nor does a part of one that begins within a byte and has a stored block,
    which begins with a whole byte of the stream (RFC 1951, 3.2.4).
    """
    view, ours = memoryview(data), streams.ours
    try:
        plains, of_base = _plains(view, ours), _plains(memoryview(base), streams.theirs)
    except FormatError:
        return None
    if plains and ours.ahead:
        plains[0] = plains[0][: ours.ahead_at - len(ours.window)] + ours.ahead
    sizes = [sum(map(len, some)) for some in (plains, of_base)]
    most = max(len(data) + sizes[0], len(base) + sizes[1])
    if most > PLAIN_LIMIT_BYTES - 2 * WINDOW_BYTES or sizes[0] > plain_limit(len(data)):
        return None
    level, kept = _find_level(view, ours, plains)
    if not kept:
        return None
    theirs = [
        one._replace(size=len(plain)) for one, plain in zip(streams.theirs.packed, of_base, strict=True)
    ]
    width = _shuffled_width(streams, plains, of_base)
    writer = _Writer(streams.theirs.window, theirs, base, width)
    for n in kept:
        packed = ours.packed[n]
        low = view[packed.offset] & ((1 << packed.bits) - 1)
        writer.add_stream(
            packed._replace(size=len(plains[n]), low=low),
            gather(plains[n], width),
            streams.partners[n],
            (ours.window, ours.position, streams.theirs.position) if n == 0 else (b"", 0, 0),
        )
    payload = writer.finish(view, level, width)
    return payload if payload is not None and len(payload) < len(data) else None


def _shuffled_width(streams: PairedStreams, plains: list[bytes], of_base: list[bytes]) -> int:
    """Return the width of elements by which the streams are shuffled, as a sample tells; 1 if they are not.

    Only what saves little as it is may be shuffled: bytes of one kind come first, then those of the next.
    """
    pairs = [(n, there) for n, there in enumerate(streams.partners) if there >= 0]
    if not pairs or streams.ours.window or streams.theirs.window:
        return 1
    pair = max(pairs, key=lambda at: len(plains[at[0]]))
    best, smallest = 1, 0.0
    for width in (1, *SHUFFLED):
        one, other = (gather(some[n], width) for some, n in zip((plains, of_base), pair, strict=True))
        length = min(len(one), len(other))
        part, base = _spread(one, length), _spread(other, length)
        size = len(encode_difference(part, base)[1]) if len(base) else len(part)
        if width == 1:
            smallest = _SHUFFLED_SHARE * size
            if 2 * size <= len(part):
                break
        elif size < smallest:
            best, smallest = width, size
    return best


def _spread(plain: Buffer, length: int) -> bytes:
    """Return a sample of the first `length` bytes: shuffled ones differ from place to place."""
    view, step = memoryview(plain)[:length], max(_WINDOW_BYTES, length // _WINDOWS // 8 * 8)
    return b"".join(view[at : at + _WINDOW_BYTES] for at in range(0, length, step))


def _plains(view: memoryview, streams: ChunkStreams) -> list[bytes]:
    """Return what each stream inflates to; together no more than a little above the limit.

    Raises: FormatError.
    """
    found: list[bytes] = []
    left = PLAIN_LIMIT_BYTES
    for n, packed in enumerate(streams.packed):
        window = streams.window if n == 0 else b""
        size = min(packed.size, left + 1)
        found.append(inflate(view[packed.offset : packed.end], size, bits=packed.bits, window=window))
        left = max(0, left - len(found[-1]))
    return found


def _find_level(view: memoryview, ours: ChunkStreams, plains: list[bytes]) -> tuple[int, list[int]]:
    """Return the level at which zlib makes most streams again, and the numbers of these."""
    best: tuple[int, list[int]] = 0, []
    for level in LEVELS:
        kept = []
        for n, (packed, plain) in enumerate(zip(ours.packed, plains, strict=True)):
            stream, bits = view[packed.offset : packed.end], packed.bits
            window = ours.window if n == 0 else b""
            start = memoryview(plain)[:_PROBE_BYTES]
            if may_be_level(start, stream[:_PROBE_BYTES], level, bits=bits, window=window):
                low = stream[0] & ((1 << bits) - 1)
                if deflate(plain, level, bits=bits, low=low, window=window)[: len(stream)] == stream:
                    kept.append(n)
        if len(kept) > len(best[1]):
            best = level, kept
        if len(kept) == len(plains):
            break
    return best


class _Writer:
    """The table and the parts of a payload."""

    def __init__(self, window: bytes, theirs: list[Packed], base: Buffer, width: int) -> None:
        self._theirs = theirs
        self._there = memoryview(plain_of(base, theirs, window, width))
        self._starts = list(accumulate((one.size for one in theirs), initial=len(window)))
        self._window_bytes = 0
        self._ours: list[Packed] = []
        self._plain: list[Buffer] = []
        self._runs: list[_Run] = []
        self._parts: list[DeflatedPart] = []
        self._payloads: list[Buffer] = []
        self._add_part(memoryview(window), 0, self._there[:0])

    def add_stream(self, packed: Packed, plain: Buffer, partner: int, before: tuple[bytes, int, int]) -> None:
        """Add a stream; `before` is its window, and the positions of it and of its partner's plain bytes."""
        window, position, base_position = before
        self._window_bytes += len(window)
        self._ours.append(packed)
        self._plain += window, plain
        length = len(window) + len(plain)
        if partner < 0:
            self._runs.append(_Run(length, 0, 0))
            return
        start = self._starts[partner] if partner else 0
        self._runs += _align(length, position, self._starts[partner + 1] - start, base_position, start)

    def finish(self, view: memoryview, level: int, width: int) -> bytes | None:
        """Return the payload of the chunk; None if it has too many streams."""
        end = 0
        outside: list[Buffer] = []
        for packed in self._ours:
            outside.append(view[end : packed.offset])
            end = packed.end
        rest = b"".join([*outside, view[end:]])
        self._plain.append(rest)
        self._runs.append(_Run(len(rest), self._starts[-1], len(self._there) - self._starts[-1]))
        whole = memoryview(b"".join(self._plain))
        at = 0
        for run in _join(self._runs):
            for start in range(0, run.length, _PART_BYTES):
                size = min(_PART_BYTES, run.length - start)
                first, last = (min(n, run.base_length) for n in (start, start + size))
                place = run.base_start + first
                self._add_part(whole[at : at + size], place, self._there[place : run.base_start + last])
                at += size
        counts = len(self._theirs), len(self._ours), len(self._parts)
        if max(counts) > COUNT_LIMIT:
            return None
        frame = pack_zstd(Table(self._window_bytes, self._theirs, self._ours, self._parts).pack())
        head = HEADER.pack(FORMAT, ZLIB, level, width, *counts, len(frame))
        return b"".join([head, frame, *self._payloads])

    def _add_part(self, plain: memoryview, base_start: int, base: memoryview) -> None:
        encoding, payload = encode_difference(plain, base) if len(base) else encode_chunk(plain)
        place = (base_start, len(base)) if encoding in DELTAS else (0, 0)
        self._parts.append(DeflatedPart(len(plain), *place, int(encoding), len(payload)))
        self._payloads.append(payload)


class _Run(NamedTuple):
    """`length` plain bytes that correspond to `base_length` of the base from `base_start` on."""

    length: int
    base_start: int
    base_length: int


def _align(length: int, position: int, base_length: int, base_position: int, base_start: int) -> list[_Run]:
    """Return the runs of plain bytes from a position of a stream on, given those of the base's stream, which
    are at `base_start`."""
    before = min(max(0, base_position - position), length)
    skipped = max(0, position - base_position)
    both = max(0, min(length - before, base_length - skipped))
    runs = _Run(before, 0, 0), _Run(both, base_start + skipped, both), _Run(length - before - both, 0, 0)
    return [run for run in runs if run.length]


def _join(runs: list[_Run]) -> list[_Run]:
    """Join runs that follow one another on both sides."""
    joined: list[_Run] = []
    for run in runs:
        last = joined[-1] if joined else _Run(0, -1, 0)
        if last.length == last.base_length and last.base_start + last.length == run.base_start:
            joined[-1] = _Run(last.length + run.length, last.base_start, last.base_length + run.base_length)
        elif run.length:
            joined.append(run)
    return joined
