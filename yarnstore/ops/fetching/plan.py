"""Plans of downloads: the smallest byte ranges of a registry's packs with the missing chunks.

A chunk can be read whole from a full pack, or as a delta against a chunk in the store; the smaller one is
used.  Only indexes are downloaded here.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.backends import SourceSet
from yarnstore.backends.sources import Kept
from yarnstore.core.digest import PackId
from yarnstore.core.index import Ids, Ints, PackIndex, SortedIds, find_ids, id_bytes, parse_index
from yarnstore.core.limits import INDEX_LIMIT_BYTES, KIB, MIB, VERSION_LIMIT_PACKS
from yarnstore.errors import BackendError, FormatError, IntegrityError, TransientError
from yarnstore.registry.entries import VersionEntry
from yarnstore.store.chunks import ChunkStore

# Wanted entries closer than this are in one request: reading the gap is cheaper than another request.
_GAP_BYTES = 64 * KIB
# The approximate limit of one request, so that several connections share a pack.
_RUN_BYTES = 16 * MIB
# The folders of a registry with packs.
PACKS = "packs"
DELTAS = "deltas"
_UNKNOWN = np.iinfo(np.int64).max


@dataclass(frozen=True)
class PackOffer:
    """The packs of a version in its registry: full packs, and delta packs by base version."""

    packs: tuple[PackId, ...]
    deltas: tuple[tuple[PackId, str], ...] = ()

    @classmethod
    def of(cls, entry: VersionEntry) -> PackOffer:
        """Return the packs of a registry entry."""
        packs = tuple(PackId.parse(pack) for pack in entry.packs)
        return cls(packs, tuple((PackId.parse(delta.pack), delta.base) for delta in entry.deltas))


class PackRange(NamedTuple):
    """A wanted chunk in a remote pack."""

    offset: int
    stored: int
    chunk_id: bytes

    @property
    def end(self) -> int:
        return self.offset + self.stored


class RemotePack(NamedTuple):
    """A pack and its folder in the registry."""

    folder: str
    pack: PackId

    @property
    def key(self) -> str:
        """The pack's key in the registry."""
        return f"{self.folder}/{self.pack.hex}.pack"

    @property
    def index_key(self) -> str:
        """The key of its index in the registry."""
        return f"{self.folder}/{self.pack.hex}.idx"


@dataclass(frozen=True)
class Run:
    """Entries of one pack, ascending, that are requested at once, as columns of equal length.

    Without entries it is the whole pack, because its index could not be read.
    """

    pack: RemotePack
    offsets: Ints
    stored: Ints
    ids: Ids

    def places(self) -> list[PackRange]:
        """Return the entries one by one."""
        ids = (id_bytes(self.ids, n) for n in range(len(self.ids)))
        return [PackRange(*row) for row in zip(self.offsets.tolist(), self.stored.tolist(), ids, strict=True)]


@dataclass(frozen=True)
class DownloadPlan:
    """The requests of a download.

    `stored_bytes` is the size of the wanted entries, `delta_chunks` the number of deltas among them, and
    `delta_from` the base version of most deltas.  `index_sources` are the mirrors that sent the packs'
    indexes.  `unplaced` (ascending) are chunks in packs whose indexes could not be read; `stored_bytes` does
    not include their size.
    """

    runs: list[Run]
    wanted: Ids
    stored_bytes: int = 0
    delta_chunks: int = 0
    delta_from: str | None = None
    index_sources: Mapping[RemotePack, str] = field(default_factory=dict)
    unplaced: Ids = field(default_factory=lambda: np.empty(0, "S32"))

    def most_bytes(
        self, ids: Ids, lengths: Ints, only: Callable[[Ids], NDArray[np.bool_]] | None = None
    ) -> int:
        """Return the largest possible size of the wanted entries in bytes.

        `ids` (ascending) and `lengths` are those of all chunks: an `unplaced` one counts with its length, and
        chunks for which `only` is false are omitted.
        """
        stored, unplaced = self.stored_bytes, self.unplaced
        if only is not None:
            stored = sum(int(run.stored[only(run.ids)].sum()) for run in self.runs)
            unplaced = unplaced[only(unplaced)]
        return stored + int(lengths[find_ids(ids, unplaced)].sum())


