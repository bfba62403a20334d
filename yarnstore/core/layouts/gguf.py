"""GGUF: llama.cpp's models, versions 2 and 3, little-endian.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.  Shapes have the slowest dimension first, the
reverse of the file's.  Each part of a split model is read as a file of its own.  Pure.
"""

from __future__ import annotations

import struct
from typing import Final

from yarnstore.core.layouts.elements import ELEMENT_TYPES, ElementType
from yarnstore.core.layouts.limits import (
    GGUF_LIMIT_ALIGNMENT_BYTES,
    GGUF_LIMIT_ARRAY_DEPTH,
    GGUF_LIMIT_KEYS,
    GGUF_LIMIT_NESTED_ARRAYS,
    GGUF_LIMIT_VALUES,
    HEADER_LIMIT_BYTES,
    LAYOUT_LIMIT_TENSORS,
    TENSOR_NAME_LIMIT_CHARS,
)
from yarnstore.core.layouts.model import Layout, Source, Tensor, make_layout
from yarnstore.errors import FormatError

NAME: Final = "gguf"
MAGIC: Final = b"GGUF"

# `enum ggml_type`.  31 to 33 and 36 to 38 were withdrawn; numbers above 42 belong to forks.
_TYPES: Final[dict[int, ElementType]] = {
    number: ELEMENT_TYPES[name]
    for number, name in {
        0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1",
        10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k",
        16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s",
        22: "iq2_s", 23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64",
        29: "iq1_m", 30: "bf16", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4",
        41: "q1_0", 42: "q2_0",
    }.items()
}  # fmt: skip

# `enum gguf_type`: the bytes of each fixed-width value.
_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_DIMENSIONS_LIMIT: Final = 8  # ggml has 4

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ARRAY_HEAD = struct.Struct("<IQ")
_TENSOR_TAIL = struct.Struct("<IQ")
_DIMENSIONS = [struct.Struct(f"<{count}Q") for count in range(_DIMENSIONS_LIMIT + 1)]


