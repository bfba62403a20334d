"""Plans of downloads: the smallest byte ranges of a registry's packs with the missing chunks.

A chunk can be read whole from a full pack, as a delta against a chunk in the store, or as a delta against a
chunk that other deltas bring; what is smallest is used.  Only indexes are downloaded here.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.backends import SourceSet
from yarnstore.backends.sources import Kept
from yarnstore.core.index import NO_IDS, Ids, Ints, PackIndex, distinct_ids, find_ids, id_bytes, parse_index
from yarnstore.core.limits import INDEX_LIMIT_BYTES, KIB, VERSION_LIMIT_PACKS
from yarnstore.errors import BackendError, FormatError, IntegrityError, TransientError
from yarnstore.ops.fetching.cheapest import Best, Chains, Relay
from yarnstore.ops.fetching.ways import PACKS, DeltaPack, PackOffer, RemotePack, Run, Way
from yarnstore.store.chunks import ChunkStore


@dataclass(frozen=True)
class DownloadPlan:
    """The requests of a download.

    `runs` bring wanted chunks directly, `relays` bring them over several deltas.  `stored_bytes` is the size
    of all these entries, `delta_chunks` how many wanted chunks come as deltas, and `delta_from` the version
    in the store that most of them are built on.  `index_sources` are the mirrors that sent the packs'
    indexes.  `unplaced` (ascending) are chunks in packs whose indexes could not be read: their size is not in
    `stored_bytes`.  `mapped` are the packs whose chunks are stored whole.
    """

    runs: list[Run]
    wanted: Ids
    relays: list[Relay] = field(default_factory=list)
    stored_bytes: int = 0
    delta_chunks: int = 0
    delta_from: str | None = None
    index_sources: Mapping[RemotePack, str] = field(default_factory=dict)
    unplaced: Ids = field(default_factory=lambda: np.empty(0, "S32"))
    mapped: frozenset[RemotePack] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to request."""
        return not self.runs and not self.relays

    def most_bytes(self, ids: Ids, lengths: Ints) -> int:
        """What is downloaded at the most: of those `unplaced` no more than their chunks, given all chunks'
        `ids` (ascending) and `lengths`."""
        return self.stored_bytes + int(lengths[find_ids(ids, self.unplaced)].sum())

    def disk_bytes(self, ids: Ids, lengths: Ints, for_packs: Callable[[Ids], NDArray[np.bool_]]) -> int:
        """What packs in the store need at the most for the chunks of which `for_packs` is true.

        A chunk that came over several deltas is stored whole, since the store lacks what the last one is
        against; so is a mapped delta.
        """
        whole = [self.unplaced, *(relay.wanted for relay in self.relays)]
        whole += [np.sort(run.ids) for run in self.runs if run.pack in self.mapped]
        direct = [run for run in self.runs if run.pack not in self.mapped]
        stored = sum(int(run.stored[for_packs(run.ids)].sum()) for run in direct)
        return stored + sum(int(lengths[find_ids(ids, some[for_packs(some)])].sum()) for some in whole)


NOTHING = DownloadPlan([], np.empty(0, "S32"))