NOTHING = DownloadPlan([], np.empty(0, "S32"))


# Returns the partial download of a file, by its key and its largest size in bytes.
KeptAt: TypeAlias = Callable[[str, int], Kept]
# An index and the mirror that sent it.
_Read: TypeAlias = tuple[PackIndex, str] | None


def plan_download(
    backend: SourceSet,
    offer: PackOffer,
    chunks: ChunkStore,
    missing: Ids,
    connections: int,
    *,
    without: Collection[RemotePack] = (),
    kept: KeptAt | None = None,
) -> DownloadPlan:
    """Find the missing chunks (distinct ids, ascending) in the packs that a version names.

    `without` are packs that have failed; `kept` has partial downloads of indexes.  A full pack whose index is
    missing or malformed is read completely; such a delta pack is not used.

    Raises: TransientError; IntegrityError if the packs do not contain all chunks, or are too many.
    """
    if not len(missing):
        return NOTHING
    listed = len(offer.packs) + len(offer.deltas)
    if listed > VERSION_LIMIT_PACKS:
        raise IntegrityError(
            backend.url,
            why=f"lists {listed} packs for one version; up to {VERSION_LIMIT_PACKS} are allowed",
            hint="the publisher must publish it again",
        )
    full = [RemotePack(PACKS, pack) for pack in offer.packs]
    bases = {RemotePack(DELTAS, pack): base for pack, base in offer.deltas}
    deltas = [pack for pack in bases if pack not in without]
    best = _Best(missing)
    unread: list[RemotePack] = []
    index_sources: dict[RemotePack, str] = {}
    for pack, read in _iter_indexes(backend, [*full, *deltas], connections, kept):
        if read is not None:
            index, index_sources[pack] = read
            whole = pack.folder == PACKS
            best.offer(
                pack, index, np.ones(len(index), bool) if whole else _available_bases(chunks, index.bases)
            )
        elif pack.folder == PACKS:
            unread.append(pack)
    absent = best.absent()
    if len(absent) and not unread:
        # A mirror's index may be valid and incomplete, so the others are queried.
        _offer_of_others(backend, best, full, index_sources)
        absent = best.absent()
    if len(absent) and not unread:
        names = [id_bytes(absent, n).hex()[:12] for n in range(min(3, len(absent)))]
        raise IntegrityError(
            backend.url,
            why=f"has packs that lack {len(absent)} of the version's chunks ({', '.join(names)}…)",
            hint="the publisher must publish it again",
        )
    runs = best.runs()
    chunks_from: dict[str, int] = {}
    for run in runs:
        if run.pack in bases:
            base = bases[run.pack]
            chunks_from[base] = chunks_from.get(base, 0) + len(run.ids)
    if len(absent):
        nothing = np.empty(0, np.int64)
        runs += [Run(pack, nothing, nothing, absent[:0]) for pack in unread]
    return DownloadPlan(
        runs=runs,
        wanted=missing,
        stored_bytes=sum(int(run.stored.sum()) for run in runs),
        delta_chunks=sum(chunks_from.values()),
        delta_from=max(chunks_from, key=lambda base: chunks_from[base]) if chunks_from else None,
        index_sources=index_sources,
        unplaced=absent,
    )


def _iter_indexes(
    backend: SourceSet, packs: Sequence[RemotePack], connections: int, kept: KeptAt | None
) -> Iterator[tuple[RemotePack, _Read]]:
    """Yield each pack with its index, in order; at most `connections` indexes are in memory at a time."""
    jobs: queue.SimpleQueue[tuple[RemotePack, Future[_Read]] | None] = queue.SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            pack, future = job
            try:
                future.set_result(_read_index(backend, pack, kept=kept))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                future.set_exception(error)

    threads = min(max(1, connections), len(packs))
    for _ in range(threads):
        # Daemon threads, unlike those of a pool, so that an interrupt does not wait for a stalled server.
        threading.Thread(target=work, name="yarnstore-index", daemon=True).start()
    running: deque[tuple[RemotePack, Future[_Read]]] = deque()
    try:
        for pack in packs:
            if len(running) >= threads:
                first, index = running.popleft()
                yield first, index.result()
            job = pack, Future[_Read]()
            running.append(job)
            jobs.put(job)
        while running:
            first, index = running.popleft()
            yield first, index.result()
    finally:
        for _ in range(threads):
            jobs.put(None)


