"""`Store`: the Python API, which the command line uses and nothing else.

Every method opens what it needs and lets go of it again; a `Store` may be shared by threads and
kept as long as the process lives.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from yarnstore.api.downloads import Downloads
from yarnstore.api.publishing import Publishing
from yarnstore.api.updating import Updating, bare_model
from yarnstore.api.upkeep import Upkeep
from yarnstore.errors import DiskFullError
from yarnstore.ops.session.connections import RecentFailures
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.progress import OnProgress, Progress, Stoppable, ignore
from yarnstore.registry.spec import Spec
from yarnstore.settings import Settings, add_registry, load_settings, normal_url, remove_registry
from yarnstore.store import fsread
from yarnstore.store.access import exposures, top_folders
from yarnstore.store.layout import StoreLayout
from yarnstore.store.registry_cache import remove_cached

if TYPE_CHECKING:
    from yarnstore.core.manifest import Manifest
    from yarnstore.ops.fetching.fetch import FetchResult
    from yarnstore.ops.inspecting.diff import DiffResult
    from yarnstore.ops.inspecting.inspect import InspectResult
    from yarnstore.ops.installing.activate import CheckoutResult
    from yarnstore.ops.installing.pin import PinResult
    from yarnstore.ops.local.import_export import ExportResult, ImportResult, RemoveResult
    from yarnstore.ops.querying.catalogue import Offer, RegistryInfo, VersionDetails
    from yarnstore.ops.querying.compat import CompatTable
    from yarnstore.ops.querying.history import History
    from yarnstore.ops.querying.inventory import InstalledModel
    from yarnstore.ops.querying.status import StoreStatus
    from yarnstore.ops.querying.usage import StoredVersion
    from yarnstore.ops.upkeep.findings import FsckResult
    from yarnstore.ops.upkeep.gc import GcResult

AnyPath = str | os.PathLike[str]


def _admit_version(session: Session, manifest: Manifest, tell: bool) -> None:
    from yarnstore.ops.session.loadcode import admit_version

    admit_version(session, manifest, tell)


class Store(Updating, Publishing, Downloads, Upkeep):
    """One store of models on this machine.

        store = Store.open()
        store.checkout("phi-3-mini@1.1.0")
        session = onnxruntime.InferenceSession(store.path("phi-3-mini"))

    Everything raises `YarnstoreError`s only; docs/errors.md lists them.
    """

    def __init__(self, settings: Settings, *, progress: OnProgress = ignore) -> None:
        self.settings = settings
        self.progress = progress
        self._leases: dict[str, int] = {}
        self._lock = threading.Lock()
        self._put_last = RecentFailures()
        self._looked = False  # at who else may write the store

    @classmethod
    def open(
        cls, path: AnyPath | None = None, *, app_version: str | None = None, progress: OnProgress = ignore
    ) -> Self:
        """The store at `path`, else at YSTORE_HOME, else the user's own.  Makes nothing yet.

        `app_version` is the application's, before what the environment and `config.toml` say: versions
        that do not fit it are not installed.

        Raises: ConfigError, InvalidNameError.
        """
        store = cls(load_settings(Path(path) if path is not None else None), progress=progress)
        if app_version is not None:
            store.set_app_version(app_version)
        return store

    def set_app_version(self, version: str) -> None:
        """Count with another version of the application from here on.  Raises: InvalidNameError."""
        from yarnstore.settings.host import app_version

        machine = msgspec.structs.replace(self.settings.machine, app_version=app_version(version))
        self.settings = msgspec.structs.replace(self.settings, machine=machine)

    @property
    def home(self) -> Path:
        """The folder of the store."""
        return self.settings.home

    def close(self) -> None:
        """Let go of the versions that `path` gave out: `gc` may free them after their grace period."""
        with self._lock:
            for lease in self._leases.values():
                os.close(lease)
            self._leases.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _session(self, progress: OnProgress | None = None) -> Iterator[Session]:
        tell = progress or self.progress

        def on_wait(holders: list[int]) -> None:
            who = f"process {', '.join(map(str, holders))}" if holders else "another process"
            tell(Progress("note", "", text=f"waiting for {who}, which is using the store"))

        layout = StoreLayout(self.settings.home, self.settings.lock_timeout_s, on_wait)
        session = Session(
            layout,
            self.settings.registries,
            self.settings.connections,
            on_progress=tell,
            host=self.settings.machine,
            network=self.settings.network,
            put_last=self._put_last,
            load_policy=self.settings.load_policy,
            admit_version=_admit_version,
            only=self.settings.registry,
        )
        if isinstance(tell, Stoppable):
            session.check = tell.check
        try:
            self._prepare(session)
            self._warn_of_others(session)
            yield session
        except DiskFullError as error:
            if Path(str(error.fields.get("path", ""))).is_relative_to(self.settings.home):
                error.hint = "`ystore gc --dry-run` shows what can be deleted"
            raise
        finally:
            session.close()

    def _warn_of_others(self, session: Session) -> None:
        """Tell once that others may write the store."""
        if not self._looked:
            self._looked = True
            found = next(exposures(session.layout, top_folders(session.layout)), None)
            if found is not None:
                what = "the store" if found.place == "." else f"{found.place}/ of the store"
                session.note(f"{what} {found.why}, who can change installed models; see `ystore doctor`")

    # --- versions ------------------------------------------------------------------------------

    def fetch(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> FetchResult:
        """Bring a version into the store, whole and verified, without installing it.

        A yanked version only comes with `force`, and by its number.  A version that had another content
        when its registry was asked for it before only comes with `accept_change`.

        Raises: SpecError, NotFoundError, BackendError, IntegrityError, IncompatibleError, StorageError;
        ConflictError where the content has changed.
        """
        from yarnstore.ops.fetching.fetch import fetch

        with self._session(progress) as session:
            session.accept_change = accept_change
            return fetch(session, Spec.parse(spec), force=force)

    def checkout(
        self,
        spec: str,
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> CheckoutResult:
        """Install a version that fits; fetches it if need be.

        `force` installs what needs more memory than there is, too; `accept_change` is as in `fetch`.
        Raises: as `fetch`.
        """
        from yarnstore.ops.installing.checkout import checkout

        with self._session(progress) as session:
            session.accept_change = accept_change
            return checkout(session, Spec.parse(spec), force=force)

    def compatibility(self, model: str, *, progress: OnProgress | None = None) -> CompatTable:
        """Which versions of a model fit the application and this machine.  Raises: NotFoundError."""
        from yarnstore.ops.querying.compat import compatibility

        with self._session(progress) as session:
            return compatibility(session, Spec.parse(model))

    def rollback_model(
        self, model: str, version: str | None = None, *, progress: OnProgress | None = None
    ) -> CheckoutResult:
        """Install what was installed before, or `version`.  Raises: NotFoundError."""
        from yarnstore.core.names import read_version
        from yarnstore.ops.installing.activate import rollback_retained

        wanted = read_version(version) if version else None
        with self._session(progress) as session:
            done = rollback_retained(session, bare_model(model), wanted)
            if done is None:
                from yarnstore.ops.installing.checkout import rollback

                done = rollback(session, bare_model(model), wanted)
            return done

    def path(self, spec: str, *, verify: bool = True, progress: OnProgress | None = None) -> str:
        """What to open: the file, where the version has one, else the folder.

        Of a bare model the version that is installed now; of a full spec that version.  The path stays
        that version's, whatever is installed later.  `gc` leaves it while this store is open, and for the
        grace period (`path_grace`, a day) from now.

        A file that changed since it was hashed is hashed first, which takes seconds for each GB; without
        `verify` it is not, and may have other bytes than were published.

        Raises: NotFoundError; as `fetch` where something is to be fetched.
        """
        from yarnstore.ops.querying.inventory import find_path, path_of

        parsed = Spec.parse(spec)
        with self._session(progress) as session:
            found = find_path(session, parsed, verify=verify)
            if found is None:
                from yarnstore.ops.installing.checkout import ensure_ready

                with session.layout.shared():  # until it is noted as given out, gc is kept from it
                    found = path_of(session, ensure_ready(session, parsed))
        if found.lease is not None:
            with self._lock:
                before = self._leases.pop(found.path, None)
                if before is not None:
                    os.close(before)
                self._leases[found.path] = found.lease
        return found.path

    def get_version_history(self, model: str) -> History:
        """What happened to a model here, beside what is published.  Raises: NotFoundError."""
        from yarnstore.ops.querying.history import history

        with self._session() as session:
            return history(session, bare_model(model))

    def list_installed_models(self) -> list[InstalledModel]:
        """The installed models.  Raises: IntegrityError where the store is damaged."""
        from yarnstore.ops.querying.inventory import list_installed

        with self._session() as session:
            return list_installed(session)

    def list_versions(self, model: str | None = None) -> list[StoredVersion]:
        """The versions that are stored, of one model or of all, with what each takes on the disk.

        Raises: IntegrityError where the store is damaged.
        """
        from yarnstore.ops.querying.usage import list_stored

        with self._session() as session:
            return list_stored(session, None if model is None else bare_model(model))

    def status(self) -> StoreStatus:
        """What the store holds and how much disk space it takes."""
        from yarnstore.ops.querying.status import status

        with self._session() as session:
            return status(session)

    # --- without a registry --------------------------------------------------------------------

    def import_model(
        self, source: AnyPath, spec: str, *, all_files: bool = False, progress: OnProgress | None = None
    ) -> ImportResult:
        """Import a file or folder of this machine into the store; `all_files` is as in `publish`.

        Raises: ConflictError, UsageError, FormatError.
        """
        from yarnstore.ops.local.import_export import import_source

        with self._session(progress) as session:
            return import_source(session, fsread.source_path(source), Spec.parse(spec), all_files=all_files)

    def export(self, spec: str, destination: AnyPath, *, progress: OnProgress | None = None) -> ExportResult:
        """A plain copy of a version; a `destination` that ends in a slash is, or becomes, a folder.

        Raises: ConflictError where something is in the way, UsageError for a place in the store.
        """
        from yarnstore.ops.local.import_export import export

        with self._session(progress) as session:
            as_folder = fsread.names_folder(destination)
            return export(session, Spec.parse(spec), fsread.absolute(destination), as_folder=as_folder)

    def remove(self, spec: str, *, whole_model: bool = False) -> RemoveResult:
        """Forget a version, or all of a model; `gc` frees it.  Raises: NotFoundError, ConflictError."""
        from yarnstore.ops.local.import_export import remove

        with self._session() as session:
            return remove(session, Spec.parse(spec), whole_model=whole_model)

    def pin(self, spec: str) -> PinResult:
        """Keep a version from update and gc, or have update stay with a range or a variant.

        Raises: NotFoundError, SpecError.
        """
        from yarnstore.ops.installing.pin import pin

        with self._session() as session:
            return pin(session, Spec.parse(spec))

    def unpin(self, spec: str) -> PinResult:
        """Let a pinned version, range or variant go.  Raises: NotFoundError."""
        from yarnstore.ops.installing.pin import unpin

        with self._session() as session:
            return unpin(session, Spec.parse_stored(spec))

    # --- what is inside ------------------------------------------------------------------------

    def diff(
        self, old: str, new: str, *, html: AnyPath | None = None, progress: OnProgress | None = None
    ) -> DiffResult:
        """What changed between two specs or paths, by file and by tensor; with `html` as a page, too.

        `new` may be `@VERSION` of the model that `old` names.  A version that is not here is fetched.

        Raises: NotFoundError, UsageError, IntegrityError, StorageError; as `fetch`.
        """
        from yarnstore.ops.inspecting.diff import diff
        from yarnstore.ops.inspecting.page import write_page

        page = None if html is None else fsread.file_path(html)
        with self._session(progress) as session:
            found = diff(session, old, new)
        if page is not None:
            write_page(found, page)
        return found

    def inspect(self, what: str) -> InspectResult:
        """The tensors of a spec, or of a path, whose headers alone are read; and how a version is stored.

        Raises: NotFoundError, UsageError, IntegrityError, StorageError.
        """
        from yarnstore.ops.inspecting.inspect import inspect

        with self._session() as session:
            return inspect(session, what)

    # --- upkeep --------------------------------------------------------------------------------

    def gc(
        self,
        *,
        keep: int | None = None,
        keep_within_s: float | None = None,
        grace_s: float | None = None,
        dry_run: bool = False,
        repack: bool = False,
        progress: OnProgress | None = None,
    ) -> GcResult:
        """Free what nothing keeps; `repack` stores older versions as deltas against the newest.

        A view that `path` gave out stays for `grace_s` seconds after that, or after it was installed last;
        what is None is as `config.toml` has it.  Raises: IntegrityError, LockTimeoutError.
        """
        from yarnstore.ops.upkeep.gc import GcPolicy, gc

        policy = GcPolicy.of(self.settings.retention, keep=keep, keep_within_s=keep_within_s, grace_s=grace_s)
        with self._session(progress) as session:
            return gc(session, policy, dry_run=dry_run, repack_too=repack)

    def fsck(
        self, *, quick: bool = False, repair: bool = False, progress: OnProgress | None = None
    ) -> FsckResult:
        """Check everything in the store, and mend it with `repair`.  Raises: LockTimeoutError."""
        with self._session(progress) as session:
            if repair:
                from yarnstore.ops.upkeep.repair import repair as mend

                return mend(session)
            from yarnstore.ops.upkeep.fsck import fsck

            return fsck(session, quick=quick)

    # --- registries ----------------------------------------------------------------------------

    def add_registry(self, name: str, url: AnyPath) -> RegistryInfo:
        """Add a registry, once it has answered.  Raises: BackendError, FormatError, ConflictError."""
        from yarnstore.ops.querying.catalogue import describe

        source = RegistrySource(name, normal_url(os.fspath(url)))
        before = self.settings
        add_registry(self.home, source.name, source.url)
        try:
            self.settings = load_settings(self.home)
            with self._session() as session:
                return describe(session, session.source(name), refresh=True)
        except BaseException:
            if all(other.name != name for other in before.registries):
                remove_registry(self.home, name)
            self.settings = before
            raise

    def list_registries(self) -> list[RegistryInfo]:
        """The configured registries, in order of priority, as they were last fetched."""
        from yarnstore.ops.querying.catalogue import describe

        with self._session() as session:
            return [describe(session, source, refresh=False) for source in session.sources]

    def refresh_registries(
        self, name: str | None = None, *, accept_rollback: bool = False
    ) -> list[RegistryInfo]:
        """Ask the registries, or the one named, what is new.

        Of several, one that fails stops no other: its `error` says why.  With `accept_rollback` the one
        named is believed although it is older than it was.

        Raises: BackendError, RolledBackError, FormatError where none answered as it should; NotFoundError.
        """
        from yarnstore.ops.querying.catalogue import describe, refresh_all

        with self._session() as session:
            if name is None:
                return refresh_all(session, session.require_sources())
            source = session.source(name)
            return [describe(session, source, refresh=True, accept_rollback=accept_rollback)]

    def remove_registry(self, name: str) -> None:
        """Forget a registry; what came from it stays.  Raises: NotFoundError."""
        remove_registry(self.home, name)
        remove_cached(StoreLayout(self.home), name)
        self.settings = load_settings(self.home)

    def search(self, text: str = "") -> list[Offer]:
        """Models that the registries offer.  Raises: NotFoundError where none is configured."""
        from yarnstore.ops.querying.catalogue import search

        with self._session() as session:
            return search(session, text)

    def show(self, spec: str) -> VersionDetails:
        """All that a registry says of a version.  Raises: NotFoundError."""
        from yarnstore.ops.querying.catalogue import show

        with self._session() as session:
            return show(session, Spec.parse(spec))
