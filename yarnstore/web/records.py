"""The records that the API returns in addition to those of `yarnstore.results`: jobs, plans, problems.

The extra `web` is not needed to import them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from yarnstore.results import AutoUpdateStatus, GcItem, History, InstalledModel, StoreStatus, VersionDetails

JobKind: TypeAlias = Literal[
    "fetch", "checkout", "update", "update-all", "rollback", "diff", "gc", "fsck", "auto-update", "restore"
]
Answer: TypeAlias = Literal["current", "updates", "problems", "empty"]
JobState: TypeAlias = Literal["queued", "running", "paused", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True)
class ProblemDetails:
    """An error in the form of RFC 9457."""

    type: str  #: The address of the error's description, relative to the project's documentation.
    title: str  #: The kind of the error, in words.
    status: int  #: The HTTP status.
    detail: str  #: What happened.
    code: str  #: The code of the error; see docs/errors.md.
    hint: str = ""  #: What to do next, or empty.
    fields: dict[str, object] = field(default_factory=dict)  #: The values that `detail` contains.


@dataclass(frozen=True)
class Undo:
    """The request that undoes a job."""

    method: str  #: The HTTP method.
    path: str  #: The path.
    body: dict[str, object] | None = None  #: The JSON body, if it has one.


@dataclass(frozen=True)
class Job:
    """Work that takes time, with its progress and its result."""

    id: str  #: The id of the job.
    kind: JobKind  #: What it does.
    model: str | None  #: The model that it works on; None if there are several or none.
    subject: str  #: What it works on, in words.
    state: JobState  #: `interrupted`: the service ended while it ran.
    created_ms: int  #: When it was requested.
    started_ms: int | None = None  #: When it last started.
    finished_ms: int | None = None  #: When it ended.
    phase: str | None = None  #: The current phase: `read`, `delta`, `download`, `write` or `check`.
    bytes_done: int = 0  #: How many bytes of this phase are done.
    bytes_total: int = 0  #: How many bytes this phase has; 0 if unknown.
    bytes_per_s: float | None = None  #: The average rate of the last few seconds.
    seconds_left: float | None = None  #: The time until this phase ends at that rate.
    notes: tuple[str, ...] = ()  #: Messages of the job, oldest first.
    result: dict[str, object] | None = None  #: The result; its type follows from `kind`.
    error: ProblemDetails | None = None  #: Why it failed.
    undo: Undo | None = None  #: The request that undoes it, if there is one.
    scheduled: bool = False  #: Whether the service's schedule started it.


@dataclass(frozen=True)
class Overview:
    """A summary of the store."""

    answer: Answer  #: The summary in one word, for programs.
    sentence: str  #: The summary in one sentence, for people.
    updates: int  #: How many models have an update.
    problems: list[str]  #: What needs attention, one sentence each.
    last_check_ms: int | None  #: When the registries were last checked.
    last_fsck_ms: int | None  #: When the store was last checked by this service.
    jobs_running: int  #: How many jobs are queued or running.
    store: StoreStatus  #: The content and the disk usage of the store.
    read_only: bool = False  #: Whether the service was started with `--read-only`, and refuses changes.


@dataclass(frozen=True)
class ModelPage:
    """Everything that is known about one model."""

    installed: InstalledModel | None  #: The installed version.
    details: VersionDetails | None  #: What the registry says about the version; None if it is not listed.
    history: History  #: Its versions, and the changes of the installed version.


@dataclass(frozen=True)
class ModelPath:
    """The path of a version."""

    path: str  #: The path to open.


@dataclass(frozen=True)
class GcPlanned:
    """A plan of `gc`, which can be applied."""

    id: str  #: The id of the plan.
    freed_bytes: int  #: How many bytes it would free.
    items: list[GcItem]  #: What would be deleted.
    kept: list[GcItem]  #: What would be kept.
    expires_ms: int  #: When the plan expires.


@dataclass(frozen=True)
class NextRound:
    """The time of the next auto-update run."""

    at_ms: int | None  #: The time; None if no run is due.
    sentence: str  #: The time in words, for people.


@dataclass(frozen=True)
class AutoUpdatePage:
    """The auto-update settings and the next run."""

    status: AutoUpdateStatus  #: The settings.
    next_round: NextRound  #: The next run.


@dataclass(frozen=True)
class LoginLink:
    """A login address that works once, in one browser."""

    path: str  #: The path, with a token that works once.
    expires_ms: int  #: When it expires.
