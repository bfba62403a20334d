"""The common base of all parts of `Store`: settings, sessions, and the queue of downloads.

Every method opens what it needs and closes it again; a `Store` may be shared by threads and kept as long as
the process lives.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeAlias

import msgspec

from yarnstore.errors import DiskFullError, NotFoundError, StorageError
from yarnstore.ops.session.activity import Activity
from yarnstore.ops.session.registries import KnownRegistries
from yarnstore.ops.session.session import SelfCheck, Session
from yarnstore.ops.session.sources import RecentFailures
from yarnstore.progress import CANCEL, OnProgress, Progress, format_size, ignore
from yarnstore.registry.spec import Spec
from yarnstore.settings import Settings, load_settings
from yarnstore.store import paths
from yarnstore.store.access import exposures, top_folders
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.moved import find_store

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Mapping

    from yarnstore.core.manifest import Manifest
    from yarnstore.ops.fetching.queue import QueuedFetch, QueueRun
    from yarnstore.ops.installing.activate import CheckoutResult
    from yarnstore.ops.installing.auto_update import AutoUpdateOutcome
    from yarnstore.ops.installing.update_plan import UpdateResult

AnyPath: TypeAlias = str | os.PathLike[str]


def bare_model(text: str) -> str:
    """Return a bare model id.  Raises: SpecError; NotFoundError if the text names a version."""
    spec = Spec.parse(text)
    if spec.selector is not None or spec.variant is not None:
        raise NotFoundError("model", text, hint=f"give the model alone: {spec.model}")
    return spec.model


def _admit_version(session: Session, manifest: Manifest, tell: bool) -> None:
    from yarnstore.ops.session.loadcode import admit_version

    admit_version(session, manifest, tell)


def _hint_to_free(layout: StoreLayout) -> str:
    """Say how to free disk space of the store; what an incomplete download has takes some of it."""
    from yarnstore.store.drafts import incomplete_bytes

    hint = "`ystore gc --dry-run` shows what can be deleted"
    incomplete = 0
    with contextlib.suppress(StorageError):
        incomplete = incomplete_bytes(layout)
    if not incomplete:
        return hint
    return (
        f"{hint}; {format_size(incomplete)} of incomplete downloads are continued by the same command, "
        "and `ystore gc` deletes them if the disk has less free space than its reserve"
    )


def _self_checks(settings: Settings) -> Mapping[str, SelfCheck]:
    if not settings.verify:
        return {}
    from yarnstore.ops.installing.self_check import self_checks

    return self_checks(settings.verify)


class StoreBase:
    """A store with its settings; the parts of `Store` add the operations."""

    def __init__(self, settings: Settings, *, progress: OnProgress = ignore) -> None:
        self.settings = settings
        self.progress = progress
        self._leases: dict[str, int] = {}
        self._lock = threading.Lock()
        self._put_last = RecentFailures()
        self._looked = False  # whether other users can write the store

    @classmethod
    def open(
        cls, path: AnyPath | None = None, *, app_version: str | None = None, progress: OnProgress = ignore
    ) -> Self:
        """Open the store at `path`, else at YSTORE_HOME, else the user's own.  Creates nothing yet.

        `app_version` is the application's version, instead of that of the environment and `config.toml`:
        versions that are not compatible with it are not installed.

        Raises: ConfigError, InvalidNameError; UsageError for an empty path; ConflictError if the store was
        moved to a disk that is missing.
        """
        settings = load_settings(paths.absolute(path) if path is not None else None)
        store = cls(settings, progress=progress)
        if app_version is not None:
            store.set_app_version(app_version)
        return store

    def set_app_version(self, version: str) -> None:
        """Use another version of the application from now on.  Raises: InvalidNameError."""
        from yarnstore.settings.host import app_version

        machine = msgspec.structs.replace(self.settings.machine, app_version=app_version(version))
        self.settings = msgspec.structs.replace(self.settings, machine=machine)

    def set_network(
        self,
        *,
        offline: bool | None = None,
        limit_rate: float | None = None,
        connections: int | None = None,
        registry: str | None = None,
    ) -> None:
        """Change how registries are reached from now on; None leaves a setting as it is.

        `offline` uses no network; `limit_rate` is in bytes per second over all downloads of this process,
        0 for no limit; `registry` is the only registry to look in.
        """
        network = self.settings.network
        if offline is not None:
            network = msgspec.structs.replace(network, offline=offline)
        if limit_rate is not None:
            network = msgspec.structs.replace(network, limit_rate=limit_rate)
        self.settings = msgspec.structs.replace(
            self.settings,
            network=network,
            connections=connections or self.settings.connections,
            registry=registry or self.settings.registry,
        )

    @property
    def home(self) -> pathlib.Path:
        """The folder of the store."""
        import pathlib  # late: it takes longer than a command

        return pathlib.Path(self.settings.home)

    def close(self) -> None:
        """Release the versions that `path` returned: `gc` may delete them after their grace period."""
        with self._lock:
            for lease in self._leases.values():
                os.close(lease)
            self._leases.clear()

    def keep_after_exec(self) -> None:
        """Keep the versions that `path` returned from `gc` also while another program replaces this process.

        For use right before `os.exec*`: child processes that are started later inherit the locks, too.
        """
        with self._lock:
            for lease in self._leases.values():
                os.set_inheritable(lease, True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _session(
        self, progress: OnProgress | None = None, *, accept_change: bool = False
    ) -> Iterator[Session]:
        tell = progress or self.progress
        cancel = CANCEL.get()
        if cancel is not None:
            tell = cancel.telling(tell)

        def on_wait(holders: list[int]) -> None:
            who = f"process {', '.join(map(str, holders))}" if holders else "another process"
            tell(Progress("note", "", text=f"waiting for {who}, which is using the store"))

        home = find_store(self.settings.home)
        if home != self.settings.home:  # another process moved the store since it was opened
            self.settings = msgspec.structs.replace(self.settings, home=home)
        settings = self.settings
        layout = StoreLayout(settings.home, settings.lock_timeout_s, on_wait, settings.reserve)
        activity = Activity(tell, *((cancel.check,) if cancel is not None else ()))
        registries = KnownRegistries(
            layout,
            activity,
            settings.registries,
            network=settings.network,
            put_last=self._put_last,
            only=settings.registry,
        )
        session = Session(
            layout=layout,
            activity=activity,
            registries=registries,
            connections=settings.connections,
            self_checks=_self_checks(settings),
            auto_update=settings.auto_update.enabled,
            host=settings.machine,
            load_policy=settings.load_policy,
            admit_version=_admit_version,
            accept_change=accept_change,
            alternates=settings.alternates,
            keep_copy=settings.retention.keep_copy,
        )
        try:
            if layout.any_trial():
                from yarnstore.ops.installing.activate import settle_trials

                settle_trials(session)  # reverts a version whose self-check was killed
            self._warn_of_others(session)
            yield session
        except DiskFullError as error:
            if Path(str(error.fields.get("path", ""))).is_relative_to(self.settings.home):
                error.hint = _hint_to_free(layout)
            raise
        finally:
            session.close()

    @contextmanager
    def _counted(
        self,
        operation: str,
        model: str = "",
        progress: OnProgress | None = None,
        *,
        accept_change: bool = False,
    ) -> Iterator[Session]:
        """Yield a session whose operation is counted in the statistics."""
        from yarnstore.ops.session.counting import counted

        with (
            self._session(progress, accept_change=accept_change) as session,
            counted(session, operation, model),
        ):
            yield session

    def slim_after(
        self, *results: CheckoutResult | UpdateResult | AutoUpdateOutcome, progress: OnProgress | None = None
    ) -> int:
        """Free the disk space that installs with `wait=False` left to `slim`, given their results.

        Does nothing if they left none, such as a rollback to a version whose files exist.  Returns how many
        bytes were freed.
        """
        installed = {each.model: each.leaves_copies for each in results if each.changed}
        if not installed:
            return 0
        from yarnstore.ops.upkeep.retain import models_to_slim, slim_models

        retention = self.settings.retention
        with self._session(progress) as session:
            return slim_models(session, retention, models_to_slim(session, retention, installed))

    def models_to_slim(self, *results: CheckoutResult | UpdateResult | AutoUpdateOutcome) -> list[str]:
        """Return the models for which `slim_after` has something to do, found without reading packs.

        Raises: IntegrityError if a ref is damaged.
        """
        installed = {each.model: each.leaves_copies for each in results if each.changed}
        if not installed:
            return []
        from yarnstore.ops.upkeep.retain import models_to_slim

        with self._session() as session:
            return list(models_to_slim(session, self.settings.retention, installed))

    def _warn_of_others(self, session: Session) -> None:
        """Warn once if other users can write the store."""
        if not self._looked:
            self._looked = True
            found = next(exposures(session.layout, top_folders(session.layout)), None)
            if found is not None:
                what = "the store" if found.place == "." else f"{found.place}/ of the store"
                session.note(f"{what} {found.why}, who can change installed models; see `ystore doctor`")

    # --- the queue -----------------------------------------------------------------------------------

    def enqueue(self, *specs: str) -> list[QueuedFetch]:
        """Add versions to the queue, for `run_queue` to fetch.  Raises: SpecError, NotFoundError."""
        from yarnstore.ops.fetching.queue import enqueue

        with self._session() as session:
            return enqueue(session, [Spec.parse(spec) for spec in specs])

    def list_queue(self) -> list[QueuedFetch]:
        """Return the queued downloads in order.  Raises: FormatError."""
        from yarnstore.ops.fetching.queue import list_queue

        with self._session() as session:
            return list_queue(session)

    def dequeue(self, *specs: str) -> list[QueuedFetch]:
        """Remove versions from the queue.  Raises: SpecError, NotFoundError."""
        from yarnstore.ops.fetching.queue import dequeue

        with self._session() as session:
            return dequeue(session, [Spec.parse_stored(spec) for spec in specs])

    def run_queue(
        self, *, on_result: Callable[[QueueRun], None] | None = None, progress: OnProgress | None = None
    ) -> list[QueueRun]:
        """Fetch the queued versions in order; one that fails stays in the queue, and its result says so.

        Raises: LockTimeoutError if another process runs the queue.
        """
        from yarnstore.ops.fetching.queue import run_queue

        with self._session(progress) as session:
            return run_queue(session, on_result)
