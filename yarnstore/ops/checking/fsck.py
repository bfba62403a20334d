"""`fsck`: read everything in a store and report what is damaged.

Changes nothing; `fsck_packs` checks packs, `repair` repairs.

Other commands may write meanwhile; only `gc` is locked out.  So a ref is read before the data that it refers
to, and a fault that a writer's intermediate state could explain is checked again under `Refs.moving` before
it is reported.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB, REF_LIMIT_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import model_dirname, model_from_dirname, parse_variant, parse_version
from yarnstore.core.reflog import parse_ref
from yarnstore.errors import FormatError, InvalidNameError, NotFoundError, UsageError, YarnstoreError
from yarnstore.ops.checking.findings import Findings, FsckResult
from yarnstore.ops.checking.fsck_packs import PackChecker, why
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.registry.schema import parse_registry
from yarnstore.store import fsread, held
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import digest_of, file_sha256
from yarnstore.store.layout import EXECUTABLE, STORE_FORMATS, file_name
from yarnstore.store.places import manifest_chunks
from yarnstore.store.provenance import parse_origin
from yarnstore.store.registry_cache import check_absent, read_cached, read_newest
from yarnstore.store.sampling import check_share, drawn
from yarnstore.store.seen import read_seen
from yarnstore.store.state import STATE_FILE, state_fault
from yarnstore.store.verify import hash_chunks
from yarnstore.store.views import has_view, link_fault, surplus, view_files

# How many names a problem lists.
_SHOWN = 5


def fsck(session: Session, *, quick: bool = False, sample: float | None = None) -> FsckResult:
    """Check the store; with `quick` without reading packs and files, with `sample` a random share of them.

    Raises: LockTimeoutError; UsageError for a share that is 0 or above 1, or beside `quick`.
    """
    started = time.perf_counter()
    if sample is not None:
        check_share(sample)
        if quick:
            raise UsageError("a quick check reads no contents, so it cannot take a sample of them")
    found = Findings()
    if session.layout.root.exists():
        with session.layout.shared(damaged=True):
            found = check(session, quick=quick, sample=sample)
    return result_of(found, quick=quick, sample=sample, seconds=time.perf_counter() - started)


def result_of(
    found: Findings, *, quick: bool = False, sample: float | None = None, seconds: float = 0.0
) -> FsckResult:
    """Make the public result of findings."""
    return FsckResult(
        quick=quick,
        models=found.models,
        versions=found.versions,
        chunks=found.chunks,
        checked_bytes=found.checked_bytes,
        seconds=round(seconds, 3),
        problems=found.problems,
        sample=sample,
        stored_bytes=found.stored_bytes,
    )


def check(session: Session, *, quick: bool = False, sample: float | None = None) -> Findings:
    """Run all checks.  Needs the lock."""
    checker = _Checker(session, quick=quick, sample=sample)
    checker.run()
    return checker.found


@dataclass(frozen=True)
class _Ref:
    """A ref of a version as it was read: the names in its path, and its manifest or the reason why it is
    bad.
    """

    path: Path
    name: tuple[str, ...] | None
    is_partial: bool
    digest: Sha256 | None = None
    fault: str = ""


class _Checker(PackChecker):
    def run(self) -> None:
        self._check_folders()
        if self.found.bad_folders:
            return  # their content cannot be checked
        self._check_format()
        refs = self._read_refs()
        self._check_manifests()
        for ref in refs:
            self._check_ref(ref, self.found)
        self._check_holds()
        self._check_installed()
        packs = self._check_indexes()
        self._check_packs(packs)
        self._check_files()
        self._check_chunks()
        self._check_views()
        self._check_registries()
        self._check_uses()
        self._check_seen()
        self._check_records()
        self._check_state()

    def _confirm(self, look: Callable[[Findings], None]) -> None:
        """Report the findings of `look` if they recur within `Refs.moving`."""
        first = Findings()
        look(first)
        if first.problems:
            with self._nothing_moves():
                look(self.found)

    @contextlib.contextmanager
    def _nothing_moves(self) -> Iterator[None]:
        if fsread.is_folder(self._layout.logs / "installed"):
            with self._session.refs.moving():
                yield
        else:  # nothing was installed yet
            yield

    def _check_folders(self) -> None:
        layout = self._layout
        for folder in (*layout.folders(), layout.hashed, layout.trials):
            if os.path.lexists(folder) and not fsread.is_folder(folder):
                self.found.bad_folders.append(folder)
                self._add("folder", folder, "is not a folder; the rest of the store was not checked")

    def _check_format(self) -> None:
        path = self._layout.root / "format"
        try:
            good = fsread.read_bytes(path, 256) in STORE_FORMATS
        except YarnstoreError:
            good = False
        if not good:
            self.found.bad_format = True
            self._add("format", path, "does not give the format of the store")

    # --- manifests, refs, logs -----------------------------------------------------------------

    def _check_manifests(self) -> None:
        for name in fsread.list_names(self._layout.manifests):
            self._confirm(partial(self._look_at_manifest, name))

    def _look_at_manifest(self, name: str, found: Findings) -> None:
        path = self._layout.manifests / name
        try:
            digest = Sha256.parse(name.removesuffix(".json"))
        except FormatError:
            self._add("manifest", path, "is not named like a manifest", to=found)
            return
        try:
            manifest = self._layout.read_manifest(digest)
            manifest_chunks([manifest])
        except YarnstoreError as error:
            found.bad_manifests.append(digest)
            self._add("manifest", path, why(error), to=found)
        else:
            self.found.manifests[digest] = manifest

    def _read_refs(self) -> list[_Ref]:
        """Read all refs of versions before the manifests, which exist by then and are not deleted."""
        refs = []
        for kind in ("versions", "pins", "partial"):
            root = self._layout.refs / kind
            for path in _refs_below(root):
                refs.append(self._read_ref(path, self._named(path, root), is_partial=kind == "partial"))
                self.found.versions += kind == "versions" and refs[-1] is not None
        return [ref for ref in refs if ref is not None]

    def _read_ref(self, path: Path, name: tuple[str, ...] | None, *, is_partial: bool = False) -> _Ref | None:
        """Read a ref; None if it was removed meanwhile."""
        try:
            digest = parse_ref(fsread.read_bytes(path, REF_LIMIT_BYTES))
        except NotFoundError:
            return None
        except YarnstoreError as error:
            return _Ref(path, name, is_partial, fault=why(error))
        return _Ref(path, name, is_partial, digest)

    def _named(self, path: Path, root: Path) -> tuple[str, ...] | None:
        """Return the model folder, variant and version in a ref's path; None if it is not such a path."""
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

    def _check_ref(self, ref: _Ref, found: Findings) -> Manifest | None:
        if ref.digest is None:
            found.bad_refs.append(ref.path)
            self._add("ref", ref.path, ref.fault, to=found)
            return None
        manifest = self.found.manifests.get(ref.digest)
        if manifest is None:
            if ref.digest not in self.found.bad_manifests and not ref.is_partial:
                found.bad_refs.append(ref.path)
                what = f"refers to a missing manifest ({ref.digest.hex[:12]}…)"
                self._add("ref", ref.path, what, to=found)
            elif not ref.is_partial:
                self.found.users[ref.digest].add("/".join(ref.name or ()))
            return None
        theirs = (manifest.model.replace("/", "~"), manifest.variant, manifest.version)
        if ref.name is None or theirs[: len(ref.name)] != ref.name:
            found.bad_refs.append(ref.path)
            what = f"refers to the manifest of another version, {manifest.label}"
            self._add("ref", ref.path, what, to=found)
            return None
        if not ref.is_partial:
            self.found.users[ref.digest].add(manifest.label)
        return manifest

    def _check_holds(self) -> None:
        for model in self._session.refs.held_models():
            try:
                self._session.refs.pin_rule(model)
            except FormatError as error:
                path = self._layout.refs / "holds" / model_dirname(model)
                self.found.bad_holds.append(path)
                self._add("ref", path, f"is a pin that {error.fields['why']}")

    # --- what is installed ---------------------------------------------------------------------

    def _check_installed(self) -> None:
        names = fsread.list_names(self._layout.refs / "installed")
        self.found.models = len(names)
        logged = map(model_dirname, self._session.refs.logged_models())
        for name in sorted({*names, *logged}):
            self._confirm(partial(self._look_at_installed, name))

    def _look_at_installed(self, name: str, found: Findings) -> None:
        """Check the ref, the view, the link and the log of a model, which a move changes one by one."""
        ref = self._read_ref(self._layout.refs / "installed" / name, (name,))
        if ref is not None:
            if ref.digest is not None and ref.digest not in self.found.manifests:
                # Moved to a version that was stored after the manifests were read.
                with contextlib.suppress(YarnstoreError):
                    self.found.manifests[ref.digest] = self._layout.read_manifest(ref.digest)
            manifest = self._check_ref(ref, found)
            if manifest is not None:
                self._look_at_serving(manifest, found)
        with contextlib.suppress(InvalidNameError):
            self._look_at_log(model_from_dirname(name), found)

    def _look_at_serving(self, manifest: Manifest, found: Findings) -> None:
        if not has_view(self._layout, manifest.digest):
            found.bad_views.append(manifest)
            self._add("view", self._layout.view(manifest.digest), "is missing", (manifest.label,), found)
        fault = link_fault(self._layout, manifest.model, manifest.digest)
        if fault:
            found.bad_links.append(manifest.model)
            link = self._layout.model_link(manifest.model)
            self._add("link", link, fault, (manifest.label,), found)

    def _look_at_log(self, model: str, found: Findings) -> None:
        refs = self._session.refs
        path = self._layout.refs / "installed" / model_dirname(model)
        try:
            fault = self._foreign_move(model)
            if not fault:
                # If the ref is damaged, the log is checked without it.
                fault = refs.log_fault(model, beside_ref=path not in found.bad_refs)
        except YarnstoreError as error:
            fault = why(error)
        if fault and fsread.stat_or_none(path) is None:
            found.bad_refs.append(path)
            self._add("ref", path, "is missing, but the model is linked", to=found)
        elif fault:
            found.bad_logs.append(model)
            self._add("log", refs.log_path(model), fault, to=found)
        elif path not in found.bad_refs and refs.is_left_linked(model):
            found.bad_links.append(model)
            what = "points to a version, but the model was removed"
            self._add("link", self._layout.model_link(model), what, to=found)

    def _foreign_move(self, model: str) -> str:
        for move in self._session.refs.read_log(model)[0]:
            manifest = self.found.manifests.get(move.new.manifest) if move.new else None
            if manifest is not None and manifest.model != model:
                return f"belongs to {manifest.label}, another model"
        return ""

    # --- files, views, the rest ----------------------------------------------------------------

    def _check_files(self) -> None:
        wanted: dict[str, list[ManifestFile]] = defaultdict(list)
        users: dict[str, set[str]] = defaultdict(set)
        for digest, manifest in self.found.manifests.items():
            for file in manifest.files:
                wanted[file_name(file)].append(file)
                users[file_name(file)] |= self.found.users.get(digest, set())
        misled = held.misleading(self._layout, self.found.manifests)
        for name in sorted(misled):
            record = self._layout.files / f"{name}{held.HELD}"
            self._add("record", record, "leads to another file", tuple(sorted(users[name])))
        sizes = held.sizes(self._layout, sorted(held.names(self._layout) - misled))
        self.found.stored_bytes += sum(sizes.values())
        read = {name for name in sizes if self._only is None or name in self._only.files}
        total = sum(sizes[name] for name in read)
        meter = Meter(self._session.activity.report, "check", "files", total)
        before = len(self._sound_ids)
        for name, size_bytes in sizes.items():
            named = digest_of(name)
            if named is None:
                self._add("file", self._layout.files / name, "is not named like a checked-out file")
                continue
            lists = list({file.chunks: file for file in wanted[name]}.values())
            look = partial(self._file_fault, name, named, lists, read=name in read)
            what = look() and look()
            if name in read:
                meter.add(size_bytes)
                self.found.checked_bytes += size_bytes
            if what:
                self.found.bad_files.append(name)
                self._add("file", held.find(self._layout, name).path, what, tuple(sorted(users[name])))
        if not self._layout.relies_on_files:  # packs must have all chunks, for releases that read only packs
            del self._sound_ids[before:]

    def _file_fault(self, name: str, digest: Sha256, lists: list[ManifestFile], *, read: bool) -> str:
        """Return what is wrong with a file, and record its sound chunks.

        `lists` are its chunk lists in manifests.
        """
        path, found = held.find(self._layout, name)
        if found is None:
            return ""  # moved aside by a writer that found the damage first
        if not stat.S_ISREG(found.st_mode):
            return "is not a regular file"
        good = all(file.size_bytes == found.st_size for file in lists)
        try:
            if not read:
                self._sound_ids += [file.chunk_list()[0] for file in lists if good]
            else:
                actual, sound = hash_chunks(path, lists)
                self._sound_ids.append(sound)
                good = good and actual == digest
        except NotFoundError:
            if held.find(self._layout, name).path == path:
                return ""
            return self._file_fault(name, digest, lists, read=read)  # a view has it by now
        if good and name.endswith(EXECUTABLE) and not found.st_mode & stat.S_IXUSR:
            return "is not executable"
        return "" if good else "is corrupt"

    def _check_views(self) -> None:
        for name in fsread.list_names(self._layout.views):
            self._confirm(partial(self._look_at_view, name))

    def _look_at_view(self, name: str, found: Findings) -> None:
        path = self._layout.views / name
        try:
            manifest = self.found.manifests.get(Sha256.parse(name))
        except FormatError:
            self._add("view", path, "is not named like a view", to=found)
            return
        if manifest is None:
            return  # of a deleted manifest; gc removes it
        try:
            what = self._view_fault(path, manifest)
        except YarnstoreError as error:  # such as a link in place of a folder
            what = why(error)
        if what:
            found.bad_views.append(manifest)
        elif more := surplus(self._layout, manifest):
            found.surplus += more
            shown = ", ".join(item.relative_to(path).as_posix() for item in more[:_SHOWN])
            shown += f" and {len(more) - _SHOWN} more" if len(more) > _SHOWN else ""
            what = f"has files that no manifest lists: {shown}"
        if what:
            self._add("view", path, what, self._hurt(manifest.digest), found)

    def _view_fault(self, view: Path, manifest: Manifest) -> str:
        for file in manifest.files:
            there = fsread.stat_or_none(view / file.path)
            origin = held.find(self._layout, file_name(file)).found
            if there is None or not stat.S_ISREG(there.st_mode) or there.st_size != file.size_bytes:
                return f"lacks {file.path}, or has it with a different size"
            same = origin is not None and (there.st_ino, there.st_dev) == (origin.st_ino, origin.st_dev)
            if same:
                continue  # the file that was checked
            if origin is None:
                return f"has {file.path}, but files/{file_name(file)} is missing"
            if self._reads_copies() and file_sha256(view / file.path) != file.sha256:
                return f"has a corrupt {file.path}"
        for folder in manifest.empty_folders:
            if not fsread.is_folder(view / folder):
                return f"lacks the empty folder {folder}"
        if view_files(self._layout, manifest) is None:
            return "is or contains a link where a folder is expected"
        return ""

    def _reads_copies(self) -> bool:
        """Whether to read a file of a view that is a copy, since the file system has no links."""
        return self._only is None or (self._sample is not None and drawn(self._sample))

    def _check_registries(self) -> None:
        for name in fsread.list_names(self._layout.registries):
            self._confirm(partial(self._look_at_registry, name))

    def _look_at_registry(self, name: str, found: Findings) -> None:
        try:
            read_newest(self._layout, name)
            cached = read_cached(self._layout, name)
            if cached is None and any(name == source.name for source in self._session.registries.sources):
                check_absent(self._layout, name)
            elif cached is not None:
                parse_registry(cached.data)
        except YarnstoreError as error:
            found.bad_registries.append(name)
            self._add("registry", f"registries/{name}", why(error), to=found)

    def _check_seen(self) -> None:
        for name in fsread.list_names(self._layout.seen):
            path = self._layout.seen / name
            try:
                read_seen(self._layout, path)
            except YarnstoreError as error:
                self.found.bad_records.append(path)
                self._add("seen", path, why(error))

    def _check_records(self) -> None:
        """Report unreadable records, which commands ignore, since nothing else would repair them."""
        for folder in (self._layout.hashed, self._layout.origins):
            for name in fsread.list_names(folder):
                path = folder / name
                try:
                    if folder == self._layout.origins:
                        parse_origin(path)
                    else:
                        fsread.read_start(path, 1)
                except NotFoundError:
                    continue
                except YarnstoreError as error:
                    self.found.bad_records.append(path)
                    self._add("record", path, why(error))

    def _check_uses(self) -> None:
        for name in fsread.list_names(self._layout.uses):
            path = self._layout.uses / name
            try:
                what = "contains unexpected bytes" if _marks(path).strip(b".") else ""
            except YarnstoreError as error:
                what = why(error)
            if what:
                self.found.bad_uses.append(path)
                self._add("use", path, what)

    def _check_state(self) -> None:
        if fsread.stat_or_none(self._layout.logs / "installed") is None:
            return  # nothing was installed yet
        with self._session.refs.moving():
            fault = state_fault(self._layout)
        if fault:
            self.found.bad_state = True
            self._add("state", self._layout.root / STATE_FILE, fault)


def _refs_below(root: Path, depth: int = 3) -> Iterator[Path]:
    """Return the entries in place of refs of versions, and files in place of their folders."""
    for name in fsread.list_names(root):
        path = root / name
        if depth > 1 and fsread.is_folder(path):
            yield from _refs_below(path, depth - 1)
        else:
            yield path


def _marks(path: Path) -> bytes:
    with contextlib.suppress(NotFoundError):
        return fsread.read_bytes(path, 64 * MIB)
    return b""
