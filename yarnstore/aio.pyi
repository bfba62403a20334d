# Made from the methods of `Store` by `make docs`; a test checks that it is current.

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from yarnstore.api import AnyPath, Store
from yarnstore.ops.checking.doctor import DoctorResult
from yarnstore.ops.checking.findings import FsckResult
from yarnstore.ops.exchange.adopt import AdoptResult, ReplacedFile
from yarnstore.ops.exchange.identify import IdentifiedFile
from yarnstore.ops.fetching.fetch import FetchResult
from yarnstore.ops.fetching.queue import QueuedFetch, QueueRun
from yarnstore.ops.inspecting.contents import VersionFiles
from yarnstore.ops.inspecting.diff import DiffResult
from yarnstore.ops.inspecting.inspect import InspectResult
from yarnstore.ops.inspecting.readme import Readme
from yarnstore.ops.inspecting.stored_file import StoredFile
from yarnstore.ops.installing.activate import CheckoutResult
from yarnstore.ops.installing.auto_update import AutoUpdateOutcome, AutoUpdateRound, AutoUpdateStatus
from yarnstore.ops.installing.from_lock import LockResult
from yarnstore.ops.installing.outdated import Update
from yarnstore.ops.installing.pin import PinResult
from yarnstore.ops.installing.timers import TimerFiles
from yarnstore.ops.installing.update import UpdateSummary
from yarnstore.ops.installing.update_plan import UpdateResult
from yarnstore.ops.local.import_export import ExportResult, ImportResult
from yarnstore.ops.local.move import MoveResult
from yarnstore.ops.local.removal import RemoveResult, RestoreResult
from yarnstore.ops.local.takeover import TakeoverResult
from yarnstore.ops.publishing.lint import LintResult
from yarnstore.ops.querying.catalogue import Offer, RegistryInfo, VersionDetails
from yarnstore.ops.querying.compat import CompatTable
from yarnstore.ops.querying.history import History
from yarnstore.ops.querying.inventory import InstalledModel
from yarnstore.ops.querying.statistics import Statistics
from yarnstore.ops.querying.status import StoreStatus
from yarnstore.ops.querying.storage import StorageUsage
from yarnstore.ops.querying.usage import StoredVersion
from yarnstore.ops.upkeep.gc import GcResult
from yarnstore.ops.upkeep.gc_items import GcForecast
from yarnstore.progress import OnProgress, ignore
from yarnstore.settings.editable import SettingInfo, SettingValue

