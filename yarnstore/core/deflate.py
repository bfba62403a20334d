"""Deflate streams, inflated and compressed again, whole or from a block in their middle.

Owns: what zlib is asked for.  Its bytes are not part of any standard: the same level gives other bytes in
other implementations, such as zlib-ng, so `compressor_id` says which one this process has.

A stream can be continued from the end of a block if the 32 KiB before it are known (RFC 1951): what zlib
then writes is almost always the same as if it had compressed everything before.  A block may end within a
byte.  Pure.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from functools import cache
from typing import Final

from blake3 import blake3

from yarnstore.core.digest import Buffer
from yarnstore.core.limits import KIB
from yarnstore.errors import FormatError

# RFC 1951: how far back a stream refers.
WINDOW_BYTES: Final = 32 * KIB
# In the order in which they are tried: the default, what `-9` and `-1` give, HDF5's, the others.
LEVELS: Final = (6, 9, 1, 4, 5, 7, 8, 3, 2)
# zlib looks ahead by 258 + 3 + 1 bytes before it ends a block.
AHEAD_BYTES: Final = 512
_RAW: Final = -15
# Steps in which a compressor is fed to see where its blocks end.
_STEP_BYTES: Final = 4096


@cache
def compressor_id() -> str:
    """Return a name of this process's zlib: equal where the same bytes are made of the same numbers.

    It compresses 76 KiB, which takes 2 ms a level: more symbols than a block has, more bytes than the buffer
    has in which zlib slides its window, short matches of which it chooses, and a long one far back.
    """
    noise = hashlib.shake_128(b"yarnstore").digest(72 * KIB)
    probe = noise[: 64 * KIB] + bytes(byte & 3 for byte in noise[64 * KIB :]) + noise[44 * KIB : 48 * KIB]
    digest = blake3()
    for level in range(1, 10):
        digest.update(deflate(probe, level))
    return f"zlib:{digest.hexdigest()[:16]}"


def inflate(data: Buffer, size_bytes: int, *, bits: int = 0, window: Buffer = b"") -> bytes:
    """Return the plain bytes of a raw deflate stream, at most `size_bytes`.

    The stream begins at bit `bits` of its first byte, after `window`.  Raises: FormatError.
    """
    if not size_bytes:
        return b""
    inflater = zlib.decompressobj(_RAW, zdict=bytes(window[-WINDOW_BYTES:]))
    try:
        return inflater.decompress(_drop_bits(data, bits), size_bytes)
    except zlib.error:
        raise FormatError("deflate stream", "is malformed") from None


def deflate(plain: Buffer, level: int, *, bits: int = 0, low: int = 0, window: Buffer = b"") -> bytes:
    """Return the raw deflate stream of `plain` to its end, after `window`.

    It begins at bit `bits` of the first byte, which has the bits `low` before.
    """
    compressor = _compressor(level, window)
    packed = compressor.compress(plain) + compressor.flush()
    if not bits:
        return packed
    number = int.from_bytes(packed, "little") << bits | low
    return number.to_bytes(len(packed) + 1, "little")


def _compressor(level: int, window: Buffer = b"") -> zlib._Compress:
    return zlib.compressobj(
        level, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, bytes(window[-WINDOW_BYTES:])
    )


def _drop_bits(data: Buffer, bits: int) -> Buffer:
    if not bits:
        return data
    return (int.from_bytes(data, "little") >> bits).to_bytes(len(data), "little")


def may_be_level(plain: Buffer, packed: Buffer, level: int, *, bits: int = 0, window: Buffer = b"") -> bool:
    """Whether a stream that begins with `packed`, for plain bytes that begin with `plain`, may have been
    compressed at a level; `bits` and `window` as for `inflate`.
    """
    start = _compressor(level, window).compress(plain)
    wanted = _drop_bits(memoryview(packed)[: len(start) + 1], bits)[: len(start)]
    return start[: len(wanted)] == wanted


def find_bits(packed: Buffer, plain: Buffer, window: Buffer) -> int | None:
    """Return at which bit of the first byte of `packed` a block begins whose plain bytes begin with `plain`,
    after `window`; None if no block begins there.
    """
    for bits in range(8):
        try:
            found = inflate(packed, len(plain), bits=bits, window=window)
        except FormatError:
            continue
        if found and plain[: len(found)] == found:
            return bits
    return None


class BlockEnds:
    """Compresses plain bytes, and says where the stream can be cut: in the byte in which a block ends."""

    def __init__(self, level: int) -> None:
        self._compressor = _compressor(level)
        self.plain_bytes = 0
        self.packed_bytes = 0

    def feed(self, plain: Buffer) -> Iterator[tuple[int, bytes]]:
        """Yield the plain bytes that were needed so far, and what they add to the stream, at each end of
        blocks.
        """
        view = memoryview(plain)
        for at in range(0, len(view), _STEP_BYTES):
            step = view[at : at + _STEP_BYTES]
            self.plain_bytes += len(step)
            if packed := self._compressor.compress(step):
                self.packed_bytes += len(packed)
                yield self.plain_bytes, packed

    def finish(self) -> bytes:
        """Return the end of the stream."""
        return self._compressor.flush()
