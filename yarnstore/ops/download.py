"""Bringing chunks from a registry's packs: which bytes to ask for, and asking for them.

Owns ranges, connections, resuming and trying again.  Every chunk is decoded and hashed before it
leaves this module; a server without ranges is read pack by pack.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from yarnstore.backends import Backend, Body, RetryPolicy
from yarnstore.core.codec import decode_entry
from yarnstore.core.digest import PackId
from yarnstore.core.index import Ids, PackIndex, id_bytes, parse_index
from yarnstore.core.limits import INDEX_LIMIT_BYTES, KIB, MIB
from yarnstore.core.pack import Entry, EntryStream, parse_entry
from yarnstore.errors import (
    BackendError,
    CancelledError,
    FormatError,
    IntegrityError,
    MissingKeyError,
    TransientError,
    YarnstoreError,
)
from yarnstore.ops.progress import Meter
from yarnstore.store.chunks import ChunkTable
from yarnstore.store.packs import PackWriter

# Wanted entries closer than this come in one request: reading the gap is cheaper than asking again.
_GAP_BYTES = 64 * KIB
# One request brings at most about this much, so that several connections share a pack.
_RUN_BYTES = 16 * MIB
# Verified entries waiting for the writer.
_QUEUE_ENTRIES = 16
# A chunk that is wrong this often from one place is given up.
_TRIES_PER_CHUNK = 2


class Place(NamedTuple):
    """A wanted chunk in a remote pack."""

    offset: int
    stored: int
    chunk_id: bytes

    @property
    def end(self) -> int:
        return self.offset + self.stored


@dataclass(frozen=True)
class Brought:
    """How much came over the wire for a version, in bytes and in chunks."""

    download_bytes: int = 0
    chunks: int = 0


@dataclass(frozen=True)
class _Run:
    """Places in one pack, ascending, to be asked for in one request.  No places: the whole pack,
    whose index could not be read."""

    pack: PackId
    places: list[Place]


@dataclass(frozen=True)
class DownloadPlan:
    """What to ask for.  `stored_bytes` is what the wanted entries weigh."""

    runs: list[_Run] = field(default_factory=list)
    wanted: frozenset[bytes] = frozenset()
    stored_bytes: int = 0


def pack_key(pack: PackId) -> str:
    """Where a pack is in a registry."""
    return f"packs/{pack.hex}.pack"


def plan_download(backend: Backend, packs: list[PackId], missing: Ids, connections: int) -> DownloadPlan:
    """Find the missing chunks (distinct ids) in the packs that a version names.

    An index that is not there or malformed is no obstacle: its pack is read through instead.

    Raises: BackendError; IntegrityError where the packs do not hold them all.
    """
    if not len(missing):
        return DownloadPlan()

    def read_index(pack: PackId) -> PackIndex | PackId:
        try:
            got = backend.get(f"packs/{pack.hex}.idx", limit_bytes=INDEX_LIMIT_BYTES)
            return parse_index(got.data, pack=pack) if got is not None else pack
        except (MissingKeyError, FormatError):
            return pack

    with ThreadPoolExecutor(max(1, connections)) as pool:
        found = list(pool.map(read_index, packs))
    table = ChunkTable([item for item in found if isinstance(item, PackIndex)])
    unread = [item for item in found if isinstance(item, PackId)]
    rows = table.find(missing)
    if (rows < 0).any() and not unread:
        absent = [id_bytes(missing, int(n)).hex()[:12] for n in (rows < 0).nonzero()[0][:3]]
        raise IntegrityError(
            f"{backend.url}",
            why=f"has packs that lack {int((rows < 0).sum())} of the version's chunks ({', '.join(absent)}…)",
            hint="the publisher must publish it again",
        )
    by_pack: dict[int, list[Place]] = {}
    for n, row in enumerate(rows):
        if row >= 0:
            place = Place(int(table.offsets[row]), int(table.stored[row]), id_bytes(missing, n))
            by_pack.setdefault(int(table.pack[row]), []).append(place)
    runs = []
    for pack, places in sorted(by_pack.items()):
        runs += [_Run(table.packs[pack], run) for run in _cut_runs(sorted(places))]
    if (rows < 0).any():
        runs += [_Run(pack, []) for pack in unread]
    stored = sum(place.stored for run in runs for place in run.places)
    return DownloadPlan(runs, frozenset(id_bytes(missing, n) for n in range(len(missing))), stored)


def _cut_runs(places: list[Place]) -> Iterator[list[Place]]:
    run: list[Place] = []
    for place in places:
        if run and (place.offset - run[-1].end > _GAP_BYTES or place.end - run[0].offset > _RUN_BYTES):
            yield run
            run = []
        run.append(place)
    if run:
        yield run


def download(backend: Backend, plan: DownloadPlan, writer: PackWriter, connections: int, meter: Meter) -> int:
    """Bring the planned chunks and write them; returns how many were written.

    What was written before an error or an interrupt stays.

    Raises: BackendError, IntegrityError, StorageError.
    """
    transfer = _Transfer(backend, plan)
    transfer.start(min(max(1, connections), len(plan.runs)))
    try:
        for entry in transfer.entries():
            writer.add(entry)
            meter.add(entry.stored_bytes)
    finally:
        transfer.stop()
    return writer.chunks


class _Transfer:
    """Workers that fetch runs, and the queue of verified entries that they fill."""

    def __init__(self, backend: Backend, plan: DownloadPlan) -> None:
        self._backend = backend
        self._policy = RetryPolicy()
        self._pending = deque(plan.runs)
        self._wanted = set(plan.wanted)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        # Set once it is known whether the server answers ranges: the others wait for the first.
        self._probed = threading.Event()
        self._ranges = True
        self._out: queue.Queue[Entry | BaseException | None] = queue.Queue(_QUEUE_ENTRIES)
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        for n in range(count):
            thread = threading.Thread(target=self._work, args=(n == 0,), name="yarnstore-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def entries(self) -> Iterator[Entry]:
        """Verified entries as they come.  Raises: the first worker's error."""
        running = len(self._threads)
        while running:
            item = self._out.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def stop(self) -> None:
        self._stopped.set()
        self._probed.set()
        deadline = 50
        while deadline and any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._out.get(timeout=0.05)
            deadline -= 1

    # --- in the workers ------------------------------------------------------------------------

    def _work(self, first: bool) -> None:
        try:
            if not first:
                self._probed.wait()
            while not self._stopped.is_set() and (run := self._take()) is not None:
                self._fetch(run)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._put(error)
        finally:
            self._probed.set()
            self._put(None)

    def _put(self, item: Entry | BaseException | None) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._out.put(item, timeout=0.1)
                return

    def _take(self) -> _Run | None:
        with self._lock:
            if not self._pending:
                return None
            run = self._pending.popleft()
        return run if self._ranges or not run.places else _Run(run.pack, self._claim_rest(run))

    def _claim_rest(self, run: _Run) -> list[Place]:
        """This run's places and all that are pending of the same pack."""
        with self._lock:
            same = [other for other in self._pending if other.pack == run.pack]
            self._pending = deque(other for other in self._pending if other.pack != run.pack)
        return sorted([*run.places, *(place for other in same for place in other.places)])

    def _emit(self, entry: Entry) -> None:
        with self._lock:
            if entry.chunk_id not in self._wanted:
                return
            self._wanted.discard(entry.chunk_id)
        self._put(entry)

    def _fetch(self, run: _Run) -> None:
        if not run.places:
            self._fetch_unindexed(run.pack)
            return
        todo = run.places
        failures = 0
        wrong: dict[bytes, int] = {}
        while todo and not self._stopped.is_set():
            before = len(todo)
            try:
                todo, bad = self._fetch_once(run.pack, todo)
            except _CutShort as cut:
                todo = cut.left
                failures = 0 if len(todo) < before else failures
                failures += 1
                if failures >= self._policy.attempts:
                    raise cut.error from None
                self._pause(failures, cut.error)
                continue
            for place, fault in bad:
                wrong[place.chunk_id] = wrong.get(place.chunk_id, 0) + 1
                if wrong[place.chunk_id] >= _TRIES_PER_CHUNK:
                    raise _given_up(self._backend, run.pack, fault)
            todo = sorted([*todo, *(place for place, _ in bad)])

    def _pause(self, failures: int, error: TransientError) -> None:
        delay = self._policy.delay_s(failures, error.retry_after_s, random.random)
        if self._stopped.wait(delay):
            raise CancelledError("stopped")

    def _fetch_once(
        self, pack: PackId, places: list[Place]
    ) -> tuple[list[Place], list[tuple[Place, YarnstoreError]]]:
        """One request.  Returns the places that the answer did not cover, and those that came wrong."""
        start = places[0].offset
        length = places[-1].end - start
        left = list(places)
        bad: list[tuple[Place, YarnstoreError]] = []
        try:
            with self._backend.open(
                pack_key(pack), start=start, length=length if self._ranges else None
            ) as body:
                if body.start < start:
                    # The server ignores ranges: take all that is wanted of this pack.
                    self._ranges = False
                    left = self._claim_rest(_Run(pack, left))
                self._probed.set()
                for place, data in _slices(body, left):
                    left = left[1:]
                    try:
                        self._emit(_verified_entry(place, data))
                    except IntegrityError as error:
                        bad.append((place, error))
                    if self._stopped.is_set():
                        break
        except TransientError as error:
            raise _CutShort(error, sorted([*left, *(place for place, _ in bad)])) from None
        if left and not bad and len(left) == len(places) and not self._stopped.is_set():
            raise BackendError(
                f"{self._backend.url}/{pack_key(pack)}", "is shorter than its index says", status=200
            )
        return left, bad

    def _fetch_unindexed(self, pack: PackId) -> None:
        failures = 0
        while True:
            stream = EntryStream()
            try:
                with self._backend.open(pack_key(pack)) as body:
                    self._probed.set()
                    for block in body:
                        for _, entry in stream.feed(block):
                            if entry.chunk_id in self._wanted:
                                decode_entry(entry)
                                self._emit(entry)
                stream.finish()
            except TransientError as error:
                failures += 1
                if failures >= self._policy.attempts:
                    raise
                self._pause(failures, error)
            except IntegrityError as error:
                failures += 1
                if failures >= _TRIES_PER_CHUNK:
                    raise _given_up(self._backend, pack, error) from None
            else:
                return


