"""Element types: the kinds of numbers in tensors, and their sizes in bytes.

Owns the table of names that layouts, encodings and manifests use.  The block types are ggml's
(`ggml/src/ggml-common.h`, llama.cpp, 2026-07); their scales are the byte ranges that hold nothing but
scales, minima and sums.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from yarnstore.errors import FormatError

Kind: TypeAlias = Literal["float", "int", "uint", "block", "bytes"]


@dataclass(frozen=True, slots=True)
class ElementType:
    """`block_elements` elements take `block_bytes` bytes, the smallest addressable unit.

    `kind` is how to read the bytes: numbers of `width` bytes (a complex number is two; a bool is a uint), a
    quantised block, or bytes (also for numbers of less than one byte).  `scales` are the ranges `(start,
    stop)` of a block's bytes that hold its scales; the others are its quants.
    """

    name: str
    block_elements: int
    block_bytes: int
    kind: Kind
    width: int = 1
    scales: tuple[tuple[int, int], ...] = ()

    def bytes_for(self, elements: int) -> int:
        """Return the size of `elements` in bytes, with the last block padded."""
        return -(-elements // self.block_elements) * self.block_bytes


def _numbers(kind: Kind, *names_and_widths: tuple[str, int]) -> list[ElementType]:
    return [ElementType(name, 1, width, kind, width) for name, width in names_and_widths]


def _block(name: str, elements: int, size: int, *scales: tuple[int, int]) -> ElementType:
    return ElementType(
        name=name, block_elements=elements, block_bytes=size, kind="block", width=1, scales=scales
    )


BYTES: Final = ElementType("bytes", 1, 1, "bytes")

_ALL: Final[tuple[ElementType, ...]] = (
    BYTES,
    *_numbers("float", ("f64", 8), ("f32", 4), ("f16", 2), ("bf16", 2)),
    *_numbers("float", ("f8_e4m3", 1), ("f8_e5m2", 1), ("f8_e4m3fnuz", 1), ("f8_e5m2fnuz", 1)),
    *_numbers("int", ("i64", 8), ("i32", 4), ("i16", 2), ("i8", 1)),
    *_numbers("uint", ("u64", 8), ("u32", 4), ("u16", 2), ("u8", 1), ("bool", 1), ("f8_e8m0", 1)),
    ElementType("c64", 1, 8, "float", 4),
    ElementType("c128", 1, 16, "float", 8),
    # Several elements per byte.
    ElementType("f4_e2m1", 2, 1, "bytes"),
    ElementType("f6_e2m3", 4, 3, "bytes"),
    ElementType("f6_e3m2", 4, 3, "bytes"),
    ElementType("i4", 2, 1, "bytes"),
    ElementType("u4", 2, 1, "bytes"),
    ElementType("i2", 4, 1, "bytes"),
    ElementType("u2", 4, 1, "bytes"),
    # ggml: d is the scale, m or dmin the minimum; qs, ql, qh and hmask are quants.
    _block("q1_0", 128, 18, (0, 2)),
    _block("q2_0", 64, 18, (0, 2)),
    _block("q4_0", 32, 18, (0, 2)),
    _block("q4_1", 32, 20, (0, 4)),
    _block("q5_0", 32, 22, (0, 2)),
    _block("q5_1", 32, 24, (0, 4)),
    _block("q8_0", 32, 34, (0, 2)),
    _block("q8_1", 32, 36, (0, 4)),
    _block("mxfp4", 32, 17, (0, 1)),
    _block("nvfp4", 64, 36, (0, 4)),
    _block("q2_k", 256, 84, (0, 16), (80, 84)),
    _block("q3_k", 256, 110, (96, 110)),
    _block("q4_k", 256, 144, (0, 16)),
    _block("q5_k", 256, 176, (0, 16)),
    _block("q6_k", 256, 210, (192, 210)),
    _block("q8_k", 256, 292, (0, 4), (260, 292)),
    _block("iq2_xxs", 256, 66, (0, 2)),
    _block("iq2_xs", 256, 74, (0, 2), (66, 74)),
    _block("iq2_s", 256, 82, (0, 2), (74, 82)),
    _block("iq3_xxs", 256, 98, (0, 2)),
    _block("iq3_s", 256, 110, (0, 2), (106, 110)),
    _block("iq1_s", 256, 50, (0, 2)),
    _block("iq1_m", 256, 56, (48, 56)),
    _block("iq4_nl", 32, 18, (0, 2)),
    _block("iq4_xs", 256, 136, (0, 8)),
    _block("tq1_0", 256, 54, (52, 54)),
    _block("tq2_0", 256, 66, (64, 66)),
)

ELEMENT_TYPES: Final[dict[str, ElementType]] = {element.name: element for element in _ALL}


# The most likely type of numbers of an unknown type, by their width in bytes.
LIKELY_TYPES: Final = {2: ELEMENT_TYPES["bf16"], 4: ELEMENT_TYPES["f32"], 8: ELEMENT_TYPES["f64"]}


def element_type(name: str) -> ElementType:
    """The element type of that name.  Raises: FormatError."""
    found = ELEMENT_TYPES.get(name)
    if found is None:
        raise FormatError("element type", f"is not known: {name[:40]!r}")
    return found
