"""Reading the file system: files, folders, free space, and translating its errors.

Translates operating-system errors, and opens folders and files below a store's root without following links;
only regular files are opened.  `store/fsio` writes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from yarnstore.core.limits import MIB
from yarnstore.core.sizes import DEFAULT_RESERVE, Reserve
from yarnstore.errors import (
    DiskFullError,
    FormatError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)
from yarnstore.progress import format_sizes
from yarnstore.store import folders, native
from yarnstore.store.filepath import Path
from yarnstore.store.native import AnyPath
from yarnstore.store.patience import BUSY

_SHARED = stat.S_ISGID | stat.S_IWGRP

# Errors of Windows: ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION.
_SHARING = (32, 33)

_MOVE = "move it elsewhere, then run this again"
_FREE_SPACE = "free some space on that disk"


def unique_name() -> str:
    """Return 24 hex digits that no other name has."""
    return os.urandom(12).hex()


def translate(error: OSError, path: str | os.PathLike[str]) -> StorageError | NotFoundError:
    """Return our error for an `OSError` on `path`."""
    shown = native.plain_path(os.fspath(path))
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"no space left while writing {shown}",
            hint=_FREE_SPACE,
            path=shown,
        )
    if getattr(error, "winerror", None) in _SHARING:
        return StorageError(
            f"{shown}: another program has it open", hint="close it there, then run this again", path=shown
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyError(
            f"{shown}: {why}", hint="check its owner, its permissions and how it is mounted", path=shown
        )
    if error.errno == errno.ENOENT:
        return NotFoundError("file", shown)
    hint = ""
    if error.errno == errno.EXDEV:
        hint = "views/, trash/ and tmp/ of a store must be on one disk; files/ may be on another"
    if error.errno == errno.ENOTDIR and folders.root_of(shown) is not None:
        hint = "`ystore fsck --repair` moves the file aside and makes the folder again"
    return StorageError(f"{shown}: {why}", hint=hint, path=shown)


def is_in_use(error: StorageError) -> bool:
    """Whether an error of a rename or removal says that another program has the file, or one in the folder,
    open: on Windows, also as "access denied".
    """
    return getattr(error.__cause__, "winerror", None) in BUSY


class _Translating:
    """The context of `translating`.

    A class, since one is made for each system call, and a generator takes three times as long.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            # The error of a call on a descriptor has no path or the descriptor; with `dir_fd`, a bare name.
            named = isinstance(error.filename, str) and os.path.isabs(error.filename)
            raise translate(error, error.filename if named else self._path) from error


def translating(path: str | os.PathLike[str]) -> _Translating:
    """Turn any `OSError` inside into a `StorageError` about `path`."""
    return _Translating(path)


def open_folder(path: Path, *, follow: bool = False) -> int:
    """Return a descriptor of a folder without following a link; with `follow`, links outside of roots are
    followed.

    Raises: NotFoundError, StorageError.
    """
    with translating(path):
        if folders.root_of(path) is None:
            return native.open_file(path, native.FOLDER if follow else native.FOLDER | native.NOFOLLOW)
        with folders.folder_of(path) as (fd, name):
            return folders.open_subfolder(path, name, fd)


def open_regular(path: Path, opener: Callable[[str, int | None], int]) -> int:
    """Return what `opener` opens, given a name and the descriptor of its folder, if it is a regular file.

    Raises: FormatError for another kind of file, `OSError` as `opener`.
    """
    with folders.folder_of(path) as (folder, name):
        return require_regular(path, lambda: opener(name, folder))


def require_regular(path: AnyPath, opener: Callable[[], int]) -> int:
    """Return what `opener` opens, if it is a regular file.  Raises: as `open_regular`."""
    try:
        fd = opener()
    except OSError as error:
        # ENXIO: a pipe without a reader, a socket, a missing device.
        if error.errno not in (errno.ENXIO, errno.EISDIR, errno.ELOOP):
            raise
        raise _no_file(path, error.errno) from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise _no_file(path, errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO)
    return fd


def written_ranges(fd: int) -> list[tuple[int, int]]:
    """Return the ranges of a file that are not holes, in order, as (begin, end); the whole file if the system
    does not report holes.
    """
    size = os.fstat(fd).st_size
    found: list[tuple[int, int]] = []
    if not hasattr(os, "SEEK_DATA"):
        return [(0, size)]
    end = 0
    try:
        while end < size:
            begin = os.lseek(fd, end, os.SEEK_DATA)
            end = os.lseek(fd, begin, os.SEEK_HOLE)
            found.append((begin, end))
    except OSError as error:
        if error.errno != errno.ENXIO:  # only a hole up to the end
            return [(0, size)]
    return found


def _no_file(path: AnyPath, number: int) -> FormatError | StorageError:
    """Return the error for a path that is not a regular file, by the errno of opening it."""
    if number == errno.ENXIO:
        return FormatError(str(path), "is not a regular file", hint=_MOVE)
    why = "is a folder, not a file" if number == errno.EISDIR else "is a link, which is not followed"
    return StorageError(f"{path} {why}", hint=_MOVE, path=str(path))


def open_nofollow(name: str, folder: int | None) -> int:
    """Open for reading, not through a link, and without waiting for a pipe."""
    return native.open_file(name, os.O_RDONLY | native.NONBLOCK | native.NOFOLLOW, dir_fd=folder)


