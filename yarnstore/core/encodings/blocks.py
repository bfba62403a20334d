"""Encoding 3, `delta-planes`, for quantised blocks: differences of scales and of quants in separate streams.

Owns: the difference of GGUF-like blocks.  Governed by docs/format/encodings.md.

    offset  bytes  field
    0       1      format of the payload, 1
    1       1      255, "quantised blocks"
    2       2      bytes per block, little-endian, 2 … 1024
    4       1      scale offset: where the block's 16-bit scales begin
    5       1      scales: how many 16-bit scales follow one another there, 1 … 8
    6       …      stream table and streams

With n = min(plain length, base length) // bytes per block, the streams are, for the n · scales
scales in order, the two byte planes of zigzag(new − base) as 16-bit integers (least significant
first); the n · (bytes per block − 2 · scales) other bytes, new − base modulo 256; and `rest`, the
bytes after the last block.
"""

from __future__ import annotations

import struct
from typing import Final

from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.planes import FORMAT
from yarnstore.core.encodings.streams import check_plain_length, fault, pack_streams, unpack_streams
from yarnstore.core.encodings.transforms import BlockLayout, Buffer

BLOCK_CODE: Final = 255
# The stream of the quants.
_SIGNED: Final = (2,)
_HEADER: Final = struct.Struct("<BBHBB")

# Sizes and places from ggml-common.h.
BLOCKS: Final = {
    "q4_0": BlockLayout(18, 0, 1),
    "q4_1": BlockLayout(20, 0, 2),
    "q5_0": BlockLayout(22, 0, 1),
    "q5_1": BlockLayout(24, 0, 2),
    "q8_0": BlockLayout(34, 0, 1),
    "q2_k": BlockLayout(84, 80, 2),
    "q3_k": BlockLayout(110, 108, 1),
    "q4_k": BlockLayout(144, 0, 2),
    "q5_k": BlockLayout(176, 0, 2),
    "q6_k": BlockLayout(210, 208, 1),
    "iq4_nl": BlockLayout(18, 0, 1),
    "iq4_xs": BlockLayout(136, 0, 1),
}


def encode_blocks(data: Buffer, base: Buffer, layout: BlockLayout, *, packed: bool = False) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`."""
    count = min(len(data), len(base)) // layout.block_bytes
    if not count:
        return None
    streams = [*kernels.blocks_split(data, base, layout), memoryview(data)[count * layout.block_bytes :]]
    header = _HEADER.pack(FORMAT, BLOCK_CODE, *layout)
    parts = pack_streams([(stream, ()) for stream in streams], packed=packed, signed=_SIGNED)
    payload = b"".join([header, *parts])
    return payload if len(payload) < len(data) else None


def decode_blocks(payload: memoryview, base: Buffer, plain_length: int, *, packed: bool = False) -> Buffer:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    if len(payload) < _HEADER.size:
        raise fault("ends inside its header")
    version, code, *fields = _HEADER.unpack_from(payload)
    layout = BlockLayout(*fields)
    width = layout.block_bytes
    if version != FORMAT or code != BLOCK_CODE or not 2 <= width <= 1024 or not 1 <= layout.scales <= 8:
        raise fault("has an unknown block header")
    if layout.scale_offset + 2 * layout.scales > width:
        raise fault("has scales outside its blocks")
    count = min(plain_length, len(base)) // width
    quant_bytes = width - 2 * layout.scales
    lengths = [count * layout.scales] * 2 + [count * quant_bytes, plain_length - count * width]
    streams = unpack_streams(payload[_HEADER.size :], lengths, packed=packed)
    return kernels.blocks_join(streams, base, plain_length, layout)
