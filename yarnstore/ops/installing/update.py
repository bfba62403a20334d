"""`update`: update one or several installed models to the newest version, or to a requested one.

Several models are updated at the same time.  Those of which one needs another, such as an adapter and its
base, are downloaded first, and then installed one after the other, what is needed first.  An interrupt in
between completes the moves, except those with a self-check, which count as failed.  A kill leaves versions of
which one needs a version that is not installed: `outdated` and `doctor` name it, and the next update without
names finishes.  `update_plan` has the steps of one model.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

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
from yarnstore.ops.installing.activate import rollback_goal, settle_trials
from yarnstore.ops.installing.candidates import plan_moves
from yarnstore.ops.installing.checkout import Prepared, rollback
from yarnstore.ops.installing.update_plan import UpdatePlan, UpdateResult, plan_update
from yarnstore.ops.session.counting import counted
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import cached_entry, needs_of, not_installed
from yarnstore.registry.decide import DEFAULT_POLICY, Policy
from yarnstore.registry.requirements import Requirements
from yarnstore.registry.spec import LATEST, Alias, Spec, parse_selector
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.views import view_path

# Downloads share the bandwidth, and each has its own connections: more at once would not be faster.
DEFAULT_JOBS = 4


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
    session: Session, spec: Spec, policy: Policy = DEFAULT_POLICY, *, dry_run: bool = False
) -> UpdateResult:
    """Fetch and install the newest version of an installed model, or the version that `spec` selects.

    Raises: as `plan_update`; ConflictError if another version was installed meanwhile; as `checkout`.
    """
    started = time.perf_counter()
    if not session.layout.exists():
        raise not_installed(session, spec.model)
    with counted(session, "update", spec.model) as count:
        with session.layout.shared(), ChunkStore(session.layout) as chunks:
            count.counts = not dry_run
            plan = plan_update(session, spec, policy, chunks)
            done = plan.forecast() if dry_run else plan.apply(started)
        count.counts = done.status == "updated"
    return replace(done, seconds=round(time.perf_counter() - started, 4))


def read_requests(session: Session, words: Sequence[str]) -> list[str]:
    """Return the specs of the arguments of a command line: `m 1.1.0 other` is `m@1.1.0` and `other`.

    A word after a model is its version if it is a version, a range, or one of the model's aliases, and no
    model of that name is installed.

    Raises: UsageError if a version has no model before it.
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


def update_many(
    session: Session,
    specs: tuple[Spec, ...] = (),
    policy: Policy = DEFAULT_POLICY,
    *,
    dry_run: bool = False,
    jobs: int = DEFAULT_JOBS,
    on_result: Callable[[UpdateResult], None] | None = None,
) -> UpdateSummary:
    """Update several installed models, or all of them; one failure does not stop the others.

    `on_result` is called with each result when it is known, by one thread at a time.

    Raises: NoRegistryError; UsageError if a model is given with two versions.  The errors of models are in
    their results.
    """
    sources = session.registries.require_sources()
    wanted = tuple(dict.fromkeys(specs)) or tuple(map(Spec, session.refs.installed_models()))
    names = [spec.model for spec in wanted]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is given twice, with different versions", hint="give it once")
    for source in sources:  # once, before threads share the answers
        with contextlib.suppress(BackendError, IntegrityError):
            session.registries.refresh_or_cached(source)

    def told(done: UpdateResult) -> UpdateResult:
        if on_result is not None:
            with session.activity.listening:
                on_result(done)
        return done

    def one(spec: Spec) -> list[UpdateResult]:
        try:
            return [told(update(session, spec, policy, dry_run=dry_run))]
        except CancelledError:
            raise
        except YarnstoreError as error:
            return [told(failed_update(session, spec.model, error))]

    def group(models: tuple[str, ...]) -> list[UpdateResult]:
        policies = dict.fromkeys(models, policy)
        return [told(done) for done in update_group(session, policies, requirements, dry_run=dry_run)]

    work: list[Callable[[], list[UpdateResult]]]
    if specs:  # a model that is named may break another one, which is reported
        work = [partial(one, spec) for spec in wanted]
    else:
        moves = plan_moves(session, dict.fromkeys(names, policy), jobs=jobs)
        requirements = moves.requirements
        moving = {model for models in moves.groups for model in models}
        groups = (*moves.groups, *((name,) for name in names if name not in moving))
        work = [partial(group, models) for models in groups]
    with ThreadPoolExecutor(max(1, min(jobs, len(work) or 1))) as pool:
        futures = [pool.submit(each) for each in work]
        try:
            done = {result.model: result for future in futures for result in future.result()}
        except BaseException:
            session.activity.end()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return UpdateSummary(tuple(done[name] for name in names), dry_run)


