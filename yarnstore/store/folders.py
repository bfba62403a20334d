"""Folders below the roots of stores: opened one by one without following links, and used by descriptor.

A store's root may be a link.  Below it, a link could redirect reads and deletions to files outside of the
store.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator

from yarnstore.errors import ReadOnlyError, StorageError
from yarnstore.store import native
from yarnstore.store.filepath import Path
from yarnstore.store.native import FOLDER, HAS_DIR_FD, NOFOLLOW, AnyPath

# The roots of the stores in use.  Below a root every folder is opened without following links, and used by
# its descriptor; the root itself and its parents may be links.
_roots: set[str] = set()
# The roots that this process must not change.
_only_read: set[str] = set()


def add_root(root: Path) -> None:
    """Do not follow links below `root` from now on."""
    _roots.add(os.fspath(root))


def only_read(root: Path) -> None:
    """Refuse every change below `root` in this process from now on, like a read-only file system."""
    add_root(root)
    _only_read.add(os.fspath(root))


def check_writable(path: AnyPath) -> None:
    """Raise ReadOnlyError for a path at or below a root of `only_read`."""
    if _only_read and (os.fspath(path) in _only_read or root_of(path) in _only_read):
        raise ReadOnlyError(
            f"{path} cannot be written: this process only reads the store",
            hint="start it without --read-only, or run `ystore` itself",
            path=str(path),
        )


def is_root(path: Path) -> bool:
    """Whether a path is a root, which may be a link."""
    return os.fspath(path) in _roots


def root_of(path: AnyPath) -> str | None:
    """Return the nearest root that `path` is below, if any."""
    place = os.fspath(path)
    while (end := place.rfind(os.sep)) > 0:
        place = place[:end]
        if place in _roots:
            return place
    return None


class _Kept(threading.local):
    """The folders that a thread keeps open, by path, the last used at the end; None outside of
    `keeping_open`.
    """

    folders: dict[str, int] | None = None


_kept = _Kept()
# More than any step uses at once, so that no folder is closed while in use.
_KEPT_FOLDERS = 8


@contextlib.contextmanager
def keeping_open() -> Iterator[None]:
    """Let `folder_of` keep the last folders of this thread open, for work on many files.

    For use under the store's lock.  Folders that this process moves or removes are opened again.
    """
    if _kept.folders is not None or not HAS_DIR_FD:
        yield
        return
    kept = _kept.folders = {}
    try:
        yield
    finally:
        _kept.folders = None
        for fd in kept.values():
            os.close(fd)


def forget_open(*paths: Path) -> None:
    """Close kept folders at these paths and below them, since the paths now name other folders."""
    for path in map(os.fspath, paths if _kept.folders else ()):
        for folder in list(_kept.folders or ()):
            if folder == path or folder.startswith(path + os.sep):
                _close_kept(folder)


def _close_kept(folder: str) -> None:
    if _kept.folders is not None and folder in _kept.folders:
        os.close(_kept.folders.pop(folder))


class _FolderOf:
    """The context of `folder_of`; a class for the same reason as `_Translating`."""

    __slots__ = ("_fd", "_folder", "_name", "_text")

    def __init__(self, path: AnyPath) -> None:
        self._text = os.fspath(path)
        self._folder, _, self._name = self._text.rpartition(os.sep)
        self._fd: int | None = None

    def __enter__(self) -> tuple[int | None, str]:
        kept = _kept.folders
        fd = kept.pop(self._folder, None) if kept is not None else None
        if fd is None:
            fd = _open_below(self._folder)
            if fd is None:
                return None, native.reach(self._text)
        self._fd = fd
        if kept is not None:
            kept[self._folder] = fd
            if len(kept) > _KEPT_FOLDERS:
                _close_kept(next(iter(kept)))
        return fd, self._name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._fd is None:
            return
        if _kept.folders is None:
            os.close(self._fd)
        elif isinstance(error, FileNotFoundError) and not os.fstat(self._fd).st_nlink:
            _close_kept(self._folder)  # another process has removed the folder


def folder_of(path: AnyPath) -> _FolderOf:
    """Yield a descriptor of the folder of `path` and the name in it, for calls with `dir_fd`.

    Yields None and the whole path if it is not below a root, or directly in it.

    Raises: StorageError if a folder in between is a link, `OSError` as `open`.
    """
    return _FolderOf(path)


def changing(path: AnyPath) -> _FolderOf:
    """Yield the same as `folder_of`, for a call that changes the folder's content.

    Raises: as `folder_of`; ReadOnlyError as `check_writable`.
    """
    check_writable(path)
    return _FolderOf(path)


def _open_below(folder: str) -> int | None:
    """Open a folder below a root, and each folder on the way, without following links.

    Returns None for a root, and for a folder that is not below a root.
    """
    root = None if folder in _roots else root_of(folder)
    if root is None:
        return None
    place = root
    fd: int | None = None
    try:
        for name in folder[len(root) + 1 :].split(os.sep):
            place = f"{place}{os.sep}{name}"
            if not HAS_DIR_FD:
                refuse_link(place)
                continue
            outer, fd = fd, open_subfolder(place, name, fd)
            if outer is not None:
                os.close(outer)
    except BaseException:
        if fd is not None:
            os.close(fd)
        raise
    return fd


def open_subfolder(place: AnyPath, name: str, dir_fd: int | None) -> int:
    """Open a folder without following a link; by its `place` if its parent is not open."""
    try:
        return native.open_file(place if dir_fd is None else name, FOLDER | NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            refuse_link(place, dir_fd=dir_fd, name=name if dir_fd is not None else "")
        error.filename = name  # the error must name the requested path
        raise


def refuse_link(place: AnyPath, *, dir_fd: int | None = None, name: str = "") -> None:
    """Raise StorageError if `place`, the path of a store's folder, is a link."""
    found = os.stat(name or place, dir_fd=dir_fd, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        raise StorageError(
            f"{os.fspath(place)} is a link; the folders of a store must not be links",
            hint="replace it with a folder; to use another disk, move the whole store there and set "
            "YSTORE_HOME, or mount the disk at this folder (mount --bind)",
            path=os.fspath(place),
        )
