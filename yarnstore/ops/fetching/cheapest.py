"""The cheapest entry for each missing chunk, among full packs, deltas, and deltas against such.

Columns of numpy arrays throughout: a version may have hundreds of thousands of chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.index import Ids, Ints, PackIndex, SortedIds, distinct_ids, find_ids
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, KIB, MIB, PACK_LIMIT_BYTES
from yarnstore.ops.fetching.ways import RemotePack, Run
from yarnstore.registry.ways import DECODE_SHARE
from yarnstore.store.chunks import ChunkStore

# Wanted entries closer than this are in one request: reading the gap is cheaper than another request.
_GAP_BYTES = 64 * KIB
# The approximate limit of one request, so that several connections share a pack.
_RUN_BYTES = 16 * MIB
# All chunks that are decoded at a time on the way to others, for all connections together.
_HELD_BYTES = 64 * MIB
# The offered entries that are compared together.
_BATCH_ROWS = 65_536
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


class _Part(NamedTuple):
    """Entries of packs: columns of equal length.  `base` is empty for a base that the store has."""

    ids: Ids
    base: Ids
    stored: Ints
    plain: Ints
    offset: Ints
    source: Ints

    @classmethod
    def of(cls, index: PackIndex, rows: Ints | NDArray[np.bool_] | slice, source: int) -> _Part:
        """Return these rows of an index, with their bases, from the pack with this number."""
        ids = index.ids[rows]
        return cls(
            ids=ids,
            base=index.bases[rows],
            stored=index.stored[rows],
            plain=index.plain[rows],
            offset=index.offsets[rows],
            source=np.full(len(ids), source),
        )

    def at(self, rows: Ints) -> _Part:
        """Return only these rows."""
        return _Part(
            ids=self.ids[rows],
            base=self.base[rows],
            stored=self.stored[rows],
            plain=self.plain[rows],
            offset=self.offset[rows],
            source=self.source[rows],
        )

    @classmethod
    def join(cls, parts: Sequence[_Part]) -> _Part:
        """Return the rows of all parts, in order."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