class _Ready(NamedTuple):
    """An update whose version is downloaded, if there is one."""

    plan: UpdatePlan
    prepared: Prepared | None
    started: float

    def is_made(self, session: Session) -> bool:
        """Whether its version is installed now, and was not before."""
        if self.prepared is None:
            return False
        goal = self.prepared.manifest.digest
        return self.plan.current.manifest != goal == session.refs.installed(self.plan.outcome.model)


def update_group(
    session: Session, policies: Mapping[str, Policy], requirements: Requirements, *, dry_run: bool = False
) -> list[UpdateResult]:
    """Update models that nobody named, in the order of `policies`, to versions that fit `requirements`.

    The error of a model is in its result.  If one cannot be downloaded, the others go to versions that fit
    without it; if one is not installed in the end, those that it does not fit go back, and those that need
    these.

    Raises: CancelledError, after the moves were completed or taken back if a part of them was made.
    """
    try:
        return _update_group(session, policies, requirements, dry_run=dry_run)
    except CancelledError:
        raise
    except YarnstoreError as error:  # such as another process that holds the store
        return [failed_update(session, model, error, named=False) for model in policies]


def _update_group(
    session: Session, policies: Mapping[str, Policy], requirements: Requirements, *, dry_run: bool
) -> list[UpdateResult]:
    results: dict[str, UpdateResult] = {}
    with session.layout.shared(), contextlib.ExitStack() as opened:
        ready: dict[str, _Ready] = {}
        left = list(policies)
        while left:
            for model in left:
                started = time.perf_counter()
                chunks = opened.enter_context(ChunkStore(session.layout))
                try:
                    ready[model] = _Ready(
                        *_prepare(session, model, policies[model], requirements, chunks, dry_run), started
                    )
                except CancelledError:
                    raise
                except YarnstoreError as error:
                    results[model] = failed_update(session, model, error, named=False)
            rest = {model: policies[model] for model in left if model not in results}
            if len(rest) in (0, len(left)):
                break
            moves = plan_moves(session, rest)
            requirements = moves.requirements
            moving = [model for models in moves.groups for model in models]
            left = [*moving, *(model for model in rest if model not in moving)]
        try:
            for model in (model for model in left if model not in results):
                plan, prepared, started = ready[model]
                try:
                    done = plan.forecast() if dry_run else plan.apply(started, prepared)
                    results[model] = replace(done, seconds=round(time.perf_counter() - started, 4))
                except CancelledError:
                    raise
                except YarnstoreError as error:
                    results[model] = failed_update(session, model, error, named=False)
            results |= _take_back(session, left, results)
        except (CancelledError, KeyboardInterrupt):
            if not dry_run:
                _complete(session, {model: ready[model] for model in left if model in ready}, results)
            raise
    return [results[model] for model in policies]


def _prepare(
    session: Session,
    model: str,
    policy: Policy,
    requirements: Requirements,
    chunks: ChunkStore,
    dry_run: bool,
) -> tuple[UpdatePlan, Prepared | None]:
    with counted(session, "update", model) as count:
        count.counts = not dry_run
        plan = plan_update(session, Spec(model), policy, chunks, requirements)
        prepared = None if dry_run else plan.prepare()
        count.counts = prepared is not None and plan.outcome.status == "planned"
    return plan, prepared


