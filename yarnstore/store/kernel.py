"""What the kernel does with open files: locks, which a killed process does not leave behind, and reflinks."""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

from yarnstore.errors import StorageError

# Windows has no fcntl; nothing is locked or reflinked there.
_fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

# Whether files can be locked here.
CAN_LOCK = _fcntl is not None

_FICLONE = 0x40049409  # linux/fs.h
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Take the lock if no other process has it.  Raises: StorageError if the file system has no locks."""
    if _fcntl is None:
        return True
    try:
        _fcntl.flock(fd, (_fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH) | _fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise StorageError(
                "this file system does not support file locks",
                hint="put the store on a local disk (YSTORE_HOME)",
            ) from error
        raise
    return True


def wait_lock(fd: int, *, exclusive: bool = True) -> None:
    """Wait for the lock, for sections that last milliseconds."""
    if _fcntl is not None:
        _fcntl.flock(fd, _fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH)


def reflink(source: int, target: int) -> bool:
    """Let an empty file share the blocks of another; returns whether the file system did."""
    if _fcntl is None or os.uname().sysname != "Linux":
        return False
    try:
        _fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def exchange(one: str, other: str) -> bool:
    """Exchange what two paths name, atomically; returns whether the system and the file system did."""
    if _fcntl is None or os.uname().sysname != "Linux":
        return False
    import ctypes  # late: only a move of a store needs it

    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    done: int = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0
