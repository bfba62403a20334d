"""The store's one lock: readers and writers share it, `gc` holds it exclusively.

A kernel `flock` on a file that is never deleted: a killed process leaves no lock.  docs/format/store.md
governs what each lock means.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from yarnstore.errors import LockTimeoutError
from yarnstore.store import fsio, fsread
from yarnstore.store.kernel import try_lock, wait_lock

_POLL_S = 0.02

# Told once when waiting begins, with the process ids of the holders where they are known.
OnWait = Callable[[list[int]], None]


def holders(path: Path) -> list[int]:
    """Return the processes that hold a lock on `path`, if the system lists them (Linux does)."""
    try:
        found = os.stat(path)
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    inode = f":{found.st_ino}"
    pids = set()
    for line in lines:
        fields = line.split()
        if "->" not in fields and len(fields) > 5 and fields[1] == "FLOCK" and fields[5].endswith(inode):
            pids.add(int(fields[4]))
    return sorted(pid for pid in pids if pid > 0)


@contextlib.contextmanager
def acquire(
    path: Path, *, exclusive: bool, timeout_s: float, on_wait: OnWait | None = None
) -> Iterator[None]:
    """Hold the lock, shared or exclusive, waiting at most `timeout_s` seconds.

    Raises: LockTimeoutError that names the holders.
    """
    fd = fsio.open_lock(path)
    try:
        started = time.monotonic()
        told = False
        while not try_lock(fd, exclusive=exclusive):
            waited = time.monotonic() - started
            if waited >= timeout_s:
                raise LockTimeoutError(str(path), waited, holders(path))
            if on_wait is not None and not told and waited > 0.2:
                told = True
                on_wait(holders(path))
            time.sleep(_POLL_S)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Lock a folder of the store exclusively, for milliseconds; it is created if it is missing."""
    fsio.ensure_dir(folder)
    fd = fsread.open_folder(folder)
    try:
        wait_lock(fd)
        yield
    finally:
        os.close(fd)
