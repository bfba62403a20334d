"""The list of all jobs of one store, and the file that outlives the process.

`jobs.json` in the store has all jobs except comparisons, whose results are large; see docs/format/jobs.md.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from yarnstore.core.limits import MIB
from yarnstore.errors import ConflictError, NotFoundError, StorageError
from yarnstore.store.jobs import JobsKeeper, read_jobs, write_jobs
from yarnstore.store.layout import StoreLayout
from yarnstore.web.entries import ENDED, VOLATILE, JobEntry, brief, restored, stored, waiting_bytes
from yarnstore.web.records import Job, JobKind
from yarnstore.web.work import KINDS

_KEPT = 200
# Their results are large, and only in memory.
_COMPARISONS = 10
_KEPT_SCHEDULED = 10
# Jobs that have not ended are always in the file, which must stay readable.
_WAITING_BYTES = MIB


class JobList:
    """All jobs of one store.  Every method may be called from any thread."""

    def __init__(
        self,
        layout: StoreLayout,
        publish: Callable[[Job], None],
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = layout
        self._publish = publish
        self._read_only = read_only
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: dict[str, JobEntry] = {}
        self.keeper = JobsKeeper(layout)

    # --- questions ---------------------------------------------------------------------------------

    def all(self) -> list[Job]:
        """Return the jobs, the newest first, without the results of comparisons."""
        with self._lock:
            return [brief(entry.job) for entry in reversed(self._entries.values())]

    def get(self, identity: str) -> Job:
        """Return a job.  Raises: NotFoundError."""
        with self._lock:
            return self._entry(identity).job

    def done(self, kind: JobKind) -> list[Job]:
        """Return the successful jobs of a kind, the last one first."""
        with self._lock:
            found = [e.job for e in self._entries.values() if e.job.kind == kind and e.job.state == "done"]
        return sorted(found, key=lambda job: job.finished_ms or 0, reverse=True)

    def last_ended(
        self, kind: JobKind, *, without: str = "", counts: Callable[[Job], bool] | None = None
    ) -> Job | None:
        """Return the job of a kind that ended last, successful or not; `without` is the id of one to skip.

        With `counts`, only jobs for which it is true.

        A job that ended in the future, since the clock was set back, is older than the others.
        """
        with self._lock:
            found = [e.job for e in self._entries.values() if e.job.kind == kind and e.job.id != without]
        now_ms = self._now_ms()
        ended = [
            (job.finished_ms or 0, job)
            for job in found
            if job.state in ENDED and (counts is None or counts(job))
        ]
        return max(ended, key=lambda item: (item[0] <= now_ms, item[0]), default=(0, None))[1]

    def pending(self, kind: JobKind) -> bool:
        """Whether a job of a kind is queued, running or paused."""
        states = ("queued", "running", "paused")
        with self._lock:
            return any(e.job.kind == kind and e.job.state in states for e in self._entries.values())

    def running(self) -> int:
        """Return how many jobs are queued or running."""
        with self._lock:
            return sum(entry.job.state in ("queued", "running") for entry in self._entries.values())

    # --- changes, within the lock --------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _entry(self, identity: str) -> JobEntry:
        entry = self._entries.get(identity)
        if entry is None:
            raise NotFoundError("job", identity[:80], hint="GET /api/v1/jobs lists them")
        return entry

    def _set(self, entry: JobEntry, **changes: Any) -> None:  # noqa: ANN401 - the fields of Job
        entry.job = replace(entry.job, **changes)
        self._changed(entry.job.id)

    def _changed(self, identity: str) -> None:
        self._publish(brief(self._entries[identity].job))
        self._save()

    def _save(self) -> None:
        if self._read_only or not self.keeper.has_store():
            return
        kept = [stored(entry) for entry in self._entries.values() if entry.job.kind not in VOLATILE]
        try:
            write_jobs(self._layout, kept)
        except StorageError as error:
            # A full disk: the job continues, but a kill would lose its request.
            print(f"jobs are not saved: {error.message}", file=sys.stderr)

    def _check_waiting(self, added: JobEntry) -> None:
        """Raise ConflictError if one more job would be too many."""
        waiting = [e for e in self._entries.values() if not e.has_ended and e is not added]
        if sum(map(waiting_bytes, [added, *waiting])) > _WAITING_BYTES:
            raise ConflictError(
                f"{len(waiting)} jobs are waiting, which is too many",
                hint="wait until some have ended, or cancel them",
                waiting=len(waiting),
            )

    def _forget_old(self) -> None:
        ended = [key for key, entry in self._entries.items() if entry.has_ended]
        compared = [key for key in ended if self._entries[key].job.kind in VOLATILE]
        drop = [*ended[:-_KEPT], *compared[:-_COMPARISONS]]
        for kind in KINDS:  # of scheduled jobs, which recur
            repeated = [
                key
                for key, entry in self._entries.items()
                if entry.job.kind == kind
                and entry.job.scheduled
                and (entry.has_ended or entry.job.state == "interrupted")
            ]
            drop += repeated[:-_KEPT_SCHEDULED]
        for key in set(drop):
            del self._entries[key]

    def _read(self) -> None:
        """Read the jobs of the last service."""
        for found in read_jobs(self._layout):
            entry = restored(found)
            if entry is not None:
                self._entries[entry.job.id] = entry
        self._save()
