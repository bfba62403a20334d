"""Streams of bytes for `core/pickles`: a range of a source, or a decompressed stream.  Pure."""

from __future__ import annotations

import bz2
import lzma
import zlib
from abc import ABC, abstractmethod
from typing import Final, Protocol

from yarnstore.core.layouts.model import Source
from yarnstore.core.limits import KIB, MIB
from yarnstore.core.pickles import LINE_LIMIT_BYTES, Budget, BudgetError, Stream

_BLOCK_MIN_BYTES: Final = 4 * KIB
_BLOCK_MAX_BYTES: Final = 1 * MIB


class Buffered(ABC):
    """The buffer of a `Stream`, filled block by block."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0

    @abstractmethod
    def _more(self) -> bytes:
        """Return the next block, empty at the end."""

    def _pass_over(self, length: int) -> None:
        while length > 0 and (block := self._more()):
            self._data, self._at = block, min(length, len(block))
            length -= self._at

    def _fill(self, length: int) -> None:
        while len(self._data) - self._at < length and (block := self._more()):
            self._data, self._at = self._data[self._at :] + block, 0

    def take(self, length: int) -> bytes:
        if len(self._data) - self._at < length:
            self._fill(length)
        data = self._data[self._at : self._at + length]
        self._at += len(data)
        return data

    def skip(self, length: int) -> None:
        there = len(self._data) - self._at
        if length <= there:
            self._at += length
            return
        self._data, self._at = b"", 0
        self._pass_over(length - there)

    def line(self) -> bytes | None:
        end = self._data.find(b"\n", self._at)
        while end < 0 and len(self._data) - self._at < LINE_LIMIT_BYTES:
            before = len(self._data) - self._at
            self._fill(before + 1)
            if len(self._data) - self._at == before:
                return None
            end = self._data.find(b"\n", self._at + before)
        if not 0 <= end - self._at < LINE_LIMIT_BYTES:
            raise BudgetError("has a very long line")
        line = self._data[self._at : end]
        self._at = end + 1
        return line


class Blocks(Buffered):
    """A range of a source."""

    def __init__(self, source: Source, at: int, end: int) -> None:
        super().__init__()
        self._source = source
        self._next = at
        self._end = min(end, source.size)
        self._block_bytes = _BLOCK_MIN_BYTES

    def _more(self) -> bytes:
        length = min(self._block_bytes, self._end - self._next)
        if length <= 0:
            return b""
        data = self._source.read(self._next, length)
        self._next += len(data)
        self._block_bytes = min(2 * self._block_bytes, _BLOCK_MAX_BYTES)
        return data

    def _pass_over(self, length: int) -> None:
        self._next += length


class Decompressor(Protocol):
    """A decompressor of the standard library."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...


class Unpacked(Buffered):
    """A decompressed stream, read block by block."""

    def __init__(self, packed: Stream, decompressor: Decompressor, budget: Budget) -> None:
        super().__init__()
        self._packed = packed
        self._decompressor = decompressor
        self._budget = budget

    def _more(self) -> bytes:
        tool = self._decompressor
        while not tool.eof:
            rest = getattr(tool, "unconsumed_tail", b"")  # zlib returns unread input, the others keep it
            fed = rest
            if not rest and getattr(tool, "needs_input", True):
                fed = self._packed.take(16 * KIB)
            try:
                data = tool.decompress(fed, 64 * KIB)
            except Exception as error:
                raise BudgetError("cannot be decompressed") from error
            self._budget.unpacked_bytes -= len(data)
            if self._budget.unpacked_bytes < 0:
                raise BudgetError("decompresses to too many bytes")
            if data or not fed:
                return data
        return b""


def decompressor_for(head: bytes) -> Decompressor | None:
    """Return the decompressor for the first bytes of a compressed pickle: gzip, zlib, bzip2, xz, lzma."""
    if head.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31)
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return zlib.decompressobj()
    if head.startswith(b"BZh"):
        return bz2.BZ2Decompressor()
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return lzma.LZMADecompressor(memlimit=128 * MIB)
    return None
