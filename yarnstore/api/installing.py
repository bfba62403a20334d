"""The part of `Store` that downloads, installs and updates versions, and reads and writes lock files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from yarnstore.api.base import AnyPath, StoreBase, bare_model
from yarnstore.errors import SpecError
from yarnstore.ops.session.session import Session
from yarnstore.progress import OnProgress
from yarnstore.registry.spec import Spec
from yarnstore.store import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from yarnstore.ops.fetching.fetch import FetchResult
    from yarnstore.ops.installing.activate import CheckoutResult
    from yarnstore.ops.installing.from_lock import LockResult
    from yarnstore.ops.installing.outdated import Update
    from yarnstore.ops.installing.pin import PinResult
    from yarnstore.ops.installing.update import UpdateSummary
    from yarnstore.ops.installing.update_plan import UpdateResult
    from yarnstore.ops.querying.compat import CompatTable
    from yarnstore.registry.decide import Policy

    UpdateResultT = TypeVar("UpdateResultT", UpdateResult, UpdateSummary)


class Installing(StoreBase):
    """Fetch, install, update, go back.

    After an update the retention of `config.toml` (`keep`, `keep_within`) is applied, as `gc` does; if it is
    not set, no version is deleted.  A dry run says what would be deleted.

    After every install, disk space of the model's older versions is freed: they become deltas against the
    installed version, and second copies are deleted.  A call returns after that; with `wait=False` it returns
    once the version is installed, and `slim` or the next `gc` does the rest.
    """

    def fetch(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> FetchResult:
        """Download a version into the store and verify it, without installing it.

        A yanked version needs `force` and its exact number.  A version whose content has changed since it
        was downloaded from the same registry before needs `accept_change`.

        Raises: SpecError, NotFoundError, BackendError, IntegrityError, IncompatibleError, StorageError;
        ConflictError if the content has changed.
        """
        from yarnstore.ops.fetching.fetch import fetch

        parsed = Spec.parse(spec)
        with self._counted("fetch", parsed.model, progress, accept_change=accept_change) as session:
            return fetch(session, parsed, force=force)

    def checkout(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> CheckoutResult:
        """Install a compatible version; download it if it is not stored.

        `force` also installs a version that needs more memory than this machine has; `accept_change` is as
        in `fetch`.  Without `wait`, disk space is not freed afterwards.
        Raises: as `fetch`.
        """
        from yarnstore.ops.installing.checkout import checkout

        parsed = Spec.parse(spec)
        with self._counted("checkout", parsed.model, progress, accept_change=accept_change) as session:
            done = checkout(session, parsed, force=force)
        if wait:
            self.slim_after(done, progress=progress)
        return done

    def rollback_model(
        self,
        model: str,
        version: str | None = None,
        *,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> CheckoutResult:
        """Install the version that was installed before, or `version`; `wait` is as in `checkout`.

        Raises: NotFoundError.
        """
        from yarnstore.core.names import read_version
        from yarnstore.ops.installing.activate import rollback_retained

        wanted = read_version(version) if version else None
        name = bare_model(model)
        with self._counted("rollback", name, progress) as session:
            done = rollback_retained(session, name, wanted)
            if done is None:
                from yarnstore.ops.installing.checkout import rollback

                done = rollback(session, name, wanted)
        if wait:
            self.slim_after(done, progress=progress)
        return done

    def path(self, spec: str, *, verify: bool = True, progress: OnProgress | None = None) -> str:
        """Return the path to open: the file if the version has only one, else its folder.

        A bare model means the installed version, a full spec that version.  The path always leads to this
        version, whatever is installed later.  `gc` keeps it while this store is open, and for the grace
        period (`path_grace`, a day) from now.

        A file that changed since it was hashed is hashed first, which takes seconds for each GB; without
        `verify` it is not, and may have other bytes than were published.

        Raises: NotFoundError; as `fetch` if something has to be downloaded.
        """
        from yarnstore.ops.querying.paths import find_path, path_of

        parsed = Spec.parse(spec)
        with self._session(progress) as session:
            found = find_path(session, parsed, verify=verify)
            if found is None:
                from yarnstore.ops.installing.checkout import ensure_ready

                with session.layout.shared():  # the lock is held until its use is recorded
                    found = path_of(session, ensure_ready(session, parsed))
            elif found.left_behind:
                from yarnstore.ops.installing.activate import restore_link

                restore_link(session, parsed.model)
        if found.lease is not None:
            with self._lock:
                before = self._leases.pop(found.path, None)
                if before is not None:
                    os.close(before)
                self._leases[found.path] = found.lease
        return found.path

    def compatibility(self, model: str, *, progress: OnProgress | None = None) -> CompatTable:
        """Return which versions of a model fit the application and this machine.  Raises: NotFoundError."""
        from yarnstore.ops.querying.compat import compatibility

        with self._session(progress) as session:
            return compatibility(session, Spec.parse(model))

    def pin(self, spec: str) -> PinResult:
        """Pin a version, which `update` and `gc` then keep, or a range or variant that `update` stays within.

        Raises: NotFoundError, SpecError.
        """
        from yarnstore.ops.installing.pin import pin

        with self._session() as session:
            return pin(session, Spec.parse(spec))

    def unpin(self, spec: str) -> PinResult:
        """Unpin a version, range or variant.  Raises: NotFoundError."""
        from yarnstore.ops.installing.pin import unpin

        with self._session() as session:
            return unpin(session, Spec.parse_stored(spec))

    # --- updates -------------------------------------------------------------------------------------

    def check_for_updates(
        self, *models: str, refresh: bool = True, progress: OnProgress | None = None
    ) -> list[Update]:
        """Compare the installed models with their registries; download no model.

        Without `refresh`, registries that are cached are not asked, and the time of the last check stays.
        """
        from yarnstore.ops.installing.activate import note_check
        from yarnstore.ops.installing.outdated import check_for_updates

        with self._session(progress) as session:
            found = check_for_updates(session, tuple(map(bare_model, models)), fresh=refresh)
            if refresh:
                note_check(session)
            return found

    def update_model(
        self,
        model: str,
        *,
        major: bool = False,
        to: str | None = None,
        force: bool = False,
        accept_change: bool = False,
        dry_run: bool = False,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> UpdateResult:
        """Download and install the newest compatible version of an installed model.

        Stays within the installed major unless `major`; `to` is a range to stay in.  `model` may be a spec:
        `m@1.1.0`, `m@^1.1` and `m@stable` go to that version, newer or older and across a major, and
        `m:cpu-int4` changes the variant.  `accept_change` is as in `fetch`, `wait` as in `checkout`.

        Raises: IncompatibleError if no newer version is compatible; ConflictError if a pin excludes the
        requested version; as `fetch`.
        """
        from yarnstore.ops.installing.update import update

        policy = _policy(major=major, to=to, force=force)
        with self._session(progress, accept_change=accept_change) as session:
            done = update(session, Spec.parse(model), policy, dry_run=dry_run)
            done = self._retain(session, done, (done,), wait=wait)
        if wait and not self.settings.retention.is_set:  # retention is a run of `gc`, which has done it
            self.slim_after(done, progress=progress)
        return done

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
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> UpdateSummary:
        """Update the named models, or all that are installed, `jobs` at the same time; each may be a spec.

        A model that fails does not stop the others: its result says so, and its old version stays.  `wait` is
        as in `checkout`.

        Raises: SpecError, NoRegistryError; UsageError if a model is given with two versions.
        """
        from yarnstore.ops.installing.update import DEFAULT_JOBS, update_many

        policy = _policy(major=major, to=to, force=force)
        wanted = tuple(map(Spec.parse, models))
        with self._session(progress, accept_change=accept_change) as session:
            done = update_many(
                session, wanted, policy, dry_run=dry_run, jobs=jobs or DEFAULT_JOBS, on_result=on_result
            )
            done = self._retain(session, done, done.results, wait=wait)
        if wait and not self.settings.retention.is_set:
            self.slim_after(*done.results, progress=progress)
        return done

    def read_requests(self, *words: str) -> list[str]:
        """Return the specs of the arguments of a command line: `m 1.1.0 other` is `m@1.1.0` and `other`.

        A word after a model is its version if it is a version, a range or one of the model's aliases, and
        no model of that name is installed.  Raises: UsageError.
        """
        from yarnstore.ops.installing.update import read_requests

        with self._session() as session:
            return read_requests(session, words)

    def _retain(
        self, session: Session, result: UpdateResultT, done: Sequence[UpdateResult], *, wait: bool
    ) -> UpdateResultT:
        """Return `result` with what the retention of `config.toml` deleted after the updates in `done`, or
        would delete after those that are planned."""
        retention = self.settings.retention
        if not retention.is_set:
            return result
        from dataclasses import replace

        from yarnstore.ops.upkeep.retain import apply_retention, forecast_retention
        from yarnstore.store.refs import VersionName

        planned = [VersionName(each.model, each.variant, each.version)
                   for each in done if each.status == "planned"]  # fmt: skip
        if planned:
            return replace(result, deleted_versions=forecast_retention(session, retention, planned))
        if not any(each.changed for each in done):
            return result
        deleted, freed_bytes = apply_retention(session, retention, wait=wait)
        return replace(result, deleted_versions=deleted, freed_bytes=freed_bytes)

    # --- lock files ----------------------------------------------------------------------------------

    def lock(
        self,
        *specs: str,
        file: AnyPath = "ystore.lock",
        update: bool = False,
        progress: OnProgress | None = None,
    ) -> LockResult:
        """Write the versions that specs resolve to into a lock file; `update` looks locked ones up again.

        Raises: SpecError, UsageError, NotFoundError, BackendError, FormatError, IncompatibleError.
        """
        from yarnstore.ops.installing.from_lock import lock

        with self._session(progress) as session:
            return lock(session, paths.file_path(file), [Spec.parse(text) for text in specs], update=update)

    def check_lock(self, file: AnyPath = "ystore.lock") -> LockResult:
        """Compare the versions of a lock file with the registries, without downloading them.

        Raises: IntegrityError if a registry has other content under a locked version; NotFoundError,
        FormatError, NoRegistryError, BackendError.
        """
        from yarnstore.ops.installing.from_lock import check_lock

        with self._session() as session:
            return check_lock(session, paths.file_path(file))

    def fetch_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> list[FetchResult]:
        """Download exactly the versions of a lock file; `accept_change` is as in `fetch`.

        Raises: IntegrityError if a registry has other content under a locked version; as `fetch`.
        """
        from yarnstore.ops.installing.from_lock import fetch_locked

        with self._session(progress, accept_change=accept_change) as session:
            return fetch_locked(session, paths.file_path(file))

    def checkout_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        force: bool = False,
        accept_change: bool = False,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> list[CheckoutResult]:
        """Install the versions of a lock file; `accept_change` is as in `fetch`, `wait` as in `checkout`.

        Raises: UsageError if it has two builds of one model; as `fetch_locked` and `checkout`.
        """
        from yarnstore.ops.installing.from_lock import checkout_locked

        with self._session(progress, accept_change=accept_change) as session:
            done = checkout_locked(session, paths.file_path(file), force=force)
        if wait:
            self.slim_after(*done, progress=progress)
        return done


def _policy(*, major: bool, to: str | None, force: bool) -> Policy:
    """Return the policy of an update.  Raises: SpecError if `to` is not a range."""
    from yarnstore.registry.decide import Policy
    from yarnstore.registry.ranges import Range

    if to is not None and not to.strip():
        raise SpecError(to, "it is empty; use * for all versions")
    return Policy(major=major, to=Range.parse(to) if to is not None else None, force=force)
