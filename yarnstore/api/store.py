"""`Store`: the Python API, on which the command line is built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from yarnstore.api.base import AnyPath, bare_model
from yarnstore.api.installing import Installing
from yarnstore.api.publishing import Publishing
from yarnstore.api.registries import Registries
from yarnstore.api.upkeep import Upkeep
from yarnstore.progress import OnProgress
from yarnstore.registry.spec import Spec
from yarnstore.store import paths

if TYPE_CHECKING:
    from yarnstore.ops.exchange.adopt import AdoptResult, ReplacedFile
    from yarnstore.ops.exchange.identify import IdentifiedFile
    from yarnstore.ops.inspecting.contents import VersionFiles
    from yarnstore.ops.inspecting.diff import DiffResult
    from yarnstore.ops.inspecting.inspect import InspectResult
    from yarnstore.ops.inspecting.readme import Readme
    from yarnstore.ops.inspecting.stored_file import StoredFile
    from yarnstore.ops.local.import_export import ExportResult, ImportResult
    from yarnstore.ops.local.move import MoveResult
    from yarnstore.ops.local.removal import RemoveResult, RestoreResult
    from yarnstore.ops.querying.history import History
    from yarnstore.ops.querying.inventory import InstalledModel
    from yarnstore.ops.querying.statistics import Statistics
    from yarnstore.ops.querying.status import StoreStatus
    from yarnstore.ops.querying.usage import StoredVersion


class Store(Installing, Registries, Publishing, Upkeep):
    """One store of models on this machine.

        store = Store.open()
        store.checkout("phi-3-mini@1.1.0")
        session = onnxruntime.InferenceSession(store.path("phi-3-mini"))

    All methods raise only `YarnstoreError`s; docs/errors.md lists them.
    """

    def get_version_history(self, model: str) -> History:
        """Return the published versions of a model and its history here.  Raises: NotFoundError."""
        from yarnstore.ops.querying.history import history

        with self._session() as session:
            return history(session, bare_model(model))

    def list_installed_models(self, *models: str) -> list[InstalledModel]:
        """Return the installed models, or those of `models` that are installed.

        Raises: IntegrityError if the store is damaged; SpecError, NotFoundError for a name of no model.
        """
        from yarnstore.ops.querying.inventory import list_installed

        with self._session() as session:
            return list_installed(session, frozenset(map(bare_model, models)))

    def list_versions(self, model: str | None = None) -> list[StoredVersion]:
        """Return the stored versions of one model or of all, with the disk space of each.

        Raises: IntegrityError if the store is damaged.
        """
        from yarnstore.ops.querying.usage import list_stored

        with self._session() as session:
            return list_stored(session, None if model is None else bare_model(model))

    def status(self) -> StoreStatus:
        """Return what is stored and how much disk space it takes."""
        from yarnstore.ops.querying.status import status

        with self._session() as session:
            return status(session)

    def stats(self, *, since_s: float | None = None) -> Statistics:
        """Return the statistics of operations of the last `since_s` seconds or of all time.

        They are recorded in the store and sent nowhere; a read-only store records nothing.
        """
        from yarnstore.ops.querying.statistics import statistics

        with self._session() as session:
            since_ms = None if since_s is None else max(0, session.now_ms() - int(since_s * 1000))
            return statistics(session, since_ms)

    # --- without a registry --------------------------------------------------------------------------

    def import_model(
        self, source: AnyPath, spec: str, *, all_files: bool = False, progress: OnProgress | None = None
    ) -> ImportResult:
        """Import a file or folder of this machine; `all_files` is as in `publish`.

        Raises: ConflictError, UsageError, FormatError.
        """
        from yarnstore.ops.local.import_export import import_source

        with self._session(progress) as session:
            return import_source(session, paths.source_path(source), Spec.parse(spec), all_files=all_files)

    def import_from(
        self, source: AnyPath, spec: str | None = None, *, progress: OnProgress | None = None
    ) -> list[ImportResult]:
        """Import versions from another tool of this machine, or an image from a registry of images.

        `source` is `hf://ORG/NAME[@REVISION]`, `ollama://[NAMESPACE/]MODEL[:TAG]`,
        `lmstudio://PUBLISHER/MODEL[/FILE]` or `oci:FOLDER[:TAG]`, the folder of a model in the Hugging Face
        cache, or `docker://HOST[:PORT]/NAME[:TAG|@sha256:HEX]`, which alone is downloaded.  Each revision or
        tag becomes a version 0.0.N+<7 hex digits of its digest>, unless `spec` names a version; what is
        stored with the same content is not imported again.

        Raises: NotFoundError, ConflictError, UsageError, IntegrityError, BackendError.
        """
        from yarnstore.ops.exchange.importing import import_from, resolve_source
        from yarnstore.settings.tools import tool_folders

        wanted = Spec.parse(spec) if spec is not None else None
        address, folders = resolve_source(os.fspath(source), tool_folders())
        with self._session(progress) as session:
            return import_from(session, address, folders, wanted)

    def import_url(
        self, url: str, spec: str, *, sha256: str, progress: OnProgress | None = None
    ) -> ImportResult:
        """Download one file from the web, and import it as a version if it has this SHA-256.

        An interrupted download continues when it is repeated.

        Raises: UsageError, FormatError for a malformed `sha256`, BackendError; IntegrityError for another
        content; ConflictError if the version is stored with other content.
        """
        from yarnstore.core.digest import Sha256
        from yarnstore.ops.local.download import import_url

        with self._session(progress) as session:
            return import_url(session, url, Spec.parse(spec), Sha256.parse(sha256.lower()))

    def export(
        self,
        spec: str,
        destination: AnyPath,
        *,
        hardlink: bool = False,
        flavour: str | None = None,
        progress: OnProgress | None = None,
    ) -> ExportResult:
        """Write a version to a path, or to another tool or a registry of images by an address such as
        `hf://ORG/NAME` or `docker://HOST/NAME:TAG`.

        A path that ends in a slash is a folder.  With `hardlink`, the files are links to the store's own
        where the file system allows it: they are read-only, and take no disk space.  `flavour` is that of an
        image, `modelpack` or `docker`; None means the image that the version was imported from, else
        ModelPack's.

        Raises: ConflictError if the destination exists, UsageError for a destination in the store,
        BackendError.
        """
        from yarnstore.ops.exchange.address import parse_address
        from yarnstore.ops.local.import_export import export

        address = parse_address(os.fspath(destination))
        with self._session(progress) as session:
            if address is not None:
                from yarnstore.ops.exchange.exporting import export_to
                from yarnstore.settings.tools import tool_folders

                return export_to(
                    session, Spec.parse(spec), address, tool_folders(), hardlink=hardlink, flavour=flavour
                )
            as_folder = paths.names_folder(destination)
            place = paths.absolute(destination)
            if flavour is not None:
                from yarnstore.ops.exchange.exporting import require_flavour

                require_flavour(place, flavour)
            return export(session, Spec.parse(spec), place, as_folder=as_folder, hardlink=hardlink)

    def identify(self, path: AnyPath, *, progress: OnProgress | None = None) -> IdentifiedFile:
        """Return which model a file is: by its content where that is known, else by its headers.

        It is looked up in the store, the cached registries and the caches of other tools.

        Raises: NotFoundError, UsageError, StorageError.
        """
        from yarnstore.ops.exchange.identify import identify
        from yarnstore.settings.tools import tool_folders

        with self._session(progress) as session:
            return identify(session, paths.source_path(path), tool_folders())

    def adopt(
        self,
        *folders: AnyPath,
        apply: bool = False,
        hardlink: bool = False,
        least_bytes: int = 16 * 1024,
        progress: OnProgress | None = None,
    ) -> AdoptResult:
        """Find the model files in folders, which of them are copies, and what one store would need.

        With `apply`, copies become reflinks, or with `hardlink` hard links, which are read-only.  A copy is
        replaced only after it and the file that stays were hashed, if both belong to this user, and if no
        program has them open for writing; the result gives the reason for each that is not.  Files smaller
        than `least_bytes` are left out.

        Raises: NotFoundError, UsageError, StorageError.
        """
        from yarnstore.ops.exchange.adopt import adopt
        from yarnstore.settings.tools import tool_folders

        places = [paths.absolute(folder) for folder in folders]
        with self._session(progress) as session:
            how: Literal["reflink", "hardlink"] = "hardlink" if hardlink else "reflink"
            replace = how if apply else None
            return adopt(session, places, tool_folders(), replace=replace, least_bytes=least_bytes)

    def undo_adopt(self, *, progress: OnProgress | None = None) -> list[ReplacedFile]:
        """Turn the files that `adopt` replaced into independent copies again, with their mode and time.

        Those that changed since are left as they are.  Raises: StorageError.
        """
        from yarnstore.ops.exchange.adopt import undo_adopt

        with self._session(progress) as session:
            return undo_adopt(session)

    def check_export(
        self,
        spec: str,
        destination: AnyPath,
        *,
        flavour: str | None = None,
        progress: OnProgress | None = None,
    ) -> ExportResult:
        """Compare what `export` wrote with the version that `spec` means now; nothing is written.

        `how` of the result is `present`, or `behind` if files are missing or differ.  `flavour` is as in
        `export`.

        Raises: NotFoundError if the version is not stored; BackendError.
        """
        from yarnstore.ops.exchange.address import parse_address
        from yarnstore.ops.exchange.exporting import check_export
        from yarnstore.settings.tools import tool_folders

        place = parse_address(os.fspath(destination)) or paths.absolute(destination)
        with self._session(progress) as session:
            return check_export(session, Spec.parse(spec), place, tool_folders(), flavour=flavour)

    def move(self, folder: AnyPath, *, progress: OnProgress | None = None) -> MoveResult:
        """Move the store into another folder, which may be on another disk; its old folder becomes a link.

        Every file is checked by its hash before that.  If it is interrupted, the same call continues.

        Raises: ConflictError, UsageError, DiskFullError, LockTimeoutError, IntegrityError.
        """
        from yarnstore.ops.local.move import move_store

        with self._session(progress) as session:
            return move_store(session, paths.absolute(folder))

    def remove(self, spec: str, *, whole_model: bool = False) -> RemoveResult:
        """Remove a version, or a whole model; `gc` reclaims the disk space.

        Raises: NotFoundError, ConflictError.
        """
        from yarnstore.ops.local.removal import remove

        with self._session() as session:
            return remove(session, Spec.parse(spec), whole_model=whole_model)

    def restore(self, removed: RemoveResult | str, *, progress: OnProgress | None = None) -> RestoreResult:
        """Undo `remove`: its versions are stored again, one of them installed, some pinned.

        `removed` is the result of `remove`; or a spec, of a version or of all removed versions of a model:
        then no version is pinned, and `gc` must not have deleted their data.
        Until `gc` this downloads nothing; after it, what `gc` has deleted.

        Raises: NotFoundError if the data is gone and no registry has the version; ConflictError if a version
        was stored again with other content; as `checkout`.
        """
        from yarnstore.ops.local.removal import removed_versions, restore

        with self._session(progress) as session:
            if isinstance(removed, str):
                removed = removed_versions(session, Spec.parse(removed))
            return restore(session, removed)

    # --- files without installing ---------------------------------------------------------------------

    def list_files(self, spec: str, *, commit: str = "", online: bool = False) -> VersionFiles:
        """Return the files of a version.

        A bare model is its installed version, else its newest stored one.  `commit` selects the version by
        the first hex digits of its manifest's SHA-256.  With `online`, also versions of registries are
        found, without downloading them; otherwise the network is not used.

        Raises: SpecError, NotFoundError, BackendError, IntegrityError.
        """
        from yarnstore.ops.inspecting.contents import list_files

        with self._session() as session:
            return list_files(session, Spec.parse(spec), commit=commit, online=online)

    def open_file(self, spec: str, path: str) -> StoredFile:
        """Open a file of a version for reading; `path` is its path within the version.

        Every chunk is hashed before its bytes are returned.  The version need not be installed; if it is not
        stored, it is downloaded.  The versions of `spec` are as in `list_files`.

        Raises: SpecError, NotFoundError, PolicyError; as `fetch` if something has to be downloaded.
        """
        from yarnstore.ops.inspecting.contents import open_file

        parsed = Spec.parse(spec)
        if self.settings.load_policy.restricts:
            from yarnstore.ops.inspecting.contents import list_files

            with self._session() as session:
                chosen = list_files(session, parsed, online=True)
            self.path(f"{chosen.model}:{chosen.variant}@{chosen.version}")  # raises if the policy refuses it
        with self._session() as session:
            return open_file(session, parsed, path)

    # --- what is inside ------------------------------------------------------------------------------

    def diff(
        self, old: str, new: str, *, html: AnyPath | None = None, progress: OnProgress | None = None
    ) -> DiffResult:
        """Compare two specs or paths by file and by tensor; `html` also writes a page.

        `new` may be `@VERSION` of the model that `old` names.  A version that is not stored is downloaded.

        Raises: NotFoundError, UsageError, IntegrityError, StorageError; as `fetch`.
        """
        from yarnstore.ops.inspecting.diff import diff
        from yarnstore.ops.inspecting.page import write_page

        page = None if html is None else paths.file_path(html)
        with self._session(progress) as session:
            found = diff(session, old, new)
        if page is not None:
            write_page(found, page)
        return found

    def readme(self, spec: str) -> Readme:
        """Return the README of a stored version.

        Raises: NotFoundError if it is not stored or has no README.
        """
        from yarnstore.ops.inspecting.readme import readme

        with self._session() as session:
            return readme(session, Spec.parse(spec))

    def inspect(self, what: str) -> InspectResult:
        """Return the tensors of a spec or a path, by their headers, and how a version is stored.

        Raises: NotFoundError, UsageError, IntegrityError, StorageError.
        """
        from yarnstore.ops.inspecting.inspect import inspect

        with self._session() as session:
            return inspect(session, what)
