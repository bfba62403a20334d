"""Byte streams inside a payload: each stored raw, as a zstd frame, or sparse.

Owns the stream table that all numeric payloads share, and the tuned zstd objects, one set per thread.
`planes`, `delta` and `blocks` define what the streams mean.  Governed by docs/format/encodings.md.

    stream table   one u32 (little-endian) per stream: bits 31..30 kind, bits 29..0 stored bytes;
                   then the stored streams in the same order, and nothing after them
    kind 0 raw     the bytes as they are; stored bytes = plain bytes
    kind 1 zstd    one frame that declares its content size
    kind 2 sparse  mostly zeros: a stream table of two streams,
                   [0] a bit mask, ceil(plain bytes / 8) bytes, most significant bit first, a set
                       bit for every byte that is not zero; padding bits are zero
                   [1] the bytes that are not zero, in order
    kind 3 packed  only in payloads of encoding 5: the number of segments, a byte; for each segment an u32,
                   bits 31..24 its packing, bits 23..0 its plain bytes; and a stream table of two streams
                   of kind 0 or 1, [0] the packed symbols, [1] by how much the escaped ones exceed the
                   escape, which may be of kind 3 itself, once

The number of streams and their plain lengths follow from the payload's header and the chunk's length, so a
payload cannot request a larger allocation.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Collection, Sequence
from itertools import accumulate
from math import log2
from typing import Final

import zstandard

from yarnstore.core import limits
from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.symbols import Part, divide, information
from yarnstore.core.encodings.transforms import RADIX, Buffer
from yarnstore.errors import FormatError

RAW: Final = 0
ZSTD: Final = 1
SPARSE: Final = 2
PACKED: Final = 3

_LENGTH_BITS: Final = 30
_LENGTH_MASK: Final = (1 << _LENGTH_BITS) - 1
# With less than an eighth of non-zero bytes, Huffman's minimum of one bit per symbol costs more than the
# mask.
_SPARSE_SHARE: Final = 8
_SAMPLE_BYTES: Final = 8192
# Order-0 entropy of a sample of 8 KiB of uniform bytes is 7.977 bits; 7.9 still saves 1 %.
_INCOMPRESSIBLE_BITS: Final = 7.93
# A Huffman table costs about 60 bytes; a separate block below 2 KiB rarely saves that much.
_BLOCK_MIN_BYTES: Final = 2048
# A segment of a packed stream: its packing, that is symbols in a byte and a flag, and its length.
_SEGMENT_BITS: Final = 24
_SIGNED: Final = 0x10
PER_BYTE: Final = (1, *RADIX)
MOST_SEGMENTS: Final = 255


class _Codecs(threading.local):
    """Per-thread zstd objects."""

    def __init__(self) -> None:
        # "Huffman only": byte planes have no useful matches shorter than 7 bytes.
        params = zstandard.ZstdCompressionParameters(
            strategy=zstandard.STRATEGY_FAST,
            window_log=17,
            hash_log=6,
            min_match=7,
            target_length=0,
            write_content_size=True,
        )
        self.compressor = zstandard.ZstdCompressor(compression_params=params)
        self.fast = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW_LIMIT_BYTES)
        # glibc raises its mmap and trim thresholds to the largest block ever freed; without this, the
        # results of the kernels and of zstd are mapped, faulted in and unmapped for every chunk.
        bytes(2 * limits.CHUNK_LIMIT_BYTES)


codecs = _Codecs()


def fault(why: str) -> FormatError:
    """The error for a payload that does not follow its format."""
    return FormatError("encoded chunk", why)


def check_plain_length(plain_length: int) -> None:
    """Raise FormatError unless a reader accepts chunks of that length."""
    if not 0 <= plain_length <= limits.CHUNK_LIMIT_BYTES:
        raise fault(f"declares {plain_length} bytes; {limits.CHUNK_LIMIT_BYTES} is the limit")


def pack_streams(
    streams: Sequence[tuple[Buffer, Sequence[int]]],
    *,
    sparse: bool = True,
    packed: bool = False,
    signed: Collection[int] = (),
) -> list[Buffer]:
    """The stream table and the stored streams, as parts for one `join`.

    Each stream has a list of ascending positions where its statistics change; a zstd frame starts a
    new block there, hence a new Huffman table.  Parts may alias the buffers given.  With `packed`, streams
    may be of that kind; `signed` are those of differences modulo 256.
    """
    stored = [
        (_store_packed(plain, cuts, signed=n in signed) if packed else None) or _store(plain, cuts, sparse)
        for n, (plain, cuts) in enumerate(streams)
    ]
    return _table(stored)


def _table(stored: Sequence[tuple[int, list[Buffer]]]) -> list[Buffer]:
    table = [kind << _LENGTH_BITS | sum(map(len, parts)) for kind, parts in stored]
    return [struct.pack(f"<{len(table)}I", *table), *(part for _, parts in stored for part in parts)]


def unpack_streams(
    payload: memoryview, plain_lengths: Sequence[int], *, packed: bool = False
) -> list[Buffer]:
    """The plain streams; `payload` starts at the stream table and ends with the last stream.

    Only with `packed` may streams be of that kind.

    Raises: FormatError.
    """
    offset = 4 * len(plain_lengths)
    if len(payload) < offset:
        raise fault("ends inside its stream table")
    streams = []
    for word, plain_length in zip(
        struct.unpack_from(f"<{len(plain_lengths)}I", payload), plain_lengths, strict=True
    ):
        end = offset + (word & _LENGTH_MASK)
        if end > len(payload):
            raise fault("ends inside a stream")
        kind, stored = word >> _LENGTH_BITS, payload[offset:end]
        if kind == PACKED and packed:
            streams.append(_load_packed(stored, plain_length))
        else:
            streams.append(_load(kind, stored, plain_length))
        offset = end
    if offset != len(payload):
        raise fault(f"has {len(payload) - offset} bytes after its last stream")
    return streams


def read_frame(frame: memoryview, plain_length: int, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """The content of one zstd frame that must hold exactly `plain_length` bytes.

    Raises: FormatError.
    """
    try:
        head = zstandard.get_frame_parameters(frame)
        if head.content_size != plain_length:
            raise fault(f"has a zstd frame of {head.content_size} bytes instead of {plain_length}")
        if head.window_size > limits.ZSTD_WINDOW_LIMIT_BYTES:
            raise fault(f"needs a zstd window of {head.window_size} bytes")
        content = decompressor.decompress(frame, max_output_size=plain_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise fault(f"has a corrupt zstd frame ({error})") from None
    if len(content) != plain_length:
        raise fault(f"has a zstd frame of {len(content)} bytes instead of {plain_length}")
    return content


def entropy_bits(counts: Sequence[int]) -> float:
    """Order-0 entropy in bits per byte of bytes with these counts; 0 without any byte."""
    total = sum(counts)
    return log2(total) - sum(map(information.__getitem__, counts)) / total if total else 0.0


def _store(plain: Buffer, cuts: Sequence[int], sparse: bool) -> tuple[int, list[Buffer]]:
    size = len(plain)
    if size < 16:
        return RAW, [plain]
    if sparse and kernels.count_nonzero(plain, size // _SPARSE_SHARE + 1) * _SPARSE_SHARE < size:
        mask, values = kernels.sparse_split(plain)
        parts = pack_streams([(mask, _scale(cuts, 8)), (values, ())], sparse=False)
        kind = SPARSE
    else:
        if size >= 4 * _SAMPLE_BYTES and not cuts:
            sample = kernels.byte_counts(plain, 0, size // _SAMPLE_BYTES | 1)
            if entropy_bits(sample) > _INCOMPRESSIBLE_BITS:
                return RAW, [plain]
        parts = _compress(plain, cuts)
        kind = ZSTD
    return (kind, parts) if sum(map(len, parts)) < size else (RAW, [plain])


def _load(kind: int, stored: memoryview, plain_length: int) -> Buffer:
    if kind == RAW:
        if len(stored) != plain_length:
            raise fault(f"has a raw stream of {len(stored)} bytes instead of {plain_length}")
        return stored
    if kind == ZSTD:
        return read_frame(stored, plain_length, codecs.decompressor)
    if kind != SPARSE:
        raise fault(f"has a stream of unknown kind {kind}")
    first, second = _two_streams(stored)
    mask = _load(*first, (plain_length + 7) // 8)
    values = _load(*second, kernels.mask_count(mask, plain_length))
    return kernels.sparse_join(mask, values, plain_length)


def _two_streams(
    stored: memoryview, *, packed: bool = False
) -> tuple[tuple[int, memoryview], tuple[int, memoryview]]:
    """The kinds and the stored bytes of the two streams within one; with `packed`, the second may be packed.

    Raises: FormatError.
    """
    if len(stored) < 8:
        raise fault("ends inside its stream table")
    first, second = struct.unpack_from("<2I", stored)
    is_packed = packed and second >> _LENGTH_BITS == PACKED
    if first >> _LENGTH_BITS > ZSTD or (second >> _LENGTH_BITS > ZSTD and not is_packed):
        raise fault("nests sparse streams")
    split = 8 + (first & _LENGTH_MASK)
    if split + (second & _LENGTH_MASK) != len(stored):
        raise fault("has a stream whose parts do not add up to its length")
    return (first >> _LENGTH_BITS, stored[8:split]), (second >> _LENGTH_BITS, stored[split:])


def _load_packed(stored: memoryview, plain_length: int, *, nested: bool = False) -> Buffer:
    if not stored or len(stored) < 1 + 4 * stored[0]:
        raise fault("ends inside the segments of a stream")
    end = 1 + 4 * stored[0]
    segments = [divmod(word, 1 << _SEGMENT_BITS) for word in struct.unpack_from(f"<{stored[0]}I", stored, 1)]
    if sum(length for _, length in segments) != plain_length:
        raise fault("has a stream whose segments do not add up to its length")
    if any(code & ~_SIGNED not in PER_BYTE or code == _SIGNED | 1 for code, _ in segments):
        raise fault("has a stream that is packed in an unknown way")
    (first, first_bytes), (second, second_bytes) = _two_streams(stored[end:], packed=not nested)
    per_byte = [code & ~_SIGNED for code, _ in segments]
    sizes = [-(-length // n) for (_, length), n in zip(segments, per_byte, strict=True)]
    whole = memoryview(_load(first, first_bytes, sum(sizes)))
    packed = [whole[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]
    counts = [
        kernels.escapes_count(part, length, n) if n > 1 else 0
        for part, (_, length), n in zip(packed, segments, per_byte, strict=True)
    ]
    if second == PACKED:
        escaped = memoryview(_load_packed(second_bytes, sum(counts), nested=True))
    else:
        escaped = memoryview(_load(second, second_bytes, sum(counts)))
    plain = [
        kernels.symbols_join(part, escaped[end - count : end], length, n, bool(code & _SIGNED))
        if n > 1
        else part
        for part, (code, length), n, count, end in zip(
            packed, segments, per_byte, counts, accumulate(counts), strict=True
        )
    ]
    return plain[0] if len(plain) == 1 else b"".join(plain)


def _store_packed(
    plain: Buffer, cuts: Sequence[int], *, signed: bool, nested: bool = False
) -> tuple[int, list[Buffer]] | None:
    """The stream in segments, each packed in its own way; None if it is better stored otherwise."""
    if len(plain) < _BLOCK_MIN_BYTES or not kernels.count_nonzero(plain, 1):
        return None
    parts = divide(plain, cuts[: MOST_SEGMENTS - 1], signed=signed)
    if parts == [Part(len(plain), 1)]:
        return None
    view = memoryview(plain)
    start = 0
    words: list[int] = []
    packed: list[Buffer] = []
    escaped: list[Buffer] = []
    for length, per_byte in parts:
        part = view[start : start + length]
        start += length
        code = per_byte
        if per_byte > 1:
            code |= _SIGNED if signed else 0
            small, large = kernels.symbols_split(part, per_byte, signed)
            packed.append(bytes(small))
            escaped.append(bytes(large))
        else:
            packed.append(part)
        words.append(code << _SEGMENT_BITS | length)
    streams = [(b"".join(some), list(accumulate(map(len, some)))[:-1]) for some in (packed, escaped)]
    found = [_store(*streams[0], sparse=False), _store(*streams[1], sparse=False)]
    if not nested:
        found[1] = _store_packed(*streams[1], signed=False, nested=True) or found[1]
    head = struct.pack(f"<B{len(words)}I", len(words), *words)
    stored: list[Buffer] = [head, *_table(found)]
    return (PACKED, stored) if sum(map(len, stored)) < len(plain) else None


def _scale(cuts: Sequence[int], by: int) -> list[int]:
    return [cut // by for cut in cuts]


def _compress(plain: Buffer, cuts: Sequence[int]) -> list[Buffer]:
    if not cuts:
        return [codecs.compressor.compress(plain)]
    view = memoryview(plain)
    writer = codecs.compressor.compressobj(size=len(view))
    parts: list[Buffer] = []
    start = 0
    for cut in cuts:
        if cut - start >= _BLOCK_MIN_BYTES and len(view) - cut >= _BLOCK_MIN_BYTES:
            parts += writer.compress(view[start:cut]), writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            start = cut
    parts += writer.compress(view[start:]), writer.flush()
    return [b"".join(parts)]
