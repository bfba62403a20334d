"""Leave one copy of each chunk: what files of kept versions have goes from packs, and older versions become
deltas against the installed one.

A pack entry is redundant only if its range of the file was read and hashed.  Nothing is deleted here: `gc`
marks again, under the exclusive lock, and deletes.  docs/design.md (one copy) has the order, and why nothing
is lost in it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from yarnstore.core.codec import make_entry
from yarnstore.core.delta_entries import make_stored_entry
from yarnstore.core.digest import Buffer
from yarnstore.core.index import NO_IDS, Ids, Ints, find_ids, id_bytes
from yarnstore.core.layouts import BYTES
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.core.pairing import Pair, chunk_elements
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.copies.second import copied_chunks, keep_copies
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter, format_size
from yarnstore.registry.policies import KeepCopy
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore, load_indexes
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.matching import find_pairs
from yarnstore.store.packs import PackWriter
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import ChunkTable, FileTable, manifest_chunks

# Chunks encoded ahead of the writer: each has its base, and a thread of numpy has 14 MB of its own.
_WINDOW = 12
# Reading less takes no time that needs a reason.
_MUCH_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Backing:
    """Chunks in packs that were also read from files and hashed.  `ids` are ascending; each is in the file
    `paths[number]`, whose `stats` were taken before it was read.
    """

    ids: Ids = field(default_factory=lambda: NO_IDS)
    number: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    paths: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()  # of these files, in `files/`
    stats: tuple[os.stat_result, ...] = ()
    keep_copy: KeepCopy = "imports"
    # Chunks that only files have, hashed in a file that stays.
    only_copies: Backing | None = None

    def redundant(
        self, session: Session, roots: Collection[Manifest], names: Collection[str] | None = None
    ) -> Ids:
        """Return the chunks that need no pack, ascending: those in unchanged files (of the `names` in
        `files/`, if given) of which `roots` need no second copy.
        """
        backed = self.unchanged(names)
        if not len(backed):
            return backed
        # The only version that lists a chunk in a shared file may have been removed by another process.
        backed = backed[FileTable(session.layout, roots, within=names).find(backed) >= 0]
        copied = keep_copies(session, self.keep_copy, roots)
        if copied:
            table = ChunkTable(load_indexes(session.layout.pack_folder, rebuild=False).indexes)
            backed = backed[find_ids(copied_chunks(table, copied), backed) < 0]
        return backed

    def proven(self, names: Collection[str]) -> Ids:
        """Return the chunks that were hashed in this run in the files `names`, ascending."""
        also = NO_IDS if self.only_copies is None else self.only_copies.proven(names)
        return np.union1d(self.unchanged(names), also)

    def unchanged(self, names: Collection[str] | None) -> Ids:
        """Return the chunks in files that have not changed since they were hashed, ascending."""
        if not len(self.ids):
            return self.ids
        same = np.array([self._is_same(n, names) for n in range(len(self.paths))], bool)
        unchanged: Ids = self.ids[same[self.number]]
        return unchanged

    def _is_same(self, n: int, names: Collection[str] | None) -> bool:
        if names is not None and self.names[n] not in names:
            return False
        now, then = fsread.stat_or_none(self.paths[n]), self.stats[n]
        return now is not None and (now.st_size, now.st_mtime_ns, now.st_ino) == (
            then.st_size,
            then.st_mtime_ns,
            then.st_ino,
        )


def verify_files(
    session: Session, keep_copy: KeepCopy, roots: Collection[Manifest], names: Collection[str]
) -> Backing:
    """Read and hash the chunks in the files `names` that packs have as well and need not keep.

    Needs the shared lock.
    """
    return _backing(session, keep_copy, roots, names, check=True)


def claimed_by_files(
    session: Session, keep_copy: KeepCopy, roots: Collection[Manifest], names: Collection[str]
) -> Backing:
    """Return the same as `verify_files` without reading the files, for a forecast."""
    return _backing(session, keep_copy, roots, names, check=False)


def _backing(
    session: Session,
    keep_copy: KeepCopy,
    roots: Collection[Manifest],
    names: Collection[str],
    *,
    check: bool,
) -> Backing:
    layout = session.layout
    with ChunkStore(layout) as chunks:
        if not len(chunks.table):
            return Backing(keep_copy=keep_copy)
        table = FileTable(layout, roots, within=names)
        there = chunks.table.find(table.ids) >= 0
        copied = keep_copies(session, keep_copy, roots)
        if copied and there.any():
            there &= find_ids(copied_chunks(chunks.table, copied), table.ids) < 0
        return replace(
            _hashed(session, chunks, table, np.flatnonzero(there), check=check), keep_copy=keep_copy
        )


def verify_claims(
    session: Session, kept: Collection[Manifest], names: Collection[str], chunk_ids: Ids
) -> Backing:
    """Read and hash chunks in the files `names` of `kept` manifests.  Needs the shared lock."""
    with ChunkStore(session.layout) as chunks:
        table = FileTable(session.layout, kept, within=names)
        rows = table.find(chunk_ids)
        return _hashed(session, chunks, table, rows[rows >= 0], check=True)


def _hashed(session: Session, chunks: ChunkStore, table: FileTable, rows: Ints, *, check: bool) -> Backing:
    """Return the rows of a table whose chunks `check` finds in their files."""
    places = table.ranges(rows)
    order = np.lexsort((places[:, 1], places[:, 0]))
    rows, places = rows[order], places[order]
    stats = [fsread.stat_or_none(path) for path in table.paths]
    total = int(places[:, 2].sum())
    if total >= _MUCH_BYTES:
        what = f"{format_size(total)} of files once: packs keep what was not found intact in files"
        session.note(f"reading {what}" if check else f"a run would first read {what}")
    meter = Meter(session.activity.report, "check", "installed files", total)

    def is_sound(n: int) -> bool:
        number, offset, length = places[n].tolist()
        return not check or chunks.is_at(
            id_bytes(table.ids, int(rows[n])), table.paths[number], offset, length
        )

    sound = np.zeros(len(rows), bool)
    for n, good in enumerate(ordered_map(is_sound, range(len(rows)), window=_WINDOW)):
        sound[n] = good and stats[int(places[n, 0])] is not None
        meter.add(int(places[n, 2]))
    rows, number = rows[sound], places[sound, 0]
    ascending = np.argsort(rows)
    used, place = np.unique(number[ascending], return_inverse=True)
    found = [(n, stat) for n in used.tolist() if (stat := stats[n]) is not None]
    return Backing(
        table.ids[rows[ascending]],
        place.astype(np.int64),
        tuple(table.paths[n] for n, _ in found),
        tuple(table.names[n] for n, _ in found),
        tuple(stat for _, stat in found),
    )


@dataclass(frozen=True)
class Lacking:
    """Chunks that live versions need and that neither packs nor kept files have.  `ids` (ascending) are in
    the files `names`, which must stay, with the manifests that list them, until the chunks are in packs.

    `deep` are chunks whose chains of deltas would become too long, or end in a file that is deleted.
    """

    ids: Ids = field(default_factory=lambda: NO_IDS)
    deep: Ids = field(default_factory=lambda: NO_IDS)
    names: frozenset[str] = frozenset()
    manifests: frozenset[str] = frozenset()
    on_files: bool = False  # whether live chunks are only in files
    # Chunks of `ids`, and bases of deltas, that kept files have according to manifests; they were not read.
    claimed: Ids = field(default_factory=lambda: NO_IDS)

    def __bool__(self) -> bool:
        return bool(len(self.ids) or len(self.deep))

    @property
    def to_encode(self) -> Ids:
        """The chunks to encode, ascending."""
        return np.union1d(self.ids, self.deep)

    def bytes_of(self, roots: Collection[Manifest]) -> int:
        """Return the size of the chunks to encode, as far as `roots` list them."""
        ids, lengths = manifest_chunks(roots)
        return int(lengths[find_ids(self.to_encode, ids) >= 0].sum())


def find_lacking(
    layout: StoreLayout,
    table: ChunkTable,
    live: Ids,
    kept: Iterable[Manifest],
    names: Collection[str],
    proven: Ids | None = None,
) -> Lacking:
    """Return the live chunks that are neither in `table` (packs) nor in the files `names` of `kept`
    manifests.

    If a file that goes has a chunk too, a kept file counts as having it only if it is `proven`, since a
    manifest may be wrong and a file damaged.  With None, for a forecast, all manifests are trusted.
    """
    rows = table.find(live)
    alone = rows >= 0
    alone[alone] = table.depths()[rows[alone]] <= DELTA_DEPTH_LIMIT
    if alone.all():
        return Lacking()  # packs have everything
    files = FileTable(layout, kept, within=names)
    claimed = NO_IDS
    if proven is not None:
        going = FileTable(layout, layout.readable_manifests({}), without=names)
        bases = table.bases[table.with_bases(rows[(rows >= 0) & ~alone])]
        claimed = np.union1d(live[~alone], bases)
        claimed = claimed[(files.find(claimed) >= 0) & (going.find(claimed) >= 0)]
        claimed = np.setdiff1d(claimed, proven)

    def held(ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return (files.find(ids) >= 0) & (find_ids(claimed, ids) < 0)

    in_files = held(live)
    usable = in_files | (rows >= 0)
    by_pack = (rows >= 0) & ~in_files
    depths = table.depths(held)
    usable[by_pack] = depths[rows[by_pack]] <= DELTA_DEPTH_LIMIT
    on_files = bool((usable & ~alone).any())
    absent = live[~usable]
    if not len(absent):
        return Lacking(on_files=on_files)
    everywhere = FileTable(layout, layout.readable_manifests({}))

    def in_any_file(ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return everywhere.find(ids) >= 0

    def held_then(ids: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return held(ids) | (find_ids(absent, ids) >= 0)

    absent = absent[in_any_file(absent)]
    chains = rows[by_pack]
    then = table.depths(held_then)[chains]
    # Deltas against chunks of no live version in files that go: the files stay until the deltas are encoded
    # again.
    hanging = (then > DELTA_DEPTH_LIMIT) & (table.depths(in_any_file)[chains] <= DELTA_DEPTH_LIMIT)
    bases = table.bases[table.with_bases(chains[hanging])]
    # A chunk that is encoded now may become a delta, which makes each chain that ends there longer by one.
    long = then == DELTA_DEPTH_LIMIT if len(absent) else np.zeros(len(then), bool)
    deep = np.setdiff1d(live[by_pack][hanging | long], absent)
    holders = everywhere.holders(np.unique(np.concatenate([absent, bases])))
    return Lacking(
        ids=absent,
        deep=deep,
        names=frozenset(holders),
        manifests=frozenset(
            manifest.digest.hex
            for manifest in layout.readable_manifests({})
            if not holders.isdisjoint(file_name(file) for file in manifest.files)
        ),
        on_files=on_files,
        claimed=claimed,
    )


def as_deltas(session: Session, chunks: ChunkStore, ids: Ids, roots: Collection[Manifest]) -> Iterator[Entry]:
    """Yield entries of chunks (ascending) that are only in files that go, have too long a chain of deltas, or
    are deltas against chunks that go: as deltas against the installed version if that saves space, else
    whole.

    A damaged chunk is left out, for `fsck` to repair.
    """
    elements = chunk_elements(roots)
    pairs = pairs_of(chunks, ids, _beside_installed(session, roots))

    def encode(chunk_id: bytes) -> Entry | None:
        try:
            data = chunks.read(chunk_id, chunks.row_of(chunk_id))
            pair = pairs.get(chunk_id)
            base = _read_plain(chunks, pair.base_id) if pair is not None else None
            if pair is not None and base is not None:
                return make_stored_entry(pair, data, base)
            return make_entry(chunk_id, data, elements.get(chunk_id, BYTES))
        except IntegrityError:
            return None

    wanted = [id_bytes(ids, n) for n in range(len(ids))]
    for entry in ordered_map(encode, wanted, window=_WINDOW):
        if entry is not None:
            yield entry


def _read_plain(chunks: ChunkStore, chunk_id: bytes) -> Buffer | None:
    """Return a chunk's verified bytes from a file, or from an entry without a base; None if neither has them.

    A delta against such a chunk is no part of a circle.  Raises: StorageError.
    """
    with contextlib.suppress(IntegrityError):
        return chunks.read(chunk_id, -1)
    row = chunks.row_of(chunk_id)
    if row >= 0 and not chunks.table.bases[row]:
        with contextlib.suppress(IntegrityError, NotFoundError):
            return chunks.read_place(chunk_id, next(chunks.table.entries(row)))
    return None


def _beside_installed(session: Session, roots: Collection[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Yield each version with the installed one of its model, if that is another."""
    by_digest = {manifest.digest: manifest for manifest in roots}
    for manifest in roots:
        installed = by_digest.get(session.refs.installed(manifest.model) or manifest.digest)
        if installed is not None and installed.digest != manifest.digest:
            yield manifest, installed


