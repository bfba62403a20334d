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

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.encodings.order import KeyOrder
from yarnstore.core.encodings.planes import FORMAT, join_planes, split_planes
from yarnstore.core.encodings.streams import (
    Buffer,
    Bytes,
    check_plain_length,
    fault,
    pack_streams,
    scratch,
    unpack_streams,
    unzigzag,
    zigzag,
)


class Element(NamedTuple):
    """A number format; the exponent (its low 8 bits) starts at `exponent_bit`, -1 for integers."""

    code: int
    width: int
    exponent_bit: int = -1
    exponent_mask: int = 0


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
    old = np.frombuffer(base, f"<u{width}", count)
    steps = scratch.take("a", count, f"u{width}")
    np.subtract(np.frombuffer(data, f"<u{width}", count), old, out=steps)
    zigzag(steps)
    low = high = 0
    cuts: list[int] = []
    if sort and element.exponent_mask:
        keys = _exponents(old, element)
        low, high = _key_range(keys)
        if low < high:
            order = KeyOrder(_clip(keys, low, high), low, high)
            cuts = order.cuts
            sorted_ = scratch.take("b", count, f"u{width}")
            order.apply(steps, sorted_)
            steps = sorted_
    streams = [(plane, cuts) for plane in split_planes(steps)]
    if low < high and width == 2:
        half = [cut // 2 for cut in cuts]
        streams[:1] = [(plane, half) for plane in _split_nibbles(streams[0][0])]
    rest = np.frombuffer(data, np.uint8, len(data) - count * width, count * width)
    payload = b"".join([bytes((FORMAT, element.code, low, high)), *pack_streams([*streams, (rest, ())])])
    return payload if len(payload) < len(data) else None


def decode_numbers(payload: memoryview, base: Buffer, plain_length: int) -> memoryview:
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
    sort = low < high
    nibbles = sort and width == 2
    lengths = [count] * width + [plain_length - count * width]
    if nibbles:
        lengths[:1] = [(count + 1) // 2] * 2
    *planes, rest = unpack_streams(payload[_HEADER_BYTES:], lengths)
    if nibbles:
        planes[:2] = [_join_nibbles(planes[0], planes[1], count)]
    steps = scratch.take("a", count, f"u{width}")
    join_planes(planes, steps)
    old = np.frombuffer(base, f"<u{width}", count)
    if sort:
        order = KeyOrder(_clip(_exponents(old, element), low, high), low, high)
        unsorted = scratch.take("b", count, f"u{width}")
        order.undo(steps, unsorted)
        steps = unsorted
    unzigzag(steps)
    plain = np.empty(plain_length, np.uint8)
    end = count * width
    np.add(steps, old, out=plain[:end].view(f"<u{width}"))
    plain[end:] = rest
    return plain.data


def _exponents(old: NDArray[Any], element: Element) -> Bytes:
    shifted = scratch.take("wide", old.size, f"u{element.width}")
    np.right_shift(old, element.exponent_bit, out=shifted)
    keys: Bytes = scratch.take("keys", old.size)
    np.copyto(keys, shifted, casting="unsafe")
    if element.exponent_mask != 0xFF:
        np.bitwise_and(keys, element.exponent_mask, out=keys)
    return keys


def _key_range(keys: Bytes) -> tuple[int, int]:
    # An odd step: with an even one, rows of even length would always be sampled in the same columns.
    sample = np.sort(keys[:: keys.size // 4096 | 1])
    edge = int(sample.size * _CLIP_SHARE)
    return int(sample[edge]), int(sample[-1 - edge])


def _clip(keys: Bytes, low: int, high: int) -> Bytes:
    np.clip(keys, low, high, out=keys)
    return keys


def _split_nibbles(plane: Bytes) -> list[Bytes]:
    """Low nibbles and high nibbles, two to a byte, in scratch."""
    if plane.size % 2:
        plane = np.append(plane, np.uint8(0))
    pairs = scratch.take("pairs", plane.size // 2, "u2")
    np.copyto(pairs, plane.view("<u2"))
    _swap_middle(pairs)
    return split_planes(pairs, "nibbles")


def _join_nibbles(low: Bytes, high: Bytes, count: int) -> Bytes:
    """The inverse of `_split_nibbles`: `count` bytes, in scratch."""
    pairs = scratch.take("pairs", low.size, "u2")
    join_planes([low, high], pairs)
    _swap_middle(pairs)
    return pairs.view(np.uint8)[:count]


def _swap_middle(pairs: NDArray[Any]) -> None:
    """Exchange the two middle nibbles of every uint16 in place; it is its own inverse."""
    change = scratch.take("wide", pairs.size, "u2")
    np.right_shift(pairs, 4, out=change)
    np.bitwise_xor(change, pairs, out=change)
    np.bitwise_and(change, 0x00F0, out=change)
    np.bitwise_xor(pairs, change, out=pairs)
    np.left_shift(change, 4, out=change)
    np.bitwise_xor(pairs, change, out=pairs)
