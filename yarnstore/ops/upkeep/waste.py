"""Find packs that are mostly unused, and estimate their size after `gc`.

Owns the rule for deleting and rewriting packs, and the forecast of a dry run, which simulates the steps of a
run on indexes.  Reads chunks only if their new size depends on their bytes; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from yarnstore.core.digest import PackId
from yarnstore.core.index import NO_IDS, Ids, Ints, PackIndex, find_ids, id_bytes, index_bytes
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.ops.copies.after_gc import are_rewritten
from yarnstore.ops.copies.slim import as_deltas, claimed_by_files, copies_to_make, find_lacking
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.repack import REWRITE_BATCH_BYTES, repacked
from yarnstore.registry.policies import KeepCopy
from yarnstore.store.chunks import ChunkStore, load_indexes
from yarnstore.store.packs import PackSizer
from yarnstore.store.places import Beside, ChunkTable, manifest_chunks, without_chunks


@dataclass(frozen=True)
class PackWaste:
    """The plan for the packs of `table`.

    `rows` are those of the live chunks.  `hanging` are live deltas against chunks that are otherwise
    unneeded, which are kept until the deltas are encoded again.
    """

    table: ChunkTable
    rows: Ints
    hanging: Ints
    dead: list[PackId]
    rewrite: list[PackId]

    @property
    def reencode(self) -> list[bytes]:
        """The chunks to encode again."""
        return [id_bytes(self.table.ids, int(row)) for row in self.hanging]

    def due_to(self, backed: Ids, indexes: Iterable[PackIndex]) -> PackWaste:
        """Return the same, but with nothing to copy except of packs that have some of these chunks
        (ascending).
        """
        near = {index.pack for index in indexes if (find_ids(backed, index.ids) >= 0).any()}
        rewrite = [pack for pack in self.rewrite if pack in near]
        return replace(self, hanging=self.hanging[:0], rewrite=rewrite)

    @property
    def chunks_removed(self) -> int:
        """How many chunks are deleted with deleted and rewritten packs."""
        going = {*self.dead, *self.rewrite}
        gone = np.array([pack in going for pack in self.table.packs], bool)
        dead = np.ones(len(self.table), bool)
        dead[self.rows] = False
        return int((dead & gone[self.table.pack]).sum()) if len(self.table) else 0


def find_waste(
    indexes: list[PackIndex], live: Ids, backed: Ids = NO_IDS, beside: Beside | None = None
) -> PackWaste:
    """Find packs without live data, and packs with too much dead data.

    Each chunk is counted in one place: in a file if `backed`, else in one pack.  `beside` says which bases of
    deltas files have.
    """
    table = ChunkTable(without_chunks(indexes, backed), beside=beside)
    rows = table.find(live)
    rows = rows[rows >= 0]
    needed = table.with_bases(rows)
    bases = table.base_rows()[rows]
    hanging = rows[(bases >= 0) & ~np.isin(bases, rows)]
    needed_entries = np.bincount(table.pack[needed], minlength=len(table.packs))
    live_bytes = np.bincount(table.pack[rows], table.stored[rows], len(table.packs)).astype(np.int64)
    pack_bytes = np.array([index.pack_bytes for index in indexes], np.int64)
    wasteful = are_rewritten(pack_bytes, np.array(list(map(_size_bytes, indexes)), np.int64), live_bytes)
    waste = PackWaste(table, rows, hanging, [], [])
    for n, pack in enumerate(table.packs):
        if not needed_entries[n]:
            waste.dead.append(pack)
        elif (
            not live_bytes[n]
            or wasteful[n]
            # A delta of a chunk that a file has, which may be the base of its own base.
            or (find_ids(backed, indexes[n].ids[indexes[n].bases != b""]) >= 0).any()
        ):
            waste.rewrite.append(pack)
    return waste


def _size_bytes(index: PackIndex) -> int:
    return index.pack_bytes + index_bytes(index)


@dataclass(frozen=True)
class Files:
    """Files before and after slimming: names in `files/`, and the manifests that list their chunks."""

    keep_copy: KeepCopy
    now: frozenset[str]
    then: frozenset[str]
    kept: tuple[Manifest, ...]


def forecast_freed_bytes(session: Session, roots: list[Manifest], files: Files, *, repack: bool) -> int:
    """Return how much smaller the packs will be if only `roots` are kept; below 0 if they will be larger.

    With `repack`, and for deltas that are made, chunks are encoded to learn their size, which takes as long
    as the run.
    """
    layout = session.layout
    indexes = load_indexes(layout.pack_folder, rebuild=True).indexes
    before = sum(map(_size_bytes, indexes))
    live, _ = manifest_chunks(roots)
    with ChunkStore(layout) as chunks:
        left = [*indexes, *_sized(copies_to_make(session, chunks, files.keep_copy, roots))]
        backing = claimed_by_files(session, files.keep_copy, roots, files.now)
        backed = backing.redundant(session, roots)
        if len(backed):
            left = _rewritten(session, chunks, left, roots, backed)
        backed = backing.redundant(session, roots, files.then)
        table = ChunkTable(without_chunks(left, backed))
        lacking = find_lacking(layout, table, live, files.kept, files.then)
        made = list(as_deltas(session, chunks, lacking.to_encode, roots))
        if repack:
            here = chunks.table
            fresh = (entry for entry in made if here.rows_of([entry.chunk_id])[0] < 0)
            after = _sized([*repacked(chunks, roots, backed), *fresh])
        else:
            after = _rewritten(session, chunks, [*left, *_sized(made)], roots, backed)
    return before - sum(map(_size_bytes, after))


def _sized(entries: Iterable[Entry]) -> list[PackIndex]:
    sizer = PackSizer()
    for entry in entries:
        sizer.add(entry)
    return sizer.finish()


def _rewritten(
    session: Session, chunks: ChunkStore, indexes: list[PackIndex], roots: list[Manifest], backed: Ids
) -> list[PackIndex]:
    live, _ = manifest_chunks(roots)
    waste = find_waste(indexes, live, backed)
    left = _without(indexes, waste.dead)
    if waste.reencode:
        ids = np.array(sorted(waste.reencode), "S32")
        left = without_chunks(left, ids) + _sized(as_deltas(session, chunks, ids, roots))
        waste = find_waste(left, live, backed)
        left = _without(left, waste.dead)
    table = ChunkTable(without_chunks(left, backed))
    rows = table.find(live)
    needed = table.with_bases(rows[rows >= 0])
    new: list[PackIndex] = []
    sizer, copied = PackSizer(), 0
    for n, index in enumerate(left):
        if index.pack not in waste.rewrite:
            continue
        for row in needed[table.pack[needed] == n].tolist():
            base = id_bytes(table.bases, row) if table.bases[row] else b""
            stored, plain = int(table.stored[row]), int(table.plain[row])
            sizer.add_row(id_bytes(table.ids, row), stored, plain, base)
        copied += index.pack_bytes
        if copied >= REWRITE_BATCH_BYTES:
            new += sizer.finish()
            sizer, copied = PackSizer(), 0
    return [*_without(left, waste.rewrite), *new, *sizer.finish()]


def _without(indexes: Iterable[PackIndex], packs: list[PackId]) -> list[PackIndex]:
    gone = set(packs)
    return [index for index in indexes if index.pack not in gone]
