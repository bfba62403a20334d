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

The number of streams and their plain lengths follow from the payload's header and the chunk's length, so a
payload cannot request a larger allocation.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from math import log2
from typing import Final

import zstandard

from yarnstore.core import limits
from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.transforms import Buffer
from yarnstore.errors import FormatError

RAW: Final = 0
ZSTD: Final = 1
SPARSE: Final = 2

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


class _Information(dict[int, float]):
    """n · log2(n) by n, since a logarithm takes longer than a look-up."""

    def __missing__(self, count: int) -> float:
        value = self[count] = count * log2(count) if count else 0.0
        return value


codecs = _Codecs()
_information = _Information()


def fault(why: str) -> FormatError:
    """The error for a payload that does not follow its format."""
    return FormatError("encoded chunk", why)


def check_plain_length(plain_length: int) -> None:
    """Raise FormatError unless a reader accepts chunks of that length."""
    if not 0 <= plain_length <= limits.CHUNK_LIMIT_BYTES:
        raise fault(f"declares {plain_length} bytes; {limits.CHUNK_LIMIT_BYTES} is the limit")


def pack_streams(streams: Sequence[tuple[Buffer, Sequence[int]]], *, sparse: bool = True) -> list[Buffer]:
    """The stream table and the stored streams, as parts for one `join`.

    Each stream has a list of ascending positions where its statistics change; a zstd frame starts a
    new block there, hence a new Huffman table.  Parts may alias the buffers given.
    """
    stored = [_store(plain, cuts, sparse) for plain, cuts in streams]
    table = [kind << _LENGTH_BITS | sum(map(len, parts)) for kind, parts in stored]
    return [struct.pack(f"<{len(table)}I", *table), *(part for _, parts in stored for part in parts)]


def unpack_streams(payload: memoryview, plain_lengths: Sequence[int]) -> list[Buffer]:
    """The plain streams; `payload` starts at the stream table and ends with the last stream.

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
        streams.append(_load(word >> _LENGTH_BITS, payload[offset:end], plain_length))
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
    return log2(total) - sum(map(_information.__getitem__, counts)) / total if total else 0.0


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
    if len(stored) < 8:
        raise fault("ends inside its stream table")
    first, second = struct.unpack_from("<2I", stored)
    if first >> _LENGTH_BITS > ZSTD or second >> _LENGTH_BITS > ZSTD:
        raise fault("nests sparse streams")
    split = 8 + (first & _LENGTH_MASK)
    if split + (second & _LENGTH_MASK) != len(stored):
        raise fault("has a sparse stream whose parts do not add up to its length")
    mask = _load(first >> _LENGTH_BITS, stored[8:split], (plain_length + 7) // 8)
    values = _load(second >> _LENGTH_BITS, stored[split:], kernels.mask_count(mask, plain_length))
    return kernels.sparse_join(mask, values, plain_length)


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
    return parts
