"""`fsck`: read everything in a store and say what is not as it was written.

Owns the checks; mending is `ops/repair`.  Nothing is changed here.
"""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import PackIndex, find_ids, id_bytes, parse_index, sorted_unique
from yarnstore.core.limits import INDEX_LIMIT_BYTES, MIB, REF_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import model_dirname, model_from_dirname, parse_variant, parse_version
from yarnstore.core.reflog import parse_ref
from yarnstore.errors import FormatError, YarnstoreError
from yarnstore.ops.packcheck import Decode, good_entries, hash_pack, leads_right
from yarnstore.ops.progress import Meter
from yarnstore.ops.session import Session
from yarnstore.registry.schema import parse_registry
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore, file_sha256, manifest_chunks
from yarnstore.store.layout import EXECUTABLE, STORE_FORMAT, file_name
from yarnstore.store.newest import read_newest
from yarnstore.store.registries import check_absent, read_cached
from yarnstore.store.state import STATE_FILE, state_fault
from yarnstore.store.views import has_view

Kind = Literal[
    "format",
    "ref",
    "log",
    "manifest",
    "index",
    "pack",
    "chunk",
    "file",
    "view",
    "link",
    "registry",
    "use",
    "state",
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (relative to the store), what, and the versions it hurts."""

    kind: Kind
    where: str
    what: str
    hurts: tuple[str, ...] = ()


@dataclass(frozen=True)
class FsckResult:
    """What was checked and found.  `repaired` and `remaining` tell of `--repair`."""

    quick: bool
    models: int
    versions: int
    chunks: int
    checked_bytes: int
    seconds: float
    problems: list[Problem]
    repaired: list[str] = field(default_factory=list)
    remaining: list[Problem] = field(default_factory=list)


@dataclass
class Findings:
    """What a check found, in the form that `ops/repair` works from."""

    problems: list[Problem] = field(default_factory=list)
    bad_refs: list[Path] = field(default_factory=list)
    bad_holds: list[Path] = field(default_factory=list)
    bad_logs: list[str] = field(default_factory=list)
    bad_manifests: list[Sha256] = field(default_factory=list)
    bad_indexes: list[PackId] = field(default_factory=list)
    bad_packs: list[PackId] = field(default_factory=list)
    bad_files: list[str] = field(default_factory=list)
    bad_views: list[Manifest] = field(default_factory=list)
    bad_links: list[str] = field(default_factory=list)
    bad_registries: list[str] = field(default_factory=list)
    bad_uses: list[Path] = field(default_factory=list)
    bad_format: bool = False
    bad_state: bool = False
    manifests: dict[Sha256, Manifest] = field(default_factory=dict)
    users: dict[Sha256, set[str]] = field(default_factory=lambda: defaultdict(set))
    models: int = 0
    versions: int = 0
    chunks: int = 0
    checked_bytes: int = 0


def fsck(session: Session, *, quick: bool = False) -> FsckResult:
    """Check the store; with `quick` without reading packs and files.  Raises: LockTimeoutError."""
    started = time.perf_counter()
    if not session.layout.root.exists():
        return result_of(Findings(), quick=quick, seconds=0.0)
    with session.layout.shared(damaged=True):
        found = check(session, quick=quick)
    return result_of(found, quick=quick, seconds=time.perf_counter() - started)


def result_of(found: Findings, *, quick: bool, seconds: float) -> FsckResult:
    """What is told of findings."""
    return FsckResult(
        quick,
        found.models,
        found.versions,
        found.chunks,
        found.checked_bytes,
        round(seconds, 3),
        found.problems,
    )


def check(session: Session, *, quick: bool) -> Findings:
    """All checks.  Needs the lock."""
    checker = _Checker(session, quick=quick)
    checker.run()
    return checker.found


class _Checker:
    def __init__(self, session: Session, *, quick: bool) -> None:
        self._session = session
        self._layout = session.layout
        self._quick = quick
        self.found = Findings()
        self._bad_chunks: set[bytes] = set()
        self._unindexed: dict[PackId, set[bytes]] = {}
        self._sound_ids: list[np.ndarray[tuple[int], np.dtype[np.bytes_]]] = []

    def run(self) -> None:
        self._check_format()
        self._check_manifests()
        self._check_refs()
        self._check_logs()
        packs = self._check_indexes()
        self._check_packs(packs)
        self._check_chunks()
        self._check_files()
        self._check_views()
        self._check_registries()
        self._check_uses()
        self._check_state()

    def _add(self, kind: Kind, path: Path | str, what: str, hurts: tuple[str, ...] = ()) -> None:
        where = str(path.relative_to(self._layout.root)) if isinstance(path, Path) else path
        self.found.problems.append(Problem(kind, where, what, hurts))

    def _hurt(self, digest: Sha256) -> tuple[str, ...]:
        return tuple(sorted(self.found.users.get(digest, ())))

    def _check_format(self) -> None:
        path = self._layout.root / "format"
        try:
            good = fsread.read_bytes(path, 256) == STORE_FORMAT
        except YarnstoreError:
            good = False
        if not good:
            self.found.bad_format = True
            self._add("format", path, "does not say which format the store has")

    # --- manifests, refs, logs -----------------------------------------------------------------

    def _check_manifests(self) -> None:
        for name in fsread.list_names(self._layout.manifests):
            path = self._layout.manifests / name
            try:
                digest = Sha256.parse(name.removesuffix(".json"))
            except FormatError:
                self._add("manifest", path, "is not named as a manifest is")
                continue
            try:
                manifest = self._layout.read_manifest(digest)
                manifest_chunks([manifest])
            except YarnstoreError as error:
                self.found.bad_manifests.append(digest)
                self._add("manifest", path, _why(error))
            else:
                self.found.manifests[digest] = manifest

    def _check_refs(self) -> None:
        refs = self._layout.refs
        for kind in ("versions", "pins", "partial"):
            for path in _files_below(refs / kind):
                self._check_ref(path, self._named(path, refs / kind), partial=kind == "partial")
                self.found.versions += kind == "versions"
        for model in self._session.refs.held_models():
            try:
                self._session.refs.hold(model)
            except FormatError as error:
                path = refs / "holds" / model_dirname(model)
                self.found.bad_holds.append(path)
                self._add("ref", path, f"is a pin and {error.fields['why']}")
        for name in fsread.list_names(refs / "installed"):
            path = refs / "installed" / name
            self.found.models += 1
            manifest = self._check_ref(path, (name,), partial=False)
            if manifest is not None:
                self._check_installed(manifest)

    def _named(self, path: Path, root: Path) -> tuple[str, ...] | None:
        """The model folder, variant and version that a ref's path names; None where it names none."""
        parts = path.relative_to(root).parts
        try:
            if len(parts) == 3:
                model_from_dirname(parts[0])
                parse_variant(parts[1])
                parse_version(parts[2])
                return parts
        except YarnstoreError:
            pass
        return None

    def _check_ref(self, path: Path, name: tuple[str, ...] | None, *, partial: bool) -> Manifest | None:
        try:
            digest = parse_ref(fsread.read_bytes(path, REF_LIMIT_BYTES))
        except YarnstoreError as error:
            self.found.bad_refs.append(path)
            self._add("ref", path, _why(error))
            return None
        manifest = self.found.manifests.get(digest)
        if manifest is None:
            if digest not in self.found.bad_manifests and not partial:
                self.found.bad_refs.append(path)
                self._add("ref", path, f"names a manifest that is not here ({digest.hex[:12]}…)")
            elif not partial:
                self.found.users[digest].add("/".join(name or ()))
            return None
        theirs = (manifest.model.replace("/", "~"), manifest.variant, manifest.version)
        if name is None or theirs[: len(name)] != name:
            self.found.bad_refs.append(path)
            self._add("ref", path, f"names the manifest of another version, {manifest.label}")
            return None
        if not partial:
            self.found.users[digest].add(manifest.label)
        return manifest

    def _check_installed(self, manifest: Manifest) -> None:
        if not has_view(self._layout, manifest.digest):
            self.found.bad_views.append(manifest)
            self._add("view", self._layout.view(manifest.digest), "is missing", (manifest.label,))
        link = self._layout.model_link(manifest.model)
        target = fsread.read_link(link)
        if target is not None and target != os.path.join("..", "views", manifest.digest.hex):
            self.found.bad_links.append(manifest.model)
            self._add("link", link, "does not lead to what is installed", (manifest.label,))

    def _check_logs(self) -> None:
        refs = self._session.refs
        for model in sorted({*refs.logged_models(), *refs.installed_models()}):
            path = self._layout.refs / "installed" / model_dirname(model)
            try:
                fault = self._foreign_move(model)
                if not fault:
                    # Beside a ref that is wrong, the log can be judged by itself alone.
                    fault = refs.log_fault(model, beside_ref=path not in self.found.bad_refs)
            except YarnstoreError as error:
                fault = _why(error)
            if fault and not path.exists():
                self.found.bad_refs.append(path)
                self._add("ref", path, "is missing, though the model is linked")
            elif fault:
                self.found.bad_logs.append(model)
                self._add("log", refs.log_path(model), fault)
            elif path not in self.found.bad_refs and refs.is_left_linked(model):
                self.found.bad_links.append(model)
                self._add(
                    "link", self._layout.model_link(model), "leads to a version, but the model was removed"
                )

    def _foreign_move(self, model: str) -> str:
        for move in self._session.refs.read_log(model)[0]:
            manifest = self.found.manifests.get(move.new.manifest) if move.new else None
            if manifest is not None and manifest.model != model:
                return f"tells of {manifest.label}, another model"
        return ""

    # --- packs ---------------------------------------------------------------------------------

    def _check_indexes(self) -> dict[PackId, PackIndex | None]:
        folder = self._layout.pack_folder
        packs: dict[PackId, PackIndex | None] = dict.fromkeys(folder.pack_ids(".pack"))
        for pack in folder.pack_ids(".idx"):
            path = folder.index(pack)
            if pack not in packs:
                self.found.bad_packs.append(pack)
                self._add("pack", folder.pack(pack), "is missing, though its index is here")
                continue
            try:
                index = parse_index(fsread.read_bytes(path, INDEX_LIMIT_BYTES), pack=pack)
            except YarnstoreError as error:
                self.found.bad_indexes.append(pack)
                self._add("index", path, _why(error))
                continue
            packs[pack] = index
            size = folder.pack(pack).stat().st_size
            if size != index.pack_bytes:
                self.found.bad_packs.append(pack)
                self._add("pack", folder.pack(pack), f"has {size} bytes, not {index.pack_bytes}")
        return packs

    def _check_packs(self, packs: dict[PackId, PackIndex | None]) -> None:
        folder = self._layout.pack_folder
        total = 0 if self._quick else sum(folder.pack(pack).stat().st_size for pack in packs)
        meter = Meter(self._session.on_progress, "check", "packs", total)
        if self._quick:
            sound = [index for pack, index in packs.items() if pack not in self.found.bad_packs]
            self._sound_ids += [index.ids for index in sound if index is not None]
        else:
            with ChunkStore(self._layout, rebuild=False) as chunks:
                for pack, index in packs.items():
                    good = self._read_pack(pack, index, chunks.decode, meter.add)
                    if index is None and pack not in self.found.bad_indexes:
                        self._unindexed[pack] = good
                    else:
                        self._sound_ids.append(np.array(sorted(good), "S32"))
                    self.found.checked_bytes += folder.pack(pack).stat().st_size
        self.found.chunks = len(self._present())

    def _present(self) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
        empty = np.empty(0, "S32")
        return sorted_unique(np.concatenate([empty, *self._sound_ids]))[0]

    def _read_pack(
        self, pack: PackId, index: PackIndex | None, decode: Decode, on_bytes: Callable[[int], None]
    ) -> set[bytes]:
        """The chunks of a pack that are sound; says what is wrong with the rest."""
        path = self._layout.pack_folder.pack(pack)
        whole = hash_pack(path, on_bytes)
        entries = good_entries(path, index, decode)
        bad = {chunk for chunk, ok in entries.items() if not ok}
        good = {chunk for chunk, ok in entries.items() if ok}
        if whole == pack.raw and index is not None:
            # What was written is there: a delta that does not decode hangs on a chunk damaged elsewhere.
            bad -= {id_bytes(index.ids, int(n)) for n in np.flatnonzero(index.bases != b"")}
        if whole != pack.raw or bad:
            if pack not in self.found.bad_packs:
                self.found.bad_packs.append(pack)
            what = f"has wrong bytes in {len(bad)} of {len(entries)} chunks" if bad else "has wrong bytes"
            self._add("pack", path, what, self._hurt_by(bad))
        elif index is not None and (len(entries) != len(index) or not leads_right(path, index)):
            self.found.bad_indexes.append(pack)
            self._add("index", self._layout.pack_folder.index(pack), "does not list what its pack holds")
        self._bad_chunks |= bad
        return good

    def _hurt_by(self, chunks: set[bytes]) -> tuple[str, ...]:
        if not chunks:
            return ()
        doomed = np.array(sorted(chunks), "S32")
        hurt: set[str] = set()
        for digest, names in self.found.users.items():
            if digest in self.found.manifests:
                ids, _ = manifest_chunks([self.found.manifests[digest]])
                if (find_ids(ids, doomed) >= 0).any():
                    hurt |= names
        return tuple(sorted(hurt))

    def _check_chunks(self) -> None:
        """Every chunk of every version has a sound place in a pack."""
        self._check_unindexed()
        present = self._present()
        for digest, names in self.found.users.items():
            manifest = self.found.manifests.get(digest)
            if manifest is None:
                continue
            ids, _ = manifest_chunks([manifest])
            rows = find_ids(present, ids)
            absent = {id_bytes(ids, int(n)) for n in (rows < 0).nonzero()[0]}
            fresh = absent - self._bad_chunks
            if fresh:
                what = f"{len(fresh)} chunks are not in the store"
                self._add("chunk", self._layout.manifest(digest), what, tuple(sorted(names)))

    def _check_unindexed(self) -> None:
        """A pack without an index is what a killed writer leaves, and is taken up again, unless a
        version has its chunks from there: then the index was lost."""
        needed = {digest: self.found.manifests.get(digest) for digest in self.found.users}
        ids, _ = manifest_chunks([manifest for manifest in needed.values() if manifest is not None])
        absent = ids[find_ids(self._present(), ids) < 0]
        for pack, good in self._unindexed.items():
            held = np.array(sorted(good), "S32")
            if (find_ids(held, absent) >= 0).any():
                self._sound_ids.append(held)
                self.found.bad_indexes.append(pack)
                index = self._layout.pack_folder.index(pack)
                self._add("index", index, "is missing", self._hurt_by(good))

    # --- files, views, the rest ----------------------------------------------------------------

    def _check_files(self) -> None:
        wanted: dict[str, tuple[int, set[str]]] = {}
        for digest, manifest in self.found.manifests.items():
            for file in manifest.files:
                names = wanted.setdefault(file_name(file), (file.size_bytes, set()))[1]
                names |= self.found.users.get(digest, set())
        names_here = fsread.list_names(self._layout.files)
        total = 0 if self._quick else sum((self._layout.files / n).lstat().st_size for n in names_here)
        meter = Meter(self._session.on_progress, "check", "files", total)
        for name in names_here:
            path = self._layout.files / name
            try:
                digest = Sha256.parse(name.removesuffix(EXECUTABLE))
            except FormatError:
                self._add("file", path, "is not named as a materialised file is")
                continue
            found = path.lstat()
            size, users = wanted.get(name, (found.st_size, set()))
            good = found.st_size == size and (self._quick or file_sha256(path) == digest)
            meter.add(found.st_size)
            self.found.checked_bytes += 0 if self._quick else found.st_size
            what = "" if good else "has wrong bytes"
            if good and name.endswith(EXECUTABLE) and not found.st_mode & stat.S_IXUSR:
                what = "is not executable"
            if what:
                self.found.bad_files.append(name)
                self._add("file", path, what, tuple(sorted(users)))

    def _check_views(self) -> None:
        for name in fsread.list_names(self._layout.views):
            path = self._layout.views / name
            try:
                manifest = self.found.manifests.get(Sha256.parse(name))
            except FormatError:
                self._add("view", path, "is not named as a view is")
                continue
            if manifest is None:
                continue  # of a manifest that is gone: gc removes it
            what = self._view_fault(path, manifest)
            if what:
                self.found.bad_views.append(manifest)
                self._add("view", path, what, self._hurt(manifest.digest))

    def _view_fault(self, view: Path, manifest: Manifest) -> str:
        for file in manifest.files:
            there = fsread.stat_or_none(view / file.path)
            origin = fsread.stat_or_none(self._layout.file(file))
            if there is None or there.st_size != file.size_bytes:
                return f"lacks {file.path}, or has it with another size"
            same = origin is not None and (there.st_ino, there.st_dev) == (origin.st_ino, origin.st_dev)
            if same:
                continue  # the very file that was checked
            if origin is None:
                return f"has {file.path} without its file, files/{file_name(file)}"
            if not self._quick and file_sha256(view / file.path) != file.sha256:
                return f"has {file.path} with wrong bytes"
        for folder in manifest.empty_folders:
            if not (view / folder).is_dir():
                return f"lacks the empty folder {folder}"
        return ""

    def _check_registries(self) -> None:
        for name in fsread.list_names(self._layout.registries):
            try:
                read_newest(self._layout, name)
                cached = read_cached(self._layout, name)
                if cached is None and any(name == source.name for source in self._session.sources):
                    check_absent(self._layout, name)
                elif cached is not None:
                    parse_registry(cached.data)
            except YarnstoreError as error:
                self.found.bad_registries.append(name)
                self._add("registry", f"registries/{name}", _why(error))

    def _check_uses(self) -> None:
        for name in fsread.list_names(self._layout.uses):
            path = self._layout.uses / name
            if fsread.read_bytes(path, 64 * MIB).strip(b"."):
                self.found.bad_uses.append(path)
                self._add("use", path, "holds other marks than it should")

    def _check_state(self) -> None:
        if fsread.stat_or_none(self._layout.logs / "installed") is None:
            return  # nothing was ever installed
        with self._session.refs.moving():
            fault = state_fault(self._layout)
        if fault:
            self.found.bad_state = True
            self._add("state", self._layout.root / STATE_FILE, fault)


def _files_below(root: Path) -> list[Path]:
    found = []
    for folder, _, names in os.walk(root):
        found += [Path(folder) / name for name in names]
    return sorted(found)


def _why(error: YarnstoreError) -> str:
    return str(error.fields.get("why") or error.message)
