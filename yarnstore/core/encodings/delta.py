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
(the first in the low half), ceil(n / 2) bytes each; in payloads of encoding 5 it is whole.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import Final

from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.planes import FORMAT
from yarnstore.core.encodings.streams import check_plain_length, fault, pack_streams, unpack_streams
from yarnstore.core.encodings.transforms import Buffer, Element, Keys

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
WIDTHS: Final = {element.code: element.width for element in ELEMENTS.values()}
_HEADER_BYTES: Final = 4
# Keys outside these quantiles of a sample are clipped: rare exponents do not justify a Huffman table.
_CLIP_SHARE: Final = 0.04
# Packed streams have a table for several keys if these are alike.
_CLIP_SHARE_PACKED: Final = 0.01


def encode_numbers(
    data: Buffer, base: Buffer, element: Element, *, sort: bool, packed: bool = False
) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`."""
    width = element.width
    count = min(len(data), len(base)) // width
    if not count:
        return None
    low = high = 0
    if sort and element.exponent_mask:
        low, high = _key_range(base, element, count, _CLIP_SHARE_PACKED if packed else _CLIP_SHARE)
    planes, cuts = kernels.delta_split(data, base, element, Keys(low, high, packed))
    streams: list[tuple[Buffer, list[int]]] = [(plane, cuts) for plane in planes]
    if low < high and width == 2 and not packed:
        half = [cut // 2 for cut in cuts]
        streams[:2] = [(plane, half) for plane in planes[:2]]
    rest = memoryview(data)[count * width :]
    parts = pack_streams([*streams, (rest, [])], packed=packed)
    payload = b"".join([bytes((FORMAT, element.code, low, high)), *parts])
    return payload if len(payload) < len(data) else None


def decode_numbers(
    payload: memoryview, base: Buffer, plain_length: int, *, packed: bool = False, shift: int = 0
) -> Buffer:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    if len(payload) < _HEADER_BYTES or payload[0] != FORMAT or payload[1] not in _BY_CODE:
        raise fault("has an unknown delta-planes header")
    element = _BY_CODE[payload[1]]
    if shift:
        element = shifted(element, shift)
    low, high = payload[2], payload[3]
    if low > high or (low < high and not element.exponent_mask):
        raise fault("has invalid sort keys")
    width = element.width
    count = min(plain_length, len(base)) // width
    lengths = [count] * width + [plain_length - count * width]
    if low < high and width == 2 and not packed:
        lengths[:1] = [(count + 1) // 2] * 2
    streams = unpack_streams(payload[_HEADER_BYTES:], lengths, packed=packed)
    return kernels.delta_join(streams, base, plain_length, element, Keys(low, high, packed))


def shifted(element: Element, shift: int) -> Element:
    """Return a format whose `shift` lowest bits are left out.  Raises FormatError if it has no such bits."""
    bits = element.exponent_bit if element.exponent_mask else 8 * element.width - 1
    if shift > bits:
        raise fault("shifts its numbers by more than they have")
    return element._replace(exponent_bit=element.exponent_bit - shift) if element.exponent_mask else element


def _key_range(base: Buffer, element: Element, count: int, clip_share: float) -> tuple[int, int]:
    # An odd step: with an even one, rows of even length would always be sampled in the same columns.
    counts = kernels.key_counts(base, element, count, count // 4096 | 1)
    ends = list(accumulate(counts))
    edge = int(ends[-1] * clip_share)
    return bisect_right(ends, edge), bisect_right(ends, ends[-1] - 1 - edge)
