"""What kernels are: the transforms between the bytes of a chunk and the streams of its encoding.

Owns: their types.  There are two, with the same bytes: C in `yarnstore/native/`, and numpy in
`numpy_kernels`, which is the reference.  The callers check every length that a payload claims; a kernel is
given streams of exactly the lengths that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

Buffer = bytes | bytearray | memoryview

# Of the functions below: C kernels of another version were built from another commit.
VERSION: Final = 2


class Element(NamedTuple):
    """A number format; the exponent (its low 8 bits) starts at `exponent_bit`, -1 for integers."""

    code: int
    width: int
    exponent_bit: int = -1
    exponent_mask: int = 0


class Keys(NamedTuple):
    """The least and the greatest sort key of the elements of a difference; they are sorted if these differ.

    The first plane of sorted elements of two bytes is two streams of nibbles, unless it is `whole`.
    """

    low: int
    high: int
    whole: bool = False


class BlockLayout(NamedTuple):
    """A quantised block; its `scales` 16-bit scales begin at byte `scale_offset`."""

    block_bytes: int
    scale_offset: int
    scales: int


class Kernels(Protocol):
    """The transforms.  Streams that are returned may be used up by the thread's next call.

    The last of the streams that are joined is `rest`, what belongs to no element or block.
    """

    @property
    def NAME(self) -> str:  # noqa: N802 - a constant of a module
        """`c` or `numpy`."""

    def planes_split(self, data: Buffer, width: int, phase: int) -> Sequence[Buffer]:
        """The byte planes of the elements, rotated left by one bit."""

    def planes_join(self, streams: Sequence[Buffer], plain_length: int, width: int, phase: int) -> Buffer:
        """The chunk of these planes and of the bytes before and after them."""

    def key_counts(self, base: Buffer, element: Element, count: int, step: int) -> list[int]:
        """How often each exponent occurs among every `step`-th of the first `count` elements."""

    def delta_split(
        self, data: Buffer, base: Buffer, element: Element, keys: Keys
    ) -> tuple[Sequence[Buffer], list[int]]:
        """The streams of the difference, and where the elements of a key end if they are sorted."""

    def delta_join(
        self,
        streams: Sequence[Buffer],
        base: Buffer,
        plain_length: int,
        element: Element,
        keys: Keys,
    ) -> Buffer:
        """The chunk of these streams."""

    def blocks_split(self, data: Buffer, base: Buffer, layout: BlockLayout) -> Sequence[Buffer]:
        """Two planes of the scales' difference, and the difference of all other bytes."""

    def blocks_join(
        self, streams: Sequence[Buffer], base: Buffer, plain_length: int, layout: BlockLayout
    ) -> Buffer:
        """The chunk of these streams."""

    def count_nonzero(self, data: Buffer, enough: int) -> int:
        """How many bytes are not zero, or at least `enough` of them once so many were found."""

    def byte_counts(self, data: Buffer, start: int, step: int) -> list[int]:
        """How often each byte occurs at `start`, `start` + `step` …."""

    def sparse_split(self, data: Buffer) -> tuple[Buffer, Buffer]:
        """A bit mask, most significant bit first, of the bytes that are not zero, and these bytes."""

    def mask_count(self, mask: Buffer, length: int) -> int:
        """How many of the first `length` bits are set."""

    def sparse_join(self, mask: Buffer, values: Buffer, length: int) -> Buffer:
        """The inverse of `sparse_split`, with as many values as the mask has bits."""

    def symbols_split(self, plain: Buffer, per_byte: int, signed: bool) -> tuple[Buffer, Buffer]:
        """Symbols, so many to a byte, and by how much those that are escaped exceed the escape; `signed` ones
        are put in zigzag order."""

    def escapes_count(self, packed: Buffer, length: int, per_byte: int) -> int:
        """How many of the first `length` symbols are escapes."""

    def symbols_join(
        self, packed: Buffer, escaped: Buffer, length: int, per_byte: int, signed: bool
    ) -> Buffer:
        """The inverse of `symbols_split`, with as many escaped symbols as there are escapes."""


# Symbols in a byte of a packed stream, and how many symbols there are; the last one is the escape.
RADIX: Final = {2: 16, 3: 6, 4: 4, 5: 3, 8: 2}
