"""Encoding 2, `planes`: numbers split into byte planes, the plane of exponents Huffman-coded.

Owns: its payload.  Governed by docs/format/encodings.md.
The idea of separating exponents from mantissas is ZipNN's (arXiv:2411.05239).

    offset  bytes  field
    0       1      format of the payload, 1
    1       1      width: 2, 4 or 8 bytes per element
    2       1      phase: bytes before the first element, 0 … width − 1
    3       …      stream table and streams: plane 0 (least significant) … plane width − 1, rest

With n = (plain length − phase) // width elements, little-endian unsigned, each rotated left by one
bit (so that the sign is lowest and the exponent has the top byte to itself), plane i holds byte i of
every element: n bytes.  `rest` has the bytes outside elements: the phase bytes before the first,
then the plain length − phase − n · width bytes after the last.
"""

from __future__ import annotations

from typing import Final

from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.streams import check_plain_length, fault, pack_streams, unpack_streams
from yarnstore.core.encodings.transforms import Buffer

FORMAT: Final = 1
WIDTHS: Final = (2, 4, 8)


def encode_planes(data: Buffer, width: int, phase: int = 0) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`; `width` is 2, 4 or 8 bytes."""
    if width not in WIDTHS or not 0 <= phase < width:
        raise ValueError(f"no planes of width {width} at phase {phase}")
    count = max(0, len(data) - phase) // width
    if not count:
        return None
    end = phase + count * width
    rest = bytes(data[:phase]) + bytes(data[end:])
    streams = [*kernels.planes_split(data, width, phase), rest]
    parts = pack_streams([(stream, ()) for stream in streams])
    payload = b"".join([bytes((FORMAT, width, phase)), *parts])
    return payload if len(payload) < len(data) else None


def decode_planes(payload: Buffer, plain_length: int) -> Buffer:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    view = memoryview(payload)
    if len(view) < 3 or view[0] != FORMAT or view[1] not in WIDTHS or view[2] >= view[1]:
        raise fault("has an unknown planes header")
    width, phase = view[1], view[2]
    count = max(0, plain_length - phase) // width
    streams = unpack_streams(view[3:], [count] * width + [plain_length - count * width])
    return kernels.planes_join(streams, plain_length, width, phase)
