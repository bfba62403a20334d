"""Files that grow in place: logs, marks, and downloads that outlive their process."""

from __future__ import annotations

import contextlib
import os
from typing import Self

from yarnstore.core.digest import Buffer
from yarnstore.store import native
from yarnstore.store.filepath import Path
from yarnstore.store.fsio import ensure_dir, open_file, pwrite_all, sync_dir, unlink
from yarnstore.store.fsread import stat_or_none, translating
from yarnstore.store.kernel import try_lock


def append_line(path: Path, line: bytes) -> None:
    """Append one line durably, after removing an incomplete one; the caller holds a lock."""
    with translating(path):
        is_new = stat_or_none(path) is None
        fd = open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            end = os.fstat(fd).st_size
            whole = end
            while whole and native.pread(fd, 1, whole - 1) != b"\n":
                whole -= 1
            if whole != end:
                native.truncate(fd, whole)
            pwrite_all(fd, line, whole)
            native.sync(fd)
        finally:
            os.close(fd)
    if is_new:
        sync_dir(path.parent)


def append_mark(path: Path, mark: bytes) -> int:
    """Append a line atomically, without a sync, also after an incomplete one.

    Returns the file's size in bytes.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    with translating(path):
        try:
            fd = open_file(path, flags)
        except FileNotFoundError:
            ensure_dir(path.parent)
            fd = open_file(path, flags)
        try:
            size = os.fstat(fd).st_size
            if size and mark.endswith(b"\n") and native.pread(fd, 1, size - 1) != b"\n":
                mark = b"\n" + mark
            return size + native.write(fd, mark)
        finally:
            os.close(fd)


class PartialFile:
    """A download that is kept for the next run, under a known name.

    `locked` is False if another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        ensure_dir(path.parent)
        self.path = path
        with translating(path):
            self._fd = open_file(path, os.O_RDWR | os.O_CREAT)
        self.locked = try_lock(self._fd, exclusive=True)
        self.size_bytes = os.fstat(self._fd).st_size

    def is_there(self) -> bool:
        """Whether its path still names this file.  Another process may have removed it and begun again."""
        found = stat_or_none(self.path)
        return found is not None and os.path.samestat(found, os.fstat(self._fd))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def write(self, data: Buffer) -> None:
        with translating(self.path):
            self.size_bytes = pwrite_all(self._fd, data, self.size_bytes)

    def truncate(self, size_bytes: int = 0) -> None:
        with translating(self.path):
            native.truncate(self._fd, size_bytes)
            self.size_bytes = size_bytes

    def remove(self) -> None:
        with translating(self.path), contextlib.suppress(FileNotFoundError):
            unlink(self.path)
