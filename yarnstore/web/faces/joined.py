"""Bytes and files of a version, one after the other, as one content that can be read anywhere."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

from yarnstore.results import StoredFile, VersionFile

Part = bytes | VersionFile


def size_of(parts: Sequence[Part]) -> int:
    """Return how many bytes some parts have."""
    return sum(_size_of(part) for part in parts)


def _size_of(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part.size_bytes


class Joined:
    """The content.  One file is open at a time, the `first` one until the end: `gc` keeps its version."""

    def __init__(
        self, parts: Sequence[Part], open_file: Callable[[str], StoredFile], first: StoredFile | None
    ) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(_size_of, parts)))
        self._open_file = open_file
        self._first = first
        self._file = first

    def read_at(self, offset: int, length: int) -> bytes:
        """Return some bytes of a range, fewer where a part ends, none at the end of the content.

        Raises: YarnstoreError, as `StoredFile.read_at`.
        """
        number = bisect_right(self._ends, offset)
        if number == len(self._ends):
            return b""
        part, end = self._parts[number], self._ends[number]
        start, length = offset - (end - _size_of(part)), min(length, end - offset)
        return (
            part[start : start + length]
            if isinstance(part, bytes)
            else self._opened(part.path).read_at(start, length)
        )

    def _opened(self, path: str) -> StoredFile:
        if self._file is None or self._file.path != path:
            opened = self._open_file(path)
            self._close_current()
            self._file = opened
        return self._file

    def _close_current(self) -> None:
        if self._file is not None and self._file is not self._first:
            self._file.close()

    def close(self) -> None:
        """Close all files."""
        self._close_current()
        if self._first is not None:
            self._first.close()
