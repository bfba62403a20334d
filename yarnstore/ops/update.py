"""`update`: the newest version that a careful person would take, of one installed model or of many.

Of many, several at once: each stands or falls alone.  The decision is `registry/lifecycle`'s.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from yarnstore.core.reflog import Installed
from yarnstore.errors import BackendError, CancelledError, IntegrityError, NotFoundError, YarnstoreError
from yarnstore.ops.admit import check, refusal
from yarnstore.ops.checkout import install
from yarnstore.ops.moves import relink
from yarnstore.ops.outdated import Considered, consider, explain, planned_bytes
from yarnstore.ops.progress import Progress
from yarnstore.ops.session import Session
from yarnstore.registry.lifecycle import DEFAULT_POLICY, Change, Policy, misfit
from yarnstore.registry.resolve import Build
from yarnstore.store.views import installed_path

# Downloads share the line, and each has its own connections: more at once only wait for each other.
DEFAULT_JOBS = 4


@dataclass(frozen=True)
class UpdateResult:
    """How an update went.

    `status` is `updated`; `planned` with a dry run; `current` where nothing newer is to be had; `pinned`
    where a pin keeps from it what is; `held` where what is does not fit here; `unlisted` where no
    registry has the model; `failed`, with the error as JSON.  `version` is the one that is installed now,
    or would be; `changes` the versions crossed, the newest first.  `note` says what else there is, and
    why it was not taken.
    """

    model: str
    status: Literal["updated", "planned", "current", "pinned", "held", "unlisted", "failed"]
    version: str
    previous: str | None
    changelog: str | None
    download_bytes: int | None
    path: str
    seconds: float
    variant: str = ""
    kind: str | None = None
    breaking: bool = False
    changes: tuple[Change, ...] = ()
    size_bytes: int | None = None
    registry: str | None = None
    note: str | None = None
    error: dict[str, object] | None = None


@dataclass(frozen=True)
class UpdateSummary:
    """How the updates of several models went, in the order in which they were named."""

    results: tuple[UpdateResult, ...]
    dry_run: bool

    @property
    def updated(self) -> int:
        """How many have, or with a dry run would have, another version now."""
        return sum(result.status in ("updated", "planned") for result in self.results)

    @property
    def failed(self) -> int:
        """How many failed; their old versions stay."""
        return sum(result.status == "failed" for result in self.results)


def update(
    session: Session,
    model: str,
    policy: Policy = DEFAULT_POLICY,
    *,
    dry_run: bool = False,
    strict: bool = True,
) -> UpdateResult:
    """Fetch and install the newest version that is to be had of an installed model.

    Stays within the installed major unless the policy says otherwise.  With `strict` it is an error if
    all that is newer does not fit here.

    Raises: NotFoundError where it is not installed or no registry has it; IncompatibleError;
    ConflictError where something else was installed meanwhile; as `checkout`.
    """
    started = time.perf_counter()
    with session.layout.shared():
        found = consider(session, model, policy)
        decision, build = found.decision, found.decision.wanted
        if build is None:
            if strict and decision.held is not None:
                reason = misfit(decision.held, session.machine)
                if reason is not None:
                    raise refusal(found.entry, decision.held, reason, session.machine)
            if not dry_run:
                relink(session, model)
            return _stayed(session, found, started)
        check(session, found.entry, build, installing=True, force=policy.force)
        if dry_run:
            return _planned(session, found, build, started)
        session.note(describe_step(found, build))
        session.updating[model] = found.current
        done = install(session, found.target(build), "update", started)
    return UpdateResult(
        model,
        "updated" if done.changed else "current",  # another process was faster
        done.version,
        done.previous if done.changed else None,
        build.entry.changelog,
        done.download_bytes,
        done.path,
        done.seconds,
        done.variant,
        decision.kind,
        decision.breaking,
        decision.changes,
        done.size_bytes,
        found.source.name,
        explain(found, session.machine, moved=True) or None,
    )


def describe_step(found: Considered, build: Build) -> str:
    """What a step brings, before it is taken: the changelog, or those of all versions that it crosses."""
    decision = found.decision
    step = f"{found.model} {decision.installed} → {build.version}"
    if len(decision.changes) < 2 and not decision.breaking:
        return f"{step}: {build.entry.changelog or 'no changelog'}"
    lines = [f"{step}{', which breaks with what you have' if decision.breaking else ''}:"]
    for change in decision.changes:
        marks = [change.kind, *(["breaking"] if change.breaking and change.kind != "major" else [])]
        text = "\n  ".join((change.changelog or "no changelog").strip().splitlines())
        lines.append(f"{change.version} ({', '.join(marks)}): {text}")
    return "\n".join(lines)


def _stayed(session: Session, found: Considered, started: float) -> UpdateResult:
    decision = found.decision
    status: Literal["current", "pinned", "held"] = "current"
    if decision.held is not None:
        status = "held"
    elif decision.obstacle == "pinned":
        status = "pinned"
    return UpdateResult(
        found.model,
        status,
        found.current.version,
        None,
        None,
        0,
        _path(session, found.current),
        round(time.perf_counter() - started, 4),
        found.current.variant,
        decision.kind,
        decision.breaking,
        registry=found.source.name,
        note=explain(found, session.machine) or None,
    )


def _planned(session: Session, found: Considered, build: Build, started: float) -> UpdateResult:
    decision = found.decision
    return UpdateResult(
        found.model,
        "planned",
        build.version,
        found.current.version,
        build.entry.changelog,
        planned_bytes(session, found.target(build)),
        _path(session, found.current),
        round(time.perf_counter() - started, 4),
        build.variant,
        decision.kind,
        decision.breaking,
        decision.changes,
        build.entry.size_bytes,
        found.source.name,
        explain(found, session.machine) or None,
    )


def _path(session: Session, current: Installed) -> str:
    return str(installed_path(session.layout, session.layout.read_manifest(current.manifest)))


def update_many(
    session: Session,
    models: tuple[str, ...] = (),
    policy: Policy = DEFAULT_POLICY,
    *,
    dry_run: bool = False,
    jobs: int = DEFAULT_JOBS,
    on_result: Callable[[UpdateResult], None] | None = None,
) -> UpdateSummary:
    """Update several installed models, or with none named all of them; one that fails stops no other.

    `on_result` is told each as it is done, from the thread that did it, one at a time.

    Raises: NoRegistryError.  What happens to a model is in its result.
    """
    sources = session.require_sources()
    strict = bool(models)
    wanted = tuple(dict.fromkeys(models)) or tuple(session.refs.installed_models())
    for source in sources:  # once, before threads come to share the answers
        with contextlib.suppress(BackendError, IntegrityError):
            session.refresh_or_cached(source)
    stop, telling = threading.Event(), threading.Lock()
    tell = session.on_progress

    def on_progress(event: Progress) -> None:
        if stop.is_set():
            raise CancelledError("interrupted")
        with telling:
            tell(event)

    shared = replace(session, on_progress=on_progress)

    def one(model: str) -> UpdateResult:
        try:
            done = update(shared, model, policy, dry_run=dry_run, strict=strict)
        except CancelledError:
            raise
        except YarnstoreError as error:
            done = _failed(shared, model, error)
            if not strict and isinstance(error, NotFoundError) and done.version:
                done = replace(done, status="unlisted", error=None)  # imported: there is nothing to ask
        if on_result is not None:
            with telling:
                on_result(done)
        return done

    with ThreadPoolExecutor(max(1, min(jobs, len(wanted) or 1))) as pool:
        futures = [pool.submit(one, model) for model in wanted]
        try:
            results = tuple(future.result() for future in futures)
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return UpdateSummary(results, dry_run)


def _failed(session: Session, model: str, error: YarnstoreError) -> UpdateResult:
    version, variant, path = "", "", ""
    with contextlib.suppress(YarnstoreError):
        current = session.refs.current(model)
        if current is not None:
            version, variant = current.version, current.variant
            path = _path(session, current)
    return UpdateResult(
        model, "failed", version, None, None, 0, path, 0.0, variant, note=error.message, error=error.as_dict()
    )
