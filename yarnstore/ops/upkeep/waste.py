"""Find packs that are mostly unused, and estimate their size after `gc`.

Owns the rule by which packs are dropped and rewritten, and the forecast of a dry run, which goes through the
steps of a run with indexes in place of packs.  Reads chunks only where their new size depends on their
bytes; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from yarnstore.core.digest import PackId
from yarnstore.core.index import Ids, Ints, PackIndex, id_bytes, index_bytes
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.ops.querying.space import GARBAGE_SHARE
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.repack import REWRITE_BATCH_BYTES, encoded_anew, repacked
from yarnstore.store.chunks import ChunkStore, ChunkTable, load_indexes, manifest_chunks
from yarnstore.store.packs import PackSizer

# Packs smaller than this are put together when there are several: many updates make many.
_SMALL_PACK_BYTES = 8 * MIB
_SMALL_PACKS = 4


@dataclass(frozen=True)
class PackWaste:
    """What to do with the packs of `table`.

    `rows` are those of the live chunks.  `hanging` are live deltas against chunks that nothing else needs:
    these chunks are kept until the deltas are encoded again.
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

    @property
    def chunks_removed(self) -> int:
        """How many chunks the packs lose that are deleted or rewritten."""
        going = {*self.dead, *self.rewrite}
        gone = np.array([pack in going for pack in self.table.packs], bool)
        dead = np.ones(len(self.table), bool)
        dead[self.rows] = False
        return int((dead & gone[self.table.pack]).sum()) if len(self.table) else 0


def find_waste(indexes: list[PackIndex], live: Ids) -> PackWaste:
    """Find packs that are dead, and packs with too much dead data.  A chunk counts in one place only."""
    table = ChunkTable(indexes)
    rows = table.find(live)
    rows = rows[rows >= 0]
    needed = table.with_bases(rows)
    bases = table.base_rows()[rows]
    hanging = rows[(bases >= 0) & ~np.isin(bases, rows)]
    needed_entries = np.bincount(table.pack[needed], minlength=len(table.packs))
    live_bytes = np.bincount(table.pack[rows], table.stored[rows], len(table.packs)).astype(np.int64)
    sizes = [_size_bytes(index) for index in indexes]
    small = {n for n, size in enumerate(sizes) if live_bytes[n] and size < _SMALL_PACK_BYTES}
    waste = PackWaste(table, rows, hanging, [], [])
    for n, pack in enumerate(table.packs):
        if not needed_entries[n]:
            waste.dead.append(pack)
        elif (
            not live_bytes[n]
            or _is_wasteful(indexes[n].pack_bytes, int(live_bytes[n]))
            or (n in small and len(small) >= _SMALL_PACKS)
        ):
            waste.rewrite.append(pack)
    return waste


def _size_bytes(index: PackIndex) -> int:
    return index.pack_bytes + index_bytes(index)


def _is_wasteful(pack_bytes: int, live_bytes: int) -> bool:
    return pack_bytes - PACK_HEADER_BYTES - live_bytes > GARBAGE_SHARE * pack_bytes


def forecast_freed_bytes(session: Session, roots: list[Manifest], *, repack: bool) -> int:
    """Return how much smaller the packs will be if only `roots` are kept; below 0 if they will be larger.

    With `repack`, and for deltas against deleted chunks, chunks are encoded to learn their size, which takes
    as long as the run.
    """
    indexes = load_indexes(session.layout.pack_folder, rebuild=True).indexes
    before = sum(map(_size_bytes, indexes))
    after = _repacked(session, roots) if repack else _rewritten(session, indexes, roots)
    return before - sum(map(_size_bytes, after))


def _repacked(session: Session, roots: list[Manifest]) -> list[PackIndex]:
    sizer = PackSizer()
    with ChunkStore(session.layout) as chunks:
        for entry in repacked(chunks, roots):
            sizer.add(entry)
    return sizer.finish()


def _rewritten(session: Session, indexes: list[PackIndex], roots: list[Manifest]) -> list[PackIndex]:
    live, _ = manifest_chunks(roots)
    waste = find_waste(indexes, live)
    left = _without(indexes, waste.dead)
    if waste.reencode:
        sizer = PackSizer()
        with ChunkStore(session.layout) as chunks:
            for entry in encoded_anew(chunks, waste.reencode, roots):
                sizer.add(entry)
        left += sizer.finish()
        waste = find_waste(left, live)
        left = _without(left, waste.dead)
    table = ChunkTable(left)
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
