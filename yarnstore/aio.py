"""`AsyncStore`: the same API for asyncio, each call in a thread of its own.

The engine works in threads, where hashing, decoding and file I/O release the interpreter; this
only keeps the event loop free while they do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from yarnstore.api import AnyPath, Store
from yarnstore.ops.progress import OnProgress, ignore

if TYPE_CHECKING:
    from yarnstore.ops.catalogue import Offer, RegistryInfo, VersionDetails
    from yarnstore.ops.checkout import UpdateResult
    from yarnstore.ops.diff import DiffResult
    from yarnstore.ops.fetch import FetchResult
    from yarnstore.ops.fsck import FsckResult
    from yarnstore.ops.gc import GcResult
    from yarnstore.ops.history import History
    from yarnstore.ops.inspect import InspectResult
    from yarnstore.ops.inventory import InstalledModel
    from yarnstore.ops.local import ExportResult, ImportResult, PinResult, RemoveResult
    from yarnstore.ops.moves import CheckoutResult
    from yarnstore.ops.outdated import Update
    from yarnstore.ops.status import StoreStatus


class AsyncStore:
    """A `Store` whose methods are awaited; see there for what each does and raises.

    `progress` callbacks run in the worker's thread.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, path: AnyPath | None = None, *, progress: OnProgress = ignore) -> Self:
        """As `Store.open`; does not block for long."""
        return cls(Store.open(path, progress=progress))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.store.close)

    async def fetch(self, spec: str, *, progress: OnProgress | None = None) -> FetchResult:
        """As `Store.fetch`."""
        return await asyncio.to_thread(self.store.fetch, spec, progress=progress)

    async def checkout(self, spec: str, *, progress: OnProgress | None = None) -> CheckoutResult:
        """As `Store.checkout`."""
        return await asyncio.to_thread(self.store.checkout, spec, progress=progress)

    async def update_model(self, model: str, *, progress: OnProgress | None = None) -> UpdateResult:
        """As `Store.update_model`."""
        return await asyncio.to_thread(self.store.update_model, model, progress=progress)

    async def rollback_model(
        self, model: str, version: str | None = None, *, progress: OnProgress | None = None
    ) -> CheckoutResult:
        """As `Store.rollback_model`."""
        return await asyncio.to_thread(self.store.rollback_model, model, version, progress=progress)

    async def path(self, spec: str, *, progress: OnProgress | None = None) -> str:
        """As `Store.path`."""
        return await asyncio.to_thread(self.store.path, spec, progress=progress)

    async def get_version_history(self, model: str) -> History:
        """As `Store.get_version_history`."""
        return await asyncio.to_thread(self.store.get_version_history, model)

    async def check_for_updates(self, *models: str, progress: OnProgress | None = None) -> list[Update]:
        """As `Store.check_for_updates`."""
        return await asyncio.to_thread(self.store.check_for_updates, *models, progress=progress)

    async def list_installed_models(self) -> list[InstalledModel]:
        """As `Store.list_installed_models`."""
        return await asyncio.to_thread(self.store.list_installed_models)

    async def status(self) -> StoreStatus:
        """As `Store.status`."""
        return await asyncio.to_thread(self.store.status)

    async def import_model(
        self, source: AnyPath, spec: str, *, progress: OnProgress | None = None
    ) -> ImportResult:
        """As `Store.import_model`."""
        return await asyncio.to_thread(self.store.import_model, source, spec, progress=progress)

    async def export(
        self, spec: str, destination: AnyPath, *, progress: OnProgress | None = None
    ) -> ExportResult:
        """As `Store.export`."""
        return await asyncio.to_thread(self.store.export, spec, destination, progress=progress)

    async def remove(self, spec: str, *, whole_model: bool = False) -> RemoveResult:
        """As `Store.remove`."""
        return await asyncio.to_thread(self.store.remove, spec, whole_model=whole_model)

    async def pin(self, spec: str) -> PinResult:
        """As `Store.pin`."""
        return await asyncio.to_thread(self.store.pin, spec)

    async def unpin(self, spec: str) -> PinResult:
        """As `Store.unpin`."""
        return await asyncio.to_thread(self.store.unpin, spec)

    async def diff(
        self, old: str, new: str, *, html: AnyPath | None = None, progress: OnProgress | None = None
    ) -> DiffResult:
        """As `Store.diff`."""
        return await asyncio.to_thread(self.store.diff, old, new, html=html, progress=progress)

    async def inspect(self, what: str) -> InspectResult:
        """As `Store.inspect`."""
        return await asyncio.to_thread(self.store.inspect, what)

    async def gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float = 0.0,
        dry_run: bool = False,
        repack: bool = False,
        progress: OnProgress | None = None,
    ) -> GcResult:
        """As `Store.gc`."""
        return await asyncio.to_thread(
            self.store.gc,
            keep=keep,
            keep_within_s=keep_within_s,
            dry_run=dry_run,
            repack=repack,
            progress=progress,
        )

    async def fsck(
        self, *, quick: bool = False, repair: bool = False, progress: OnProgress | None = None
    ) -> FsckResult:
        """As `Store.fsck`."""
        return await asyncio.to_thread(self.store.fsck, quick=quick, repair=repair, progress=progress)

    async def add_registry(self, name: str, url: AnyPath) -> RegistryInfo:
        """As `Store.add_registry`."""
        return await asyncio.to_thread(self.store.add_registry, name, url)

    async def list_registries(self) -> list[RegistryInfo]:
        """As `Store.list_registries`."""
        return await asyncio.to_thread(self.store.list_registries)

    async def refresh_registries(self, name: str | None = None) -> list[RegistryInfo]:
        """As `Store.refresh_registries`."""
        return await asyncio.to_thread(self.store.refresh_registries, name)

    async def remove_registry(self, name: str) -> None:
        """As `Store.remove_registry`."""
        await asyncio.to_thread(self.store.remove_registry, name)

    async def search(self, text: str = "") -> list[Offer]:
        """As `Store.search`."""
        return await asyncio.to_thread(self.store.search, text)

    async def show(self, spec: str) -> VersionDetails:
        """As `Store.show`."""
        return await asyncio.to_thread(self.store.show, spec)