class _CutShort(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, error: TransientError, left: list[Place]) -> None:
        super().__init__(str(error))
        self.error = error
        self.left = left


def _slices(body: Body, places: list[Place]) -> Iterator[tuple[Place, bytes]]:
    """The bytes of each place, in order, from an answer that begins at or before the first."""
    buffer = bytearray()
    at = body.start  # offset of buffer[0]
    todo = iter(places)
    place = next(todo, None)
    for block in body:
        if place is None:
            continue  # reads to the end of the range, so that the connection can be used again
        buffer += block
        while place is not None:
            if place.offset > at:
                skip = min(place.offset - at, len(buffer))
                del buffer[:skip]
                at += skip
            if place.offset > at or len(buffer) < place.stored:
                break
            data = bytes(memoryview(buffer)[: place.stored])
            del buffer[: place.stored]
            at += place.stored
            yield place, data
            place = next(todo, None)
        if place is None and body.start == 0:
            return


def _verified_entry(place: Place, data: bytes) -> Entry:
    entry = parse_entry(data)
    if entry.chunk_id != place.chunk_id:
        raise IntegrityError(
            "pack entry",
            expected=f"blake3:{place.chunk_id.hex()}",
            got=f"blake3:{entry.chunk_id.hex()}",
        )
    decode_entry(entry)
    return entry


def _given_up(backend: Backend, pack: PackId, fault: YarnstoreError) -> IntegrityError:
    return IntegrityError(
        f"{pack_key(pack)}",
        expected=str(fault.fields.get("expected", "")),
        got=str(fault.fields.get("got", "")),
        why=f"is damaged: {fault.fields.get('what', 'chunk')} {fault.fields.get('why', '')}".rstrip(),
        source=f"{backend.url} (twice)",
        hint="nothing was changed; the publisher must mend the registry",
    )
