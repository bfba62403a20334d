"""Kernel features of open files: locks, which end with their process, and reflinks."""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

from yarnstore.errors import StorageError

# Windows has no fcntl; there are no locks and reflinks.
_fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

# Whether this system has file locks.
CAN_LOCK = _fcntl is not None

_FICLONE = 0x40049409  # linux/fs.h
_FICLONERANGE = 0x4020940D
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
    """Wait for the lock, without a timeout; for locks that are held for milliseconds."""
    if _fcntl is not None:
        _fcntl.flock(fd, _fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH)


def is_being_written(fd: int) -> bool | None:
    """Whether any process has this file open for writing; None if the system cannot say it.

    `fd` is open for reading only, by the file's owner.
    """
    if _fcntl is None or not hasattr(_fcntl, "F_SETLEASE"):
        return None
    import signal  # late: few commands replace files

    try:
        # A writer that opens it meanwhile would cause SIGIO, which ends a process; SIGURG is ignored.
        _fcntl.fcntl(fd, _fcntl.F_SETSIG, signal.SIGURG)
        _fcntl.fcntl(fd, _fcntl.F_SETLEASE, _fcntl.F_RDLCK)
    except OSError as error:
        return True if error.errno == errno.EAGAIN else None
    _fcntl.fcntl(fd, _fcntl.F_SETLEASE, _fcntl.F_UNLCK)
    return False


def reflink(source: int, target: int) -> bool:
    """Let an empty file share the blocks of another; return whether the file system supports it."""
    if _fcntl is None or os.uname().sysname != "Linux":
        return False
    try:
        _fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def reflink_range(source: int, begin: int, target: int, offset: int, length: int) -> bool:
    """Let a range of a file, of whole blocks, share the blocks of another; returns whether the file system
    did.  `begin` and `length` are those of the source, `offset` is the place in the target, all in bytes.
    """
    if _fcntl is None or os.uname().sysname != "Linux":
        return False
    import struct  # late: few commands copy a range

    try:
        _fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, begin, length, offset))
    except OSError:
        return False
    return True


def exchange(one: str, other: str) -> bool:
    """Exchange two paths atomically; return whether the system and the file system support it."""
    if _fcntl is None or os.uname().sysname != "Linux":
        return False
    import ctypes  # late: only moving a store needs it

    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    done: int = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return done == 0
