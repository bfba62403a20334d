"""`AsyncStore`: the same API for asyncio, each call in a thread of its own.

The engine works in threads, where hashing, decoding and file I/O release the interpreter; this
only keeps the event loop free while they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from yarnstore.api import AnyPath, Store
from yarnstore.errors import CancelledError, UsageError
from yarnstore.progress import OnProgress, Stoppable, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarnstore.ops.fetching.fetch import FetchResult
    from yarnstore.ops.fetching.queue import QueuedFetch, QueueRun
    from yarnstore.ops.inspecting.diff import DiffResult
    from yarnstore.ops.inspecting.inspect import InspectResult
    from yarnstore.ops.installing.activate import CheckoutResult
    from yarnstore.ops.installing.auto_update import AutoUpdateRound, AutoUpdateStatus
    from yarnstore.ops.installing.candidates import Update
    from yarnstore.ops.installing.from_lock import LockResult
    from yarnstore.ops.installing.pin import PinResult
    from yarnstore.ops.installing.timers import TimerFiles
    from yarnstore.ops.installing.update import UpdateResult, UpdateSummary
    from yarnstore.ops.local.import_export import ExportResult, ImportResult, RemoveResult
    from yarnstore.ops.local.takeover import TakeoverResult
    from yarnstore.ops.publishing.lint import LintResult
    from yarnstore.ops.querying.catalogue import Offer, RegistryInfo, VersionDetails
    from yarnstore.ops.querying.compat import CompatTable
    from yarnstore.ops.querying.history import History
    from yarnstore.ops.querying.inventory import InstalledModel
    from yarnstore.ops.querying.status import StoreStatus
    from yarnstore.ops.querying.usage import StoredVersion
    from yarnstore.ops.upkeep.doctor import DoctorResult
    from yarnstore.ops.upkeep.findings import FsckResult
    from yarnstore.ops.upkeep.gc import GcResult

T = TypeVar("T")


class AsyncStore:
    """A `Store` whose methods are awaited; see there for what each does and raises.

    `progress` and `on_result` are called in the worker's thread, never in the event loop's:
    `loop.call_soon_threadsafe` leads back.  Cancelling a task stops a call that takes `progress` at its next
    event or, where it waits for a server, within a moment, and the
    cancellation arrives once the thread has let go of the store; any other call runs to its end.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._closed = False

    @classmethod
    def open(
        cls, path: AnyPath | None = None, *, app_version: str | None = None, progress: OnProgress = ignore
    ) -> Self:
        """As `Store.open`; does not block for long."""
        return cls(Store.open(path, app_version=app_version, progress=progress))

    async def set_app_version(self, version: str) -> None:
        """As `Store.set_app_version`."""
        await self._run(self.store.set_app_version, version)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Store.close`; every call after it raises a UsageError, but for `close` itself."""
        self._closed = True
        await self._run(self.store.close)

    async def _run(self, function: Callable[..., T], /, *args: Any, **values: Any) -> T:  # noqa: ANN401
        """Call a method in a thread; where the task is cancelled, have it stop and wait until it has."""
        if self._closed and function != self.store.close:
            raise UsageError("this AsyncStore is closed", hint="open another one: AsyncStore.open()")
        stoppable = None
        if "progress" in values:
            tell = values["progress"] or self.store.progress
            stoppable = values["progress"] = Stoppable(tell, lambda: CancelledError("the task was cancelled"))
        work = asyncio.ensure_future(asyncio.to_thread(function, *args, **values))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if stoppable is not None:
                stoppable.stop()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # nobody else asks for it
            raise

    async def fetch(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> FetchResult:
        """As `Store.fetch`."""
        return await self._run(
            self.store.fetch, spec, force=force, accept_change=accept_change, progress=progress
        )

    async def lock(
        self,
        *specs: str,
        file: AnyPath = "ystore.lock",
        update: bool = False,
        progress: OnProgress | None = None,
    ) -> LockResult:
        """As `Store.lock`."""
        return await self._run(self.store.lock, *specs, file=file, update=update, progress=progress)

    async def fetch_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> list[FetchResult]:
        """As `Store.fetch_locked`."""
        return await self._run(self.store.fetch_locked, file, accept_change=accept_change, progress=progress)

    async def checkout_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> list[CheckoutResult]:
        """As `Store.checkout_locked`."""
        return await self._run(
            self.store.checkout_locked, file, force=force, accept_change=accept_change, progress=progress
        )

    async def checkout(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> CheckoutResult:
        """As `Store.checkout`."""
        return await self._run(
            self.store.checkout, spec, force=force, accept_change=accept_change, progress=progress
        )

    async def update_model(
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
        """As `Store.update_model`."""
        return await self._run(
            self.store.update_model,
            model,
            major=major,
            to=to,
            force=force,
            accept_change=accept_change,
            dry_run=dry_run,
            progress=progress,
        )

    async def update_models(
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
        """As `Store.update_models`."""
        return await self._run(
            self.store.update_models,
            *models,
            major=major,
            to=to,
            force=force,
            accept_change=accept_change,
            dry_run=dry_run,
            jobs=jobs,
            on_result=on_result,
            progress=progress,
        )

    async def read_requests(self, *words: str) -> list[str]:
        """As `Store.read_requests`."""
        return await self._run(self.store.read_requests, *words)

    async def compatibility(self, model: str, *, progress: OnProgress | None = None) -> CompatTable:
        """As `Store.compatibility`."""
        return await self._run(self.store.compatibility, model, progress=progress)

    async def rollback_model(
        self, model: str, version: str | None = None, *, progress: OnProgress | None = None
    ) -> CheckoutResult:
        """As `Store.rollback_model`."""
        return await self._run(self.store.rollback_model, model, version, progress=progress)

    async def path(self, spec: str, *, verify: bool = True, progress: OnProgress | None = None) -> str:
        """As `Store.path`."""
        return await self._run(self.store.path, spec, verify=verify, progress=progress)

    async def get_version_history(self, model: str) -> History:
        """As `Store.get_version_history`."""
        return await self._run(self.store.get_version_history, model)

    async def check_for_updates(self, *models: str, progress: OnProgress | None = None) -> list[Update]:
        """As `Store.check_for_updates`."""
        return await self._run(self.store.check_for_updates, *models, progress=progress)

    async def list_installed_models(self) -> list[InstalledModel]:
        """As `Store.list_installed_models`."""
        return await self._run(self.store.list_installed_models)

    async def list_versions(self, model: str | None = None) -> list[StoredVersion]:
        """As `Store.list_versions`."""
        return await self._run(self.store.list_versions, model)

    async def status(self) -> StoreStatus:
        """As `Store.status`."""
        return await self._run(self.store.status)

    async def import_model(
        self, source: AnyPath, spec: str, *, all_files: bool = False, progress: OnProgress | None = None
    ) -> ImportResult:
        """As `Store.import_model`."""
        return await self._run(self.store.import_model, source, spec, all_files=all_files, progress=progress)

    async def export(
        self, spec: str, destination: AnyPath, *, progress: OnProgress | None = None
    ) -> ExportResult:
        """As `Store.export`."""
        return await self._run(self.store.export, spec, destination, progress=progress)

    async def remove(self, spec: str, *, whole_model: bool = False) -> RemoveResult:
        """As `Store.remove`."""
        return await self._run(self.store.remove, spec, whole_model=whole_model)

    async def pin(self, spec: str) -> PinResult:
        """As `Store.pin`."""
        return await self._run(self.store.pin, spec)

    async def unpin(self, spec: str) -> PinResult:
        """As `Store.unpin`."""
        return await self._run(self.store.unpin, spec)

    async def diff(
        self, old: str, new: str, *, html: AnyPath | None = None, progress: OnProgress | None = None
    ) -> DiffResult:
        """As `Store.diff`."""
        return await self._run(self.store.diff, old, new, html=html, progress=progress)

    async def inspect(self, what: str) -> InspectResult:
        """As `Store.inspect`."""
        return await self._run(self.store.inspect, what)

    async def gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        dry_run: bool = False,
        repack: bool = False,
        progress: OnProgress | None = None,
    ) -> GcResult:
        """As `Store.gc`."""
        return await self._run(
            self.store.gc,
            keep=keep,
            keep_within_s=keep_within_s,
            grace_s=grace_s,
            dry_run=dry_run,
            repack=repack,
            progress=progress,
        )

    async def fsck(
        self, *, quick: bool = False, repair: bool = False, progress: OnProgress | None = None
    ) -> FsckResult:
        """As `Store.fsck`."""
        return await self._run(self.store.fsck, quick=quick, repair=repair, progress=progress)

    async def add_registry(self, name: str, url: AnyPath) -> RegistryInfo:
        """As `Store.add_registry`."""
        return await self._run(self.store.add_registry, name, url)

    async def list_registries(self) -> list[RegistryInfo]:
        """As `Store.list_registries`."""
        return await self._run(self.store.list_registries)

    async def refresh_registries(
        self, name: str | None = None, *, accept_rollback: bool = False
    ) -> list[RegistryInfo]:
        """As `Store.refresh_registries`."""
        return await self._run(self.store.refresh_registries, name, accept_rollback=accept_rollback)

    async def lint_registry(
        self,
        source: AnyPath,
        *,
        models: tuple[str, ...] = (),
        deep: bool = False,
        decode: bool = False,
        progress: OnProgress | None = None,
    ) -> LintResult:
        """As `Store.lint_registry`."""
        return await self._run(
            self.store.lint_registry, source, models=models, deep=deep, decode=decode, progress=progress
        )

    async def remove_registry(self, name: str) -> None:
        """As `Store.remove_registry`."""
        await self._run(self.store.remove_registry, name)

    async def search(self, text: str = "") -> list[Offer]:
        """As `Store.search`."""
        return await self._run(self.store.search, text)

    async def show(self, spec: str) -> VersionDetails:
        """As `Store.show`."""
        return await self._run(self.store.show, spec)

    # --- upkeep --------------------------------------------------------------------------------

    async def import_local_state(
        self, source: AnyPath, *, progress: OnProgress | None = None
    ) -> TakeoverResult:
        """As `Store.import_local_state`."""
        return await self._run(self.store.import_local_state, source, progress=progress)

    async def auto_update_status(self, *models: str) -> AutoUpdateStatus:
        """As `Store.auto_update_status`."""
        return await self._run(self.store.auto_update_status, *models)

    async def set_auto_update(
        self,
        *models: str,
        enabled: bool,
        policy: str | None = None,
        windows: Sequence[str] | None = None,
        jitter: str | None = None,
    ) -> AutoUpdateStatus:
        """As `Store.set_auto_update`."""
        return await self._run(
            self.store.set_auto_update,
            *models,
            enabled=enabled,
            policy=policy,
            windows=windows,
            jitter=jitter,
        )

    async def run_auto_update(
        self, *, now: bool = False, progress: OnProgress | None = None
    ) -> AutoUpdateRound:
        """As `Store.run_auto_update`."""
        return await self._run(self.store.run_auto_update, now=now, progress=progress)

    async def examine(self, *, progress: OnProgress | None = None) -> DoctorResult:
        """As `Store.examine`."""
        return await self._run(self.store.examine, progress=progress)

    async def write_timer(self, kind: str, folder: AnyPath) -> TimerFiles:
        """As `Store.write_timer`."""
        return await self._run(self.store.write_timer, kind, folder)

    # --- downloads -----------------------------------------------------------------------------

    async def set_network(
        self,
        *,
        offline: bool | None = None,
        limit_rate: float | None = None,
        connections: int | None = None,
        registry: str | None = None,
    ) -> None:
        """As `Store.set_network`."""
        self.store.set_network(
            offline=offline, limit_rate=limit_rate, connections=connections, registry=registry
        )

    async def enqueue(self, *specs: str) -> list[QueuedFetch]:
        """As `Store.enqueue`."""
        return await self._run(self.store.enqueue, *specs)

    async def list_queue(self) -> list[QueuedFetch]:
        """As `Store.list_queue`."""
        return await self._run(self.store.list_queue)

    async def dequeue(self, *specs: str) -> list[QueuedFetch]:
        """As `Store.dequeue`."""
        return await self._run(self.store.dequeue, *specs)

    async def run_queue(
        self, *, on_result: Callable[[QueueRun], None] | None = None, progress: OnProgress | None = None
    ) -> list[QueueRun]:
        """As `Store.run_queue`."""
        return await self._run(self.store.run_queue, on_result=on_result, progress=progress)
