"""Kernel features of open files: locks, which end with their process, and reflinks."""

from __future__ import annotations

import errno

from yarnstore.errors import StorageError
from yarnstore.store import native
from yarnstore.store.native import exchange, is_being_written, reflink, reflink_range

__all__ = [
    "exchange",
    "is_being_written",
    "reflink",
    "reflink_range",
    "try_lock",
    "wait_lock",
]


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Take the lock if no other process has it.  Raises: StorageError if the file system has no locks."""
    try:
        return native.lock(fd, exclusive=exclusive, wait=False)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise StorageError(
                "this file system does not support file locks",
                hint="put the store on a local disk (YSTORE_HOME)",
            ) from error
        raise


def wait_lock(fd: int, *, exclusive: bool = True) -> None:
    """Wait for the lock, without a timeout; for locks that are held for milliseconds."""
    native.lock(fd, exclusive=exclusive, wait=True)
