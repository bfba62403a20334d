"""The jobs: a queue, a thread for each running job, and a record that outlives the process.

Jobs on the same model run in the order in which they were requested, others at the same time.  `jobs.json` in
the store has all jobs except comparisons, whose results are large; see docs/format/store.md.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import msgspec

from yarnstore import Store
from yarnstore.core.jsonable import jsonable
from yarnstore.core.limits import MIB
from yarnstore.errors import (
    CancelledError,
    ConflictError,
    LockTimeoutError,
    NotFoundError,
    StorageError,
    YarnstoreError,
)
from yarnstore.progress import CANCEL, Cancel, OnProgress, Progress
from yarnstore.registry.spec import Spec
from yarnstore.store.jobs import JobsKeeper, StoredJob, read_jobs, write_jobs
from yarnstore.store.layout import StoreLayout
from yarnstore.web import problems
from yarnstore.web.memory import return_unused
from yarnstore.web.progress import Gauge
from yarnstore.web.records import Job, JobKind, JobState, ProblemDetails, Undo
from yarnstore.web.work import KINDS, Arguments, Done, follow_up

ENDED: Final = ("done", "failed", "cancelled")
# How many jobs run at once; each download has several connections of its own.
_AT_ONCE = 4
_KEPT = 200
# Their results are large, and only in memory.
_COMPARISONS = 10
_KEPT_SCHEDULED = 10
_NOTES = 50
# Jobs that have not ended are always in the file, which must stay readable.
_WAITING_BYTES = MIB
_JOB_BYTES = 400
_STOP_S = 15.0
# A comparison's result has a row for each tensor; it is kept while the service runs.
_VOLATILE: tuple[JobKind, ...] = ("diff",)
_KILLED = "the service was killed while this job ran; downloaded data is kept"
_STOPPED = "the service was stopped while this job ran; downloaded data is kept"


@dataclass
class _Entry:
    """One job with its thread."""

    job: Job
    arguments: Arguments
    cancel: Cancel | None = None
    thread: threading.Thread | None = None
    wanted: JobState | None = None  # its state once it has stopped
    ended: list[Callable[[], None]] = field(default_factory=list)

    @property
    def lanes(self) -> frozenset[str] | None:
        return KINDS[self.job.kind].lanes(self.arguments)


class Jobs:
    """All jobs of one store.  Every method may be called from any thread."""

    def __init__(
        self,
        layout: StoreLayout,
        store: Callable[[], Store],
        publish: Callable[[Job], None],
        *,
        read_only: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = layout
        self._store = store
        self._publish = publish
        self._read_only = read_only
        self._clock = clock
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._closing = False
        self._after: list[_Entry] = []  # jobs that have ended, while their threads free disk space
        self.keeper = JobsKeeper(layout)
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
                "another `ystore serve` runs on this store: use that one, or start this with --read-only"
            )
            raise
        with self._lock:
            for stored in read_jobs(self._layout):
                entry = _restored(stored)
                if entry is not None:
                    self._entries[entry.job.id] = entry
            self._save()
            self._dispatch()

    def interrupt(self) -> list[_Entry]:
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
            model=_model(given),
            subject=KINDS[kind].subject(given),
            state="queued",
            created_ms=self._now_ms(),
            scheduled=bool(given.get("scheduled")),
        )
        with self._lock:
            entry = _Entry(job, given)
            self._check_waiting(entry)
            self._entries[job.id] = entry
            self._forget_old()
            self._changed(job.id)
            self._dispatch()
            return self._entries[job.id].job

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

    def last_ended(self, kind: JobKind, *, without: str = "") -> Job | None:
        """Return the job of a kind that ended last, successful or not; `without` is the id of one to skip."""
        with self._lock:
            found = [e.job for e in self._entries.values() if e.job.kind == kind and e.job.id != without]
        ended = (job for job in found if job.state in ENDED)
        return max(ended, key=lambda job: job.finished_ms or 0, default=None)

    def pending(self, kind: JobKind) -> bool:
        """Whether a job of a kind is queued, running or paused."""
        states = ("queued", "running", "paused")
        with self._lock:
            return any(e.job.kind == kind and e.job.state in states for e in self._entries.values())

    def running(self) -> int:
        """Return how many jobs are queued or running."""
        with self._lock:
            return sum(entry.job.state in ("queued", "running") for entry in self._entries.values())

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

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _entry(self, identity: str) -> _Entry:
        entry = self._entries.get(identity)
        if entry is None:
            raise NotFoundError("job", identity[:80], hint="GET /api/v1/jobs lists them")
        return entry

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

    def _set(self, entry: _Entry, **changes: Any) -> None:  # noqa: ANN401 - the fields of Job
        entry.job = replace(entry.job, **changes)
        self._changed(entry.job.id)

    def _changed(self, identity: str) -> None:
        self._publish(brief(self._entries[identity].job))
        self._save()

    def _save(self) -> None:
        if self._read_only or not self.keeper.has_store():
            return
        kept = [_stored(entry) for entry in self._entries.values() if entry.job.kind not in _VOLATILE]
        try:
            write_jobs(self._layout, kept)
        except StorageError as error:
            # A full disk: the job continues, but a kill would lose its request.
            print(f"jobs are not saved: {error.message}", file=sys.stderr)

    def _check_waiting(self, added: _Entry) -> None:
        """Raise ConflictError if one more job would be too many."""
        waiting = [e for e in self._entries.values() if e.job.state not in ENDED and e is not added]
        if sum(map(_size, [added, *waiting])) > _WAITING_BYTES:
            raise ConflictError(
                f"{len(waiting)} jobs are waiting, which is too many",
                hint="wait until some have ended, or cancel them",
                waiting=len(waiting),
            )

    def _forget_old(self) -> None:
        ended = [key for key, entry in self._entries.items() if entry.job.state in ENDED]
        compared = [key for key in ended if self._entries[key].job.kind in _VOLATILE]
        drop = [*ended[:-_KEPT], *compared[:-_COMPARISONS]]
        for kind in KINDS:  # of scheduled jobs, which recur
            repeated = [
                key
                for key, entry in self._entries.items()
                if entry.job.kind == kind
                and entry.job.scheduled
                and entry.job.state in (*ENDED, "interrupted")
            ]
            drop += repeated[:-_KEPT_SCHEDULED]
        for key in set(drop):
            del self._entries[key]

    def _running(self) -> list[_Entry]:
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

    def _start(self, entry: _Entry) -> None:
        gauge = Gauge(time.monotonic)
        entry.cancel, entry.wanted = Cancel(lambda: CancelledError("stopped")), None

        def tell(event: Progress) -> None:
            self._progress(entry, gauge, event)

        entry.thread = threading.Thread(target=self._run, args=(entry, entry.cancel, tell), daemon=True)
        self._set(entry, state="running", started_ms=self._now_ms(), finished_ms=None, error=None)
        entry.thread.start()

    def _progress(self, entry: _Entry, gauge: Gauge, event: Progress) -> None:
        with self._lock:
            if event.phase == "note":
                notes = (*entry.job.notes, event.text)[-_NOTES:]
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

    def _run(self, entry: _Entry, cancel: Cancel, tell: OnProgress) -> None:
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
        self, entry: _Entry, done: Done | None, error: ProblemDetails | None, *, stopped: bool
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

    def _tell_waiting(self, entry: _Entry) -> None:
        if entry.thread is not None or (entry.job.state == "queued" and not self._closing):
            return
        while entry.ended:
            entry.ended.pop(0)()


def _size(entry: _Entry) -> int:
    """Estimate how many bytes of the file an unfinished job needs."""
    return len(msgspec.json.encode([entry.arguments, entry.job.notes])) + _JOB_BYTES


def brief(job: Job) -> Job:
    """Return a job as in lists and events: a comparison without its result."""
    return replace(job, result=None) if job.kind in _VOLATILE and job.result is not None else job


def _model(given: Arguments) -> str | None:
    """Return the bare id of the model that a job works on."""
    model = given.get("model")
    return Spec.parse(model).model if isinstance(model, str) else None


def _meet(some: frozenset[str] | None, others: frozenset[str] | None) -> bool:
    return some is None or others is None or bool(some & others)


def _not_now(job: Job, what: str) -> ConflictError:
    return ConflictError(f"the job is {job.state} and cannot be {what}", job=job.id, state=job.state)


def _stored(entry: _Entry) -> StoredJob:
    job = entry.job
    return StoredJob(
        id=job.id,
        kind=job.kind,
        state=job.state,
        created_ms=job.created_ms,
        arguments=dict(entry.arguments),
        started_ms=job.started_ms,
        finished_ms=job.finished_ms,
        notes=job.notes,
        result=job.result,
        error=jsonable(job.error),
        undo=asdict(job.undo) if job.undo else None,
    )


def _restored(stored: StoredJob) -> _Entry | None:
    """Return a job of an earlier service; None if this release does not know its kind or state."""
    try:
        kind = msgspec.convert(stored.kind, JobKind)
        state = msgspec.convert(stored.state, JobState)
        error = msgspec.convert(stored.error, ProblemDetails | None)
        undo = msgspec.convert(stored.undo, Undo | None)
        subject = KINDS[kind].subject(stored.arguments)
    except (msgspec.ValidationError, KeyError):
        return None
    notes = stored.notes
    if state in ("running", "interrupted"):
        goes_on = KINDS[kind].repeatable
        if state == "running":
            notes = (*notes, _KILLED)
        if goes_on:
            notes = (*notes, "the job continues")
        state = "queued" if goes_on else "interrupted"
    job = Job(
        id=stored.id,
        kind=kind,
        model=_model(stored.arguments),
        subject=subject,
        state=state,
        created_ms=stored.created_ms,
        started_ms=stored.started_ms,
        finished_ms=stored.finished_ms,
        notes=notes[-_NOTES:],
        result=stored.result,
        error=error,
        undo=undo,
        scheduled=bool(stored.arguments.get("scheduled")),
    )
    return _Entry(job, stored.arguments)
