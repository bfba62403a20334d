"""Encoding 4, `delta-zstd`: a chunk of text or unknown bytes, with its base as zstd's dictionary.

Governed by docs/format/encodings.md.

    offset  bytes  field
    0       1      format of the payload, 1
    1       …      one zstd frame that declares its content size, made with the whole base chunk as
                   raw-content dictionary
"""

from __future__ import annotations

import zstandard

from yarnstore.core import limits
from yarnstore.core.encodings.planes import FORMAT
from yarnstore.core.encodings.streams import check_plain_length, fault, read_frame
from yarnstore.core.encodings.transforms import Buffer


def encode_delta_zstd(data: Buffer, base: Buffer, level: int = 3) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`."""
    if not data or not base:
        return None
    params = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        dict_size=len(base),
        # The window is large enough to reach every byte of the base from the last byte of the chunk.
        window_log=max(10, (len(data) + len(base) - 1).bit_length()),
        write_content_size=True,
    )
    frame = zstandard.ZstdCompressor(compression_params=params, dict_data=_dictionary(base)).compress(data)
    return bytes((FORMAT,)) + frame if len(frame) + 1 < len(data) else None


def decode_delta_zstd(payload: Buffer, base: Buffer, plain_length: int) -> bytes:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    view = memoryview(payload)
    if not view or view[0] != FORMAT:
        raise fault("has an unknown delta-zstd header")
    if not base:
        raise fault("is a delta without a base")
    decompressor = zstandard.ZstdDecompressor(
        dict_data=_dictionary(base), max_window_size=limits.ZSTD_WINDOW_LIMIT_BYTES
    )
    return read_frame(view[1:], plain_length, decompressor)


def _dictionary(base: Buffer) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(bytes(base), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
