"""Running the jobs: their order, a thread for each, pause, cancel and resume.

Jobs on the same model run in the order in which they were requested, others at the same time.
"""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from yarnstore import Store
from yarnstore.errors import CancelledError, ConflictError, LockTimeoutError, YarnstoreError
from yarnstore.progress import CANCEL, Cancel, OnProgress, Progress
from yarnstore.store.layout import StoreLayout
from yarnstore.web import problems
from yarnstore.web.entries import ENDED, NOTES, JobEntry, brief, model_of
from yarnstore.web.joblist import JobList
from yarnstore.web.memory import return_unused
from yarnstore.web.progress import Gauge
from yarnstore.web.records import Job, JobKind, JobState, ProblemDetails
from yarnstore.web.work import KINDS, Done, follow_up

# How many jobs run at once; each download has several connections of its own.
_AT_ONCE = 4
_STOP_S = 15.0
_STOPPED = "the service was stopped while this job ran; downloaded data is kept"


class Jobs(JobList):
    """The list of the jobs, and the threads that run them."""

    def __init__(
        self,
        layout: StoreLayout,
        store: Callable[[], Store],
        publish: Callable[[Job], None],
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(layout, publish, read_only=read_only, clock=clock)
        self._store = store
        self._closing = False
        self._after: list[JobEntry] = []  # jobs that have ended, while their threads free disk space
        self.on_scheduled: Callable[[Job], object] = lambda _: None  # called when a scheduled job has ended

    # --- the life of the service ---------------------------------------------------------------

    def open(self) -> None:
        """Read the jobs of the last service, and continue those that were running.

        Raises: LockTimeoutError if another service runs the jobs of this store; FormatError.
        """
        if self._read_only:
            return
        try:
            self.keeper.take()
        except LockTimeoutError as error:
            error.hint = (
                "another `ystore serve` uses this store: use that one, or start this one with --read-only"
            )
            raise
        with self._lock:
            self._read()
            self._dispatch()

    def interrupt(self) -> list[JobEntry]:
        """Request that running jobs stop, and start no others; return the running jobs."""
        with self._lock:
            self._closing = True
            running = self._running()
            for entry in running:
                entry.wanted = entry.wanted or "interrupted"
                if entry.cancel is not None:
                    entry.cancel.stop()
            for entry in self._entries.values():
                self._tell_waiting(entry)
            return running

    def close(self) -> None:
        """Stop running jobs; the next service continues them."""
        running = self.interrupt()
        give_up_s = time.monotonic() + _STOP_S
        for entry in running:
            if entry.thread is not None:
                entry.thread.join(max(0.0, give_up_s - time.monotonic()))
        self.keeper.release()

    # --- requests -------------------------------------------------------------------

    def add(self, kind: JobKind, arguments: Mapping[str, Any]) -> Job:
        """Request a job; it starts as soon as possible.

        Raises: ConflictError if too many wait, or the store was removed.
        """
        self.keeper.check()
        given = {key: value for key, value in arguments.items() if value is not None and value is not False}
        job = Job(
            id=secrets.token_hex(8),
            kind=kind,
            model=model_of(given),
            subject=KINDS[kind].subject(given),
            state="queued",
            created_ms=self._now_ms(),
            scheduled=bool(given.get("scheduled")),
        )
        with self._lock:
            entry = JobEntry(job, given)
            self._check_waiting(entry)
            self._entries[job.id] = entry
            self._forget_old()
            self._changed(job.id)
            self._dispatch()
            return self._entries[job.id].job

    def pause(self, identity: str) -> Job:
        """Stop a job so that it can be resumed.  Raises: NotFoundError, ConflictError."""
        return self._stop(identity, "paused", ("queued", "running"))

    def cancel(self, identity: str) -> Job:
        """Stop a job for good; downloaded data is kept.  Raises: NotFoundError, ConflictError."""
        return self._stop(identity, "cancelled", ("queued", "running", "paused", "interrupted"))

    def resume(self, identity: str) -> Job:
        """Continue a paused or interrupted job, or retry a failed one.

        Raises: NotFoundError, ConflictError.
        """
        with self._lock:
            entry = self._entry(identity)
            if entry.wanted == "paused" and entry.job.state == "running":
                entry.wanted = "queued"  # it starts again as soon as it has stopped
            elif entry.job.state in ("paused", "interrupted", "failed", "cancelled"):
                self._check_waiting(entry)
                self._set(entry, state="queued", error=None, finished_ms=None)
                self._dispatch()
            else:
                raise _not_now(entry.job, "resumed")
            return entry.job

    def forget(self, identity: str) -> None:
        """Remove a job that is not running from the list.  Raises: NotFoundError, ConflictError."""
        with self._lock:
            entry = self._entry(identity)
            if entry.thread is not None:
                raise _not_now(entry.job, "removed")
            del self._entries[identity]
            self._save()

    def when_ended(self, identity: str, call: Callable[[], None]) -> None:
        """Call a function once the job no longer runs and will not start here.  Raises: NotFoundError."""
        with self._lock:
            entry = self._entry(identity)
            entry.ended.append(call)
            self._tell_waiting(entry)

    # --- running jobs ------------------------------------------------------------------------

    def _stop(self, identity: str, wanted: JobState, states: tuple[JobState, ...]) -> Job:
        with self._lock:
            entry = self._entry(identity)
            if entry.job.state not in states:
                raise _not_now(entry.job, wanted)
            if entry.thread is None:
                self._set(entry, state=wanted, finished_ms=self._now_ms() if wanted in ENDED else None)
                self._tell_waiting(entry)
                self._dispatch()
            else:
                entry.wanted = wanted
                if entry.cancel is not None:
                    entry.cancel.stop()
            return entry.job

    def _running(self) -> list[JobEntry]:
        return [entry for entry in [*self._entries.values(), *self._after] if entry.thread is not None]

    def _dispatch(self) -> None:
        """Start each job for which no older job on the same model is queued or running."""
        if self._closing:
            return
        running = self._running()
        taken = [entry.lanes for entry in running]
        free = _AT_ONCE - len(running)
        for entry in self._entries.values():
            if entry.job.state != "queued" or entry.thread is not None:
                continue
            lanes = entry.lanes
            if free > 0 and not any(_meet(lanes, other) for other in taken):
                free -= 1
                self._start(entry)
            taken.append(lanes)

    def _start(self, entry: JobEntry) -> None:
        gauge = Gauge(time.monotonic)
        entry.cancel, entry.wanted = Cancel(lambda: CancelledError("stopped")), None

        def tell(event: Progress) -> None:
            self._progress(entry, gauge, event)

        entry.thread = threading.Thread(target=self._run, args=(entry, entry.cancel, tell), daemon=True)
        self._set(entry, state="running", started_ms=self._now_ms(), finished_ms=None, error=None)
        entry.thread.start()

    def _progress(self, entry: JobEntry, gauge: Gauge, event: Progress) -> None:
        with self._lock:
            if event.phase == "note":
                notes = (*entry.job.notes, event.text)[-NOTES:]
                entry.job = replace(entry.job, notes=notes)
            else:
                gauge.add(event)
                entry.job = replace(
                    entry.job,
                    phase=gauge.phase,
                    bytes_done=gauge.bytes_done,
                    bytes_total=gauge.bytes_total,
                    bytes_per_s=gauge.bytes_per_s,
                    seconds_left=gauge.seconds_left,
                )
            self._publish(brief(entry.job))

    def _run(self, entry: JobEntry, cancel: Cancel, tell: OnProgress) -> None:
        done: Done | None = None
        error: ProblemDetails | None = None
        stopped = False
        CANCEL.set(cancel)  # in the context of this thread
        try:
            done = KINDS[entry.job.kind].run(self._store(), entry.arguments, tell)
        except CancelledError as fault:
            stopped = entry.wanted is not None
            error = None if stopped else problems.describe(fault)
        except YarnstoreError as fault:
            error = problems.describe(fault)
        except BaseException:  # noqa: BLE001 - a defect: the job says so, and the service goes on
            traceback.print_exc()
            error = problems.internal()
        after = replace(entry)  # jobs on the same models wait for it
        with self._lock:
            self._after.append(after)
            self._finish(entry, done, error, stopped=stopped)
            self._dispatch()
        if done is not None:
            follow_up(done)
        with self._lock:
            self._after.remove(after)
            self._dispatch()
            idle = not self._running()
        if idle:
            return_unused()

    def _finish(
        self, entry: JobEntry, done: Done | None, error: ProblemDetails | None, *, stopped: bool
    ) -> None:
        wanted, entry.wanted, entry.thread, entry.cancel = entry.wanted, None, None, None
        state: JobState = "done" if done is not None else "failed"
        notes = entry.job.notes
        if stopped and wanted is not None:
            state = wanted
            if wanted == "interrupted":
                notes = (*notes, _STOPPED)
        self._set(
            entry,
            state=state,
            notes=notes,
            finished_ms=self._now_ms() if state in ENDED else None,
            phase=None,
            bytes_per_s=None,
            seconds_left=None,
            result=done.result if done else None,
            undo=done.undo if done else None,
            error=error,
        )
        self._tell_waiting(entry)
        if entry.job.scheduled and state in ENDED:
            self.on_scheduled(entry.job)

    def _tell_waiting(self, entry: JobEntry) -> None:
        if entry.thread is not None or (entry.job.state == "queued" and not self._closing):
            return
        while entry.ended:
            entry.ended.pop(0)()


def _meet(some: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    return some is None or others is None or bool(some & others)


def _not_now(job: Job, what: str) -> ConflictError:
    return ConflictError(f"the job is {job.state} and cannot be {what}", job=job.id, state=job.state)
