"""Reads ranges of a store's files in several threads, with few descriptors.

Callers interpret the bytes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from yarnstore.errors import FormatError
from yarnstore.store import fsread, native
from yarnstore.store.filepath import Path

# Files kept open: enough for the reading threads, and far below any system's limit of descriptors.
OPEN_FILES = 16


def pread_exact(fd: int, path: Path, offset: int, length: int) -> bytes:
    """Read an exact range of a file.  Raises: FormatError if the file ends before, StorageError."""
    with fsread.translating(path):
        data = native.pread(fd, length, offset)
    if len(data) != length:
        raise FormatError(str(path), "is cut short")
    return data


class OpenFiles:
    """Descriptors of the files read last; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()

    @contextlib.contextmanager
    def read(self, path: Path) -> Iterator[int]:
        """Yield a descriptor to read from while the context lasts.  Raises: NotFoundError, StorageError."""
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = _OpenFile(fsread.open_read(path))
            self._open.move_to_end(path)
            file.users += 1
            self._close_oldest()
        try:
            yield file.fd
        finally:
            with self._lock:
                file.users -= 1

    def _close_oldest(self) -> None:
        if len(self._open) <= OPEN_FILES:
            return
        idle = [path for path, file in self._open.items() if not file.users]
        for path in idle[: len(self._open) - OPEN_FILES]:
            os.close(self._open.pop(path).fd)

    def close(self) -> None:
        """Close all descriptors."""
        while self._open:
            os.close(self._open.popitem()[1].fd)


@dataclass
class _OpenFile:
    fd: int
    users: int = 0
