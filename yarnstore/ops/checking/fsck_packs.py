"""`fsck` of packs and chunks: each chunk that a version needs must be sound in a pack or in a file.

Has the base class of all checks; the other checks are in `fsck`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import NO_IDS, Ids, PackIndex, find_ids, id_bytes, parse_index, sorted_unique
from yarnstore.core.limits import INDEX_LIMIT_BYTES
from yarnstore.core.pack import Entry
from yarnstore.errors import IntegrityError, NotFoundError, YarnstoreError
from yarnstore.ops.checking.findings import Findings, Kind, Problem
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter, plural
from yarnstore.store import fsread, held
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.places import manifest_chunks
from yarnstore.store.sampling import Suspects, draw
from yarnstore.store.verify import Decode, good_entries, hash_pack, leads_right


class PackChecker:
    """The checks of packs, indexes and chunks; `found` has the findings."""

    def __init__(self, session: Session, *, quick: bool = False, sample: float | None = None) -> None:
        self._session = session
        self._layout = session.layout
        self._sample = sample
        # The packs to read; None for all.
        self._only = Suspects() if quick or sample is not None else None
        self.found = Findings()
        self._bad_chunks: set[bytes] = set()
        # What packs have that no index lists.
        self._unindexed: dict[PackId, Ids] = {}
        self._sound_ids: list[np.ndarray[tuple[int], np.dtype[np.bytes_]]] = []

    def _add(
        self, kind: Kind, path: Path | str, what: str, hurts: tuple[str, ...] = (), to: Findings | None = None
    ) -> None:
        where = path if isinstance(path, str) else path.relative_to(self._layout.root).as_posix()
        (to or self.found).problems.append(Problem(kind, where, what, hurts))

    def _hurt(self, digest: Sha256) -> tuple[str, ...]:
        return tuple(sorted(self.found.users.get(digest, ())))

    # --- packs ---------------------------------------------------------------------------------

    def _check_indexes(self) -> dict[PackId, PackIndex | None]:
        folder = self._layout.pack_folder
        indexes = folder.pack_ids(".idx")  # before the packs, since an index is written after its pack
        packs: dict[PackId, PackIndex | None] = dict.fromkeys(folder.pack_ids(".pack"))
        for pack in list(packs):
            if not fsread.is_file(folder.pack(pack)):
                del packs[pack]
                self.found.bad_packs.append(pack)
                self._add("pack", folder.pack(pack), "is not a regular file")
        for pack in indexes:
            if pack in self.found.bad_packs:
                continue
            path = folder.index(pack)
            if pack not in packs:
                self.found.bad_packs.append(pack)
                self._add("pack", folder.pack(pack), "is missing, but its index exists")
                continue
            try:
                index = parse_index(fsread.read_bytes(path, INDEX_LIMIT_BYTES), pack=pack)
            except YarnstoreError as error:
                self.found.bad_indexes.append(pack)
                self._add("index", path, why(error))
                continue
            packs[pack] = index
            size = fsread.sum_sizes([folder.pack(pack)])
            if size != index.pack_bytes:
                self.found.bad_packs.append(pack)
                self._add("pack", folder.pack(pack), f"has {size} bytes, not {index.pack_bytes}")
        return packs

    def _check_packs(self, packs: dict[PackId, PackIndex | None]) -> None:
        folder = self._layout.pack_folder
        sizes = {pack: fsread.sum_sizes([folder.pack(pack)]) for pack in packs}
        self.found.stored_bytes += sum(sizes.values())
        with ChunkStore(self._layout, rebuild=False) as chunks:
            if self._sample is not None:
                self._read_sample(packs, self._sample, chunks)
            read = {pack for pack in packs if self._only is None or pack in self._only.packs}
            total = sum(sizes[pack] for pack in read)
            meter = Meter(self._session.activity.report, "check", "packs", total)
            for pack, index in packs.items():
                if pack not in read:
                    if index is not None and pack not in self.found.bad_packs:
                        self._sound_ids.append(index.ids)
                    continue
                good = np.array(sorted(self._read_pack(pack, index, chunks.decode, meter.add)), "S32")
                if pack not in self.found.bad_indexes:
                    listed = find_ids(index.ids if index is not None else NO_IDS, good) >= 0
                    if not listed.all():
                        self._unindexed[pack] = good[~listed]
                    good = good[listed]
                self._sound_ids.append(good)
                self.found.checked_bytes += sizes[pack]

    def _read_sample(self, packs: dict[PackId, PackIndex | None], share: float, chunks: ChunkStore) -> None:
        files = sum(held.sizes(self._layout, held.names(self._layout)).values())
        wanted = int((self.found.stored_bytes + files) * share)
        meter = Meter(self._session.activity.report, "check", "sample", wanted)
        manifests = self.found.manifests.values()
        self._only = draw(self._layout, packs, manifests, share, chunks.decode, meter.add)
        self.found.checked_bytes += self._only.checked_bytes

    def _present(self) -> np.ndarray[tuple[int], np.dtype[np.bytes_]]:
        empty = np.empty(0, "S32")
        return sorted_unique(np.concatenate([empty, *self._sound_ids]))[0]

    def _read_pack(
        self, pack: PackId, index: PackIndex | None, decode: Decode, on_bytes: Callable[[int], None]
    ) -> set[bytes]:
        """Return the sound chunks of a pack, and report the others."""
        path = self._layout.pack_folder.pack(pack)
        whole = hash_pack(path, on_bytes)
        entries = good_entries(path, index, decode)
        bad = {chunk for chunk, ok in entries.items() if not ok}
        good = {chunk for chunk, ok in entries.items() if ok}
        if whole == pack.raw and index is not None:
            # The pack's bytes are intact, so a delta that cannot be decoded depends on a chunk damaged
            # elsewhere.
            bad -= {id_bytes(index.ids, int(n)) for n in np.flatnonzero(index.bases != b"")}
        if whole != pack.raw or bad:
            if pack not in self.found.bad_packs:
                self.found.bad_packs.append(pack)
            what = f"is corrupt in {len(bad)} of {len(entries)} chunks" if bad else "has wrong bytes"
            self._add("pack", path, what, self._hurt_by(bad))
        elif index is not None and not leads_right(path, index):
            self.found.bad_indexes.append(pack)
            self._add("index", self._layout.pack_folder.index(pack), "does not match its pack")
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
        """Report each chunk of a version that is in no pack and no file, or corrupt."""
        self._check_unindexed()
        present = self._present()
        self.found.chunks = len(present)
        for digest, names in self.found.users.items():
            manifest = self.found.manifests.get(digest)
            if manifest is None:
                continue
            ids, _ = manifest_chunks([manifest])
            rows = find_ids(present, ids)
            absent = {id_bytes(ids, int(n)) for n in (rows < 0).nonzero()[0]}
            fresh = absent - self._bad_chunks
            if fresh:
                what = f"{plural(len(fresh), 'chunk is', 'chunks are')} not in the store"
                self._add("chunk", self._layout.manifest(digest), what, tuple(sorted(names)))

    def _check_unindexed(self) -> None:
        """Report a pack whose index is missing, or lacks entries, if a version needs their chunks.

        Otherwise a killed writer left the pack, and the next writer uses it; and `gc` leaves out of an index
        what another pack or a file has, or nothing needs.
        """
        needed = {digest: self.found.manifests.get(digest) for digest in self.found.users}
        ids, _ = manifest_chunks([manifest for manifest in needed.values() if manifest is not None])
        absent = ids[find_ids(self._present(), ids) < 0]
        for pack, good in self._unindexed.items():
            if (find_ids(good, absent) >= 0).any():
                self._sound_ids.append(good)
                self.found.bad_indexes.append(pack)
                index = self._layout.pack_folder.index(pack)
                what = "does not match its pack" if fsread.stat_or_none(index) else "is missing"
                self._add("index", index, what, self._hurt_by(set(good.tolist())))


def why(error: YarnstoreError) -> str:
    """Return the reason in an error, without its subject."""
    return str(error.fields.get("why") or error.message)


def decode_if_possible(chunks: ChunkStore, entry: Entry) -> None:
    """Decode like `chunks.decode`; a delta whose base does not exist cannot be checked, and is accepted."""
    try:
        chunks.decode(entry)
    except (IntegrityError, NotFoundError):
        if not entry.base:
            raise
        try:
            chunks.read_base(entry.base, depth=1)
        except (IntegrityError, NotFoundError):
            return
        raise
