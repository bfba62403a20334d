"""The part of a repair that concerns records: registries, logs, manifests, refs, links, `local-state.json`.

`ops/checking/repair` repairs packs, files and views.
"""

from __future__ import annotations

import contextlib

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import REFLOG_LIMIT_BYTES
from yarnstore.core.names import model_from_dirname
from yarnstore.core.reflog import Installed, Move, format_move, format_ref, made_moves, readable_moves
from yarnstore.errors import BackendError, FormatError, IntegrityError, NotFoundError, YarnstoreError
from yarnstore.ops.checking.findings import Findings
from yarnstore.ops.fetching.fetch import read_remote_manifest
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.progress import plural
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.select import iter_builds
from yarnstore.store import fsio, fsread, trash
from yarnstore.store.filepath import Path
from yarnstore.store.registry_cache import read_newest, write_newest
from yarnstore.store.state import STATE_FILE, state_fault, state_path, write_state
from yarnstore.store.views import link_model, unlink_model


class RecordRepairer:
    """Repairs records one by one; `done` says what was done."""

    def __init__(self, session: Session, found: Findings) -> None:
        self._session = session
        self._layout = session.layout
        self._found = found
        self.done: list[str] = []

    def _repair_registry(self, name: str) -> None:
        newest = None
        with contextlib.suppress(YarnstoreError):
            newest = read_newest(self._layout, name)
        self._aside(self._layout.registries / name)
        if newest is not None:  # a repair must not make an older registry acceptable
            write_newest(self._layout, name, newest)
        with contextlib.suppress(NotFoundError):
            try:
                self._session.registries.refresh(self._session.registries.source(name))
            except (BackendError, FormatError) as error:
                self._session.note(f"{name}: {error.message}")
                return
        self.done.append(f"registries/{name}: downloaded again")

    def _repair_log(self, model: str) -> None:
        """Keep every readable line; a lost move follows from the lines around it."""
        path = self._session.refs.log_path(model)
        data = b""
        if fsread.is_file(path):
            data = fsread.read_bytes(path, REFLOG_LIMIT_BYTES)

        def is_ours(move: Move) -> bool:
            manifest = self._found.manifests.get(move.new.manifest) if move.new else None
            return manifest is None or manifest.model == model

        moves = readable_moves(data, is_ours)
        current = None
        with contextlib.suppress(FormatError):
            current = self._session.refs.installed(model)
        manifest = self._found.manifests.get(current) if current is not None else None
        if manifest is not None and manifest.model == model and not made_moves(moves, current):
            new = Installed(manifest.digest, manifest.variant, manifest.version)
            old = moves[-1].new if moves else None
            moves.append(Move(moves[-1].time_ms if moves else 0, "repair", old, new))
        self._keep(path)
        fsio.write_atomic(path, b"".join(map(format_move, moves)), tmp_dir=self._layout.tmp)
        self.done.append(
            f"{path.relative_to(self._layout.root)}: {plural(len(moves), 'entry', 'entries')} kept"
        )

    def _repair_manifest(self, digest: Sha256) -> None:
        path = self._layout.manifest(digest)
        for source, _ in self._offers(digest):
            with contextlib.suppress(BackendError, IntegrityError):
                manifest = read_remote_manifest(self._session, source, digest)
                self._keep(path)
                self._layout.write_manifest(manifest)
                self._found.manifests[digest] = manifest
                self._found.users[digest].add(manifest.label)
                self.done.append(f"manifests/{path.name}: downloaded from {source.name}")
                return
        if not self._found.users.get(digest):
            self._aside(path)
            self.done.append(f"manifests/{path.name}: belonged to no version; moved to trash/")

    def _offers(self, digest: Sha256 | None = None) -> list[tuple[RegistrySource, VersionEntry]]:
        """Return the entries whose manifest is `digest`, from every readable registry."""
        found = []
        for source in self._session.registries.sources:
            with contextlib.suppress(BackendError, FormatError):
                for model in self._models_of(source):
                    model_entry = self._session.registries.entry(source, model)
                    for build in iter_builds(model_entry) if model_entry else ():
                        entry = build.entry
                        if entry.manifest and Sha256.parse(entry.manifest) == digest:
                            found.append((source, entry))
        return found

    def _models_of(self, source: RegistrySource) -> set[str]:
        """Return the models of a registry; of a split one, which has no list, those known here."""
        doc = self._session.registries.doc(source)
        if not doc.split:
            return set(doc.models)
        refs = self._session.refs
        return {name.model for name in refs.versions()} | set(refs.installed_models())

    def _repair_ref(self, path: Path) -> None:
        kind, *parts = path.relative_to(self._layout.refs).parts
        digest = None
        with contextlib.suppress(YarnstoreError):
            if kind == "installed":
                moves = self._session.refs.read_log(model_from_dirname(parts[0]))[0]
                digest = moves[-1].new.manifest if moves and moves[-1].new else None
            elif len(parts) == 3:
                digest = self._manifest_of(model_from_dirname(parts[0]), parts[1], parts[2])
        if digest is None and kind == "partial":
            self._aside(path)
            self.done.append(f"{path.relative_to(self._layout.root)}: moved to trash/")
        elif digest is not None:
            manifest = self._found.manifests.get(digest)
            if manifest is None:
                self._repair_manifest(digest)
                manifest = self._found.manifests.get(digest)
            if manifest is not None:
                self._keep(path)
                fsio.write_atomic(path, format_ref(digest), tmp_dir=self._layout.tmp)
                self._found.users[digest].add(manifest.label)
                self.done.append(f"{path.relative_to(self._layout.root)}: points to {manifest.label} again")

    def _manifest_of(self, model: str, variant: str, version: str) -> Sha256 | None:
        """Return the manifest of a version by its names: a stored one, else the one that a registry lists."""
        for digest, manifest in self._found.manifests.items():
            if (manifest.model, manifest.variant, manifest.version) == (model, variant, version):
                return digest
        for source in self._session.registries.sources:
            with contextlib.suppress(BackendError, FormatError):
                entry = self._session.registries.entry(source, model)
                for build in iter_builds(entry) if entry else ():
                    if (build.variant, build.version) == (variant, version) and build.entry.manifest:
                        return Sha256.parse(build.entry.manifest)
        return None

    def _fix_link(self, model: str) -> None:
        layout, refs = self._layout, self._session.refs
        with refs.moving():
            current = refs.installed(model)
            if current is not None:
                link = layout.model_link(model)
                if fsread.read_link(link) is None:
                    self._aside(link)
                link_model(layout, model, current)
                self.done.append(f"models/{model}: points to the installed version")
            elif refs.is_left_linked(model):
                unlink_model(layout, model)
                self.done.append(f"models/{model}: removed, because its log says that the model was removed")

    def _repair_state(self) -> None:
        """Write `local-state.json`, last, since it is made from the refs, which may have been repaired."""
        with self._session.refs.moving():
            if not self._found.bad_state and not state_fault(self._layout):
                return
            self._keep(state_path(self._layout))
            write_state(self._layout, auto_update=self._session.auto_update, anew=True)
        self.done.append(f"{STATE_FILE}: rewritten from the refs")

    def _aside(self, path: Path) -> None:
        trash.move_aside(path, self._layout.trash)

    def _keep(self, path: Path) -> None:
        """Copy a file into the trash before it is replaced, since its name must always exist."""
        trash.keep_copy(path, self._layout.trash)
