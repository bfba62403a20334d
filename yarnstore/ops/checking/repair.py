"""`fsck --repair`: repair what can be repaired, and delete nothing.

Damaged files are moved to `trash/` (borg#3444).  Sound parts are kept: the good chunks of a bad pack go into
a new one.  Lost data is restored from other data in the store, or downloaded from the registry that published
it. `fsck` finds the damage; `repair_records` repairs everything but packs, files and views.
"""

from __future__ import annotations

import contextlib
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import partial

import numpy as np

from yarnstore.core.codec import make_entry
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import NO_IDS, Ids, find_ids, id_bytes, parse_index
from yarnstore.core.limits import INDEX_LIMIT_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import (
    BackendError,
    DiskFullError,
    IntegrityError,
    YarnstoreError,
)
from yarnstore.ops.checking.findings import Findings, FsckResult, Kind
from yarnstore.ops.checking.fsck import check, result_of
from yarnstore.ops.checking.fsck_packs import decode_if_possible
from yarnstore.ops.checking.repair_records import RecordRepairer
from yarnstore.ops.fetching.fetch import ensure_chunks
from yarnstore.ops.fetching.ways import PackOffer
from yarnstore.ops.session.session import Session
from yarnstore.progress import format_size, plural
from yarnstore.store import fsio, fsread, hashed, held, trash
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.files import has_file, materialise
from yarnstore.store.layout import MAPPED_FORMAT, file_name
from yarnstore.store.packs import PackWriter, rebuild_index
from yarnstore.store.places import manifest_chunks
from yarnstore.store.verify import iter_sound
from yarnstore.store.views import replace_view, set_aside


def repair(session: Session) -> FsckResult:
    """Check, repair, and check again; `remaining` of the result could not be repaired.

    Raises: LockTimeoutError, StorageError.
    """
    started = time.perf_counter()
    if not session.layout.root.exists():
        return result_of(Findings())
    with session.layout.exclusive(damaged=True):
        done = []
        found = check(session)
        if found.bad_folders:
            done = _make_folders(session, found.bad_folders)
            problems = found.problems
            found = check(session)
            found.problems[:0] = problems
        if not found.problems:
            return result_of(found, seconds=time.perf_counter() - started)
        done += _mend(session, found)
        remaining = check(session)
        if remaining.bad_packs:  # with deltas that could be checked only after their bases were restored
            done += _mend(session, remaining)
            remaining = check(session)
    result = result_of(found, seconds=time.perf_counter() - started)
    return replace(result, repaired=done, remaining=remaining.problems)


def _mend(session: Session, found: Findings) -> list[str]:
    """Repair what was found; returns what was done.

    Raises: DiskFullError that says how much a repair needs; nothing is lost then, and the next run goes on.
    """
    size = sum(held.sizes(session.layout, found.bad_files).values())
    mender = _Repairer(session, found)
    try:
        mender.run()
    except DiskFullError as error:
        if not size:
            raise
        needs = f"a repair rewrites {format_size(size)} of files, and keeps the damaged ones for a day"
        raise DiskFullError(f"{error.message}; {needs}", hint=error.hint, **error.fields) from error
    return mender.done


def _make_folders(session: Session, places: list[Path]) -> list[str]:
    """Make folders in whose places files are, which go to the trash; returns what was done."""
    layout = session.layout
    for place in places:
        trash.replace_by_folder(place, layout.root, layout.trash)
    return [
        f"{place.relative_to(layout.root)}: recreated; what was in its place is in trash/" for place in places
    ]


# Records in files of their own.
_FILES: tuple[Kind, ...] = (
    "format",
    "ref",
    "log",
    "manifest",
    "index",
    "pack",
    "use",
    "seen",
    "record",
    "state",
)


