"""What the API returns beside the results of `yarnstore.results`: jobs, plans, problems.  Needs no extra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from yarnstore.results import AutoUpdateStatus, GcItem, History, InstalledModel, StoreStatus, VersionDetails

JobKind: TypeAlias = Literal["fetch", "checkout", "update", "update-all", "rollback", "diff", "gc", "fsck"]
Answer: TypeAlias = Literal["current", "updates", "problems", "empty"]
JobState: TypeAlias = Literal["queued", "running", "paused", "done", "failed", "cancelled", "interrupted"]


@dataclass(frozen=True)
class ProblemDetails:
    """An error, as RFC 9457 has it."""

    type: str  #: The address of the error's description, relative to the project's documentation.
    title: str  #: The kind of the error, in words.
    status: int  #: The HTTP status.
    detail: str  #: What happened.
    code: str  #: The code of the error; see docs/errors.md.
    hint: str = ""  #: What to do next, or empty.
    fields: dict[str, object] = field(default_factory=dict)  #: The facts that `detail` was made from.


@dataclass(frozen=True)
class Undo:
    """The request that takes back what a job did."""

    method: str  #: The HTTP method.
    path: str  #: The path.
    body: dict[str, object] | None = None  #: The JSON body; None for none.


@dataclass(frozen=True)
class Job:
    """Work that takes time."""

    id: str  #: The id of the job.
    kind: JobKind  #: What it does.
    model: str | None  #: The model that it works on; None for several or none.
    subject: str  #: What it works on, in words.
    state: JobState  #: `interrupted`: the service ended while it ran.
    created_ms: int  #: When it was requested.
    started_ms: int | None = None  #: When it last started.
    finished_ms: int | None = None  #: When it ended.
    phase: str | None = None  #: What it does now: `read`, `delta`, `download`, `write` or `check`.
    bytes_done: int = 0  #: How many bytes of this phase are done.
    bytes_total: int = 0  #: How many bytes this phase has; 0 if unknown.
    bytes_per_s: float | None = None  #: The rate of the last seconds.
    seconds_left: float | None = None  #: How long this phase takes at that rate.
    notes: tuple[str, ...] = ()  #: Messages of the work, the oldest first.
    result: dict[str, object] | None = None  #: The result; its type follows from `kind`.
    error: ProblemDetails | None = None  #: Why it failed.
    undo: Undo | None = None  #: The request that takes it back, where there is one.


@dataclass(frozen=True)
class Overview:
    """The state of everything in one answer."""

    answer: Answer  #: The answer, for programs.
    sentence: str  #: The answer, for people.
    updates: int  #: How many models have an update.
    problems: list[str]  #: What needs attention, one sentence each.
    last_check_ms: int | None  #: When the registries were last asked.
    last_fsck_ms: int | None  #: When the store was last checked by this service.
    jobs_running: int  #: How many jobs are queued or running.
    store: StoreStatus  #: The content and the disk usage of the store.
    read_only: bool = False  #: Whether this service refuses changes: it was started with `--read-only`.


@dataclass(frozen=True)
class ModelPage:
    """All that is known of one model."""

    installed: InstalledModel | None  #: The installed version.
    details: VersionDetails | None  #: What the registry says of the version; None if it lists none.
    history: History  #: The versions and the changes.


@dataclass(frozen=True)
class ModelPath:
    """Where a version is."""

    path: str  #: The path to open.


@dataclass(frozen=True)
class GcPlanned:
    """What `gc` would do."""

    id: str  #: The id of the plan.
    freed_bytes: int  #: How many bytes it would free.
    items: list[GcItem]  #: What would be deleted.
    kept: list[GcItem]  #: What stays.
    expires_ms: int  #: Until when it can be applied.


@dataclass(frozen=True)
class NextRound:
    """When auto-update works next."""

    at_ms: int | None  #: When; None for never.
    sentence: str  #: When, for people.


@dataclass(frozen=True)
class AutoUpdatePage:
    """The auto-update settings, and what they lead to."""

    status: AutoUpdateStatus  #: The settings.
    next_round: NextRound  #: The next round.


@dataclass(frozen=True)
class LoginLink:
    """A login address that works once, in one browser."""

    path: str  #: The path, with a token that works once.
    expires_ms: int  #: Until when it works.