# How many indexes of packs of this size, 200 KB each, are held for each connection.
_READ_AHEAD = 4
_SMALL_INDEX_ROWS = 4096

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
    way: Way = (),
    kept: KeptAt | None = None,
) -> DownloadPlan:
    """Find the missing chunks (distinct ids, ascending) in the packs that a version names.

    `way` are the delta packs to read; `kept` is where the beginnings of indexes are kept.  A full
    pack whose index is missing or malformed is no obstacle: it is read through; such a delta pack is
    passed over.

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
    deltas = {delta.pack: delta for step in way for delta in step}
    step_of = {delta.pack: n for n, step in enumerate(way) for delta in step}
    best = Best(missing)
    chains = Chains(best, chunks)
    unread: list[RemotePack] = []
    index_sources: dict[RemotePack, str] = {}
    steps_back = 0
    wanted = [(pack, INDEX_LIMIT_BYTES) for pack in full]
    wanted += [(pack, _delta_index_limit(delta)) for pack, delta in deltas.items()]
    for pack, read in _iter_indexes(backend, wanted, connections, kept):
        while steps_back < step_of.get(pack, 0):
            chains.step()
            steps_back += 1
        if read is not None:
            index, index_sources[pack] = read
            if pack.folder == PACKS:
                best.offer(pack, index)
            else:
                chains.offer(pack, index)
        elif pack.folder == PACKS:
            unread.append(pack)
    if len(best.absent()) and not unread:
        # A mirror's index may be valid and incomplete, so the others are queried.
        _offer_of_others(backend, best, full, index_sources)
    relays = chains.relays(connections)
    absent = best.absent()
    relayed = distinct_ids(np.concatenate([NO_IDS, *(relay.wanted for relay in relays)]))
    absent = absent[find_ids(relayed, absent) < 0]
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
        if run.pack in deltas:
            base = deltas[run.pack].version
            chunks_from[base] = chunks_from.get(base, 0) + len(run.ids)
    for relay in relays:
        starts = [deltas[run.pack].version for run in relay.stages[0] if run.pack in deltas]
        for base in starts[:1]:
            chunks_from[base] = chunks_from.get(base, 0) + len(relay.wanted)
    if len(absent):
        nothing = np.empty(0, np.int64)
        runs += [Run(pack, nothing, nothing, absent[:0]) for pack in unread]
    return DownloadPlan(
        runs=runs,
        wanted=missing,
        relays=relays,
        stored_bytes=sum(int(run.stored.sum()) for run in runs) + sum(relay.stored_bytes for relay in relays),
        delta_chunks=sum(chunks_from.values()),
        delta_from=max(chunks_from, key=lambda base: chunks_from[base]) if chunks_from else None,
        index_sources=index_sources,
        unplaced=absent,
        mapped=frozenset(pack for pack, delta in deltas.items() if delta.mapped),
    )


def _delta_index_limit(delta: DeltaPack) -> int:
    """Return how large the index of a delta pack can be: it has less of each entry than the pack."""
    return min(INDEX_LIMIT_BYTES, 2 * delta.size_bytes + 4 * KIB)


def _iter_indexes(
    backend: SourceSet, packs: Sequence[tuple[RemotePack, int]], connections: int, kept: KeptAt | None
) -> Iterator[tuple[RemotePack, _Read]]:
    """Each pack with its index, of so many bytes at most, in order.

    No more than `connections` are read at a time, and no more are held, except after a small one: then some
    are read ahead, so that threads seldom wait for each other.
    """
    jobs: queue.SimpleQueue[tuple[RemotePack, int, Future[_Read]] | None] = queue.SimpleQueue()

    def work() -> None:
        while (job := jobs.get()) is not None:
            pack, limit_bytes, future = job
            try:
                future.set_result(_read_index(backend, pack, limit_bytes, kept=kept))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                future.set_exception(error)

    threads = min(max(1, connections), len(packs))
    for _ in range(threads):
        # Daemon threads, unlike those of a pool, so that an interrupt does not wait for a stalled server.
        threading.Thread(target=work, name="yarnstore-index", daemon=True).start()
    running: deque[tuple[RemotePack, Future[_Read]]] = deque()
    most = threads
    try:
        for pack, limit_bytes in packs:
            while len(running) >= most:
                first, future = running.popleft()
                read = future.result()
                is_small = read is None or len(read[0]) <= _SMALL_INDEX_ROWS
                most = threads * (_READ_AHEAD if is_small else 1)
                yield first, read
            future = Future[_Read]()
            running.append((pack, future))
            jobs.put((pack, limit_bytes, future))
        while running:
            first, future = running.popleft()
            yield first, future.result()
    finally:
        for _ in range(threads):
            jobs.put(None)


def _read_index(
    backend: SourceSet, pack: RemotePack, limit_bytes: int, *, kept: KeptAt | None = None
) -> _Read:
    """Return a pack's index and the mirror that sent it; None if no source has a readable one, unless a full
    pack's may be available later.

    Raises: TransientError.
    """
    key = pack.index_key
    try:
        return backend.get_checked(
            key,
            lambda data: parse_index(data, pack=pack.pack),
            limit_bytes=limit_bytes,
            kept=kept(key, limit_bytes) if kept is not None else None,
        )
    except (BackendError, FormatError) as error:
        if pack.folder == PACKS and isinstance(error, TransientError):
            raise
        return None


def _offer_of_others(
    backend: SourceSet, best: Best, packs: list[RemotePack], index_sources: dict[RemotePack, str]
) -> None:
    for pack in packs:

        def take(index: PackIndex, pack: RemotePack = pack) -> int:
            best.offer(pack, index)
            return len(best.absent())

        index_sources[pack] = backend.compare(
            pack.index_key,
            lambda data, pack=pack: parse_index(data, pack=pack.pack),  # type: ignore[misc]
            take,
            missing=len(best.absent()),
            limit_bytes=INDEX_LIMIT_BYTES,
            source=index_sources[pack],
        )
