"""`update`: the newest version that a careful person would take, of one installed model or of many; or the
version that is asked for, newer or older.

Of many, several at once: each stands or falls alone.  The decision is `registry/decide`'s.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from yarnstore.core.reflog import Installed
from yarnstore.errors import (
    BackendError,
    CancelledError,
    IntegrityError,
    NotFoundError,
    SpecError,
    UsageError,
    YarnstoreError,
)
from yarnstore.ops.fetching.eligibility import (
    check_eligible,
    entry_and_build,
    ineligible_error,
    require_eligible,
)
from yarnstore.ops.installing.activate import repair_link
from yarnstore.ops.installing.candidates import Candidate, check_hold, evaluate, explain, planned_bytes
from yarnstore.ops.installing.checkout import ensure_view, install
from yarnstore.ops.session.lookup import Offered, cached_entry, not_installed, pin_rule_of
from yarnstore.ops.session.session import Session
from yarnstore.progress import Progress
from yarnstore.registry.decide import DEFAULT_POLICY, Change, Policy, changes_between, incompatibility
from yarnstore.registry.select import Build, require_match
from yarnstore.registry.spec import LATEST, Alias, Spec, parse_selector
from yarnstore.registry.versions import is_breaking, update_type
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.views import view_path

# Downloads share the line, and each has its own connections: more at once only wait for each other.
DEFAULT_JOBS = 4


@dataclass(frozen=True)
class UpdateResult:
    """The result of updating one model."""

    model: str
    #: `planned`: with `--dry-run`; `current`: nothing is newer; `pinned`: a pin excludes newer versions;
    #: `held`: newer versions do not fit; `unlisted`: no registry has the model.
    status: Literal["updated", "planned", "current", "pinned", "held", "unlisted", "failed"]
    version: str  #: The version that is installed now, or would be.
    previous: str | None  #: The version that was installed before.
    changelog: str | None
    download_bytes: int | None
    path: str  #: The path to open.
    seconds: float
    variant: str = ""
    kind: str | None = None  #: The type of the step.
    breaking: bool = False  #: Whether the step is breaking.
    changes: tuple[Change, ...] = ()  #: The versions that the step crosses, the newest first.
    size_bytes: int | None = None
    registry: str | None = None  #: The registry that has the model.
    note: str | None = None  #: Which newer versions were not installed, and why.
    error: dict[str, object] | None = None
    #: How many bytes the retention rules deleted afterwards; for several models see the summary.
    freed_bytes: int = 0
    #: The versions that the retention rules deleted afterwards, or with `--dry-run` would delete; for several
    #: models see the summary.
    deleted_versions: tuple[str, ...] = ()


@dataclass(frozen=True)
class UpdateSummary:
    """The results of updating several models."""

    results: tuple[UpdateResult, ...]  #: The result for each model, in the order in which they were named.
    dry_run: bool  #: Whether nothing was changed.
    freed_bytes: int = 0  #: How many bytes the retention rules deleted afterwards.
    #: The versions that the retention rules deleted afterwards, or with `--dry-run` would delete.
    deleted_versions: tuple[str, ...] = ()

    @property
    def updated(self) -> int:
        """How many models were updated, or with `--dry-run` would be."""
        return sum(result.status in ("updated", "planned") for result in self.results)

    @property
    def failed(self) -> int:
        """How many updates failed; these models keep their version."""
        return sum(result.status == "failed" for result in self.results)


def update(
    session: Session,
    spec: Spec,
    policy: Policy = DEFAULT_POLICY,
    *,
    dry_run: bool = False,
    strict: bool = True,
) -> UpdateResult:
    """Fetch and install the newest version of an installed model, or the version that `spec` selects.

    Without a selector it stays within the installed major unless the policy says otherwise, and with
    `strict` it is an error if all that is newer does not fit here.  With one it goes to that version, also
    to an older one and across a major.

    Raises: NotFoundError where it is not installed or no registry has it; IncompatibleError;
    ConflictError where a pin keeps it from the version asked for, or something else was installed
    meanwhile; UsageError; as `checkout`.
    """
    started = time.perf_counter()
    model = spec.model
    if spec.selector is not None:
        return _update_to(session, spec, policy, started, dry_run=dry_run)
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        found = evaluate(session, model, policy, variant=spec.variant)
        if policy.to is not None and not policy.to_may_miss:
            require_match(found.entry, policy.to)
        decision, build = found.decision, found.decision.wanted
        if build is None:
            if strict and decision.blocked is not None:
                reason = incompatibility(decision.blocked, session.host)
                if reason is not None:
                    raise ineligible_error(found.entry, decision.blocked, reason, session.host)
            if not dry_run:
                repair_link(session, model, ensure_view)
            return _stayed(session, found, started)
        check_eligible(session, found.entry, build, installing=True, force=policy.force)
        planned = _planned(session, found, build, started, sized=dry_run)
        if dry_run:
            return planned
        session.note(describe_step(planned, decision.installed))
        session.updating[model] = found.current
        done = install(session, found.offer(build), "update", chunks, started)
    return replace(
        planned,
        status="updated" if done.changed else "current",  # another process was faster
        version=done.version,
        previous=done.previous if done.changed else None,
        download_bytes=done.download_bytes,
        path=done.path,
        seconds=done.seconds,
        variant=done.variant,
        size_bytes=done.size_bytes,
        note=explain(found, session.host, moved=True) or None,
    )


def _update_to(
    session: Session, spec: Spec, policy: Policy, started: float, *, dry_run: bool
) -> UpdateResult:
    """Install the version that a spec selects, in place of the one that is installed."""
    if policy.to is not None:
        raise UsageError(
            f"{spec} has a version, and --to a range", hint="give only one of them", model=spec.model
        )
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        current = session.refs.current(spec.model)
        if current is None:
            raise not_installed(session, spec.model)
        found = require_eligible(session, spec, installing=True, force=policy.force)
        name = found.name
        check_hold(spec.model, pin_rule_of(session, spec.model, current), current, name.version, name.variant)
        told = entry_and_build(session, found)
        changes = changes_between(told[0], current.version, name.version, name.variant) if told else ()
        same = (name.version, name.variant) == (current.version, current.variant)
        kind = update_type(current.version, name.version, security=any(item.security for item in changes))
        result = UpdateResult(
            model=spec.model,
            status="current" if same else "planned",
            version=name.version,
            previous=None if same else current.version,
            changelog=told[1].entry.changelog if told else None,
            download_bytes=planned_bytes(session, found)
            if dry_run and isinstance(found, Offered) and not same
            else 0,
            path=_path(session, current) if dry_run else "",
            seconds=0.0,
            variant=name.variant,
            kind=None if same else kind,
            breaking=not same and is_breaking(current.version, name.version),
            changes=changes,
            size_bytes=told[1].entry.size_bytes if told else None,
            registry=found.source.name if isinstance(found, Offered) else None,
        )
        if not dry_run and not same:
            session.note(describe_step(result, current.version))
            session.updating[spec.model] = current
        if not dry_run:
            done = install(session, found, "update", chunks, started)
            result = replace(
                result,
                status="updated" if done.changed else "current",
                download_bytes=done.download_bytes,
                size_bytes=done.size_bytes,
                path=done.path,
            )
    return replace(result, seconds=round(time.perf_counter() - started, 4))


def read_requests(session: Session, words: Sequence[str]) -> list[str]:
    """The specs that the words of a command line mean: `m 1.1.0 other` is `m@1.1.0` and `other`.

    A word behind a model is its version where it reads as a version or a range, or is one of the model's
    aliases, and no model of that name is installed.

    Raises: UsageError where a version has no model before it.
    """
    models = set(session.refs.installed_models())
    specs: list[str] = []
    joined = True
    for word in words:
        if word in models or not _is_selector(session, word, specs[-1] if specs else ""):
            specs.append(word)
            joined = "@" in word
        elif joined:
            raise UsageError(f"{word!r} is a version without a model", hint="give the model before it")
        else:
            specs[-1] = f"{specs[-1]}@{word}"
            joined = True
    return specs


def _is_selector(session: Session, word: str, spec: str) -> bool:
    """Whether a word selects a version of the model that a spec names."""
    try:
        selector = parse_selector(word)
        model = Spec.parse(spec).model if spec else ""
    except SpecError:
        return False
    if not isinstance(selector, Alias):
        return True
    if selector.name == LATEST:
        return bool(model)
    found = cached_entry(session, model) if model else None
    return found is not None and selector.name in found[1].aliases


def describe_step(step_to: UpdateResult, installed: str) -> str:
    """What a step brings, before it is taken: the changelog, or those of all versions that it crosses."""
    step = f"{step_to.model} {installed} → {step_to.version}"
    if step_to.kind == "downgrade":
        return f"{step}, which is older"
    if len(step_to.changes) < 2 and not step_to.breaking:
        return f"{step}: {step_to.changelog or 'no changelog'}"
    lines = [f"{step}{', which may break existing uses' if step_to.breaking else ''}:"]
    for change in step_to.changes:
        marks = [change.kind, *(["breaking"] if change.breaking and change.kind != "major" else [])]
        text = "\n  ".join((change.changelog or "no changelog").strip().splitlines())
        lines.append(f"{change.version} ({', '.join(marks)}): {text}")
    return "\n".join(lines)


def _stayed(session: Session, found: Candidate, started: float) -> UpdateResult:
    decision = found.decision
    status: Literal["current", "pinned", "held"] = "current"
    if decision.blocked is not None:
        status = "held"
    elif decision.blocker == "pinned":
        status = "pinned"
    return UpdateResult(
        model=found.model,
        status=status,
        version=found.current.version,
        previous=None,
        changelog=None,
        download_bytes=0,
        path=_path(session, found.current),
        seconds=round(time.perf_counter() - started, 4),
        variant=found.current.variant,
        kind=decision.kind,
        breaking=decision.breaking,
        registry=found.source.name,
        note=explain(found, session.host) or None,
    )


def _planned(
    session: Session, found: Candidate, build: Build, started: float, *, sized: bool
) -> UpdateResult:
    decision = found.decision
    return UpdateResult(
        model=found.model,
        status="planned",
        version=build.version,
        previous=found.current.version,
        changelog=build.entry.changelog,
        download_bytes=planned_bytes(session, found.offer(build)) if sized else None,
        path=_path(session, found.current) if sized else "",
        seconds=round(time.perf_counter() - started, 4),
        variant=build.variant,
        kind=decision.kind,
        breaking=decision.breaking,
        changes=decision.changes,
        size_bytes=build.entry.size_bytes,
        registry=found.source.name,
        note=explain(found, session.host) or None,
    )


def _path(session: Session, current: Installed) -> str:
    return str(view_path(session.layout, session.layout.read_manifest(current.manifest)))


def update_many(
    session: Session,
    specs: tuple[Spec, ...] = (),
    policy: Policy = DEFAULT_POLICY,
    *,
    dry_run: bool = False,
    jobs: int = DEFAULT_JOBS,
    on_result: Callable[[UpdateResult], None] | None = None,
) -> UpdateSummary:
    """Update several installed models, or with none named all of them; one that fails stops no other.

    `on_result` is told each as it is done, from the thread that did it, one at a time.

    Raises: NoRegistryError; UsageError where a model is named for two versions.  What happens to a model is
    in its result.
    """
    sources = session.require_sources()
    strict = bool(specs)
    wanted = tuple(dict.fromkeys(specs)) or tuple(map(Spec, session.refs.installed_models()))
    names = [spec.model for spec in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is given twice, with different versions", hint="give it once")
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

    shared = msgspec.structs.replace(session, on_progress=on_progress)

    def one(spec: Spec) -> UpdateResult:
        try:
            done = update(shared, spec, policy, dry_run=dry_run, strict=strict)
        except CancelledError:
            raise
        except YarnstoreError as error:
            done = _failed(shared, spec.model, error)
            listed = error.fields.get("what") == "version"  # where the registry has none in the range
            if not strict and isinstance(error, NotFoundError) and done.version and not listed:
                done = replace(done, status="unlisted", error=None)  # imported: there is nothing to ask
        if on_result is not None:
            with telling:
                on_result(done)
        return done

    with ThreadPoolExecutor(max(1, min(jobs, len(wanted) or 1))) as pool:
        futures = [pool.submit(one, spec) for spec in wanted]
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
        model=model,
        status="failed",
        version=version,
        previous=None,
        changelog=None,
        download_bytes=0,
        path=path,
        seconds=0.0,
        variant=variant,
        note=error.message,
        error=error.as_dict(),
    )