def _complete(session: Session, ready: Mapping[str, _Ready], results: dict[str, UpdateResult]) -> None:
    """After an interrupt, install what is `ready`, in this order, if a part of it is; `results` are those of
    the moves that had ended.

    A move whose self-check would have to run fails.
    """
    session = _unstoppable(session)
    settle_trials(session)
    moves = {model: each for model, each in ready.items() if each.prepared is not None}
    if not any(each.is_made(session) for each in moves.values()):
        return
    session.note(f"interrupted: first the updates of {', '.join(moves)} end, which belong together")
    for model, (plan, prepared, started) in moves.items():
        if model in results:
            continue
        try:
            if model in session.self_checks:
                raise CancelledError("interrupted")
            replace(plan, session=session).apply(started, prepared)
            results[model] = replace(plan.outcome, status="updated")
        except YarnstoreError as error:
            results[model] = failed_update(session, model, error, named=False)
    _take_back(session, list(moves), results)


def _unstoppable(session: Session) -> Session:
    return msgspec.structs.replace(session, activity=session.activity.unstoppable())


def _take_back(
    session: Session, order: Sequence[str], results: Mapping[str, UpdateResult]
) -> dict[str, UpdateResult]:
    """Go back from updates, made in this `order`, and return their new results.

    An update goes back if a model whose update failed needs the version before it, or one that goes back for
    this reason; and if it needs a version from which another one goes back.  The others stay.
    """
    if all(done.status != "failed" for done in results.values()):
        return {}
    session = _unstoppable(session)
    reasons = _choose_to_go_back(session, results)
    taken: dict[str, UpdateResult] = {}
    left = [model for model in order if model in reasons]
    while left:
        for model in left:
            # It needs a version to which another one has not gone back yet, or it cannot be read.
            with contextlib.suppress(YarnstoreError):
                back = rollback(session, model)
                taken[model] = replace(
                    results[model],
                    status="held",
                    version=back.version,
                    variant=back.variant,
                    previous=None,
                    path=back.path,
                    note=f"{results[model].version} was rolled back: {reasons[model]}",
                )
        if not any(model in taken for model in left):
            break
        left = [model for model in left if model not in taken]
    return taken


def _choose_to_go_back(session: Session, results: Mapping[str, UpdateResult]) -> dict[str, str]:
    """Return which updates go back, each with the reason."""
    here: dict[str, Installed] = {}
    before: dict[str, Installed] = {}
    for model, done in results.items():
        with contextlib.suppress(YarnstoreError):
            current = session.refs.current(model)
            if current is not None:
                here[model] = current
            if done.changed:
                before[model] = rollback_goal(session, model)
    reasons: dict[str, str] = {}
    while (found := _unmet(session, here, before)) is not None:
        model, reason = found
        reasons[model] = reason
        here[model] = before.pop(model)
    return reasons


def _unmet(
    session: Session, here: Mapping[str, Installed], before: Mapping[str, Installed]
) -> tuple[str, str] | None:
    """Return a model that has to go back to the version `before`, so that another one has what it needs, or
    because it lacks something itself; and why."""
    for model, current in here.items():
        with contextlib.suppress(YarnstoreError):
            for label, spec in needs_of(session, current.manifest):
                other = here.get(spec.model)
                if other is None or spec.admits(other.variant, other.version):
                    continue
                older = before.get(spec.model)
                if older is not None and spec.admits(older.variant, older.version):
                    return spec.model, f"{label} needs {spec}"
                if model in before:
                    return model, f"{label} needs {spec}"
    return None


def failed_update(session: Session, model: str, error: YarnstoreError, *, named: bool = True) -> UpdateResult:
    """Return the result of an update that failed."""
    version, variant, path = "", "", ""
    with contextlib.suppress(YarnstoreError):
        current = session.refs.current(model)
        if current is not None:
            version, variant = current.version, current.variant
            path = str(view_path(session.layout, session.layout.read_manifest(current.manifest)))
    listed = error.fields.get("what") == "version"  # if the registry has none in the range
    # Imported: there is no registry to query.
    unlisted = not named and isinstance(error, NotFoundError) and bool(version) and not listed
    return UpdateResult(
        model=model,
        status="unlisted" if unlisted else "failed",
        version=version,
        previous=None,
        changelog=None,
        download_bytes=0,
        path=path,
        seconds=0.0,
        variant=variant,
        note=error.message,
        error=None if unlisted else error.as_dict(),
    )
