"""Replaces a file outside of the store by a link to, or a copy of, another file with the same content.

Each replacement is one rename, so that another program sees the old file or the new one.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple, Self

from yarnstore.core.limits import MIB
from yarnstore.errors import StorageError
from yarnstore.store import fsio, fsread
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import is_being_written, reflink


def replace_by_link(source: Path, path: Path) -> bool:
    """Replace a file by a hard link; return whether the file system allows it.  Raises: StorageError."""
    temporary = path.parent / f"{fsread.unique_name()}.link"
    if not fsio.try_link(source, temporary):
        return False
    try:
        fsio.rename(temporary, path)
    finally:
        fsio.remove(temporary)
    return True


class Attributes(NamedTuple):
    """The permission bits of a file, and its times in nanoseconds since 1970."""

    mode: int
    atime_ns: int
    mtime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Self:
        """Return those of a file."""
        return cls(stat.S_IMODE(found.st_mode), found.st_atime_ns, found.st_mtime_ns)


def content_state(found: os.stat_result) -> tuple[int, ...]:
    """Return what changes when the content of a file does; unlike ctime not with its links or its mode."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def replace_by_copy(
    source: Path, path: Path, attributes: Attributes, *, clone: bool, state: tuple[int, ...] | None = None
) -> bool:
    """Replace a file by a copy with these attributes.

    With `clone` the copy shares disk blocks; returns False if the file system cannot do that.  With `state`,
    the `content_state` of the source when it was hashed, nothing is replaced if it has changed since.

    Raises: StorageError, also for a source that changed.
    """
    with fsio.NewFile(path.parent, ".part") as new, fsread.translating(source):
        fd = fsread.open_read(source)
        try:
            if clone and not reflink(fd, new.fileno()):
                return False
            while not clone and (block := os.read(fd, 4 * MIB)):
                new.write(block)
            if state not in (None, content_state(os.fstat(fd))):
                raise StorageError(f"{source} changed meanwhile", path=str(source))
        finally:
            os.close(fd)
        new.set_times(attributes.atime_ns, attributes.mtime_ns)
        new.publish(path, mode=attributes.mode)
    return True


def is_written_now(path: Path) -> bool | None:
    """Whether a process has a file open for writing; None if unknown.  Raises: StorageError."""
    fd = fsread.open_read(path)
    try:
        return is_being_written(fd)
    finally:
        os.close(fd)
