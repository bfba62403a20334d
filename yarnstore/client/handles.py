"""One job of the service: its progress and its result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from yarnstore.client.connection import Connection, restored
from yarnstore.errors import CancelledError, ConflictError, TransientError
from yarnstore.progress import OnProgress, Phase, Progress
from yarnstore.results import (
    AutoUpdateRound,
    CheckoutResult,
    DiffResult,
    FetchResult,
    FsckResult,
    GcResult,
    RestoreResult,
    UpdateResult,
    UpdateSummary,
)
from yarnstore.web.records import Job

T = TypeVar("T")

RESULTS: Final[dict[str, Any]] = {
    "fetch": FetchResult,
    "checkout": CheckoutResult,
    "update": UpdateResult,
    "update-all": UpdateSummary,
    "rollback": CheckoutResult,
    "diff": DiffResult,
    "gc": GcResult,
    "fsck": FsckResult,
    "auto-update": AutoUpdateRound,
    "restore": RestoreResult,
}
_ENDED: Final = ("done", "failed", "cancelled", "interrupted")
_PHASES: Final[tuple[Phase, ...]] = get_args(Phase)


class JobHandle(Generic[T]):
    """A job of the service; `job` is its last known state.

    Iterating yields a state for each change, at most ten a second, until the job has ended.  A paused job
    has not ended.  A connection that is cut is made again.
    """

    def __init__(self, connection: Connection, job: Job) -> None:
        self._connection = connection
        self.job = job

    @property
    def id(self) -> str:
        """The id of the job, from which `Client.job` makes another handle."""
        return self.job.id

    def __repr__(self) -> str:
        return f"<job {self.job.id}: {self.job.kind} {self.job.subject}, {self.job.state}>"

    def refresh(self) -> Job:
        """Ask for the state.  Raises: NotFoundError if the job was removed; TransientError."""
        self.job = self._connection.get(Job, f"/jobs/{self.id}")
        return self.job

    def __iter__(self) -> Iterator[Job]:
        while True:
            for job in self._followed():
                self.job = job
                yield job
                if job.state in _ENDED:
                    return
            # The service ended; another one at the same address has the job.
            self.refresh()

    def _followed(self) -> Iterator[Job]:
        """Yield the states that one stream brings, until it ends or is cut, such as by a proxy."""
        heard = False
        try:
            for event in self._connection.events(f"/jobs/{self.id}/events"):
                if isinstance(event, Job):
                    heard = True
                    yield event
        except TransientError:
            if not heard:
                raise

    def wait(self, progress: OnProgress | None = None) -> T:
        """Wait until the job has ended, and return its result; also waits while the job is paused.

        Raises: the error that the job failed with; CancelledError if it was cancelled, or the service ended
        while it ran; TransientError if the service cannot be reached.
        """
        noted = 0
        for job in self:
            if progress is not None:
                new = job.notes[noted:] if len(job.notes) >= noted else ()
                noted = len(job.notes)
                for note in new:
                    progress(Progress("note", job.subject, text=note))
                phase = next((known for known in _PHASES if known == job.phase), None)
                if phase is not None:
                    progress(Progress(phase, job.subject, job.bytes_done, job.bytes_total))
        return self._result(self.refresh())

    def _result(self, job: Job) -> T:
        if job.error is not None:
            error = job.error
            raise restored(error.status, error.code, error.detail, error.hint, error.fields)
        if job.state != "done" or job.result is None:
            why = (
                "the service ended while it ran"
                if job.state == "interrupted"
                else f"its state is {job.state}"
            )
            raise CancelledError(
                f"the job {job.kind} {job.subject} has no result: {why}",
                hint="resume() continues it",
                job=job.id,
                state=job.state,
            )
        found: T = msgspec.convert(job.result, RESULTS[job.kind], strict=False)
        return found

    def pause(self) -> Job:
        """Stop the job; `resume` continues where it stopped.  Raises: ConflictError if it has ended."""
        return self._tell("pause")

    def resume(self) -> Job:
        """Continue a paused or interrupted job; retry a failed or cancelled one.  Raises: ConflictError."""
        return self._tell("resume")

    def cancel(self) -> Job:
        """Stop the job for good; what it downloaded is kept for the next try.  Raises: ConflictError."""
        return self._tell("cancel")

    def undo(self) -> JobHandle[CheckoutResult]:
        """Undo the job by another job.  Raises: ConflictError if it cannot be undone."""
        undo = self.refresh().undo
        if undo is None:
            raise ConflictError(f"the job {self.job.kind} {self.job.subject} cannot be undone", job=self.id)
        return JobHandle(self._connection, self._connection.ask(Job, undo.method, undo.path, undo.body))

    def remove(self) -> None:
        """Remove the job from the service's list.  Raises: ConflictError while it runs."""
        self._connection.ask(object, "DELETE", f"/jobs/{self.id}")

    def _tell(self, what: str) -> Job:
        self.job = self._connection.ask(Job, "POST", f"/jobs/{self.id}/{what}")
        return self.job
