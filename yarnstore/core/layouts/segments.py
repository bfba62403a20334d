"""The segments of a file: the plan that chunking follows.

A tensor of 64 KiB or more starts a segment and is cut every 1 MiB from there, on a boundary of its elements,
so that equal tensors give equal chunks at any offset, and chunk i of a tensor is compared with chunk i of its
earlier version.

Adjacent smaller tensors of one element type and alignment form a group of up to 1 MiB. A group of 256 KiB or
more ends before the next tensor whose name's checksum is a multiple of four.  This is a content-defined cut
over names: adding or removing a tensor changes its own group and rarely the next.  A group below 4 KiB is cut
with the bytes around it.

A version whose numbers correspond to those of an earlier one at other offsets is cut where that one is: the
caller gives such cuts of large tensors, and the pieces between them are cut every 1 MiB; those of 32-bit
numbers only from 2 MiB on.

All other ranges are `bytes`, which the caller cuts with FastCDC.  Readers follow the manifest and not this
plan, so it can change without a change of format; docs/format/chunking.md.  Pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple
from zlib import crc32

from yarnstore.core.layouts.elements import BYTES, ElementType
from yarnstore.core.layouts.limits import (
    GROUP_AVG_BYTES,
    GROUP_GAP_LIMIT_BYTES,
    GROUP_MIN_BYTES,
    SEGMENT_BYTES,
    SMALL_TENSOR_BYTES,
)
from yarnstore.core.layouts.model import Layout, Tensor
from yarnstore.errors import FormatError

_NAMES_PER_CUT = 4
# A piece of 32-bit numbers between given cuts is not cut again up to this length: they may have had 16 bits.
_CUT_PIECE_BYTES = 2 * SEGMENT_BYTES


class Segment(NamedTuple):
    """`length` bytes at `offset`: at most 2 MiB of whole elements of `dtype`, or any number of BYTES."""

    offset: int
    length: int
    dtype: ElementType


def cut_segments(layout: Layout | None, size_bytes: int, cuts: Sequence[int] = ()) -> list[Segment]:
    """Return segments that cover a file of `size_bytes` exactly, in order; without a layout, one segment of
    bytes.

    `cuts` are offsets, ascending, at which large tensors are cut too, and groups of small ones begin; a group
    that begins at one ends at the next.  Those within an element or a small tensor, or outside of tensors,
    are ignored.

    Raises: FormatError if the layout exceeds the file.
    """
    cutter = _Cutter(cuts)
    for tensor in layout.tensors if layout is not None else ():
        if tensor.length >= SMALL_TENSOR_BYTES:
            cutter.add_large(tensor)
        elif tensor.length:
            cutter.add_small(tensor)
    return cutter.finish(size_bytes)


class _Cutter:
    def __init__(self, cuts: Sequence[int]) -> None:
        self.cuts = cuts
        self.segments: list[Segment] = []
        self.done = 0  # everything before it is in a segment
        self.dtype = BYTES  # of the open group, from `start` to `end`; none where these are equal
        self.start = 0
        self.end = 0
        self.is_cut = False  # whether the group begins at one of `cuts`

    def is_cut_at(self, offset: int) -> bool:
        n = bisect_left(self.cuts, offset)
        return n < len(self.cuts) and self.cuts[n] == offset

    def add_small(self, tensor: Tensor) -> None:
        name, dtype, _, offset, length = tensor
        grown = offset + length - self.start
        if (
            dtype is not self.dtype
            or self.start == self.end
            or offset - self.end > GROUP_GAP_LIMIT_BYTES
            or (offset - self.start) % dtype.block_bytes
            or grown > SEGMENT_BYTES
            or self.is_cut_at(offset)
            or (
                not self.is_cut
                and self.end - self.start >= GROUP_AVG_BYTES
                and crc32(name.encode()) % _NAMES_PER_CUT == 0
            )
        ):
            self.close_group()
            self.dtype = dtype
            self.start = offset
            self.is_cut = self.is_cut_at(offset)
        self.end = offset + length

    def add_large(self, tensor: Tensor) -> None:
        self.close_group()
        _, dtype, _, offset, length = tensor
        self.add_bytes(offset)
        self.done = end = offset + length
        if dtype is BYTES:
            self.segments.append(Segment(offset, length, BYTES))
            return
        step = SEGMENT_BYTES // dtype.block_bytes * dtype.block_bytes
        given = self.cuts[bisect_left(self.cuts, offset) : bisect_left(self.cuts, end)]
        inner = [cut for cut in given if cut > offset and (cut - offset) % dtype.block_bytes == 0]
        for start, stop in pairwise([offset, *inner, end]):
            if given and dtype.width == 4 and stop - start <= _CUT_PIECE_BYTES:
                self.segments.append(Segment(start, stop - start, dtype))
                continue
            for at in range(start, stop, step):
                self.segments.append(Segment(at, min(step, stop - at), dtype))

    def close_group(self) -> None:
        if self.end - self.start >= GROUP_MIN_BYTES and self.dtype is not BYTES:
            self.add_bytes(self.start)
            self.segments.append(Segment(self.start, self.end - self.start, self.dtype))
            self.done = self.end
        self.start = self.end

    def add_bytes(self, end: int) -> None:
        """Cover the bytes outside tensors, up to `end`."""
        if end > self.done:
            self.segments.append(Segment(self.done, end - self.done, BYTES))
            self.done = end

    def finish(self, size_bytes: int) -> list[Segment]:
        self.close_group()
        self.add_bytes(size_bytes)
        if self.done > size_bytes:
            raise FormatError("layout", f"reaches beyond the {size_bytes} bytes of its file")
        return self.segments
