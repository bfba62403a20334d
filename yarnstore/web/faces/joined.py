"""Bytes and files of a version, one after the other, as one content that can be read anywhere."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from yarnstore.results import StoredFile, VersionFile

Part = bytes | VersionFile


def size_of(parts: Sequence[Part]) -> int:
    """Return how many bytes some parts have."""
    return sum(_size_of(part) for part in parts)


def _size_of(part: Part) -> int:
    return len(part) if isinstance(part, bytes) else part.size_bytes


class Joined:
    """The content.  All files are of the version of `first`, which is open until the end: `gc` keeps it."""

    def __init__(self, parts: Sequence[Part], first: StoredFile) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(_size_of, parts)))
        self._first = first
        self._file = first

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, fewer only where the content ends.

        Raises: YarnstoreError, as `StoredFile.read_at`.
        """
        found: list[bytes] = []
        number = bisect_right(self._ends, offset)
        while length > 0 and number < len(self._parts):
            part, end = self._parts[number], self._ends[number]
            start, count = offset - (end - _size_of(part)), min(length, end - offset)
            if isinstance(part, bytes):
                found.append(part[start : start + count])
            elif count:
                found.append(self._opened(part.path).read_at(start, count))
            offset, length, number = offset + count, length - count, number + 1
        return b"".join(found)

    def _opened(self, path: str) -> StoredFile:
        if self._file.path != path:
            self._file = self._first.other(path)
        return self._file

    def close(self) -> None:
        """Close all files."""
        self._first.close()
