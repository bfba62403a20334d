"""The store's lock, which readers and writers share and `gc` holds exclusively; locks of files in `tmp/`.

A kernel `flock` on a file that is never deleted: a killed process leaves no lock.  docs/format/store.md
governs what each lock means.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator

from yarnstore.errors import (
    FormatError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    YarnstoreError,
)
from yarnstore.store import folders, fsio, fsread, native
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import try_lock, wait_lock
from yarnstore.store.moved import check_not_moved

_POLL_S = 0.02
# How long one who wants the shared lock lets those before it end for a waiter.  It is bounded, so that a
# process whose parent holds the lock, and waits for it, is not stuck behind that waiter.
_GATE_S = 2.0
# The shared locks that have a gate and are held, each with the thread that took it.
_held: list[tuple[int, Path]] = []

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


def _is_held_above(path: Path) -> bool:
    """Whether a process above this one holds a lock on `path`, and may wait for this one; False if the system
    does not say (only Linux does).
    """
    pids, pid = set(holders(path)), native.parent_pid()
    while pids and pid > 1:
        if pid in pids:
            return True
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])  # proc_pid_stat(5): state, ppid
        except (OSError, ValueError, IndexError):
            return False
    return False


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
    path: Path, *, exclusive: bool, timeout_s: float, on_wait: OnWait | None = None, gate: Path | None = None
) -> Iterator[None]:
    """Hold a lock, a file in the store's folder, shared or exclusive; wait at most `timeout_s` seconds.

    With `gate`, a file that one who waits for the exclusive lock has locked, others that want the shared lock
    wait behind that one, at most 2 s; so it gets its turn among holders that overlap, if each is shorter.
    A thread that has the shared lock already does not wait, nor does a process if one above it has.

    Raises: LockTimeoutError that names the holders; ConflictError if the store was moved meanwhile.
    """
    key = (threading.get_ident(), path)
    patience_s = 0.0 if gate is None or exclusive or key in _held else min(_GATE_S, timeout_s)
    fd = open_lock(path)
    closed: int | None = None
    try:
        started = time.monotonic()
        told = looked = False
        while True:
            waited = time.monotonic() - started
            stopped_by = gate if gate is not None and waited < patience_s and is_closed(gate) else None
            if stopped_by is not None and not looked:
                looked = True
                if _is_held_above(path):
                    stopped_by, patience_s = None, 0.0
            if stopped_by is None and try_lock(fd, exclusive=exclusive) and _is_current(fd, path):
                break
            if waited >= timeout_s:
                raise LockTimeoutError(str(path), waited, holders(path))
            if on_wait is not None and not told and waited > 0.2:
                told = True
                on_wait(holders(stopped_by or path))
            if exclusive and gate is not None and closed is None:
                closed = _close(gate)
            time.sleep(_POLL_S)
            if not _is_current(fd, path):  # the store was moved meanwhile
                os.close(fd)
                fd = open_lock(path)
        check_not_moved(path.parent)
        if closed is not None:
            os.close(closed)
            closed = None
        if gate is None or exclusive:
            yield
            return
        _held.append(key)
        try:
            yield
        finally:
            _held.remove(key)
    finally:
        os.close(fd)
        if closed is not None:
            os.close(closed)


def is_closed(gate: Path) -> bool:
    """Whether a process waits behind a gate for the exclusive lock; False if the gate cannot be opened."""
    try:
        fd = fsio.open_file(gate, os.O_RDONLY)
    except (OSError, YarnstoreError):
        return False
    try:
        return not try_lock(fd, exclusive=False)
    finally:
        os.close(fd)


def _close(gate: Path) -> int | None:
    """Return the descriptor that keeps a gate closed; None if another process has it, or it cannot be opened,
    as in a folder without write permission."""
    try:
        fd = open_lock(gate)
    except (OSError, YarnstoreError):
        return None
    if try_lock(fd, exclusive=True):
        return fd
    os.close(fd)
    return None


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
