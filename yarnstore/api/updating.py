"""The part of `Store` that brings installed models to other versions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from yarnstore.errors import NotFoundError, SpecError
from yarnstore.ops.session.session import Session
from yarnstore.progress import OnProgress
from yarnstore.registry.spec import Spec
from yarnstore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from yarnstore.ops.installing.candidates import Update
    from yarnstore.ops.installing.update import UpdateResult, UpdateSummary
    from yarnstore.registry.decide import Policy

    UpdateResultT = TypeVar("UpdateResultT", UpdateResult, UpdateSummary)


class Updating(ABC):
    """What a `Store` does about updates; `Store` has what this works with.

    After an update the retention of `config.toml` (`keep`, `keep_within`) is applied, as `gc` does; with none
    set, nothing is deleted.  A dry run says what would be deleted.
    """

    settings: Settings

    @abstractmethod
    def _session(self, progress: OnProgress | None = None) -> AbstractContextManager[Session]:
        """One use of the store."""

    def _retain(self, session: Session, result: UpdateResultT, done: Sequence[UpdateResult]) -> UpdateResultT:
        """Return `result` with what the retention of `config.toml` deleted after the updates in `done`, or
        would delete after those that are planned."""
        retention = self.settings.retention
        if not retention.is_set:
            return result
        from yarnstore.ops.upkeep.retain import apply_retention, forecast_retention
        from yarnstore.store.refs import VersionName

        planned = [VersionName(each.model, each.variant, each.version)
                   for each in done if each.status == "planned"]  # fmt: skip
        if planned:
            return replace(result, deleted_versions=forecast_retention(session, retention, planned))
        if not any(each.status == "updated" for each in done):
            return result
        deleted, freed_bytes = apply_retention(session, retention)
        return replace(result, deleted_versions=deleted, freed_bytes=freed_bytes)

    def update_model(
        self,
        model: str,
        *,
        major: bool = False,
        to: str | None = None,
        force: bool = False,
        accept_change: bool = False,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> UpdateResult:
        """Fetch and install the newest version of an installed model that fits.

        Stays within the installed major unless `major`; `to` is a range to stay in.  `model` may be a spec:
        `m@1.1.0`, `m@^1.1` and `m@stable` go to that version, newer or older and across a major, and
        `m:cpu-int4` changes the variant.  `accept_change` is as in `fetch`.

        Raises: IncompatibleError where all that is newer does not fit; ConflictError where a pin keeps it
        from the version asked for; as `fetch`.
        """
        from yarnstore.ops.installing.update import update

        policy = _policy(major=major, to=to, force=force)
        with self._session(progress) as session:
            session.accept_change = accept_change
            done = update(session, Spec.parse(model), policy, dry_run=dry_run)
            return self._retain(session, done, (done,))

    def update_models(
        self,
        *models: str,
        major: bool = False,
        to: str | None = None,
        force: bool = False,
        accept_change: bool = False,
        dry_run: bool = False,
        jobs: int | None = None,
        on_result: Callable[[UpdateResult], None] | None = None,
        progress: OnProgress | None = None,
    ) -> UpdateSummary:
        """Update the models named, or all that are installed, `jobs` at once; each may be a spec.

        One that fails stops no other: its result says so, and its old version stays.

        Raises: SpecError, NoRegistryError; UsageError where a model is named for two versions.
        """
        from yarnstore.ops.installing.update import DEFAULT_JOBS, update_many

        policy = _policy(major=major, to=to, force=force)
        wanted = tuple(map(Spec.parse, models))
        with self._session(progress) as session:
            session.accept_change = accept_change
            done = update_many(
                session, wanted, policy, dry_run=dry_run, jobs=jobs or DEFAULT_JOBS, on_result=on_result
            )
            return self._retain(session, done, done.results)

    def read_requests(self, *words: str) -> list[str]:
        """The specs that the words of a command line mean: `m 1.1.0 other` is `m@1.1.0` and `other`.

        A word behind a model is its version where it reads as one, as a range, or as one of the model's
        aliases, and no model of that name is installed.  Raises: UsageError.
        """
        from yarnstore.ops.installing.update import read_requests

        with self._session() as session:
            return read_requests(session, words)

    def check_for_updates(self, *models: str, progress: OnProgress | None = None) -> list[Update]:
        """Installed models beside what their registries have now; downloads no model."""
        from yarnstore.ops.installing.activate import note_check
        from yarnstore.ops.installing.candidates import check_for_updates

        with self._session(progress) as session:
            found = check_for_updates(session, tuple(map(bare_model, models)))
            note_check(session)
            return found


def bare_model(text: str) -> str:
    """A bare model id.  Raises: SpecError, NotFoundError where it names a version."""
    spec = Spec.parse(text)
    if spec.selector is not None or spec.variant is not None:
        raise NotFoundError("model", text, hint=f"give the model alone: {spec.model}")
    return spec.model


def _policy(*, major: bool, to: str | None, force: bool) -> Policy:
    """Raises: SpecError where `to` is no range."""
    from yarnstore.registry.decide import Policy
    from yarnstore.registry.ranges import Range

    if to is not None and not to.strip():
        raise SpecError(to, "it is empty; use * for all versions")
    return Policy(major=major, to=Range.parse(to) if to is not None else None, force=force)
