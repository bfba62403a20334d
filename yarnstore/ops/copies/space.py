"""Computes the disk space of each version of a store.

Counts like `du`: in blocks, and a file with several names once.  `after_gc` estimates the size without some
versions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, Self, TypeAlias

import numpy as np

from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ints
from yarnstore.core.manifest import Manifest
from yarnstore.ops.session.mark import live_manifest, partial_manifests
from yarnstore.ops.session.session import Session
from yarnstore.store import fsread, held
from yarnstore.store.chunks import load_indexes
from yarnstore.store.disk import iter_disk
from yarnstore.store.layout import file_name
from yarnstore.store.places import ChunkTable, manifest_chunks

Form: TypeAlias = Literal["file", "deltas", "packed"]
_Inode: TypeAlias = tuple[int, int]

# The folders of versions' data; each other folder is of one kind.
_DATA = ("files", "views")
_KINDS = {"tmp": "temporary", "trash": "trash", "registries": "registries"}


class Space:
    """The disk space of a store.  All sizes are in bytes, in whole blocks.

    `kinds` has the sizes of data that belongs to no version, by kind; `total_bytes` is the result of `du`.
    `table` are the entries of packs; `begun` (a mask of its rows) those of incomplete downloads.
    """

    def __init__(self, session: Session, versions: Iterable[Manifest]) -> None:
        """Measure the store.  Raises: StorageError, IntegrityError."""
        layout = session.layout
        self.manifests = {manifest.digest: manifest for manifest in versions}
        indexes = load_indexes(layout.pack_folder, rebuild=False).indexes
        self.table = table = ChunkTable(indexes)
        self._bases = table.base_rows()
        self._chunks = {digest: self._chunks_of(manifest) for digest, manifest in self.manifests.items()}
        self._rows = {digest: table.with_bases(rows) for digest, rows in self._chunks.items()}
        self._users = np.zeros(len(table), np.int64)
        for rows in self._rows.values():
            self._users[rows] += 1
        # Chunks of incomplete downloads: no version has them, and `gc` keeps them.
        self.begun = np.zeros(len(table), bool)
        for manifest in partial_manifests(session)[0]:
            self.begun[table.with_bases(self._chunks_of(manifest))] = True
        self.begun &= self._users == 0
        self._walk(session)
        packed = sum(int(index.stored.sum()) for index in indexes)
        used = int(table.stored[self._users > 0].sum())
        begun = int(table.stored[self.begun].sum())
        self.unused_files_bytes = self.kinds["unused"]
        self.kinds["temporary"] += begun
        self.kinds["unused"] += packed - used - begun
        self.kinds["records"] += self._packs_on_disk - packed  # headers, and the rest of the last block
        owned = sum(self._sizes[inode] for inode in self._owners)
        self.kinds["shared"] += used + owned - sum(self.own_bytes(digest) for digest in self.manifests)

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
        rows = self.table.find(manifest_chunks([manifest])[0])
        chunks: Ints = rows[rows >= 0]
        return chunks

    def _walk(self, session: Session) -> None:
        users: dict[str, set[Sha256]] = defaultdict(set)
        for digest, manifest in self.manifests.items():
            for file in manifest.files:
                users[file_name(file)].add(digest)
        by_view = {digest.hex: {digest} for digest in self.manifests}
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
        return int(self.table.stored[self._alone(digest)].sum()) + self.files_bytes({digest}, only=True)

    def shared_bytes(self, digest: Sha256) -> int:
        """Return the size of the data that this version shares with others."""
        whole = int(self.table.stored[self._rows[digest]].sum()) + self.files_bytes({digest}, only=False)
        return whole - self.own_bytes(digest)

    def form(self, digest: Sha256) -> Form:
        """Return the form in which a version is stored: as files, as deltas against other chunks, or whole in
        packs.
        """
        manifest = self.manifests[digest]
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

    def files_bytes(self, digests: Collection[Sha256], *, only: bool) -> int:
        """Return the size of files that any of the versions has.

        With `only`, of those that no other version has.
        """
        wanted = set(digests)
        return sum(
            self._sizes[inode]
            for inode, owners in self._owners.items()
            if (owners <= wanted if only else owners & wanted)
        )
