"""The jobs of the service, queued, running and ended, kept on disk.

docs/format/store.md governs `jobs.json`.  One process at a time keeps it, under the lock of `jobs.lock`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import ConflictError, FormatError, IncompatibleError, NotFoundError
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.layout import StoreLayout

JOBS_FILE = "jobs.json"
_FORMAT = 1
# Well below the limit of reading.
READ_LIMIT_BYTES = 8 * MIB
WRITE_LIMIT_BYTES = 4 * MIB


class StoredJob(msgspec.Struct, frozen=True):
    """One job; times are in milliseconds since 1970.  The values of `arguments` and `result` are JSON."""

    id: str
    kind: str
    state: str
    created_ms: int
    arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    started_ms: int | None = None
    finished_ms: int | None = None
    notes: tuple[str, ...] = ()
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    undo: dict[str, Any] | None = None


class _Jobs(msgspec.Struct, frozen=True):
    jobs: list[StoredJob]
    format: int = _FORMAT


def read_jobs(layout: StoreLayout) -> list[StoredJob]:
    """Return the jobs in the order in which they were requested.  Raises: FormatError, IncompatibleError."""
    path = layout.root / JOBS_FILE
    try:
        found = msgspec.json.decode(fsread.read_bytes(path, READ_LIMIT_BYTES), type=_Jobs)
    except NotFoundError:
        return []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(JOBS_FILE, f"cannot be read: {error}", hint=f"correct or delete {path}") from None
    if found.format > _FORMAT:
        raise IncompatibleError(
            f"{JOBS_FILE} has format {found.format}; this release reads {_FORMAT}",
            hint="update yarnstore to read it",
        )
    return found.jobs


def write_jobs(layout: StoreLayout, jobs: list[StoredJob]) -> None:
    """Replace the file; if there are too many jobs, the oldest ended ones are dropped.

    Raises: StorageError.
    """
    layout.ensure()
    data = msgspec.json.encode(_Jobs(jobs))
    while len(data) > WRITE_LIMIT_BYTES:
        ended = [job for job in jobs if job.finished_ms is not None]
        if not ended:
            break
        dropped = set(map(id, ended[: len(ended) // 2 + 1]))
        jobs = [job for job in jobs if id(job) not in dropped]
        data = msgspec.json.encode(_Jobs(jobs))
    fsio.write_atomic(layout.root / JOBS_FILE, data, tmp_dir=layout.tmp)


class JobsKeeper:
    """The process that keeps the jobs of a store: one at a time, and only while the store is the same.

    `when_replaced` is called when another store is found at its path, whose jobs another process may keep.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._path = layout.root / "jobs.lock"
        self._held = contextlib.ExitStack()
        self._taken: os.stat_result | None = None
        self._replaced = False
        self.when_replaced: Callable[[], None] = lambda: None

    def take(self) -> None:
        """Take the lock.  Raises: LockTimeoutError, naming the process that has it."""
        self._layout.ensure()
        self._held.enter_context(lock.acquire(self._path, exclusive=True, timeout_s=0.0))
        self._taken = os.stat(self._path)  # open until `release`, so that no other file gets its inode

    def release(self) -> None:
        """Release the lock."""
        self._held.close()

    def has_store(self) -> bool:
        """Whether the store at the path is the one whose lock was taken, if one was."""
        if self._replaced or self._taken is None:
            return not self._replaced
        found = fsread.stat_or_none(self._path)
        return found is not None and os.path.samestat(found, self._taken)

    def is_replaced(self) -> bool:
        """Whether another store was found at the path."""
        if not self._replaced and not self.has_store() and fsread.is_folder(self._layout.root):
            self._replaced = True
            self.when_replaced()
        return self._replaced

    def check(self) -> None:
        """Raise ConflictError if the store was removed, even if another one is at its path."""
        if self.is_replaced() or not self.has_store():
            raise ConflictError(
                f"the store was removed or replaced while this service ran: {self._layout.root}",
                hint="start the service again",
            )
