"""A cache of parsed files for one operation, valid as long as a file has the same inode, size and time.

`gc` marks again under each of its locks.  It needs every manifest and index each time, and parses each once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from yarnstore.store import fsread
from yarnstore.store.filepath import Path

Parsed = TypeVar("Parsed")


class Memory:
    """The parsed contents of files, each with the inode, size and time of the file that was read."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int, int], Any]] = {}

    def recall(self, path: Path, read: Callable[[], Parsed]) -> Parsed:
        """Return the cached result of `read` for a file; `read` is called again if the file has changed.

        Raises: as `read`.
        """
        found = fsread.stat_or_none(
            path
        )  # before reading, so that a file that is replaced meanwhile is read again
        if found is None:
            return read()
        mark = (found.st_ino, found.st_size, found.st_mtime_ns)
        known = self._known.get(path)
        if known is None or known[0] != mark:
            self._known[path] = known = (mark, read())
        parsed: Parsed = known[1]
        return parsed
