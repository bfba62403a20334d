"""Byte streams inside a payload: each stored raw, as a zstd frame, or sparse.

Owns the stream table that all numeric payloads share, the tuned zstd objects and the scratch buffers, one set
per thread.  `planes`, `delta` and `blocks` define what the streams mean. Governed by
docs/format/encodings.md.

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
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from yarnstore.core import limits
from yarnstore.errors import FormatError

Bytes = NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview

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


class Scratch(threading.local):
    """Per-thread zstd objects and named buffers, reused to avoid page faults for each chunk."""

    def __init__(self) -> None:
        # "Huffman only": matches shorter than 7 bytes are never sought in byte planes.
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
        self._buffers: dict[str, Bytes] = {}
        # glibc raises its mmap and trim thresholds to the largest block ever freed; without this,
        # numpy's and zstd's own results are mapped, faulted in and unmapped for every chunk.
        np.empty(2 * limits.CHUNK_LIMIT_BYTES, np.uint8)

    def take(self, name: str, count: int, dtype: str = "u1") -> NDArray[Any]:
        """Return an uninitialised array of `count` items, valid until the next `take` of the same `name`."""
        size = count * int(dtype[1])
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(max(size, limits.CHUNK_MAX_BYTES), np.uint8)
        return buffer[:size].view(f"<{dtype}")


scratch = Scratch()


def fault(why: str) -> FormatError:
    """The error for a payload that does not follow its format."""
    return FormatError("encoded chunk", why)


def check_plain_length(plain_length: int) -> None:
    """Raise FormatError unless a reader accepts chunks of that length."""
    if not 0 <= plain_length <= limits.CHUNK_LIMIT_BYTES:
        raise fault(f"declares {plain_length} bytes; {limits.CHUNK_LIMIT_BYTES} is the limit")


def pack_streams(streams: Sequence[tuple[Bytes, Sequence[int]]], *, sparse: bool = True) -> list[Buffer]:
    """The stream table and the stored streams, as parts for one `join`.

    Each stream has a list of ascending positions where its statistics change; a zstd frame starts a
    new block there, hence a new Huffman table.  Parts may alias the arrays given.
    """
    stored = [_store(plain, cuts, sparse) for plain, cuts in streams]
    table = [kind << _LENGTH_BITS | sum(map(len, parts)) for kind, parts in stored]
    return [struct.pack(f"<{len(table)}I", *table), *(part for _, parts in stored for part in parts)]


def unpack_streams(payload: memoryview, plain_lengths: Sequence[int]) -> list[Bytes]:
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


def zigzag(differences: NDArray[Any]) -> None:
    """Wrapped differences 0 −1 1 −2 … (unsigned arrays) to 0 1 2 3 …, in place."""
    width = differences.itemsize
    sign = scratch.take("wide", differences.size, f"u{width}")
    np.right_shift(differences.view(f"<i{width}"), 8 * width - 1, out=sign.view(f"<i{width}"))
    np.left_shift(differences, 1, out=differences)
    np.bitwise_xor(differences, sign, out=differences)


def unzigzag(values: NDArray[Any]) -> None:
    """The inverse of `zigzag`, in place."""
    sign = scratch.take("wide", values.size, f"u{values.itemsize}")
    np.bitwise_and(values, 1, out=sign)
    np.negative(sign, out=sign)
    np.right_shift(values, 1, out=values)
    np.bitwise_xor(values, sign, out=values)


def entropy_bits(sample: Bytes) -> float:
    """Order-0 entropy in bits per byte; 0 for an empty sample."""
    if not sample.size:
        return 0.0
    counts = np.bincount(sample)
    counts = counts[counts > 0]
    return float(np.log2(sample.size) - (counts * np.log2(counts)).sum() / sample.size)


def _store(plain: Bytes, cuts: Sequence[int], sparse: bool) -> tuple[int, list[Buffer]]:
    if plain.size < 16:
        return RAW, [plain.data]
    if sparse and int(np.count_nonzero(plain)) * _SPARSE_SHARE < plain.size:
        mask = plain != 0
        values = plain[np.flatnonzero(mask)]
        parts = pack_streams([(np.packbits(mask), _scale(cuts, 8)), (values, ())], sparse=False)
        kind = SPARSE
    else:
        if plain.size >= 4 * _SAMPLE_BYTES:
            step = plain.size // _SAMPLE_BYTES
            if not cuts and entropy_bits(plain[:: step | 1]) > _INCOMPRESSIBLE_BITS:
                return RAW, [plain.data]
        parts = _compress(plain, cuts)
        kind = ZSTD
    return (kind, parts) if sum(map(len, parts)) < plain.size else (RAW, [plain.data])


def _load(kind: int, stored: memoryview, plain_length: int) -> Bytes:
    if kind == RAW:
        if len(stored) != plain_length:
            raise fault(f"has a raw stream of {len(stored)} bytes instead of {plain_length}")
        return np.frombuffer(stored, np.uint8)
    if kind == ZSTD:
        return np.frombuffer(read_frame(stored, plain_length, scratch.decompressor), np.uint8)
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
    positions = np.flatnonzero(np.unpackbits(mask, count=plain_length).view(np.bool_))
    plain = np.zeros(plain_length, np.uint8)
    plain[positions] = _load(second >> _LENGTH_BITS, stored[split:], positions.size)
    return plain


def _scale(cuts: Sequence[int], by: int) -> list[int]:
    return [cut // by for cut in cuts]


def _compress(plain: Bytes, cuts: Sequence[int]) -> list[Buffer]:
    if not cuts:
        return [scratch.compressor.compress(plain.data)]
    writer = scratch.compressor.compressobj(size=plain.size)
    view = plain.data
    parts: list[Buffer] = []
    start = 0
    for cut in cuts:
        if cut - start >= _BLOCK_MIN_BYTES and plain.size - cut >= _BLOCK_MIN_BYTES:
            parts += writer.compress(view[start:cut]), writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            start = cut
    parts += writer.compress(view[start:]), writer.flush()
    return parts
