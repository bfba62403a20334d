"""Computes the disk space of each version of a store, and the size of the store without some of them.

Counts like `du`: in blocks, and a file with several names once.  `ops/upkeep/gc` decides which versions are
deleted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ints
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.ops.session.mark import live_manifest, partial_manifests
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread, held
from yarnstore.store.chunks import load_indexes
from yarnstore.store.disk import iter_disk
from yarnstore.store.layout import file_name
from yarnstore.store.places import ChunkTable, manifest_chunks

Form: TypeAlias = Literal["file", "deltas", "packed"]
_Inode: TypeAlias = tuple[int, int]

# A pack is rewritten if at least this share of it is garbage: below, the copying is not worth it.
GARBAGE_SHARE = 0.25

# The folders of versions' data; each other folder is of one kind.
_DATA = ("files", "views")
_KINDS = {"tmp": "temporary", "trash": "trash", "registries": "registries"}


def sizes_after_gc(sizes: Ints, live: Ints) -> Ints:
    """Return the size of each pack after `gc`, given its size and its live bytes; columns of equal length."""
    wasteful = sizes - PACK_HEADER_BYTES - live > GARBAGE_SHARE * sizes
    return np.where(live == 0, 0, np.where(wasteful, live + PACK_HEADER_BYTES, sizes))


class Space:
    """The disk space of a store.  All sizes are in bytes, in whole blocks.

    `kinds` has the sizes of data that belongs to no version, by kind; `total_bytes` is the result of `du`.
    """

    def __init__(self, session: Session, versions: Iterable[Manifest]) -> None:
        """Measure the store.  Raises: StorageError, IntegrityError."""
        layout = session.layout
        self._manifests = {manifest.digest: manifest for manifest in versions}
        indexes = load_indexes(layout.pack_folder, rebuild=False).indexes
        self._table = table = ChunkTable(indexes)
        self._bases = table.base_rows()
        self._chunks = {digest: self._chunks_of(manifest) for digest, manifest in self._manifests.items()}
        self._rows = {digest: table.with_bases(rows) for digest, rows in self._chunks.items()}
        self._users = np.zeros(len(table), np.int64)
        for rows in self._rows.values():
            self._users[rows] += 1
        # Chunks that `gc` can encode as deltas against an installed version.
        self._near_installed = np.zeros(len(table), bool)
        for digest, manifest in self._manifests.items():
            if session.refs.installed(manifest.model) not in (None, digest):
                self._near_installed[self._chunks[digest]] = True
        # Chunks of incomplete downloads: no version has them, and `gc` keeps them.
        self._begun = np.zeros(len(table), bool)
        for manifest in partial_manifests(session)[0]:
            self._begun[table.with_bases(self._chunks_of(manifest))] = True
        self._begun &= self._users == 0
        self._pack_sizes = np.array([index.pack_bytes for index in indexes], np.int64)
        self._walk(session)
        packed = sum(int(index.stored.sum()) for index in indexes)
        used = int(table.stored[self._users > 0].sum())
        begun = int(table.stored[self._begun].sum())
        self._unused_files_bytes = self.kinds["unused"]
        self.kinds["temporary"] += begun
        self.kinds["unused"] += packed - used - begun
        self.kinds["records"] += self._packs_on_disk - packed  # headers, and the rest of the last block
        owned = sum(self._sizes[inode] for inode in self._owners)
        self.kinds["shared"] += used + owned - sum(self.own_bytes(digest) for digest in self._manifests)

    @classmethod
    def of_store(cls, session: Session) -> Self:
        """Measure the store with all its versions.  Raises: StorageError, IntegrityError."""
        refs = session.refs
        digests = {digest for name in refs.versions() if (digest := refs.version(name))}
        digests |= {digest for model in refs.installed_models() if (digest := refs.installed(model))}
        digests |= {digest for name in refs.pins() if (digest := refs.pin(name))}
        return cls(
            session, [live_manifest(session, digest, "referenced by a ref") for digest in sorted(digests)]
        )

    def _chunks_of(self, manifest: Manifest) -> Ints:
        """Return the rows of a version's chunks."""
        rows = self._table.find(manifest_chunks([manifest])[0])
        chunks: Ints = rows[rows >= 0]
        return chunks

    def _walk(self, session: Session) -> None:
        users: dict[str, set[Sha256]] = defaultdict(set)
        for digest, manifest in self._manifests.items():
            for file in manifest.files:
                users[file_name(file)].add(digest)
        by_view = {digest.hex: {digest} for digest in self._manifests}
        self._sizes: dict[_Inode, int] = {}
        self._owners: dict[_Inode, set[Sha256]] = defaultdict(set)
        self._names: set[tuple[str, ...]] = set()
        self._packs_on_disk = 0
        places: dict[_Inode, set[str]] = defaultdict(set)
        held_by = self._held_inodes(session, users)
        for entry in iter_disk(session.layout.root):
            parts, inode, size = entry.parts, entry.inode, entry.disk_bytes
            self._sizes[inode] = size
            top = parts[0] if parts else ""
            if entry.is_folder:
                kind = "records"
            elif top in _DATA and len(parts) > 1:
                owners = (users if top == "files" else by_view).get(parts[1].removesuffix(held.HELD), set())
                owners = self._owners[inode] = self._owners[inode] | owners | held_by.get(inode, set())
                self._names.add(parts)
                kind = "" if owners else "unused"
            elif top == "packs" and parts[-1].endswith(".pack"):
                self._packs_on_disk += size
                kind = ""
            else:
                kind = _KINDS.get(top, "records")
            places[inode].add(kind)
        self.total_bytes = sum(self._sizes.values())
        self._owners = {inode: owners for inode, owners in self._owners.items() if owners}
        self.kinds: Counter[str] = Counter()
        for inode, kinds in places.items():
            if "" not in kinds:  # otherwise it is a pack or data of a version
                self.kinds[min(kinds)] += self._sizes[inode]

    def _held_inodes(self, session: Session, users: Mapping[str, set[Sha256]]) -> dict[_Inode, set[Sha256]]:
        """Return the versions that have no view, and whose files other views hold: by these files."""
        found: dict[_Inode, set[Sha256]] = {}
        for name in held.recorded(session.layout):
            there = held.find(session.layout, name).found
            if there is not None:
                found[there.st_dev, there.st_ino] = {
                    digest
                    for digest in users.get(name, ())
                    if not fsread.is_folder(session.layout.view(digest))
                }
        return found

    # --- of one version ------------------------------------------------------------------------------

    def own_bytes(self, digest: Sha256) -> int:
        """Return the size of the data that only this version uses."""
        return int(self._table.stored[self._alone(digest)].sum()) + self.own_files_bytes(digest)

    def own_files_bytes(self, digest: Sha256) -> int:
        """Return the size of the files that only this version has."""
        return self._files_bytes({digest}, only=True)

    def shared_bytes(self, digest: Sha256) -> int:
        """Return the size of the data that this version shares with others."""
        whole = int(self._table.stored[self._rows[digest]].sum()) + self._files_bytes({digest}, only=False)
        return whole - self.own_bytes(digest)

    def frees_bytes(self, digest: Sha256) -> int:
        """Return about how much removing this version, and then `gc`, frees."""
        others = self._manifests.keys() - {digest}
        return max(0, self.after(self._manifests.keys()) - self.after(others))

    def form(self, digest: Sha256) -> Form:
        """Return the form in which a version is stored: as files, as deltas against other chunks, or whole in
        packs.
        """
        manifest = self._manifests[digest]
        if all(
            ("files", file_name(file)) in self._names
            or ("files", f"{file_name(file)}{held.HELD}") in self._names
            or ("views", digest.hex, *file.path.split("/")) in self._names
            for file in manifest.files
        ):
            return "file"
        return "deltas" if (self._bases[self._chunks[digest]] != -1).any() else "packed"

    def _alone(self, digest: Sha256) -> Ints:
        rows = self._rows[digest]
        alone: Ints = rows[self._users[rows] == 1]
        return alone

    def _files_bytes(self, digests: Collection[Sha256], *, only: bool) -> int:
        """Return the size of files that any of the versions has.

        With `only`, of those that no other version has.
        """
        wanted = set(digests)
        return sum(
            self._sizes[inode]
            for inode, owners in self._owners.items()
            if (owners <= wanted if only else owners & wanted)
        )

    # --- of several ----------------------------------------------------------------------------------

    def after(self, kept: Collection[Sha256]) -> int:
        """Estimate the size of the store after `gc` if only these versions are kept.

        Includes leftovers in `tmp/` and `trash/`, but not views that are kept for their grace period.
        """
        table, bases = self._table, self._bases
        live: NDArray[np.bool_] = self._begun.copy()
        for digest in kept:
            live[self._chunks[digest]] = True
        hanging = live & (bases >= 0) & ~live[np.maximum(bases, 0)]
        anew_bytes = self._anew_bytes(np.flatnonzero(hanging), live)
        live &= ~hanging
        by_pack = np.bincount(table.pack[live], table.stored[live], len(self._pack_sizes)).astype(np.int64)
        packs = int(sizes_after_gc(self._pack_sizes, by_pack).sum() - self._pack_sizes.sum())
        gone = self._files_bytes(self._manifests.keys() - set(kept), only=True)
        return self.total_bytes + packs + anew_bytes - gone - self._unused_files_bytes

    def _anew_bytes(self, rows: Ints, live: NDArray[np.bool_]) -> int:
        """Estimate the size of deltas that `gc` encodes again, since their bases are not `live`.

        A delta against the installed version has the changes of the deltas on the way to what stays.  Their
        sizes are added by their squares, as independent changes are; of fine-tunes this is 3 to 15 % too
        much.  Chunks of models that are not installed are stored whole, and counted as uncompressed.
        """
        table, at = self._table, self._bases[rows]
        squares = table.stored[rows].astype(float) ** 2
        for _ in range(DELTA_DEPTH_LIMIT):
            via = (at >= 0) & ~live[np.maximum(at, 0)]
            squares[via] += table.stored[at[via]].astype(float) ** 2
            at[via] = self._bases[at[via]]
        plain = table.plain[rows]
        return int(np.where(self._near_installed[rows], np.minimum(np.sqrt(squares), plain), plain).sum())

    def too_many(
        self, limit_bytes: int, kept: Collection[Sha256], candidates: Sequence[Sha256]
    ) -> Sequence[Sha256]:
        """Return the first `candidates` that must be deleted so that the store is no larger than the limit.

        All of them, if even that is not enough.  `kept` are the versions to keep, including the candidates.
        """

        def fits(count: int) -> bool:
            return self.after(set(kept).difference(candidates[:count])) <= limit_bytes

        return candidates[: bisect_left(range(len(candidates)), True, key=fits)]
