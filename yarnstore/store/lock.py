"""The store's lock, which readers and writers share and `gc` holds exclusively; locks of files in `tmp/`.

A kernel `flock` on a file that is never deleted: a killed process leaves no lock.  docs/format/store.md
governs what each lock means.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator

from yarnstore.errors import FormatError, LockTimeoutError, NotFoundError, ReadOnlyError, StorageError
from yarnstore.store import folders, fsio, fsread, native
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import try_lock, wait_lock

_POLL_S = 0.02

# Called once when waiting begins, with the process ids of the holders if known.
OnWait = Callable[[list[int]], None]


def holders(path: Path) -> list[int]:
    """Return the processes that hold a lock on `path`, if the system lists them (Linux does)."""
    try:
        found = os.stat(path)
        with open("/proc/locks", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    inode = f":{found.st_ino}"
    pids = set()
    for line in lines:
        fields = line.split()
        if "->" not in fields and len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(inode):
            pids.add(int(fields[4]))
    return sorted(pid for pid in pids if pid > 0)


def open_lock(path: Path) -> int:
    """Return a descriptor of a lock file that is never truncated or deleted, not through a symlink."""
    with fsread.translating(path):
        try:
            return fsio.open_file(path, os.O_RDWR | os.O_CREAT)
        except (OSError, ReadOnlyError) as error:
            refused = not isinstance(error, OSError) or error.errno in (errno.EROFS, errno.EACCES)
            if not refused or fsread.stat_or_none(path) is None:
                raise
            return fsio.open_file(path, os.O_RDONLY)


@contextlib.contextmanager
def acquire(
    path: Path, *, exclusive: bool, timeout_s: float, on_wait: OnWait | None = None
) -> Iterator[None]:
    """Hold the lock, shared or exclusive, waiting at most `timeout_s` seconds.

    Raises: LockTimeoutError that names the holders.
    """
    fd = open_lock(path)
    try:
        started = time.monotonic()
        told = False
        while not (try_lock(fd, exclusive=exclusive) and _is_current(fd, path)):
            waited = time.monotonic() - started
            if waited >= timeout_s:
                raise LockTimeoutError(str(path), waited, holders(path))
            if on_wait is not None and not told and waited > 0.2:
                told = True
                on_wait(holders(path))
            time.sleep(_POLL_S)
            if not _is_current(fd, path):  # the store was moved meanwhile
                os.close(fd)
                fd = open_lock(path)
        yield
    finally:
        os.close(fd)


def _is_current(fd: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Lock a folder of the store exclusively, for milliseconds only; it is created if it is missing."""
    fsio.ensure_dir(folder)
    fd = open_folder(folder)
    try:
        wait_lock(fd)
        yield
    finally:
        os.close(fd)


def open_folder(folder: Path, *, stand_in: Path | None = None) -> int:
    """Return a descriptor by which a folder can be locked.

    Where folders cannot be opened, it is that of an empty file: `stand_in`, or one in `locks/` of the store.

    Raises: NotFoundError if the folder does not exist, StorageError.
    """
    if native.HAS_DIR_FD:
        return fsread.open_folder(folder)
    if not fsread.is_folder(folder):
        raise NotFoundError("folder", str(folder))
    if stand_in is None:
        root = Path(folders.root_of(folder) or folder)
        stand_in = root / "locks" / folder.relative_to(root).as_posix().replace("/", ".")
    fsio.ensure_dir(stand_in.parent)
    return open_lock(stand_in)


def leads_to(folder: Path, fd: int) -> bool:
    """Whether a folder that exists is the one that `open_folder` opened."""
    found = fsread.stat_or_none(folder)
    return found is not None and (not native.HAS_DIR_FD or os.path.samestat(found, os.fstat(fd)))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold the lock of a file that a killed process may have left; yields False if its writer is alive."""
    try:
        try:
            fd = fsio.open_file(path, os.O_RDWR)
        except PermissionError:  # its writer was killed after it became read-only
            fd = fsio.open_file(path, os.O_RDONLY)
    except (OSError, FormatError, StorageError):  # only files are left by killed processes
        yield False
        return
    try:
        yield try_lock(fd, exclusive=True) and fsread.stat_or_none(path) is not None
    finally:
        os.close(fd)
