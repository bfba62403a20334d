"""Bounded reads from a source, a few bytes at a time.

Reads short blocks for scattered reads and long ones for sequential reads, keeps one block, and counts the
bytes that it requested.  Pure.
"""

from __future__ import annotations

from yarnstore.core.layouts.limits import (
    HEADER_LIMIT_BYTES,
    READ_BLOCK_MAX_BYTES,
    READ_BLOCK_MIN_BYTES,
    READ_LIMIT_BYTES,
)
from yarnstore.core.layouts.model import Source
from yarnstore.errors import FormatError


class ReadWindow:
    """Exact reads for the format `what`; a short file or an exceeded limit is a FormatError."""

    __slots__ = ("_block_bytes", "_data", "_left_bytes", "_source", "_start", "size", "what")

    def __init__(self, source: Source, what: str) -> None:
        self.what = what
        self.size = source.size
        self._source = source
        self._start = 0
        self._data = b""
        self._block_bytes = READ_BLOCK_MIN_BYTES
        self._left_bytes = READ_LIMIT_BYTES

    def take(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes at `offset`.  Raises: FormatError if the file is too short."""
        data = self.peek(offset, length)
        if len(data) != length:
            raise FormatError(self.what, f"ends within {length} bytes at {offset}", is_cut=True)
        return data

    def peek(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`, or those up to the end of the file.  Raises: FormatError."""
        at = offset - self._start
        if at >= 0 and at + length <= len(self._data):
            return self._data[at : at + length]
        if length > HEADER_LIMIT_BYTES:
            raise FormatError(self.what, f"has a header of {length} bytes")
        if not 0 <= offset <= self.size:
            raise FormatError(self.what, "points outside of the file", is_cut=offset > self.size)
        self._fill(offset, min(length, self.size - offset))
        return self._data[:length]

    def _fill(self, offset: int, length: int) -> None:
        near = self._start <= offset <= self._start + len(self._data) + READ_BLOCK_MIN_BYTES
        self._block_bytes = min(self._block_bytes * 2, READ_BLOCK_MAX_BYTES) if near else READ_BLOCK_MIN_BYTES
        want = min(max(length, self._block_bytes), self.size - offset)
        self._left_bytes -= want
        if self._left_bytes < 0:
            raise FormatError(self.what, f"has more than {READ_LIMIT_BYTES} bytes of headers")
        self._data = self._source.read(offset, want)[:want]
        self._start = offset
        if len(self._data) < want:
            raise FormatError(self.what, f"is shorter than its {self.size} bytes", is_cut=True)
