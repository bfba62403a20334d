"""`update`: update one or several installed models to the newest version, or to a requested one.

Several models are updated at the same time, and independently.  `update_plan` has the steps of an update.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from yarnstore.errors import (
    BackendError,
    CancelledError,
    IntegrityError,
    NotFoundError,
    SpecError,
    UsageError,
    YarnstoreError,
)
from yarnstore.ops.installing.candidates import installed_requirements
from yarnstore.ops.installing.update_plan import UpdateResult, plan_update
from yarnstore.ops.session.counting import counted
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import cached_entry, not_installed
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
    session: Session,
    spec: Spec,
    policy: Policy = DEFAULT_POLICY,
    *,
    dry_run: bool = False,
    requirements: Requirements | None = None,
) -> UpdateResult:
    """Fetch and install the newest version of an installed model, or the version that `spec` selects.

    `requirements` are as in `plan_update`.

    Raises: as `plan_update`; ConflictError if another version was installed meanwhile; as `checkout`.
    """
    started = time.perf_counter()
    if not session.layout.exists():
        raise not_installed(session, spec.model)
    with counted(session, "update", spec.model) as count:
        with session.layout.shared(), ChunkStore(session.layout) as chunks:
            count.counts = not dry_run
            plan = plan_update(session, spec, policy, chunks, requirements)
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

    # A model that is named may break another one, which is reported.
    requirements = None if specs else installed_requirements(session)

    def one(spec: Spec) -> UpdateResult:
        try:
            done = update(session, spec, policy, dry_run=dry_run, requirements=requirements)
        except CancelledError:
            raise
        except YarnstoreError as error:
            done = _failed(session, spec.model, error)
            listed = error.fields.get("what") == "version"  # if the registry has none in the range
            if not specs and isinstance(error, NotFoundError) and done.version and not listed:
                done = replace(done, status="unlisted", error=None)  # imported: there is no registry to query
        if on_result is not None:
            with session.activity.listening:
                on_result(done)
        return done

    with ThreadPoolExecutor(max(1, min(jobs, len(wanted) or 1))) as pool:
        futures = [pool.submit(one, spec) for spec in wanted]
        try:
            results = tuple(future.result() for future in futures)
        except BaseException:
            session.activity.end()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return UpdateSummary(results, dry_run)


def _failed(session: Session, model: str, error: YarnstoreError) -> UpdateResult:
    version, variant, path = "", "", ""
    with contextlib.suppress(YarnstoreError):
        current = session.refs.current(model)
        if current is not None:
            version, variant = current.version, current.variant
            path = str(view_path(session.layout, session.layout.read_manifest(current.manifest)))
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
