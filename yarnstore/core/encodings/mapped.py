"""Encoding 5, `delta-mapped`: the difference from a base chunk that is mapped first.

Owns: the mappings, the conversion of floats and new zeros.  Governed by docs/format/encodings.md.  The
difference itself is a payload of encoding 3, whose streams may be packed (see `symbols`).

    offset  bytes  field
    0       1      format of the payload, 1
    1       1      type of the base: 4 bf16, 5 f16, 6 f32; 0 if nothing is converted
    2       1      type of the chunk, likewise
    3       1      type in which the difference is computed, likewise
    4       1      flags: bit 0, a mask of new zeros; bit 1, these keep the sign bit; the others 0
    5       1      shift: how many of the lowest bits of all elements are left out
    6       4      if bit 0 is set: length of the mask's stream table and stream, then these
    …              the difference, a payload of encoding 3

The base is converted to the type of the difference, rounding to nearest, ties to even; elements that the mask
names are set to 0; its elements are shifted to the right; the difference gives the chunk in that type, which
is shifted back; and this is converted to the type of the chunk, which must not lose anything.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.encodings.blocks import BLOCK_CODE, BLOCKS, decode_blocks, encode_blocks
from yarnstore.core.encodings.delta import ELEMENTS, WIDTHS, decode_numbers, encode_numbers, shifted
from yarnstore.core.encodings.kernels import kernels
from yarnstore.core.encodings.planes import FORMAT
from yarnstore.core.encodings.streams import (
    check_plain_length,
    entropy_bits,
    fault,
    pack_streams,
    unpack_streams,
)
from yarnstore.core.encodings.transforms import Buffer, Element, Keys

Bits = NDArray[Any]

_HEADER: Final = struct.Struct("<6B")
_MASK: Final = 1
_SIGNED_ZEROS: Final = 2
# The part of a chunk, a multiple of all widths and blocks in length, by which ways to encode it are compared.
SAMPLED: Final = slice(0, 128 * 1024)
# The part of that in which bytes are counted.
_COUNTED: Final = slice(0, 32 * 1024)
# Sorting the elements must save so much of it.
SORT_SHARE: Final = 0.99
# A mapped difference must be so much smaller than one that is not; of a whole chunk a little more, since in a
# sample tables have a larger share.
SAMPLE_SHARE: Final = 0.96
# Floats that can be converted, by name, with their widths.
MAPPED_FLOATS: Final = {"bf16": 2, "f16": 2, "f32": 4}
_FLOATS: Final = {ELEMENTS[name].code: name for name in MAPPED_FLOATS}
# Of a difference of floats with so many bits for each element, no symbol is common enough for several in a
# byte to pay; new zeros, unused bits, or leaving the elements in their order may.
_PACKED_BITS: Final = 2.0
# The order of the elements counts if so many groups of eight did not change.
_UNCHANGED_SHARE: Final = 1 / 64
_EIGHT_EQUAL: Final = 0x0101010101010101
# A mask of new zeros is tried if so many elements of the chunk are 0.
_ZEROS_SHARE: Final = 0.1


class Mapping(NamedTuple):
    """The types of the base, of the chunk, and of the difference: names of floats."""

    base: str
    chunk: str
    work: str


def find_mapping(data: Buffer, element: str, base_element: str) -> Mapping | None:
    """Return the mapping of floats that loses nothing of a chunk and has the narrowest difference; None if
    nothing is to be converted.
    """
    if (
        element not in MAPPED_FLOATS
        or base_element not in MAPPED_FLOATS
        or len(data) % MAPPED_FLOATS[element]
    ):
        return None
    if element == "f32":
        bits = _words(data, "f32")
        for work in ("bf16", "f16"):
            if _loses_nothing(bits, work):
                return Mapping(base_element, element, work)
    return Mapping(base_element, element, element) if element != base_element else None


def may_pay(data: Buffer, base: Buffer, element: str, plain_bytes: int) -> bool:
    """Whether a mapped difference without a mapping may be smaller than one that has `plain_bytes`."""
    if element not in MAPPED_FLOATS or 8 * plain_bytes < _PACKED_BITS * (len(data) // MAPPED_FLOATS[element]):
        return True
    part, of_base = (memoryview(one)[SAMPLED] for one in (data, base))
    new, old = _words(part, element), _words(of_base, element)
    count = min(len(new), len(old)) // 8 * 8
    if not count:
        return True
    same = new[:count] == old[:count]
    if (
        np.count_nonzero(new == 0) >= _ZEROS_SHARE * len(new)
        or not int(np.bitwise_or.reduce(new)) & 1
        or np.count_nonzero(same.view("<u8") == _EIGHT_EQUAL) >= _UNCHANGED_SHARE * (count // 8)
    ):
        return True
    planes, _ = kernels.delta_split(part[_COUNTED], of_base[_COUNTED], ELEMENTS[element], Keys(0, 0))
    bits = sum(entropy_bits(kernels.byte_counts(plane, 0, 1)) for plane in planes)
    return bits * (len(data) // MAPPED_FLOATS[element]) < 8 * SAMPLE_SHARE * plain_bytes


def encode_mapped(
    data: Buffer, base: Buffer, element: str, mapping: Mapping | None, *, sort: bool | None = None
) -> bytes | None:
    """The payload, or None when it would not be smaller than `data`.

    `element` is a key of ELEMENTS or of BLOCKS; without a `mapping` nothing is converted.  Without `sort`, a
    sample decides whether floats are sorted.
    """
    codes = [0, 0, 0]
    work: Buffer = data
    ours: Buffer = base
    if mapping is not None:
        codes = [ELEMENTS[name].code for name in mapping]
        work, ours = _convert(data, mapping.chunk, mapping.work), _convert(base, mapping.base, mapping.work)
        element = mapping.work
    flags, shift, parts = 0, 0, b""
    if element in MAPPED_FLOATS and (zeros := _new_zeros(work, ours, element)) is not None:
        mask, signed = zeros
        flags = _MASK | (_SIGNED_ZEROS if signed else 0)
        parts = b"".join(pack_streams([(np.packbits(mask).tobytes(), ())]))
        parts = struct.pack("<I", len(parts)) + parts
        ours = _zeroed(ours, mask, element, signed=signed)
    if element in BLOCKS:
        inner = encode_blocks(work, ours, BLOCKS[element], packed=True)
    else:
        shift = _unused_bits(work, element)
        work, ours = (_shift(one, ELEMENTS[element].width, shift) for one in (work, ours))
        number = shifted(ELEMENTS[element], shift)
        if sort is None:
            sort = _sorts_best(work, ours, number)
        inner = encode_numbers(work, ours, number, sort=sort, packed=True)
    if inner is None:
        return None
    payload = _HEADER.pack(FORMAT, *codes, flags, shift) + parts + inner
    return payload if len(payload) < len(data) else None


def _sorts_best(work: Buffer, base: Buffer, element: Element) -> bool:
    if not element.exponent_mask:
        return False
    part, of_base = (memoryview(one)[SAMPLED] for one in (work, base))
    sizes = [
        len(encode_numbers(part, of_base, element, sort=sort, packed=True) or part) for sort in (True, False)
    ]
    return sizes[0] < SORT_SHARE * sizes[1]


def decode_mapped(payload: Buffer, base: Buffer, plain_length: int) -> Buffer:
    """The chunk's `plain_length` bytes.  Raises FormatError."""
    check_plain_length(plain_length)
    view = memoryview(payload)
    if len(view) < _HEADER.size:
        raise fault("ends inside its header")
    version, *codes, flags, shift = _HEADER.unpack_from(view)
    if version != FORMAT or flags not in (0, _MASK, _MASK | _SIGNED_ZEROS):
        raise fault("has an unknown delta-mapped header")
    view = view[_HEADER.size :]
    work_length, chunk, work = plain_length, "", ""
    if any(codes):
        if not all(code in _FLOATS for code in codes):
            raise fault("converts a type that is no float")
        source, chunk, work = (_FLOATS[code] for code in codes)
        if plain_length % MAPPED_FLOATS[chunk] or MAPPED_FLOATS[work] > MAPPED_FLOATS[chunk]:
            raise fault("converts to a type that does not fit its chunk")
        work_length = plain_length // MAPPED_FLOATS[chunk] * MAPPED_FLOATS[work]
        base = _convert(base, source, work)
    if flags & _MASK:
        base, view = _apply_mask(view, base, work_length, signed=bool(flags & _SIGNED_ZEROS))
    if len(view) < 2:
        raise fault("ends inside its header")
    if view[1] == BLOCK_CODE:
        if shift:
            raise fault("shifts what is no number")
        data = decode_blocks(view, base, work_length, packed=True)
    else:
        width = WIDTHS.get(view[1], 1)
        base = _shift(base, width, shift)
        data = _shift(decode_numbers(view, base, work_length, packed=True, shift=shift), width, -shift)
    return _convert(data, work, chunk) if chunk else data