class _Repairer(RecordRepairer):
    def __init__(self, session: Session, found: Findings) -> None:
        super().__init__(session, found)
        self._replaced: set[str] = set()  # damaged files that stay until a new one has their names

    def run(self) -> None:
        """Repair everything, in an order in which each part can rely on the parts before it."""
        layout, found = self._layout, self._found
        self._clear_places()
        self._find_held()
        if found.bad_format:
            self._keep(layout.root / "format")
            # Packs and files may have what older releases would not find, or not read.
            fsio.write_atomic(layout.root / "format", MAPPED_FORMAT, tmp_dir=layout.tmp)
            self.done.append("format: rewritten")
        for path in found.bad_uses:
            size = fsread.sum_sizes([path])
            self._keep(path)
            fsio.write_atomic(path, b"." * size, tmp_dir=layout.tmp)
            self.done.append(f"{path.relative_to(layout.root)}: rewritten; the number of uses was kept")
        for path in found.bad_records:
            self._aside(path)
            self.done.append(f"{path.relative_to(layout.root)}: moved to trash/; recorded again when needed")
        for name in found.bad_registries:
            self._repair_registry(name)
        for model in found.bad_logs:
            self._repair_log(model)
        for digest in found.bad_manifests:
            self._repair_manifest(digest)
        for path in found.bad_refs:
            self._repair_ref(path)
        for path in found.bad_holds:  # its content cannot be restored
            self._aside(path)
            self.done.append(f"{path.relative_to(layout.root)}: moved to trash/; pin it again")
        for pack in found.bad_packs:
            self._repair_pack(pack)
        for pack in found.bad_indexes:
            if pack not in found.bad_packs:
                self._repair_index(pack)
        self._replaced = self._replaceable()
        self._drop_files(set(found.bad_files) - self._replaced)
        self._fetch_chunks()
        self._repair_views()
        for model in found.bad_links:
            self._fix_link(model)
        self._repair_state()

    def _find_held(self) -> None:
        """Record which files only views have, where that is not known; what is not sound is not believed."""
        layout = self._layout
        with hashed.changing(layout, []):
            names = held.reindex(layout, is_sound=self._is_sound)
        self.done += [f"files/{name}: found in a view" for name in names]

    def _is_sound(self, path: Path, file: ManifestFile) -> bool:
        """Whether a view's file has the content and the mode that the manifest says."""
        found = fsread.stat_or_none(path)
        if found is None or (file.executable and not found.st_mode & stat.S_IXUSR):
            return False
        return hashed.hashes_to(self._layout, path, file.sha256)

    def _replaceable(self) -> set[str]:
        """Return the names of the damaged files that are replaced by new ones, made from their sound chunks:
        those that views link to, in a store where files may be the only place of chunks.
        """
        found, layout = self._found, self._layout
        if not layout.relies_on_files:
            return set()
        linked = {
            file_name(file)
            for digest, manifest in found.manifests.items()
            if found.users.get(digest) and fsread.is_folder(layout.view(digest))
            for file in manifest.files
        }
        return {name for name in linked.intersection(found.bad_files) if fsread.is_file(layout.files / name)}

    def _drop_files(self, names: Collection[str]) -> None:
        """Move damaged files to the trash, after their sound chunks were taken."""
        self._take_chunks()
        for name in names:
            path = held.find(self._layout, name).path
            if path.parent == self._layout.files:
                self._aside(path)
            else:
                set_aside(self._layout, path)
        self._find_held()  # another view may have a sound copy

    def _clear_places(self) -> None:
        """Move aside everything in place of a file that is not a file, since it prevents writing."""
        for problem in self._found.problems:
            path = self._layout.root / problem.where
            if problem.kind in _FILES and fsread.stat_or_none(path) is not None and not fsread.is_file(path):
                self._aside(path)

    # --- packs and chunks ----------------------------------------------------------------------

    def _repair_pack(self, pack: PackId) -> None:
        """Copy the bad pack into the trash, then write its sound chunks into a new one.

        In this order, since the new one has the same name if no chunk was damaged.
        """
        folder = self._layout.pack_folder
        path = folder.pack(pack)
        self._keep(folder.index(pack))
        self._keep(path)
        with ChunkStore(self._layout) as chunks, PackWriter(folder) as writer:
            if fsread.is_file(path):
                index = None
                with contextlib.suppress(YarnstoreError):
                    index = parse_index(fsread.read_bytes(folder.index(pack), INDEX_LIMIT_BYTES), pack=pack)
                for entry in iter_sound(path, index, partial(decode_if_possible, chunks)):
                    writer.add(entry)
        if pack not in writer.packs:
            fsio.remove(folder.index(pack))
            fsio.remove(path)
        self.done.append(
            f"packs/{path.name}: {plural(writer.chunks, 'intact chunk')} kept, pack moved to trash/"
        )

    def _repair_index(self, pack: PackId) -> None:
        folder = self._layout.pack_folder
        self._keep(folder.index(pack))
        rebuild_index(folder, pack)
        self.done.append(f"packs/{pack.hex}.idx: recreated from its pack")

    def _lacking(self, manifests: Iterable[Manifest]) -> list[bytes]:
        """Return the chunks of manifests that no pack has now, and in format 2 no file that stays either."""
        ids, _ = manifest_chunks(manifests)
        going = set(self._found.bad_files) - self._replaced
        with ChunkStore(self._layout, without=going) as chunks:
            if self._layout.relies_on_files:
                chunks.check_files(self._doubtful(np.union1d(ids, chunks.bases_of(ids))))
                absent = chunks.missing(ids)
            else:
                absent = ids[~chunks.in_packs(ids)]
        return [id_bytes(absent, n) for n in range(len(absent))]

    def _doubtful(self, ids: Ids) -> Ids:
        """Return those of the ids that damaged files have, which stay until they are replaced."""
        some = [
            file.chunk_list()[0]
            for manifest in self._found.manifests.values()
            for file in manifest.files
            if file_name(file) in self._replaced
        ]
        return ids[find_ids(np.unique(np.concatenate([NO_IDS, *some])), ids) >= 0]

    def _used(self) -> dict[Sha256, Manifest]:
        found = self._found
        return {digest: item for digest, item in found.manifests.items() if found.users.get(digest)}

    def _take_chunks(self) -> None:
        """Read missing chunks from materialised files, damaged ones too."""
        with ChunkStore(self._layout) as chunks, PackWriter(self._layout.pack_folder) as writer:
            for chunk_id in self._lacking(self._used().values()):
                with contextlib.suppress(IntegrityError):
                    writer.add(make_entry(chunk_id, chunks.read(chunk_id, -1)))
        if writer.chunks:
            self.done.append(f"{plural(writer.chunks, 'chunk')} recovered from checked-out files")

    def _fetch_chunks(self) -> None:
        """Download the chunks that are still missing from a registry."""
        for digest, manifest in self._used().items():
            if not self._lacking([manifest]):
                continue
            for source, entry in self._offers(digest):
                try:
                    with ChunkStore(self._layout) as chunks:  # reads the disk again after each step
                        brought = ensure_chunks(self._session, source, manifest, PackOffer.of(entry), chunks)
                except (BackendError, IntegrityError) as error:
                    self._session.note(f"{manifest.label}: {error.message}")
                    continue
                self.done.append(
                    f"{manifest.label}: {plural(brought.chunks, 'chunk')} downloaded from {source.name}"
                )
                break

    # --- files and views -----------------------------------------------------------------------

    def _repair_views(self) -> None:
        """Make bad files again, and every view that linked to them or was damaged."""
        bad = set(self._found.bad_files)
        for digest, manifest in self._found.manifests.items():
            view = self._layout.view(digest)
            broken = any(digest == other.digest for other in self._found.bad_views)
            touched = fsread.is_folder(view) and any(file_name(file) in bad for file in manifest.files)
            if not (broken or touched):
                continue
            try:
                self._make_view(manifest)
            except IntegrityError as error:
                self._session.note(f"{manifest.label}: {error.message}")
                continue
            self.done.append(f"views/{digest.hex}: recreated")
        for path in self._found.surplus:
            if fsread.stat_or_none(path) is not None:  # it was replaced with its view
                set_aside(self._layout, path)
                self.done.append(f"{path.relative_to(self._layout.root)}: moved to trash/")

    def _make_view(self, manifest: Manifest) -> None:
        """Make the files of a manifest that are missing or damaged, and its view.

        A damaged file is replaced by a rename, so that it is a place of its sound chunks until then, and a
        copy stays in the trash.
        """
        try:
            self._make_files(manifest)
        except IntegrityError:
            damaged = {file_name(file) for file in manifest.files} & self._replaced
            if not damaged:
                raise
            self._replaced -= damaged
            self._drop_files(damaged)  # another view may have a sound copy
            self._make_files(manifest)
        replace_view(self._layout, manifest)

    def _make_files(self, manifest: Manifest) -> None:
        layout = self._layout
        with ChunkStore(layout) as chunks:
            for file in manifest.files:
                name = file_name(file)
                if name in self._replaced:
                    self._keep(layout.file(file))
                elif has_file(layout, file):
                    continue
                materialise(layout, chunks, file, lambda _: None)
                self._replaced.discard(name)
        fsio.sync_dir(layout.files)