def _read_index(backend: SourceSet, pack: RemotePack, *, kept: KeptAt | None = None) -> _Read:
    """Return a pack's index and the mirror that sent it; None if no source has a readable one, unless a full
    pack's may be available later.

    Raises: TransientError.
    """
    key = pack.index_key
    try:
        return backend.get_checked(
            key,
            lambda data: parse_index(data, pack=pack.pack),
            limit_bytes=INDEX_LIMIT_BYTES,
            kept=kept(key, INDEX_LIMIT_BYTES) if kept is not None else None,
        )
    except (BackendError, FormatError) as error:
        if pack.folder == PACKS and isinstance(error, TransientError):
            raise
        return None


def _offer_of_others(
    backend: SourceSet, best: _Best, packs: list[RemotePack], index_sources: dict[RemotePack, str]
) -> None:
    for pack in packs:

        def take(index: PackIndex, pack: RemotePack = pack) -> int:
            best.offer(pack, index, np.ones(len(index), bool))
            return len(best.absent())

        index_sources[pack] = backend.compare(
            pack.index_key,
            lambda data, pack=pack: parse_index(data, pack=pack.pack),  # type: ignore[misc]
            take,
            missing=len(best.absent()),
            limit_bytes=INDEX_LIMIT_BYTES,
            source=index_sources[pack],
        )


def _available_bases(chunks: ChunkStore, bases: Ids) -> NDArray[np.bool_]:
    """Return which of these bases are in the store."""
    distinct = np.unique(bases[bases != b""])
    absent = np.sort(chunks.missing(distinct))
    held: NDArray[np.bool_] = np.logical_and(bases != b"", find_ids(absent, bases) < 0)
    return held


class _Best:
    """The smallest entry so far for each missing chunk (ids ascending)."""

    def __init__(self, missing: Ids) -> None:
        self._ids = missing
        self._sorted = SortedIds(missing)
        self._stored = np.full(len(missing), _UNKNOWN, np.int64)
        self._offset = np.zeros(len(missing), np.int64)
        self._source = np.full(len(missing), -1, np.int64)
        self._packs: list[RemotePack] = []

    def offer(self, pack: RemotePack, index: PackIndex, usable: NDArray[np.bool_]) -> None:
        # The pack's ids are looked up among the missing ones, since thousands of packs can be small.
        at = self._sorted.find(index.ids)
        rows = np.flatnonzero((at >= 0) & usable)
        rows = rows[index.stored[rows] < self._stored[at[rows]]]
        self._stored[at[rows]] = index.stored[rows]
        self._offset[at[rows]] = index.offsets[rows]
        self._source[at[rows]] = len(self._packs)
        self._packs.append(pack)

    def absent(self) -> Ids:
        found: Ids = self._ids[self._source < 0]
        return found

    def runs(self) -> list[Run]:
        """Return the chosen entries, pack by pack, split at large gaps and at the limit of a request."""
        order = np.lexsort((self._offset, self._source))
        order = order[self._source[order] >= 0]
        if not len(order):
            return []
        source, offset, stored = self._source[order], self._offset[order], self._stored[order]
        ends = offset + stored
        apart = np.ones(len(order), bool)
        apart[1:] = (source[1:] != source[:-1]) | (offset[1:] - ends[:-1] > _GAP_BYTES)
        stretch_start = offset[np.maximum.accumulate(np.where(apart, np.arange(len(order)), 0))]
        part = (ends - stretch_start) // _RUN_BYTES
        apart[1:] |= part[1:] != part[:-1]
        starts = np.flatnonzero(apart)
        return [
            Run(self._packs[int(source[a])], offset[a:b], stored[a:b], self._ids[order[a:b]])
            for a, b in zip(starts, [*starts[1:], len(order)], strict=True)
        ]
