"""The cheapest entry for each missing chunk, among full packs, deltas, and deltas against such.

Columns of numpy arrays throughout: a version may have hundreds of thousands of chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.index import Ids, Ints, PackIndex, SortedIds, find_ids
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, KIB, MIB
from yarnstore.ops.fetching.ways import RemotePack, Run
from yarnstore.registry.ways import DECODE_SHARE
from yarnstore.store.chunks import ChunkStore

# Wanted entries closer than this are in one request: reading the gap is cheaper than another request.
_GAP_BYTES = 64 * KIB
# The approximate limit of one request, so that several connections share a pack.
_RUN_BYTES = 16 * MIB
# All chunks that are decoded at a time on the way to others, for all connections together.
_HELD_BYTES = 64 * MIB
_UNKNOWN = np.iinfo(np.int64).max // 4


@dataclass(frozen=True)
class Relay:
    """Chunks that come over several deltas: the entries of each stage are deltas against chunks of the stage
    before, or need none.  What one stage decodes is in memory until the next one is through.

    `wanted` are the chunks for which all this is done.
    """

    stages: list[list[Run]]
    wanted: Ids

    @property
    def stored_bytes(self) -> int:
        return sum(int(run.stored.sum()) for stage in self.stages for run in stage)


class Best:
    """The smallest entry so far for each missing chunk (ids ascending)."""

    def __init__(self, missing: Ids) -> None:
        self.ids = missing
        self._sorted = SortedIds(missing)
        self.stored = np.full(len(missing), _UNKNOWN, np.int64)
        self.plain = np.zeros(len(missing), np.int64)
        self.offset = np.zeros(len(missing), np.int64)
        self.source = np.full(len(missing), -1, np.int64)
        self.packs: list[RemotePack] = []

    def offer(self, pack: RemotePack, index: PackIndex, usable: NDArray[np.bool_]) -> None:
        # The pack's ids are looked up among the missing ones, since thousands of packs can be small.
        at = self._sorted.find(index.ids)
        rows = np.flatnonzero((at >= 0) & usable)
        rows = rows[index.stored[rows] < self.stored[at[rows]]]
        self.stored[at[rows]] = index.stored[rows]
        self.plain[at[rows]] = index.plain[rows]
        self.offset[at[rows]] = index.offsets[rows]
        self.source[at[rows]] = len(self.packs)
        self.packs.append(pack)

    def absent(self) -> Ids:
        found: Ids = self.ids[self.source < 0]
        return found

    def runs(self) -> list[Run]:
        """The entries chosen, as requests."""
        chosen = self.source >= 0
        return _cut(
            self.packs, self.ids[chosen], self.source[chosen], self.offset[chosen], self.stored[chosen]
        )


class _Part(NamedTuple):
    """Rows of one index: columns of equal length.  `base` is empty for a base that the store has."""

    ids: Ids
    base: Ids
    stored: Ints
    plain: Ints
    offset: Ints
    source: Ints


@dataclass
class Chains:
    """Deltas against chunks that deltas bring.  Packs are offered back from the wanted version, so that rows
    for chunks that nothing needs are not kept."""

    best: Best
    chunks: ChunkStore
    _needed: Ids = field(init=False)
    _parts: list[_Part] = field(init=False, default_factory=list)
    _bases: list[Ids] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._needed = self.best.ids

    def offer(self, pack: RemotePack, index: PackIndex) -> None:
        """Take the rows of a delta pack, whose bases may be in the store or in packs that come later."""
        held = available_bases(self.chunks, index.bases)
        self.best.offer(pack, index, held)
        wanted = find_ids(self.best.ids, index.ids) >= 0
        needed = (find_ids(self._needed, index.ids) >= 0) & (index.bases != b"") & ~(wanted & held)
        rows = np.flatnonzero(needed)
        if not len(rows):
            return
        base = np.where(held[rows], b"", index.bases[rows]).astype("S32")
        source = np.full(len(rows), len(self.best.packs) - 1)
        self._parts.append(
            _Part(
                ids=index.ids[rows],
                base=base,
                stored=index.stored[rows],
                plain=index.plain[rows],
                offset=index.offsets[rows],
                source=source,
            )
        )
        self._bases.append(base[base != b""])

    def step(self) -> None:
        """Go one version back: from now on the bases of what was offered are needed too."""
        self._needed = np.unique(np.concatenate([self._needed, *self._bases]))
        self._bases.clear()

    def relays(self, connections: int) -> list[Relay]:
        """Return the wanted chunks that come more cheaply over several deltas, and take them out of `best`,
        in parts that fit into memory for so many connections."""
        if not any((part.base != b"").any() for part in self._parts):
            return []
        best = self.best
        has = np.flatnonzero(best.source >= 0)
        shallow = _Part(
            ids=best.ids[has],
            base=np.full(len(has), b"", "S32"),
            stored=best.stored[has],
            plain=best.plain[has],
            offset=best.offset[has],
            source=best.source[has],
        )
        rows = _Part(*(np.concatenate(columns) for columns in zip(shallow, *self._parts, strict=True)))
        solved = _Solved.of(rows)
        deep = solved.ids[solved.height > 0]
        deep = deep[find_ids(best.ids, deep) >= 0]
        best.source[find_ids(best.ids, deep)] = -1
        return solved.relays(best.packs, deep, _HELD_BYTES // 2 // max(1, connections))


@dataclass(frozen=True)
class _Solved:
    """For each chunk (ids ascending) its cheapest row, the chunk that this row's delta is against (-1: none
    that is to come), and how many deltas are below it (-1: too many, or it has no row)."""

    rows: _Part
    ids: Ids
    row: Ints
    base: Ints
    height: Ints

    @classmethod
    def of(cls, rows: _Part) -> _Solved:
        ids = np.unique(rows.ids)
        chunk = find_ids(ids, rows.ids)
        base = np.where(rows.base == b"", -1, find_ids(ids, rows.base))
        useful = (rows.base == b"") | (base >= 0)
        own = rows.stored + np.where(base >= 0, rows.plain // DECODE_SHARE, 0)
        cost = np.full(len(ids), _UNKNOWN)
        chosen = np.full(len(ids), -1)
        for _ in range(DELTA_DEPTH_LIMIT):
            via = np.where(useful, own + np.where(base >= 0, cost[base], 0), _UNKNOWN)
            now = cost.copy()
            np.minimum.at(now, chunk, via)
            better = np.flatnonzero((via == now[chunk]) & (now < cost)[chunk])
            if not len(better):
                break
            chosen[chunk[better]] = better
            cost = now
        ahead = np.where(chosen >= 0, base[chosen], -1)
        height = np.where((chosen >= 0) & (ahead < 0), 0, -1)
        for _ in range(DELTA_DEPTH_LIMIT - 1):
            open_ = (height < 0) & (ahead >= 0)
            height[open_] = np.where(height[ahead[open_]] < 0, -1, height[ahead[open_]] + 1)
        return cls(rows, ids, chosen, ahead, height)

    def relays(self, packs: Sequence[RemotePack], wanted: Ids, limit_bytes: int) -> list[Relay]:
        """Return the entries that bring the wanted chunks, in parts of about `limit_bytes` of these."""
        if not len(wanted):
            return []
        at = find_ids(self.ids, wanted)
        row = self.row[at]
        order = np.lexsort((self.rows.offset[row], self.rows.source[row]))
        at = at[order]
        part = np.cumsum(self._heaviest()[at]) // max(1, limit_bytes)
        starts = np.flatnonzero(np.diff(part, prepend=-1))
        return [self._relay(packs, at[a:b]) for a, b in zip(starts, [*starts[1:], len(at)], strict=True)]

    def _heaviest(self) -> Ints:
        """Return for each chunk the length of the longest one that it is built on, itself included."""
        heaviest = self.rows.plain[self.row]
        for height in range(1, DELTA_DEPTH_LIMIT):
            at = np.flatnonzero(self.height == height)
            heaviest[at] = np.maximum(heaviest[at], heaviest[self.base[at]])
        return heaviest

    def _relay(self, packs: Sequence[RemotePack], at: Ints) -> Relay:
        needed = [at]
        while len(needed[-1]):
            bases = np.unique(self.base[needed[-1]])
            needed.append(bases[bases >= 0])
        chunks = np.unique(np.concatenate(needed))
        height = self.height[chunks]
        stages = []
        for n in range(int(height.max()) + 1):
            here = chunks[height == n]
            row = self.row[here]
            columns = self.rows
            stages.append(
                _cut(packs, self.ids[here], columns.source[row], columns.offset[row], columns.stored[row])
            )
        return Relay(stages, np.sort(self.ids[at]))


def available_bases(chunks: ChunkStore, bases: Ids) -> NDArray[np.bool_]:
    """Return which of these bases are in the store."""
    distinct = np.unique(bases[bases != b""])
    absent = np.sort(chunks.missing(distinct))
    held: NDArray[np.bool_] = np.logical_and(bases != b"", find_ids(absent, bases) < 0)
    return held


def _cut(packs: Sequence[RemotePack], ids: Ids, source: Ints, offset: Ints, stored: Ints) -> list[Run]:
    """Return entries as requests, pack by pack, cut where a gap is wide or a request would grow long."""
    if not len(ids):
        return []
    order = np.lexsort((offset, source))
    ids, source, offset, stored = ids[order], source[order], offset[order], stored[order]
    ends = offset + stored
    apart = np.ones(len(order), bool)
    apart[1:] = (source[1:] != source[:-1]) | (offset[1:] - ends[:-1] > _GAP_BYTES)
    stretch_start = offset[np.maximum.accumulate(np.where(apart, np.arange(len(order)), 0))]
    part = (ends - stretch_start) // _RUN_BYTES
    apart[1:] |= part[1:] != part[:-1]
    starts = np.flatnonzero(apart)
    return [
        Run(packs[int(source[a])], offset[a:b], stored[a:b], ids[a:b])
        for a, b in zip(starts, [*starts[1:], len(order)], strict=True)
    ]