class Best:
    """The smallest entry so far for each missing chunk (ids ascending)."""

    def __init__(self, missing: Ids) -> None:
        count = len(missing)
        self.ids = missing
        self.packs: list[RemotePack] = []
        self._sorted = SortedIds(missing)
        self._chosen = _Part(
            ids=missing,
            base=np.zeros(count, "S32"),
            stored=np.full(count, _UNKNOWN, np.int64),
            plain=np.zeros(count, np.int64),
            offset=np.zeros(count, np.int64),
            source=np.full(count, -1, np.int64),
        )
        # Offered rows that are not compared yet: packs can be small, and thousands of them.
        self._offered: list[_Part] = []
        self._offered_rows = 0

    def offer(self, pack: RemotePack, index: PackIndex, usable: NDArray[np.bool_] | None = None) -> None:
        """Take the entries of a pack that are smaller; only those that are `usable`, if given."""
        rows = slice(None) if usable is None else usable
        offered = _Part.of(index, rows, len(self.packs))
        self.packs.append(pack)
        self._offered.append(offered)
        self._offered_rows += len(offered.ids)
        if self._offered_rows >= _BATCH_ROWS:
            self._compare()

    def absent(self) -> Ids:
        """Return the chunks that no pack has."""
        best = self.chosen()
        return best.ids[best.source < 0]

    def runs(self) -> list[Run]:
        """Return the entries chosen, as requests."""
        best = self.chosen()
        return _cut(self.packs, best, np.flatnonzero(best.source >= 0))

    def chosen(self) -> _Part:
        """Return the best entry of each missing chunk; its `source` is -1 for a chunk that no pack has."""
        if self._offered:
            self._compare()
        return self._chosen

    def _compare(self) -> None:
        best, offered = self._chosen, _Part.join(self._offered)
        self._offered, self._offered_rows = [], 0
        at = self._sorted.find(offered.ids)
        rows = np.flatnonzero(at >= 0)
        rows = rows[offered.stored[rows] < best.stored[at[rows]]]
        np.minimum.at(best.stored, at[rows], offered.stored[rows])
        rows = rows[offered.stored[rows] == best.stored[at[rows]]][::-1]  # the first of equal ones is kept
        best.plain[at[rows]] = offered.plain[rows]
        best.offset[at[rows]] = offered.offset[rows]
        best.source[at[rows]] = offered.source[rows]


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
        part = _Part.of(index, rows, len(self.best.packs) - 1)
        part.base[held[rows]] = b""
        self._parts.append(part)
        self._bases.append(part.base[part.base != b""])

    def step(self) -> None:
        """Go one version back: from now on the bases of what was offered are needed too."""
        self._needed = distinct_ids(np.concatenate([self._needed, *self._bases]))
        self._bases.clear()

    def relays(self, connections: int) -> list[Relay]:
        """Return the wanted chunks that come more cheaply over several deltas, and take them out of `best`,
        in parts that fit into memory for so many connections."""
        if not any((part.base != b"").any() for part in self._parts):
            return []
        best = self.best.chosen()
        has = np.flatnonzero(best.source >= 0)
        solved = _Solved.of(_Part.join([best.at(has), *self._parts]))
        deep = solved.ids[solved.height > 0]
        deep = deep[find_ids(best.ids, deep) >= 0]
        best.source[find_ids(best.ids, deep)] = -1
        return solved.relays(self.best.packs, deep, _HELD_BYTES // 2 // max(1, connections))


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
        ids = distinct_ids(rows.ids)
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
        needed = np.zeros(len(self.ids), bool)
        rows = at
        while len(rows):
            needed[rows] = True
            rows = self.base[rows]
            rows = rows[(rows >= 0) & ~needed[rows]]
        chunks = np.flatnonzero(needed)
        height = self.height[chunks]
        stages = [_cut(packs, self.rows, self.row[chunks[height == n]]) for n in range(int(height.max()) + 1)]
        return Relay(stages, np.sort(self.ids[at]))


def available_bases(chunks: ChunkStore, bases: Ids) -> NDArray[np.bool_]:
    """Return which of these bases are in the store."""
    distinct = distinct_ids(bases[bases != b""])
    absent = np.sort(chunks.missing(distinct))
    held: NDArray[np.bool_] = np.logical_and(bases != b"", find_ids(absent, bases) < 0)
    return held


def _cut(packs: Sequence[RemotePack], entries: _Part, rows: Ints) -> list[Run]:
    """Return these rows as requests, pack by pack, cut where a gap is wide or a request would grow long."""
    # One number for the pack and the offset: two keys take four times as long to sort.
    place = entries.source[rows] * PACK_LIMIT_BYTES + entries.offset[rows]
    rows = rows[np.argsort(place, kind="stable")]
    source, offset, stored = entries.source[rows], entries.offset[rows], entries.stored[rows]
    starts = _starts(source, offset, stored)
    cuts, numbers = starts.tolist(), source[starts].tolist()
    del place, source
    ids = entries.ids[rows]
    return [
        Run(packs[number], offset[a:b], stored[a:b], ids[a:b])
        for number, a, b in zip(numbers, cuts, [*cuts, len(rows)][1:], strict=True)
    ]


def _starts(source: Ints, offset: Ints, stored: Ints) -> Ints:
    """Return where requests begin in entries that are ascending by pack and offset."""
    ends = offset + stored
    apart = np.ones(len(source), bool)
    apart[1:] = (source[1:] != source[:-1]) | (offset[1:] - ends[:-1] > _GAP_BYTES)
    stretch_start = offset[np.maximum.accumulate(np.where(apart, np.arange(len(source)), 0))]
    part = (ends - stretch_start) // _RUN_BYTES
    apart[1:] |= part[1:] != part[:-1]
    return np.flatnonzero(apart)
