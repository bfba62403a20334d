"""Reading the file system: small files, folders, free space, and what its errors mean.

Owns the translation of operating-system errors.  Writing is `store/fsio`'s alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from yarnstore.core.limits import MIB
from yarnstore.errors import DiskFullError, FormatError, NotFoundError, ReadOnlyError, StorageError

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

# Kept free, so that the machine and a later gc have room: the smaller of both.
RESERVE_BYTES = 512 * MIB
RESERVE_SHARE = 0.05


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, without `.` and `..`.

    Raises: NotFoundError where it begins in a current folder that was removed.
    """
    try:
        return Path(os.path.abspath(path))
    except FileNotFoundError:
        raise NotFoundError(
            "folder", ".", hint="the current folder was removed: change to another one"
        ) from None


def translate(error: OSError, path: str | os.PathLike[str]) -> StorageError | NotFoundError:
    """The error of ours that says what an `OSError` on `path` means."""
    shown = os.fspath(path)
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"no space left while writing {shown}",
            hint="`ystore gc --dry-run` shows what could be freed",
            path=shown,
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyError(f"{shown}: {why}", hint="check who owns it and how it is mounted", path=shown)
    if error.errno == errno.ENOENT:
        return NotFoundError("file", shown)
    return StorageError(f"{shown}: {why}", path=shown)


@contextlib.contextmanager
def translating(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn any `OSError` inside into a `StorageError` about `path`."""
    try:
        yield
    except OSError as error:
        # A call on a descriptor names no file, or the descriptor.
        raise translate(error, error.filename if isinstance(error.filename, str) else path) from error


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """A whole small file, not through a symlink.

    Raises: NotFoundError, StorageError, FormatError where it is larger than the limit.
    """
    with translating(path), open(path, "rb", opener=_open_nofollow) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise FormatError(str(path), f"is larger than {limit_bytes} bytes")
    return data


def _open_nofollow(path: str, _: int) -> int:
    # A named pipe in place of a file is an empty one, rather than waited for.
    return os.open(path, os.O_RDONLY | NOFOLLOW | getattr(os, "O_NONBLOCK", 0))


def open_read(path: Path) -> int:
    """A descriptor to read from, not through a symlink.  Raises: NotFoundError, StorageError."""
    with translating(path):
        return os.open(path, os.O_RDONLY | NOFOLLOW)


def list_names(path: Path) -> list[str]:
    """The names in a folder, sorted; none where the folder is not there."""
    with translating(path):
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []


def stat_or_none(path: Path) -> os.stat_result | None:
    """`lstat`, or None where there is nothing."""
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise translate(error, path) from error


def read_link(link: Path) -> str | None:
    """Where a symlink points, or None where there is none."""
    try:
        return os.readlink(link)
    except OSError:
        return None


def sum_sizes(paths: Sequence[Path]) -> int:
    """Bytes in the files that are there."""
    found = [stat_or_none(path) for path in paths]
    return sum(item.st_size for item in found if item is not None)


def tree_bytes(path: Path) -> int:
    """Bytes in a file, or in all files below a folder that no other name shares."""
    found = stat_or_none(path)
    if found is None:
        return 0
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size if found.st_nlink == 1 else 0
    return sum(tree_bytes(path / name) for name in list_names(path))


def free_bytes(path: Path) -> tuple[int, int]:
    """Bytes free to us where `path` is or will be, and how many of them are kept in reserve."""
    with translating(path):
        place = path
        while not place.exists() and place != place.parent:
            place = place.parent
        usage = shutil.disk_usage(place)
    return usage.free, min(RESERVE_BYTES, int(usage.total * RESERVE_SHARE))


def require_space(path: Path, needed_bytes: int) -> None:
    """Raises: DiskFullError unless `needed_bytes` fit beside the reserve."""
    if needed_bytes <= 0:
        return
    free, reserve = free_bytes(path)
    if needed_bytes > free - reserve:
        raise DiskFullError(
            f"not enough space: {needed_bytes / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free "
            f"({reserve / 1e9:.2f} GB kept in reserve) on {path}",
            hint="`ystore gc --dry-run` shows what could be freed",
            path=str(path),
            needed_bytes=needed_bytes,
            free_bytes=free,
            reserve_bytes=reserve,
        )