def lstat(path: Path) -> os.stat_result:
    """Return the result of `os.lstat`; below a root, without following a link.

    Raises: StorageError, `OSError` as `lstat`.
    """
    with folders.folder_of(path) as (folder, name):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)


# --- files and folders -----------------------------------------------------------------------


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """Return the content of a small file, not through a symlink.

    Raises: NotFoundError, StorageError, FormatError if it is larger than the limit, or not a regular file.
    """
    fd = open_read(path)
    try:
        with translating(path):
            return read_open(fd, path, limit_bytes)
    finally:
        os.close(fd)


def read_open(fd: int, path: AnyPath, limit_bytes: int) -> bytes:
    """Return the content of an open file.  Raises: FormatError if it is larger than the limit."""
    # As large as the file, since allocating the limit takes longer than reading most files.
    data = os.read(fd, min(os.fstat(fd).st_size, limit_bytes) + 1)
    while len(data) <= limit_bytes and (more := os.read(fd, min(limit_bytes + 1 - len(data), MIB))):
        data += more
    if len(data) > limit_bytes:
        raise FormatError(str(path), f"is larger than {limit_bytes} bytes")
    return data


def iter_blocks(path: Path) -> Iterator[bytes]:
    """Yield the blocks of a large file, without following a symlink.

    Raises: NotFoundError, StorageError, FormatError if it is not a regular file.
    """
    with open(open_read(path), "rb", buffering=0) as file, translating(path):
        while block := file.read(MIB):
            yield block


def read_start(path: Path, size_bytes: int) -> bytes:
    """Return the first bytes of a file, not through a symlink.

    Raises: NotFoundError, StorageError, FormatError if it is not a regular file.
    """
    fd = open_read(path)
    try:
        with translating(path):
            return os.read(fd, size_bytes)
    finally:
        os.close(fd)


def open_read(path: Path) -> int:
    """Return a descriptor for reading, not through a symlink.

    Raises: NotFoundError, StorageError, FormatError if it is not a regular file.
    """
    with translating(path):
        return open_regular(path, open_nofollow)


def open_source(path: AnyPath) -> BinaryIO:
    """Open a file that a user named, unbuffered; links are followed.

    Raises: NotFoundError, StorageError, FormatError if it is not a regular file.
    """
    fd = open_source_fd(path)
    with translating(path):
        return open(fd, "rb", buffering=0)


def open_source_fd(path: AnyPath) -> int:
    """Do the same as `open_source`, and return a descriptor."""
    with translating(path):
        return require_regular(
            path, lambda: native.open_file(path, os.O_RDONLY | native.NONBLOCK | native.PLAIN)
        )


def list_names(path: Path) -> list[str]:
    """Return the names in a folder, sorted; none if the folder does not exist."""
    with translating(path):
        try:
            if not native.HAS_DIR_FD or folders.root_of(path) is None:
                return sorted(os.listdir(native.reach(os.fspath(path))))
            fd = open_folder(path)
        except (FileNotFoundError, NotFoundError):
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)


def stat_or_none(path: Path) -> os.stat_result | None:
    """Return `lstat`, or None if nothing exists at the path."""
    try:
        return lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise translate(error, path) from error


def is_folder(path: Path) -> bool:
    """Whether a folder exists at the path, and not a link to one."""
    found = stat_or_none(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: Path) -> bool:
    """Whether a regular file exists at the path, and not a link to one."""
    found = stat_or_none(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def read_link(link: Path) -> str | None:
    """Return the target of a symlink, or None if there is no symlink at the path."""
    try:
        with folders.folder_of(link) as (folder, name):
            return os.readlink(name, dir_fd=folder)
    except OSError:
        return None


def sum_sizes(paths: Sequence[Path]) -> int:
    """Return the total size in bytes of those files that exist."""
    found = [stat_or_none(path) for path in paths]
    return sum(item.st_size for item in found if item is not None)


def tree_bytes(path: Path) -> int:
    """Return the size in bytes of a file, or of all files below a folder that have no other hard link."""
    found = stat_or_none(path)
    if found is None:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size if found.st_nlink == 1 else 0
    return sum(tree_bytes(path / name) for name in list_names(path))


def free_bytes(path: Path, reserve: Reserve = DEFAULT_RESERVE) -> tuple[int, int]:
    """Return the free bytes at `path`, which need not exist, and how many of them are reserved."""
    import shutil  # late: it brings all formats of archives

    with translating(path):
        place = path
        while not place.exists() and place != place.parent:
            place = place.parent
        usage = shutil.disk_usage(place)
    return usage.free, reserve.of(usage.total)


def require_space(path: Path, needed_bytes: int, kept_free: Reserve = DEFAULT_RESERVE) -> None:
    """Raise DiskFullError unless `needed_bytes` are free in addition to the reserve."""
    if needed_bytes <= 0:
        return
    free, reserve = free_bytes(path, kept_free)
    if needed_bytes > free - reserve:
        needed, there, kept = format_sizes(needed_bytes, free, reserve)
        raise DiskFullError(
            f"not enough space: {needed} needed, {there} free ({kept} kept in reserve) on {path}",
            hint=_FREE_SPACE,
            path=str(path),
            needed_bytes=needed_bytes,
            free_bytes=free,
            reserve_bytes=reserve,
        )


def sealed_mode(mode: int) -> int:
    """Return the mode without write permission, except for a folder that a group shares.

    The group must be able to remove it.
    """
    return mode if mode & _SHARED == _SHARED else mode & ~0o222
