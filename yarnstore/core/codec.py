"""Encodings: how a chunk is stored, and back.

docs/format/encodings.md governs it.  The encoder never returns more than the chunk itself; the
decoder checks sizes and windows before it allocates, and the caller gets no byte that was not
hashed.  Pure.
"""

from __future__ import annotations

import threading
from enum import IntEnum

import zstandard
from blake3 import blake3

from yarnstore.core.digest import Buffer
from yarnstore.core.limits import KIB, ZSTD_WINDOW_LIMIT_BYTES
from yarnstore.core.pack import Entry
from yarnstore.errors import FormatError, IntegrityError


class Encoding(IntEnum):
    """How a chunk is stored: one byte in its entry."""

    RAW = 0
    ZSTD = 1


ZSTD_LEVEL = 3
# A chunk whose sample shrinks by less than this is stored as it is: decoding would cost more
# than the bytes saved.
_WORTH_SHARE = 0.97
_SAMPLE_BYTES = 16 * KIB

_local = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    # Neither object may be used by two threads at once.
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_LIMIT_BYTES)
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor


def _looks_incompressible(data: memoryview) -> bool:
    if len(data) <= 4 * _SAMPLE_BYTES:
        return False
    middle = len(data) // 2
    sample = data[middle : middle + _SAMPLE_BYTES]
    return len(_compressor().compress(sample)) > _WORTH_SHARE * len(sample)


def encode_chunk(data: Buffer) -> tuple[Encoding, Buffer]:
    """The encoding and the payload for a chunk; the payload is never longer than the chunk."""
    view = memoryview(data)
    if not _looks_incompressible(view):
        packed = _compressor().compress(view)
        if len(packed) < _WORTH_SHARE * len(view):
            return Encoding.ZSTD, packed
    return Encoding.RAW, data


def make_entry(chunk_id: bytes, data: Buffer) -> Entry:
    """Encode a chunk and prove that it decodes to itself (restic#4523).

    Raises: IntegrityError where it does not: the compressor or the memory is at fault.
    """
    encoding, payload = encode_chunk(data)
    if encoding is not Encoding.RAW and decode_payload(encoding, payload, len(data)) != data:
        raise IntegrityError("an encoded chunk", why="does not decode to what was encoded")
    return Entry(chunk_id, len(data), encoding, payload)


def decode_payload(encoding: int, payload: Buffer, plain_bytes: int) -> Buffer:
    """The bytes of a chunk, unverified.  Raises: FormatError."""
    if encoding == Encoding.RAW:
        if len(payload) != plain_bytes:
            raise FormatError("raw chunk", "has another length than its entry says")
        return payload
    if encoding == Encoding.ZSTD:
        return decode_zstd(payload, plain_bytes, "zstd chunk")
    raise FormatError("chunk", f"has encoding {encoding}, which this release does not know")


def decode_zstd(
    frame: Buffer, plain_bytes: int, what: str, *, window_limit_bytes: int = ZSTD_WINDOW_LIMIT_BYTES
) -> bytes:
    """Decode one zstd frame of a known size.

    The frame's own claims are checked before anything is allocated: thirteen bytes can ask for
    gigabytes (python-zstandard#332).  Raises: FormatError.
    """
    try:
        claims = zstandard.get_frame_parameters(frame)
        # content_size is 2^64-1 where the frame does not say
        if claims.content_size != plain_bytes:
            raise FormatError(what, "claims another size than is recorded")
        if claims.window_size > window_limit_bytes or claims.dict_id:
            raise FormatError(what, "asks for too large a window or for a dictionary")
        plain = _decompressor().decompress(frame, max_output_size=plain_bytes, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise FormatError(what, f"is no whole zstd frame: {error}") from None
    if len(plain) != plain_bytes:
        raise FormatError(what, "decodes to another size than is recorded")
    return plain


def decode_entry(entry: Entry) -> Buffer:
    """The verified bytes of an entry's chunk.

    Raises: IntegrityError where they do not hash to the entry's id, FormatError where they do not
    decode.
    """
    data = decode_payload(entry.encoding, entry.payload, entry.plain_bytes)
    digest = blake3(data).digest()
    if digest != entry.chunk_id:
        raise IntegrityError("chunk", expected=f"blake3:{entry.chunk_id.hex()}", got=f"blake3:{digest.hex()}")
    return data
