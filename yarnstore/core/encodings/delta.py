"""Encoding 3, `delta-planes`: the differences of two arrays of numbers, as byte planes.

Owns: the difference of number elements, plain and sorted; `blocks` does quantised blocks. Governed by
docs/format/encodings.md.  The order of floats of one sign is that of their bits as integers, so the integer
difference counts the representable values between them; floats that change sign are rare and cost more.
Sorting by the base's exponent stores no permutation, since the reader has the base.

    offset  bytes  field
    0       1      format of the payload, 1
    1       1      element code, see ELEMENTS; 255 is a quantised block (see `blocks`)
    2       1      low: the least sort key
    3       1      high: the greatest sort key; low = high means not sorted
    4       …      stream table and streams

With n = min(plain length, base length) // width elements, for each element

    d = new − base, as little-endian integers of that width, wrapping
    z = zigzag(d) = (d << 1) ^ (d >> bits − 1), the second shift arithmetic

and the streams are the byte planes of z, least significant first, then `rest`, the bytes after the
last element.  If sorted, z is first put in stable order of min(max(exponent of base, low), high),
and for elements of two bytes plane 0 is two streams, its low and its high nibbles, two to a byte
(the first in the low half), ceil(n / 2) bytes each.
"""

from __future__ import annotations

from typing import Final

from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.planes import FORMAT
from yarnstore.core.encodings.streams import check_plain_length, fault, pack_streams, unpack_streams
from yarnstore.core.encodings.transforms import Buffer, Element

ELEMENTS: Final = {
    "i8": Element(0, 1),
    "i16": Element(1, 2),
    "i32": Element(2, 4),
    "i64": Element(3, 8),
    "bf16": Element(4, 2, 7, 0xFF),
    "f16": Element(5, 2, 10, 0x1F),
    "f32": Element(6, 4, 23, 0xFF),
    "f64": Element(7, 8, 52, 0xFF),
}
_BY_CODE: Final = {element.code: element for element in ELEMENTS.values()}
_HEADER_BYTES: Final = 4
# Keys outside these quantiles of a sample are clipped: rare exponents do not justify a Huffman table.
_CLIP_SHARE: Final = 0.04


def encode_numbers(data: Buffer, base: Buffer, name: str, *, sort: bool) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`."""
    element = ELEMENTS[name]
    width = element.width
    count = min(len(data), len(base)) // width
    if not count:
        return None
    low = high = 0
    if sort and element.exponent_mask:
        low, high = _key_range(base, element, count)
    planes, cuts = kernels.delta_split(data, base, element, (low, high))
    streams: list[tuple[Buffer, list[int]]] = [(plane, cuts) for plane in planes]
    if low < high and width == 2:
        half = [cut // 2 for cut in cuts]
        streams[:2] = [(plane, half) for plane in planes[:2]]
    rest = memoryview(data)[count * width :]
    payload = b"".join([bytes((FORMAT, element.code, low, high)), *pack_streams([*streams, (rest, [])])])
    return payload if len(payload) < len(data) else None


def decode_numbers(payload: memoryview, base: Buffer, plain_length: int) -> Buffer:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    if len(payload) < _HEADER_BYTES or payload[0] != FORMAT or payload[1] not in _BY_CODE:
        raise fault("has an unknown delta-planes header")
    element = _BY_CODE[payload[1]]
    low, high = payload[2], payload[3]
    if low > high or (low < high and not element.exponent_mask):
        raise fault("has invalid sort keys")
    width = element.width
    count = min(plain_length, len(base)) // width
    lengths = [count] * width + [plain_length - count * width]
    if low < high and width == 2:
        lengths[:1] = [(count + 1) // 2] * 2
    streams = unpack_streams(payload[_HEADER_BYTES:], lengths)
    return kernels.delta_join(streams, base, plain_length, element, (low, high))


def _key_range(base: Buffer, element: Element, count: int) -> tuple[int, int]:
    # An odd step: with an even one, rows of even length would always be sampled in the same columns.
    counts = kernels.key_counts(base, element, count, count // 4096 | 1)
    size = sum(counts)
    edge = int(size * _CLIP_SHARE)
    return _key_at(counts, edge), _key_at(counts, size - 1 - edge)


def _key_at(counts: list[int], rank: int) -> int:
    """The key at a rank, from 0, of the sorted sample."""
    key = 0
    while rank >= counts[key]:
        rank -= counts[key]
        key += 1
    return key
