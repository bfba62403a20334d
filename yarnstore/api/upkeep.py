"""The part of `Store` that maintains a machine: clean up, check, auto-update, older installations."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from yarnstore.api.base import AnyPath, StoreBase, bare_model
from yarnstore.core.names import parse_model_id
from yarnstore.errors import ConfigError, NotFoundError, UsageError, YarnstoreError
from yarnstore.progress import OnProgress
from yarnstore.settings import Settings, default_home, load_settings
from yarnstore.store import paths
from yarnstore.store.moved import find_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yarnstore.ops.checking.doctor import DoctorResult
    from yarnstore.ops.checking.findings import FsckResult
    from yarnstore.ops.installing.auto_update import AutoUpdateRound, AutoUpdateStatus
    from yarnstore.ops.installing.timers import TimerFiles
    from yarnstore.ops.local.takeover import TakeoverResult
    from yarnstore.ops.querying.storage import StorageUsage
    from yarnstore.ops.upkeep.gc import GcResult
    from yarnstore.ops.upkeep.gc_items import GcForecast
    from yarnstore.settings.editable import SettingInfo, SettingValue


class Upkeep(StoreBase):
    """Maintain the store of a machine."""

    def gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        max_size_bytes: int | None = None,
        unused_s: float | None = None,
        thin: str | None = None,
        dry_run: bool = False,
        repack: bool = False,
        expected: str | None = None,
        progress: OnProgress | None = None,
    ) -> GcResult:
        """Delete unneeded data; `repack` stores older versions as deltas against the newest.

        A view that `path` returned is kept for `grace_s` seconds after that, or after it was last installed;
        None means the setting of `config.toml`.  With `unused_s`, versions that were not stored or used
        within so many seconds are deleted; with `max_size_bytes`, versions are deleted, the least recently
        used first, until the store takes no more disk space.  Neither deletes installed, pinned and open
        versions, nor those that `rollback` returns to.  With `thin`, a model or `*` for all, the version
        before the installed one is kept as deltas, without its files.  `expected` is the fingerprint of a
        plan of `plan_gc`. Raises: IntegrityError, LockTimeoutError; ConflictError if the store changed since
        that plan; NotFoundError where `thin` is not installed.
        """
        from yarnstore.ops.querying.keeping import ALL_MODELS, GcPolicy
        from yarnstore.ops.session.stored import not_installed
        from yarnstore.ops.upkeep.gc import gc

        policy = GcPolicy.of(
            self.settings.retention,
            keep=keep,
            keep_within_s=keep_within_s,
            grace_s=grace_s,
            max_size_bytes=max_size_bytes,
            unused_s=unused_s,
            thin=thin,
        )
        with self._session(progress) if dry_run else self._counted("gc", progress=progress) as session:
            if thin not in (None, ALL_MODELS, *session.refs.installed_models()):
                raise not_installed(session, str(thin))
            return gc(session, policy, dry_run=dry_run, repack_too=repack, expected=expected)

    def slim(self, *models: str, progress: OnProgress | None = None) -> int:
        """Free the disk space that older versions of models, or of all that are installed, no longer need.

        Older versions become deltas against the installed one, and second copies are deleted; no version
        is deleted.  Installs do this at their end, unless `wait=False`; `gc` does it too.  What is not
        possible now is left to the next `gc`, which a note reports.  Returns how many bytes were freed.
        """
        from yarnstore.ops.upkeep.retain import slim_models

        chosen = tuple(map(bare_model, models))
        with self._session(progress) as session:
            return slim_models(session, self.settings.retention, chosen or session.refs.installed_models())

    def plan_gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        max_size_bytes: int | None = None,
        unused_s: float | None = None,
        repack: bool = False,
        progress: OnProgress | None = None,
    ) -> GcForecast:
        """List what `gc` would free and keep, item by item; `gc` with the plan's fingerprint deletes exactly
        that.

        Raises: IntegrityError, LockTimeoutError.
        """
        from yarnstore.ops.querying.keeping import GcPolicy
        from yarnstore.ops.upkeep.gc_items import forecast_gc

        policy = GcPolicy.of(
            self.settings.retention,
            keep=keep,
            keep_within_s=keep_within_s,
            grace_s=grace_s,
            max_size_bytes=max_size_bytes,
            unused_s=unused_s,
        )
        with self._session(progress) as session:
            return forecast_gc(session, policy, repack=repack)

    def storage(self, model: str | None = None) -> StorageUsage:
        """Return the disk space of each version (of one model), of shared data, and of everything else.

        Raises: IntegrityError; NotFoundError if the model is not stored.
        """
        from yarnstore.ops.querying.keeping import GcPolicy
        from yarnstore.ops.querying.storage import storage

        with self._session() as session:
            policy = GcPolicy.of(self.settings.retention)
            return storage(session, policy, None if model is None else bare_model(model))

    # --- settings ------------------------------------------------------------------------------------

    def list_settings(self) -> list[SettingInfo]:
        """Return the settings that programs may change, with the source of each value.

        Raises: ConfigError.
        """
        from yarnstore.settings.editable import list_settings

        return list_settings(self.settings.home)

    def change_settings(self, changes: Mapping[str, SettingValue]) -> list[SettingInfo]:
        """Change settings in `managed.toml`, all or none; None resets one.

        Raises: NotFoundError, ConfigError; ConflictError if the environment or `config.toml` sets one.
        """
        from yarnstore.settings.editable import change_settings

        found = change_settings(self.settings.home, changes)
        self.settings = load_settings(self.settings.home)
        return found

    # --- checks --------------------------------------------------------------------------------------

    def fsck(
        self,
        *,
        quick: bool = False,
        repair: bool = False,
        sample: float | None = None,
        progress: OnProgress | None = None,
    ) -> FsckResult:
        """Check everything in the store; `repair` repairs it.

        `sample` reads the contents of only a random share, such as 0.05, a different one each time;
        everything else is checked completely.  Damaged packs and files are read completely.

        Raises: LockTimeoutError; UsageError for a sample beside `quick` or `repair`.
        """
        if sample is not None and repair:
            raise UsageError("a repair reads all contents, and cannot be limited to a sample")
        with self._counted("fsck", progress=progress) as session:
            if repair:
                from yarnstore.ops.checking.repair import repair as mend

                return mend(session)
            from yarnstore.ops.checking.fsck import fsck

            return fsck(session, quick=quick, sample=sample)

    def examine(self, *, progress: OnProgress | None = None) -> DoctorResult:
        """Check this machine for problems and suggest fixes."""
        from yarnstore.ops.checking.doctor import diagnose

        with self._session(progress) as session:
            return diagnose(session, self.settings.auto_update)

    @classmethod
    def doctor(cls, path: AnyPath | None = None, *, progress: OnProgress | None = None) -> DoctorResult:
        """Do the same as `examine`, also if the store cannot be opened since its settings are unreadable."""
        from yarnstore.ops.checking.doctor import diagnose

        fault: YarnstoreError | None = None
        place = paths.absolute(path) if path is not None else None
        try:
            settings = load_settings(place)
        except ConfigError as error:
            fault = error
            settings = Settings(find_store(place or default_home()))
        with cls(settings)._session(progress) as session:  # noqa: SLF001 - its own
            return diagnose(session, settings.auto_update, fault)

    def import_local_state(self, source: AnyPath, *, progress: OnProgress | None = None) -> TakeoverResult:
        """Import the models that an older tool installed, by its `local-state.json`.

        A model that fails does not stop the others.  Raises: NotFoundError; FormatError if the list itself
        cannot be read.
        """
        from yarnstore.ops.local.takeover import take_over

        with self._session(progress) as session:
            return take_over(session, paths.file_path(source))

    # --- auto-update ---------------------------------------------------------------------------------

    def auto_update_status(self, *models: str) -> AutoUpdateStatus:
        """Return the settings of auto-update, and which windows are open.  Raises: ConfigError."""
        from yarnstore.ops.installing.auto_update import auto_update_status

        with self._session() as session:
            return auto_update_status(session, self.settings.auto_update, tuple(map(parse_model_id, models)))

    def set_auto_update(
        self,
        *models: str,
        enabled: bool,
        policy: str | None = None,
        windows: Sequence[str] | None = None,
        jitter: str | None = None,
    ) -> AutoUpdateStatus:
        """Enable or disable auto-update in `managed.toml`, for the named models or for all.

        `policy` is `notify`, `patch`, `minor` or `security`; a window is such as `Sat,Sun 02:00-05:00`.
        None leaves a setting as it is.

        Raises: ConfigError, InvalidNameError; NotFoundError for a model that is neither stored nor in a
        registry; ConflictError where `config.toml` sets another value.
        """
        from yarnstore.ops.installing.activate import note_check
        from yarnstore.ops.installing.auto_update import require_known
        from yarnstore.registry.policies import change_auto_update
        from yarnstore.settings.change import set_auto_update

        if enabled and models:
            with self._session() as session:
                require_known(session, tuple(map(parse_model_id, models)))
        home = self.settings.home
        change = partial(
            change_auto_update, models=models, enabled=enabled, policy=policy, windows=windows, jitter=jitter
        )
        set_auto_update(home, change)
        self.settings = load_settings(home)
        with self._session() as session:
            note_check(session, checked=False)
        return self.auto_update_status(*models)

    def reset_auto_update(self, *models: str) -> AutoUpdateStatus:
        """Remove the rules of single models from `managed.toml`; they then follow the rule of all models.

        Raises: InvalidNameError; NotFoundError for a model without a rule of its own; ConflictError where
        `config.toml` sets the rule; ConfigError.
        """
        from yarnstore.registry.policies import reset_auto_update
        from yarnstore.settings.change import set_auto_update

        home = self.settings.home
        for model in map(parse_model_id, models):
            if model not in load_settings(home).auto_update.models:
                raise NotFoundError("auto-update rule", model, hint="it follows the settings for all models")
        set_auto_update(home, partial(reset_auto_update, models=models))
        self.settings = load_settings(home)
        return self.auto_update_status()

    def run_auto_update(
        self,
        *,
        now: bool = False,
        delay: bool = True,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> AutoUpdateRound:
        """Run one round of auto-update if a window is open, or with `now` in any case.

        It begins after the random delay of the settings, or without `delay` at once.  While another process
        runs a round, it does nothing; `running_in` of the result names that process.  `wait` is as in
        `checkout`.

        Raises: ConfigError, NoRegistryError; errors of single models are in their outcomes.
        """
        from dataclasses import replace

        from yarnstore.ops.installing.auto_update import Clockwork, run_round
        from yarnstore.ops.upkeep.retain import apply_retention

        with self._session(progress) as session:
            clockwork = None if delay else Clockwork(draw=lambda: 0.0)
            done = run_round(session, self.settings.auto_update, now_at_once=now, clockwork=clockwork)
            if any(item.changed for item in done.models):
                retained = apply_retention(session, self.settings.retention, wait=wait)
                done = replace(done, freed_bytes=retained.freed_bytes)
        if wait and not self.settings.retention.is_set:
            self.slim_after(*done.models, progress=progress)
        return done

    def write_timer(self, kind: str, folder: AnyPath) -> TimerFiles:
        """Write the files of a timer that calls `run_auto_update`, without enabling it.

        `kind` is `systemd`, `cron`, `launchd` or `schtasks`; the last two are not tested on their systems
        yet.  Raises: UsageError, StorageError.
        """
        from yarnstore.ops.installing.timers import write_timer

        return write_timer(kind, paths.absolute(folder), self.settings.home, self.settings.auto_update)