class _Head:
    """The start of the file, read as needed, and a position in it."""

    __slots__ = ("_source", "at", "data", "size", "values")

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = source.size
        self.data = bytearray()
        self.at = 0
        self.values = 0

    def need(self, end: int) -> None:
        """Read the file up to `end`."""
        have = len(self.data)
        if end <= have:
            return
        if end > min(self.size, HEADER_LIMIT_BYTES):
            # If the header is longer than the reader accepts, the file may still be valid.
            raise FormatError(NAME, "has a header without an end", is_cut=self.size <= HEADER_LIMIT_BYTES)
        want = min(max(end, 2 * have, 65536), self.size, HEADER_LIMIT_BYTES) - have
        self.data += self._source.read(have, want)[:want]
        if len(self.data) != have + want:
            raise FormatError(NAME, f"is shorter than its {self.size} bytes", is_cut=True)

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        at = self.at
        self.at = at + form.size
        if self.at > len(self.data):
            self.need(self.at)
        return form.unpack_from(self.data, at)

    def string(self, limit: int) -> bytes:
        (length,) = self.unpack(_U64)
        if length > limit:
            raise FormatError(NAME, f"has a name of {length} bytes")
        at = self.at
        self.at = at + length
        self.need(self.at)
        return bytes(self.data[at : self.at])

    def count_values(self, count: int) -> None:
        self.values += count
        if self.values > GGUF_LIMIT_VALUES:
            raise FormatError(NAME, f"has more than {GGUF_LIMIT_VALUES} metadata values")

    def skip_strings(self, count: int) -> None:
        self.count_values(count)
        at, data, have = self.at, self.data, len(self.data)
        unpack = _U64.unpack_from
        for _ in range(count):
            if at + 8 > have:
                self.need(at + 8)
                have = len(data)
            at += 8 + unpack(data, at)[0]
        self.at = at

    def skip_value(self, kind: int, depth: int = 0) -> None:
        width = _WIDTHS.get(kind)
        if width is not None:
            self.at += width
        elif kind == _STRING:
            self.skip_strings(1)
        elif kind == _ARRAY:
            self.skip_array(depth)
        else:
            raise FormatError(NAME, f"has a metadata value of the unknown type {kind}")

    def skip_array(self, depth: int) -> None:
        kind, count = self.unpack(_ARRAY_HEAD)
        width = _WIDTHS.get(kind)
        if width is not None:
            self.at += width * count
        elif kind == _STRING:
            self.skip_strings(count)
        elif kind == _ARRAY and depth < GGUF_LIMIT_ARRAY_DEPTH and count <= GGUF_LIMIT_NESTED_ARRAYS:
            self.count_values(count * (GGUF_LIMIT_VALUES // GGUF_LIMIT_NESTED_ARRAYS))
            for _ in range(count):
                self.skip_value(kind, depth + 1)
        else:
            raise FormatError(
                NAME,
                f"has an array of {count} values of type {kind}, which is too large, too deep or unknown",
            )


def parse_gguf(source: Source) -> Layout:
    """Return the layout of a GGUF file.  Raises: FormatError."""
    head = _Head(source)
    magic, version = head.unpack(struct.Struct("<II"))
    if magic != _U32.unpack(MAGIC)[0]:
        raise FormatError(NAME, "does not begin with GGUF")
    # Version 1 has 32-bit counts and was never published; in big-endian files the 3 is in the last byte.
    if version not in (2, 3):
        raise FormatError(NAME, f"has the unknown version {version:#x}")
    tensor_count, value_count = head.unpack(struct.Struct("<QQ"))
    if tensor_count > LAYOUT_LIMIT_TENSORS:
        raise FormatError(NAME, f"has {tensor_count} tensors; at most {LAYOUT_LIMIT_TENSORS} are read")
    alignment = _read_metadata(head, value_count)
    described = [_read_tensor_info(head) for _ in range(tensor_count)]
    data_at = -(-head.at // alignment) * alignment
    tensors = []
    for name, dtype, shape, offset in described:
        if offset % alignment:
            raise FormatError(NAME, "has a tensor that is not aligned")
        elements = 1
        for extent in shape:
            elements *= extent
        tensors.append(Tensor(name, dtype, shape, data_at + offset, dtype.bytes_for(elements)))
    return make_layout(NAME, tensors, head.size)


def read_texts(source: Source, keys: frozenset[str]) -> dict[str, str]:
    """Return those metadata values of a GGUF file that are texts, of the given keys.  Raises: FormatError."""
    head = _Head(source)
    magic, version, _, count = head.unpack(struct.Struct("<IIQQ"))
    if magic != _U32.unpack(MAGIC)[0] or version not in (2, 3) or count > GGUF_LIMIT_KEYS:
        raise FormatError(NAME, "does not begin as GGUF")
    found: dict[str, str] = {}
    for _ in range(count):
        key = head.string(65535).decode("utf-8", "replace")
        (kind,) = head.unpack(_U32)
        if key in keys and kind == _STRING:
            found[key] = head.string(HEADER_LIMIT_BYTES).decode("utf-8", "replace")
        else:
            head.skip_value(kind)
        if len(found) == len(keys):
            break
    return found


def _read_metadata(head: _Head, count: int) -> int:
    """Skip the metadata; return the alignment that it sets, in bytes."""
    if count > GGUF_LIMIT_KEYS:
        raise FormatError(NAME, f"has {count} metadata keys; at most {GGUF_LIMIT_KEYS} are read")
    alignment = 32
    for _ in range(count):
        key = head.string(65535)
        (kind,) = head.unpack(_U32)
        if key == b"general.alignment":
            if kind != _UINT32:
                raise FormatError(NAME, "has an alignment that is not a uint32")
            (alignment,) = head.unpack(_U32)
        else:
            head.skip_value(kind)
    if alignment & (alignment - 1) or not 0 < alignment <= GGUF_LIMIT_ALIGNMENT_BYTES:
        raise FormatError(
            NAME, f"has an alignment of {alignment}, not a power of 2 up to {GGUF_LIMIT_ALIGNMENT_BYTES}"
        )
    return alignment


def _read_tensor_info(head: _Head) -> tuple[str, ElementType, tuple[int, ...], int]:
    try:
        name = head.string(4 * TENSOR_NAME_LIMIT_CHARS).decode()
    except UnicodeDecodeError:
        raise FormatError(NAME, "has a tensor name that is not UTF-8") from None
    (rank,) = head.unpack(_U32)
    if rank > _DIMENSIONS_LIMIT:
        raise FormatError(NAME, f"has a tensor of {rank} dimensions; at most {_DIMENSIONS_LIMIT} are read")
    extents = head.unpack(_DIMENSIONS[rank])
    kind, offset = head.unpack(_TENSOR_TAIL)
    dtype = _TYPES.get(kind)
    if dtype is None:
        raise FormatError(NAME, f"has a tensor of the unknown type {kind}")
    # A block never spans two rows.
    if (extents[0] if extents else 1) % dtype.block_elements:
        raise FormatError(NAME, f"has a tensor whose rows are not whole blocks of {dtype.name}")
    return name, dtype, extents[::-1], offset
