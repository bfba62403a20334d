"""One folder of a store, opened once for many reads in it."""

from __future__ import annotations

import os
import stat
from typing import Self

from yarnstore.store import folders, fsread, native
from yarnstore.store.filepath import Path


class OpenTree:
    """A folder that is opened once for many reads, and the last subfolder that was read.

    No link is followed; errors are those of `stat_or_none` and `read_bytes`.
    """

    def __init__(self, root: Path) -> None:
        """Open the folder.  Raises: NotFoundError, StorageError if it does not exist, or is a link."""
        self._root = root
        self._fds = [fsread.open_folder(root)] if native.HAS_DIR_FD else []
        self._folder: str | None = ""  # the path of the open subfolder
        self._names: list[str] = []  # descriptors of it and its parents

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _open(self, folder: str) -> int:
        if folder == self._folder:
            return self._fds[-1]
        names = folder.split("/") if folder else []
        self._folder = None  # until it is open
        same = 0
        while same < min(len(names), len(self._names)) and names[same] == self._names[same]:
            same += 1
        while len(self._fds) > same + 1:
            os.close(self._fds.pop())
        self._names = names[:same]
        for name in names[same:]:
            place = "/".join((os.fspath(self._root), *self._names, name))
            self._fds.append(folders.open_subfolder(place, name, self._fds[-1]))
            self._names.append(name)
        self._folder = folder
        return self._fds[-1]

    def stat_folder(self, folder: str) -> os.stat_result | None:
        """Return the `lstat` of a folder below, by its path with `/`, or of the folder itself for an empty
        path.

        Returns None if it does not exist.
        """
        if not self._fds:
            found = fsread.stat_or_none(self._root / folder)
            return found if found is not None and stat.S_ISDIR(found.st_mode) else None
        with fsread.translating(self._root / folder):
            try:
                return os.fstat(self._open(folder))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def stat_or_none(self, path: str) -> os.stat_result | None:
        """Return the `lstat` of a path below, or None if it does not exist."""
        if not self._fds:
            return fsread.stat_or_none(self._root / path)
        folder, _, name = path.rpartition("/")
        try:
            return os.stat(name, dir_fd=self._open(folder), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise fsread.translate(error, self._root / path) from error

    def read_bytes(self, path: str, limit_bytes: int) -> bytes:
        """Return the content of a small file below."""
        fd = self.open_read(path)
        try:
            with fsread.translating(place := f"{self._root}/{path}"):
                return fsread.read_open(fd, place, limit_bytes)
        finally:
            os.close(fd)

    def open_read(self, path: str) -> int:
        """Return a descriptor for reading a file below."""
        if not self._fds:
            return fsread.open_read(self._root / path)
        folder, _, name = path.rpartition("/")
        with fsread.translating(place := f"{self._root}/{path}"):
            outer = self._open(folder)
            return fsread.require_regular(place, lambda: fsread.open_nofollow(name, outer))