def pairs_of(
    chunks: ChunkStore, ids: Ids, versions: Iterable[tuple[Manifest, Manifest]]
) -> dict[bytes, Pair]:
    """Return pairs of chunks (ascending), by id, with chunks of the version that stands beside one that has
    them, as far as there are any.
    """
    pairs: dict[bytes, Pair] = {}
    for manifest, base in versions:
        here, _ = manifest_chunks([manifest])
        wanted = {id_bytes(here, int(n)) for n in np.flatnonzero(find_ids(ids, here) >= 0)} - pairs.keys()
        if wanted:
            found = find_pairs(manifest, base, chunks, wanted)
            pairs.update((pair.chunk.chunk_id, pair) for pair in found)
    return pairs


def lack_copies(session: Session, keep_copy: KeepCopy, roots: Collection[Manifest]) -> list[Manifest]:
    """Return the manifests that must have a copy in packs, and of which chunks are in files alone."""
    copied = keep_copies(session, keep_copy, roots)
    if not copied:
        return []
    with ChunkStore(session.layout) as chunks:
        return [item for item in copied if not chunks.in_packs(manifest_chunks([item])[0]).all()]


def write_copies(session: Session, keep_copy: KeepCopy, roots: Collection[Manifest]) -> None:
    """Write the copies that are missing into packs, within the shared lock.

    Raises: DiskFullError, with nothing written, if the disk has too little free space for the chunks.
    """
    lacking = lack_copies(session, keep_copy, roots)
    if not lacking:
        return
    layout = session.layout
    with ChunkStore(layout) as chunks, PackWriter(layout.pack_folder) as writer:
        ids, lengths = manifest_chunks(lacking)
        fsread.require_space(layout.root, int(lengths[~chunks.in_packs(ids)].sum()), layout.reserve)
        for entry in copies_to_make(session, chunks, keep_copy, lacking):
            writer.add(entry)


def copies_to_make(
    session: Session, chunks: ChunkStore, keep_copy: KeepCopy, roots: Collection[Manifest]
) -> Iterator[Entry]:
    """Yield entries of the chunks that must be in a pack and are not."""
    copied = keep_copies(session, keep_copy, roots)
    if not copied:
        return
    ids, _ = manifest_chunks(copied)
    absent = ids[~chunks.in_packs(ids)]
    elements = chunk_elements(copied) if len(absent) else {}
    for n in range(len(absent)):
        chunk_id = id_bytes(absent, n)
        with contextlib.suppress(IntegrityError):
            yield make_entry(chunk_id, chunks.read(chunk_id, -1), elements.get(chunk_id, BYTES))
