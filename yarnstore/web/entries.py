"""One job as the service holds it, and as `jobs.json` has it.

See docs/format/jobs.md.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import msgspec

from yarnstore.core.jsonable import jsonable
from yarnstore.errors import YarnstoreError
from yarnstore.progress import Cancel
from yarnstore.registry.spec import Spec
from yarnstore.store.jobs import StoredJob
from yarnstore.web.records import Job, JobKind, JobState, ProblemDetails, Undo
from yarnstore.web.work import KINDS, Arguments

ENDED: Final = ("done", "failed", "cancelled")
# A comparison's result has a row for each tensor; it is kept while the service runs.
VOLATILE: Final[tuple[JobKind, ...]] = ("diff",)
NOTES: Final = 50
_JOB_BYTES = 400
_KILLED = "the service was killed while this job ran; downloaded data is kept"


@dataclass
class JobEntry:
    """One job with its thread."""

    job: Job
    arguments: Arguments
    cancel: Cancel | None = None
    thread: threading.Thread | None = None
    wanted: JobState | None = None  # its state once it has stopped
    ended: list[Callable[[], None]] = field(default_factory=list)

    @property
    def lanes(self) -> frozenset[str] | None:
        """The models that the job changes; None: it runs alone."""
        return KINDS[self.job.kind].lanes(self.arguments)

    @property
    def has_ended(self) -> bool:
        return self.job.state in ENDED


def brief(job: Job) -> Job:
    """Return a job as in lists and events: a comparison without its result."""
    return replace(job, result=None) if job.kind in VOLATILE and job.result is not None else job


def model_of(given: Arguments) -> str | None:
    """Return the bare id of the model that a job works on."""
    model = given.get("model")
    return Spec.parse(model).model if isinstance(model, str) else None


def waiting_bytes(entry: JobEntry) -> int:
    """Estimate how many bytes of the file an unfinished job needs."""
    return len(msgspec.json.encode([entry.arguments, entry.job.notes])) + _JOB_BYTES


def stored(entry: JobEntry) -> StoredJob:
    """Return a job as the file has it."""
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


def restored(stored: StoredJob) -> JobEntry | None:
    """Return a job of an earlier service; None if this release cannot read it or does not know its kind."""
    try:
        return _restored(stored)
    except (YarnstoreError, msgspec.ValidationError, LookupError, TypeError, ValueError, AttributeError):
        return None  # the values of `arguments` are any JSON


def _restored(stored: StoredJob) -> JobEntry:
    kind = msgspec.convert(stored.kind, JobKind)
    state = msgspec.convert(stored.state, JobState)
    error = msgspec.convert(stored.error, ProblemDetails | None)
    undo = msgspec.convert(stored.undo, Undo | None)
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
        model=model_of(stored.arguments),
        subject=KINDS[kind].subject(stored.arguments),
        state=state,
        created_ms=stored.created_ms,
        started_ms=stored.started_ms,
        finished_ms=stored.finished_ms,
        notes=notes[-NOTES:],
        result=stored.result,
        error=error,
        undo=undo,
        scheduled=bool(stored.arguments.get("scheduled")),
    )
    entry = JobEntry(job, stored.arguments)
    _ = entry.lanes  # which reads the arguments too
    return entry