class AsyncStore:
    store: Store
    def __init__(self, store: Store) -> None: ...
    @classmethod
    def open(
        cls, path: AnyPath | None = None, *, app_version: str | None = None, progress: OnProgress = ignore
    ) -> Self: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *_: object) -> None: ...
    async def close(self) -> None: ...
    async def get_version_history(self, model: str) -> History: ...
    async def list_installed_models(self, *models: str) -> list[InstalledModel]: ...
    async def list_versions(self, model: str | None = None) -> list[StoredVersion]: ...
    async def status(self) -> StoreStatus: ...
    async def stats(self, *, since_s: float | None = None) -> Statistics: ...
    async def import_model(
        self, source: AnyPath, spec: str, *, all_files: bool = False, progress: OnProgress | None = None
    ) -> ImportResult: ...
    async def import_from(
        self, source: AnyPath, spec: str | None = None, *, progress: OnProgress | None = None
    ) -> list[ImportResult]: ...
    async def import_url(
        self, url: str, spec: str, *, sha256: str, progress: OnProgress | None = None
    ) -> ImportResult: ...
    async def export(
        self,
        spec: str,
        destination: AnyPath,
        *,
        hardlink: bool = False,
        flavour: str | None = None,
        progress: OnProgress | None = None,
    ) -> ExportResult: ...
    async def identify(self, path: AnyPath, *, progress: OnProgress | None = None) -> IdentifiedFile: ...
    async def adopt(
        self,
        *folders: AnyPath,
        apply: bool = False,
        hardlink: bool = False,
        least_bytes: int = 16 * 1024,
        progress: OnProgress | None = None,
    ) -> AdoptResult: ...
    async def undo_adopt(self, *, progress: OnProgress | None = None) -> list[ReplacedFile]: ...
    async def check_export(
        self,
        spec: str,
        destination: AnyPath,
        *,
        flavour: str | None = None,
        progress: OnProgress | None = None,
    ) -> ExportResult: ...
    async def move(self, folder: AnyPath, *, progress: OnProgress | None = None) -> MoveResult: ...
    async def remove(self, spec: str, *, whole_model: bool = False) -> RemoveResult: ...
    async def restore(
        self, removed: RemoveResult | str, *, progress: OnProgress | None = None
    ) -> RestoreResult: ...
    async def list_files(self, spec: str, *, commit: str = "", online: bool = False) -> VersionFiles: ...
    async def open_file(self, spec: str, path: str) -> StoredFile: ...
    async def diff(
        self, old: str, new: str, *, html: AnyPath | None = None, progress: OnProgress | None = None
    ) -> DiffResult: ...
    async def readme(self, spec: str) -> Readme: ...
    async def inspect(self, what: str) -> InspectResult: ...
    async def fetch(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> FetchResult: ...
    async def checkout(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> CheckoutResult: ...
    async def rollback_model(
        self, model: str, version: str | None = None, *, wait: bool = True, progress: OnProgress | None = None
    ) -> CheckoutResult: ...
    async def path(self, spec: str, *, verify: bool = True, progress: OnProgress | None = None) -> str: ...
    async def compatibility(self, model: str, *, progress: OnProgress | None = None) -> CompatTable: ...
    async def pin(self, spec: str) -> PinResult: ...
    async def unpin(self, spec: str) -> PinResult: ...
    async def check_for_updates(
        self, *models: str, refresh: bool = True, progress: OnProgress | None = None
    ) -> list[Update]: ...
    async def update_model(
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
    ) -> UpdateResult: ...
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
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> UpdateSummary: ...
    async def read_requests(self, *words: str) -> list[str]: ...
    async def lock(
        self,
        *specs: str,
        file: AnyPath = "ystore.lock",
        update: bool = False,
        progress: OnProgress | None = None,
    ) -> LockResult: ...
    async def check_lock(self, file: AnyPath = "ystore.lock") -> LockResult: ...
    async def fetch_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> list[FetchResult]: ...
    async def checkout_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        force: bool = False,
        accept_change: bool = False,
        wait: bool = True,
        progress: OnProgress | None = None,
    ) -> list[CheckoutResult]: ...
    async def add_registry(self, name: str, url: AnyPath) -> RegistryInfo: ...
    async def list_registries(self) -> list[RegistryInfo]: ...
    async def refresh_registries(
        self, name: str | None = None, *, accept_rollback: bool = False
    ) -> list[RegistryInfo]: ...
    async def set_mirrors(self, name: str, mirrors: Sequence[AnyPath]) -> RegistryInfo: ...
    async def remove_registry(self, name: str) -> None: ...
    async def search(self, text: str = "") -> list[Offer]: ...
    async def list_offered(self, text: str = "") -> list[VersionDetails]: ...
    async def show(self, spec: str) -> VersionDetails: ...
    async def lint_registry(
        self,
        source: AnyPath,
        *,
        models: tuple[str, ...] = (),
        deep: bool = False,
        decode: bool = False,
        progress: OnProgress | None = None,
    ) -> LintResult: ...
    async def gc(
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
    ) -> GcResult: ...
    async def slim(self, *models: str, progress: OnProgress | None = None) -> int: ...
    async def plan_gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        max_size_bytes: int | None = None,
        unused_s: float | None = None,
        repack: bool = False,
        progress: OnProgress | None = None,
    ) -> GcForecast: ...
    async def storage(self, model: str | None = None) -> StorageUsage: ...
    async def list_settings(self) -> list[SettingInfo]: ...
    async def change_settings(self, changes: Mapping[str, SettingValue]) -> list[SettingInfo]: ...
    async def fsck(
        self,
        *,
        quick: bool = False,
        repair: bool = False,
        sample: float | None = None,
        progress: OnProgress | None = None,
    ) -> FsckResult: ...
    async def examine(self, *, progress: OnProgress | None = None) -> DoctorResult: ...
    async def import_local_state(
        self, source: AnyPath, *, progress: OnProgress | None = None
    ) -> TakeoverResult: ...
    async def auto_update_status(self, *models: str) -> AutoUpdateStatus: ...
    async def set_auto_update(
        self,
        *models: str,
        enabled: bool,
        policy: str | None = None,
        windows: Sequence[str] | None = None,
        jitter: str | None = None,
    ) -> AutoUpdateStatus: ...
    async def reset_auto_update(self, *models: str) -> AutoUpdateStatus: ...
    async def run_auto_update(
        self, *, now: bool = False, delay: bool = True, wait: bool = True, progress: OnProgress | None = None
    ) -> AutoUpdateRound: ...
    async def write_timer(self, kind: str, folder: AnyPath) -> TimerFiles: ...
    async def set_app_version(self, version: str) -> None: ...
    async def set_network(
        self,
        *,
        offline: bool | None = None,
        limit_rate: float | None = None,
        connections: int | None = None,
        registry: str | None = None,
    ) -> None: ...
    async def keep_after_exec(self) -> None: ...
    async def slim_after(
        self, *results: CheckoutResult | UpdateResult | AutoUpdateOutcome, progress: OnProgress | None = None
    ) -> int: ...
    async def models_to_slim(
        self, *results: CheckoutResult | UpdateResult | AutoUpdateOutcome
    ) -> list[str]: ...
    async def enqueue(self, *specs: str) -> list[QueuedFetch]: ...
    async def list_queue(self) -> list[QueuedFetch]: ...
    async def dequeue(self, *specs: str) -> list[QueuedFetch]: ...
    async def run_queue(
        self, *, on_result: Callable[[QueueRun], None] | None = None, progress: OnProgress | None = None
    ) -> list[QueueRun]: ...