def _apply_mask(
    view: memoryview, base: Buffer, work_length: int, *, signed: bool
) -> tuple[Buffer, memoryview]:
    """Return the base with the elements of the mask set to 0, and the rest of the payload."""
    if len(view) < 4:
        raise fault("ends inside its header")
    (length,) = struct.unpack_from("<I", view)
    end = 4 + length
    # The element's width is that of the difference, whose header follows the mask.
    if length > len(view) - 4 or len(view) < end + 2:
        raise fault("ends inside its mask")
    element = _FLOATS.get(view[end + 1])
    if element is None:
        raise fault("has a mask for elements that are no floats")
    count = min(len(base), work_length) // MAPPED_FLOATS[element]
    (mask,) = unpack_streams(view[4:end], [(count + 7) // 8])
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=count).astype(bool)
    return _zeroed(base, bits, element, signed=signed), view[end:]


def _words(data: Buffer, element: str) -> Bits:
    width = MAPPED_FLOATS[element]
    return np.frombuffer(data, f"<u{width}", len(data) // width)


def _new_zeros(work: Buffer, base: Buffer, element: str) -> tuple[NDArray[np.bool_], bool] | None:
    """Return where the chunk has zeros that the base does not have, and whether these keep the base's sign;
    None if they are few.
    """
    new, old = _words(work, element), _words(base, element)
    count = min(len(new), len(old))
    new, old = new[:count], old[:count]
    top = new.dtype.type(1 << (8 * MAPPED_FLOATS[element] - 1))
    gone = old & ~top != 0
    found, mask = 0, None
    for signed, zeros in ((False, new == 0), (True, new == old & top)):
        zeros &= gone
        size = int(np.count_nonzero(zeros))
        if size > found and size >= _ZEROS_SHARE * count:
            found, mask = size, (zeros, signed)
    return mask


def _zeroed(base: Buffer, mask: NDArray[np.bool_], element: str, *, signed: bool) -> bytes:
    words = _words(base, element).copy()
    # All bits of an element that is kept; indexing by a mask takes ten times as long.
    kept = mask.astype(words.dtype)
    kept -= words.dtype.type(1)
    if signed:
        kept |= words.dtype.type(1 << (8 * MAPPED_FLOATS[element] - 1))
    words[: len(mask)] &= kept
    return words.tobytes()


def _unused_bits(data: Buffer, element: str) -> int:
    """Return how many of the lowest bits are 0 in all elements, without the exponent's."""
    _, width, exponent_bit, mask = ELEMENTS[element]
    words = np.frombuffer(data, f"<u{width}", len(data) // width)
    used = int(np.bitwise_or.reduce(words)) if width > 1 else 0
    return min((used & -used).bit_length() - 1, exponent_bit if mask else 8 * width - 1) if used else 0


def _shift(data: Buffer, width: int, bits: int) -> Buffer:
    """Shift whole elements to the right, or to the left by less than 0; bytes after the last one stay."""
    if not bits:
        return data
    end = len(data) // width * width
    words = np.frombuffer(data, f"<u{width}", len(data) // width)
    moved: Bits = words >> words.dtype.type(bits) if bits > 0 else words << words.dtype.type(-bits)
    return b"".join([moved.tobytes(), memoryview(data)[end:]])


def _loses_nothing(bits: NDArray[np.uint32], work: str) -> bool:
    """Whether float32 numbers, as bits, are numbers of a narrower type."""
    for start in (0, *range(4096, len(bits), 1 << 16)):  # most chunks fail at once
        part = bits[start : start + (1 << 16 if start else 4096)]
        if not np.array_equal(
            _words(_convert(_convert(part.tobytes(), "f32", work), work, "f32"), "f32"), part
        ):
            return False
    return True


def _convert(data: Buffer, source: str, target: str) -> Buffer:
    """Convert whole elements, rounding to nearest, ties to even."""
    if source == target:
        return data
    bits = _widen(_words(data, source), source)
    return bits.tobytes() if target == "f32" else _narrow(bits, target).tobytes()


def _widen(words: Bits, source: str) -> NDArray[np.uint32]:
    """Return the bits of float32 numbers of the same value; those of NaN are shifted."""
    if source == "f32":
        return words
    if source == "bf16":
        return np.left_shift(words, 16, dtype=np.uint32)
    bits = words.view("<f2").astype("<f4").view("<u4")
    nan = (words & 0x7FFF) > 0x7C00
    if nan.any():  # processors set a bit of those
        wide = words[nan].astype(np.uint32)
        bits[nan] = (wide & 0x8000) << 16 | 0x7F800000 | (wide & 0x3FF) << 13
    return bits


def _narrow(bits: NDArray[np.uint32], target: str) -> NDArray[np.uint16]:
    """Round float32 numbers, as bits; of NaN the highest bits stay, and one is set if these are all 0."""
    nan = (bits & 0x7FFFFFFF) > 0x7F800000
    if target == "bf16":
        words = ((bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16).astype("<u2")
        kept = bits >> 16
        quiet = np.where(kept & 0x7F, kept, kept | 0x40)
    else:
        with np.errstate(all="ignore"):
            words = bits.view("<f4").astype("<f2").view("<u2")
        kept = (bits >> 13) & 0x3FF
        quiet = (bits >> 16) & 0x8000 | 0x7C00 | np.where(kept, kept, 0x200)
    if nan.any():
        words = np.where(nan, quiet, words).astype("<u2")
    return words
