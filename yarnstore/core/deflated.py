"""Encoding 6, `delta-deflated`: the difference of what two chunks inflate to.

Owns: the payload, and how it is decoded; `deflated_encoder` makes it, of streams that `stream_cuts` finds.
Governed by docs/format/encodings.md.  A reader inflates the streams of the base, makes the plain bytes of the
chunk's streams from the difference, and compresses these again.  What is outside of streams is plain as it
is.  Pure.

    offset  bytes  field
    0       1      format of the payload, 1
    1       1      compressor: 1, deflate as zlib makes it, 15 window bits, memory level 8
    2       1      its level, 1 … 9
    3       1      width of elements whose bytes are shuffled in the streams, 2, 4 or 8; 1 if none are
    4       2      b, how many streams of the base
    6       2      s, how many streams of the chunk
    8       2      p, how many parts
    10      4      length of the table's frame
    14      …      a zstd frame: 1 + 4·b + 5·s + 5·p numbers of 32 bits, see `Table`
    …              the payloads of the parts
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from yarnstore.core.codec import DELTAS, Encoding, decode_payload, decode_zstd
from yarnstore.core.deflate import deflate, inflate
from yarnstore.core.digest import Buffer
from yarnstore.core.limits import CHUNK_LIMIT_BYTES, KIB, MIB
from yarnstore.core.pack import Entry
from yarnstore.errors import FormatError

FORMAT: Final = 1
ZLIB: Final = 1
HEADER: Final = struct.Struct("<BBBBHHHI")
# Inflated, a chunk or its base may take so much: a stream of a hundred bytes can claim as many kilobytes.
PLAIN_LIMIT_BYTES: Final = 12 * MIB
# The streams of a chunk inflate to so many times its bytes, and a little more: zlib takes up to five seconds
# for a MiB of short matches at level 9, which a chunk of a few bytes must not cost.
_PLAIN_LIMIT_FACTOR: Final = 64
_PLAIN_MARGIN_BYTES: Final = 64 * KIB
# Streams or parts of a chunk: each takes some microseconds.
COUNT_LIMIT: Final = 4096
# HDF5's filter `shuffle`: the first bytes of all elements, then the second ones.
SHUFFLED: Final = (2, 4, 8)


class Packed(NamedTuple):
    """A stream in a chunk, or the part of one: its place, to how many bytes it inflates, and the bit of its
    first byte at which it begins, with the value of those before.
    """

    offset: int
    length: int
    size: int
    bits: int = 0
    low: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length


class ChunkStreams(NamedTuple):
    """The streams of a chunk, ascending; for one that begins within a stream, the plain bytes before it.

    The plain bytes of the first stream begin with `window`, at `position` of the stream; so do those that are
    compared.  `ahead` replaces the plain bytes from `ahead_at` on, counted from `position`: a chunk that ends
    within a stream is made with those after it.
    """

    packed: tuple[Packed, ...]
    window: bytes = b""
    position: int = 0
    ahead_at: int = 0
    ahead: bytes = b""


class PairedStreams(NamedTuple):
    """The streams of a chunk and of its base; `partners` are for each of the chunk's the number of the
    corresponding one of the base, or -1."""

    ours: ChunkStreams
    theirs: ChunkStreams
    partners: tuple[int, ...]

    def turned(self) -> PairedStreams:
        """The same pair, seen from the base."""
        back = {there: n for n, there in enumerate(self.partners)}
        partners = tuple(back.get(n, -1) for n in range(len(self.theirs.packed)))
        return PairedStreams(self.theirs, self.ours, partners)


class DeflatedPart(NamedTuple):
    """`length` plain bytes of the chunk, encoded against `base_length` of the base from `base_start` on.

    Both are 0 if they have no base.
    """

    length: int
    base_start: int
    base_length: int
    encoding: int
    stored: int


class Table(NamedTuple):
    """How many of the plain bytes are before the first stream; and rows of numbers."""

    window: int
    base: list[Packed]
    ours: list[Packed]
    parts: list[DeflatedPart]

    def pack(self) -> bytes:
        rows = [self.window]
        for row in self.base:
            rows += row[:4]
        for row in self.ours:
            rows += row
        for part in self.parts:
            rows += part
        return struct.pack(f"<{len(rows)}I", *rows)

    @classmethod
    def parse(cls, plain: bytes, base: int, ours: int, parts: int) -> Table:
        window, *numbers = struct.unpack(f"<{len(plain) // 4}I", plain)
        first, second = 4 * base, 4 * base + 5 * ours
        return cls(
            window,
            [Packed(*numbers[n : n + 4]) for n in range(0, first, 4)],
            [Packed(*numbers[n : n + 5]) for n in range(first, second, 5)],
            [DeflatedPart(*numbers[n : n + 5]) for n in range(second, second + 5 * parts, 5)],
        )


def plain_limit(chunk_bytes: int) -> int:
    """Return how many bytes the streams of a chunk of this length may inflate to."""
    return min(PLAIN_LIMIT_BYTES, _PLAIN_LIMIT_FACTOR * chunk_bytes + _PLAIN_MARGIN_BYTES)


def decode_deflated(payload: Buffer, base: Buffer, plain_length: int) -> bytes:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    view = memoryview(payload)
    if len(view) < HEADER.size or not 0 < plain_length <= CHUNK_LIMIT_BYTES:
        raise _fault("ends inside its header")
    version, compressor, level, width, *counts, frame_bytes = HEADER.unpack_from(view)
    if version != FORMAT or compressor != ZLIB or not 1 <= level <= 9 or width not in (1, *SHUFFLED):
        raise _fault("has an unknown header")
    if not counts[2] or max(counts) > COUNT_LIMIT:
        raise _fault("has no parts, or too many")
    at = HEADER.size + frame_bytes
    size = 4 * (1 + 4 * counts[0] + 5 * counts[1] + 5 * counts[2])
    table = Table.parse(decode_zstd(view[HEADER.size : at], size, "table of deflate streams"), *counts)
    _check(table, len(base), plain_length)
    if width > 1 and (table.window or table.parts[0].length):
        raise _fault("has shuffled parts of streams")
    # The first part is what the base's first stream refers to.
    parts = []
    there: Buffer = b""
    for n, part in enumerate(table.parts):
        if at + part.stored > len(view):
            raise _fault("ends inside its parts")
        parts.append(_decode_part(part, view[at : at + part.stored], there))
        at += part.stored
        if n == 0:
            there = memoryview(plain_of(base, table.base, bytes(parts.pop()), width))
    if at != len(view):
        raise _fault("has bytes after its parts")
    return _make(memoryview(b"".join(parts)), table, level, width)


def _check(table: Table, base_length: int, plain_length: int) -> None:
    """Raises FormatError if streams or sizes contradict the lengths of the chunks."""
    for streams, length in ((table.base, base_length), (table.ours, plain_length)):
        end = 0
        for packed in streams:
            if packed.offset < end or packed.end > length or packed.bits > 7 or packed.low >> packed.bits:
                raise _fault("has streams outside of their chunk, or out of order")
            end = packed.end
    sizes = [sum(packed.size for packed in streams) for streams in (table.base, table.ours)]
    outside = plain_length - sum(packed.length for packed in table.ours)
    made = sum(part.length for part in table.parts[1:])
    too_many = sizes[1] > plain_limit(plain_length)
    if too_many or max(sizes[0], made, sum(part.base_length for part in table.parts)) > PLAIN_LIMIT_BYTES:
        raise _fault("inflates to more than is allowed")
    if table.parts[0].length > CHUNK_LIMIT_BYTES or made != table.window + sizes[1] + outside:
        raise _fault("has parts that do not add up")
    if table.window and not table.ours:
        raise _fault("has a window without a stream")


def _decode_part(part: DeflatedPart, payload: Buffer, base: Buffer) -> Buffer:
    if not part.length:
        return b""
    if part.encoding not in _INNER or not 0 < part.length <= CHUNK_LIMIT_BYTES:
        raise _fault("has a part of an unknown encoding, or too long a one")
    if part.encoding not in DELTAS:
        return decode_payload(Entry(b"", part.length, part.encoding, payload))
    end = part.base_start + part.base_length
    if not part.base_length or end > len(base):
        raise _fault("has a part without a base")
    of_base = memoryview(base)[part.base_start : end]
    return decode_payload(Entry(b"", part.length, part.encoding, payload, b"base"), of_base)


_INNER: Final = frozenset(Encoding) - {Encoding.DELTA_DEFLATED}


def plain_of(chunk: Buffer, streams: Sequence[Packed], window: Buffer, width: int) -> bytes:
    """Return the window, what the streams of a chunk inflate to, and the bytes outside of them."""
    view = memoryview(chunk)
    plain: list[Buffer] = [window]
    outside: list[Buffer] = []
    end = 0
    for packed in streams:
        outside.append(view[end : packed.offset])
        end = packed.end
        data = view[packed.offset : end]
        found = inflate(data, packed.size, bits=packed.bits, window=window)
        if len(found) != packed.size:
            raise _fault("has a base that inflates to another size")
        plain.append(gather(found, width))
        window = b""
    return b"".join([*plain, *outside, view[end:]])


def _make(plain: memoryview, table: Table, level: int, width: int) -> bytes:
    """Return the chunk of plain bytes.  Raises FormatError if a stream is too short."""
    window, at = plain[: table.window], table.window
    outside = plain[at + sum(packed.size for packed in table.ours) :]
    made: list[Buffer] = []
    done = used = 0
    for packed in table.ours:
        gap = packed.offset - done
        made.append(outside[used : used + gap])
        used += gap
        stream = _scatter(plain[at : at + packed.size], width)
        data = deflate(stream, level, bits=packed.bits, low=packed.low, window=window)
        if len(data) < packed.length:
            raise _fault("has a stream that is too short: another zlib has made it")
        made.append(memoryview(data)[: packed.length])
        at += packed.size
        done = packed.end
        window = plain[:0]
    made.append(outside[used:])
    return b"".join(made)


def gather(plain: Buffer, width: int) -> Buffer:
    """Return shuffled elements as they are in memory; bytes after the last one stay."""
    if width == 1:
        return plain
    view = memoryview(plain)
    count = len(view) // width
    found = bytearray(view)
    for n in range(width):
        found[n : count * width : width] = view[n * count : (n + 1) * count]
    return found


def _scatter(plain: Buffer, width: int) -> Buffer:
    """Shuffle elements, the inverse of `gather`."""
    if width == 1:
        return plain
    data = bytes(plain)
    end = len(data) // width * width
    return b"".join([*(data[n:end:width] for n in range(width)), data[end:]])


def _fault(why: str) -> FormatError:
    return FormatError("deflated delta", why)
