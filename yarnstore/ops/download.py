"""Bringing planned chunks from a registry: ranges, connections, resuming and trying again.

What to bring is `ops/plan`'s.  Every chunk is decoded and hashed before it leaves this module; a server
without ranges is read pack by pack.
"""

from __future__ import annotations

import contextlib
import queue
import random
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from yarnstore.backends import Backend, Body, RetryPolicy
from yarnstore.backends.mirrors import open_avoiding, report_lie, sources_of
from yarnstore.core.bytequeue import ByteQueue
from yarnstore.core.codec import decode_entry, make_entry
from yarnstore.core.digest import Buffer
from yarnstore.core.index import find_ids
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, PACK_LIMIT_BYTES
from yarnstore.core.pack import Entry, EntryStream, parse_entry
from yarnstore.errors import (
    BackendError,
    CancelledError,
    IntegrityError,
    TransientError,
)
from yarnstore.ops.doubt import Doubt
from yarnstore.ops.plan import DELTAS, DownloadPlan, Place, RemotePack, Run
from yarnstore.ops.progress import Meter
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Drafts
from yarnstore.store.packs import PackWriter

# Verified entries waiting for the writer.
_QUEUE_ENTRIES = 16
_PARTIAL = 206
_ENTRY = "pack entry"
# Ranges that are wrong this often are done without.
_TRIES_OF_RANGES = 2


@dataclass(frozen=True)
class Brought:
    """How much came over the wire for a version, in bytes and in chunks; `deltas` of these came as
    differences, most of them from the version `delta_from`."""

    download_bytes: int = 0
    chunks: int = 0
    deltas: int = 0
    delta_from: str | None = None


def download(
    backend: Backend,
    plan: DownloadPlan,
    chunks: ChunkStore,
    writer: PackWriter,
    connections: int,
    meter: Meter,
    drafts: Drafts | None = None,
) -> set[RemotePack]:
    """Bring the planned chunks and write them; the bases of deltas are read from `chunks`.

    With `drafts`, what arrives is put into the version's files as well.

    Returns the delta packs that were missing or bad: what they were to bring has not come.  What was
    written before an error or an interrupt stays.

    Raises: BackendError, IntegrityError, StorageError.
    """
    transfer = _Transfer(backend, plan, chunks, drafts)
    transfer.start(min(max(1, connections), len(plan.runs)))
    try:
        for came in transfer.entries():
            writer.add(came.entry)
            meter.add(came.wire_bytes)
    finally:
        transfer.stop()
    return transfer.failed


@dataclass(frozen=True)
class _Came:
    """A verified entry as it will be stored, and what it weighed on the wire."""

    entry: Entry
    wire_bytes: int


class _Transfer:
    """Workers that fetch runs, and the queue of verified entries that they fill."""

    def __init__(
        self, backend: Backend, plan: DownloadPlan, chunks: ChunkStore, drafts: Drafts | None
    ) -> None:
        self._backend = backend
        self._drafts = drafts
        self._chunks = chunks
        self._depths = chunks.table.depths()
        self.failed: set[RemotePack] = set()
        self._policy = RetryPolicy()
        self._pending = deque(plan.runs)
        self._wanted = plan.wanted
        self._index_sources = plan.index_sources
        self._came: set[bytes] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        # Set once it is known whether the server answers ranges: the others wait for the first.
        self._probed = threading.Event()
        self._ranges = True
        self._out: queue.Queue[_Came | BaseException | None] = queue.Queue(_QUEUE_ENTRIES)
        self._threads: list[threading.Thread] = []

    @property
    def _several(self) -> bool:
        return len(sources_of(self._backend)) > 1

    def start(self, count: int) -> None:
        for n in range(count):
            thread = threading.Thread(target=self._work, args=(n == 0,), name="yarnstore-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def entries(self) -> Iterator[_Came]:
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
        deadline = 30  # a second and a half: an interrupt must not wait for a server that stalls
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
                if run.pack not in self.failed:
                    self._fetch_or_pass(run)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._put(error)
        finally:
            self._probed.set()
            self._put(None)

    def _fetch_or_pass(self, run: Run) -> None:
        try:
            self._fetch(run)
        except (BackendError, IntegrityError):
            # A delta pack is only a shortcut: what it does not bring, full packs do.
            if run.pack.folder != DELTAS:
                raise
            self.failed.add(run.pack)

    def _put(self, item: _Came | BaseException | None) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._out.put(item, timeout=0.1)
                return

    def _take(self) -> Run | None:
        with self._lock:
            return self._pending.popleft() if self._pending else None

    def _with_rest(self, pack: RemotePack, places: list[Place]) -> list[Place]:
        """These places and all that are pending of the same pack, which one answer will bring."""
        with self._lock:
            same = [other for other in self._pending if other.pack == pack]
            self._pending = deque(other for other in self._pending if other.pack != pack)
        return sorted([*places, *(place for other in same for place in other.places())])

    def _emit(self, entry: Entry) -> None:
        """Verify an entry and hand it on.  Raises: IntegrityError."""
        base = self._chunks.read_base(entry.base, depth=0) if entry.base else None
        data = decode_entry(entry, base)
        with self._lock:
            if entry.chunk_id in self._came:
                return
            self._came.add(entry.chunk_id)
        if self._drafts is not None:
            self._drafts.put(entry.chunk_id, data)
        kept = make_entry(entry.chunk_id, data) if self._too_deep(entry.base) else entry
        self._put(_Came(kept, entry.stored_bytes))

    def _is_wanted(self, chunk_id: bytes) -> bool:
        return chunk_id not in self._came and find_ids(self._wanted, np.array([chunk_id], "S32"))[0] >= 0

    def _too_deep(self, base: bytes) -> bool:
        row = self._chunks.row_of(base) if base else -1
        return row >= 0 and int(self._depths[row]) >= DELTA_DEPTH_LIMIT

    def _fetch(self, run: Run) -> None:
        if not len(run.ids):
            self._fetch_unindexed(run.pack)
            return
        todo = run.places() if self._ranges else self._with_rest(run.pack, run.places())
        failures = 0
        doubt = Doubt(self._backend, run.pack)
        while todo and not self._stopped.is_set():
            before = len(todo)
            try:
                todo, bad = self._fetch_once(run.pack, todo, doubt)
            except _CutShort as cut:
                todo = cut.left
                failures = 0 if len(todo) < before else failures
                failures += 1
                if cut.error.status == _PARTIAL and failures >= _TRIES_OF_RANGES:
                    self._ranges = False  # its ranges are not what was asked for: do without
                if failures >= self._policy.attempts:
                    raise (doubt.given_up() if doubt.avoid else cut.error) from None
                self._pause(failures, cut.error)
                continue
            except BackendError:
                if not doubt.avoid:
                    raise
                self._doubt_index(run.pack, doubt, todo, misplaced=False)
                return
            for fault in bad:
                doubt.add(fault.place.chunk_id, fault.error)
            todo = sorted([*todo, *(fault.place for fault in bad)])
            if doubt.of_all:
                self._doubt_index(run.pack, doubt, todo, misplaced=any(fault.misplaced for fault in bad))
                return
        doubt.settle()

    def _doubt_index(self, pack: RemotePack, doubt: Doubt, todo: list[Place], *, misplaced: bool) -> None:
        """Every mirror's pack is wrong where the index points: perhaps it is the index, which is only a
        cache of what the pack itself says.

        Raises: IntegrityError, if there is but one mirror and its entries are where the index says, or
        the whole pack is wrong as well.
        """
        if not self._several and not misplaced:
            raise doubt.given_up()
        self._with_rest(pack, [])
        try:
            self._fetch_unindexed(pack)
        except (BackendError, IntegrityError):
            raise doubt.given_up() from None
        if any(place.chunk_id not in self._came for place in todo):
            raise doubt.given_up()
        if source := self._index_sources.get(pack):
            report_lie(self._backend, source, f"{pack.key}: its index points at the wrong bytes")

    def _open(self, pack: RemotePack, start: int, length: int, doubt: Doubt) -> AbstractContextManager[Body]:
        if self._ranges:
            return open_avoiding(self._backend, pack.key, start=start, length=length, avoid=doubt.avoid)
        return open_avoiding(self._backend, pack.key, avoid=doubt.avoid)

    def _pause(self, failures: int, error: TransientError) -> None:
        delay = self._policy.delay_s(failures, error.retry_after_s, random.random)
        if self._stopped.wait(delay):
            raise CancelledError("stopped")

    def _fetch_once(
        self, pack: RemotePack, places: list[Place], doubt: Doubt
    ) -> tuple[list[Place], list[_Fault]]:
        """One request.  Returns the places that the answer did not cover, and those that came wrong."""
        start = places[0].offset
        length = places[-1].end - start
        left = list(places)
        bad: list[_Fault] = []
        opened = False
        try:
            with self._open(pack, start, length, doubt) as body:
                opened = True
                doubt.source = body.source or self._backend.url
                if body.start < start:
                    # The server ignores ranges: take all that is wanted of this pack.
                    self._ranges = False
                    left = self._with_rest(pack, left)
                self._probed.set()
                for place, data in _slices(body, left):
                    left = left[1:]
                    try:
                        entry = _entry_at(place, data)
                    except IntegrityError as error:
                        bad.append(_Fault(place, error, misplaced=True))
                    else:
                        try:
                            self._emit(entry)
                        except IntegrityError as error:
                            bad.append(_Fault(place, error, misplaced=False))
                    if self._stopped.is_set():
                        break
        except TransientError as error:
            raise _CutShort(error, sorted([*left, *(fault.place for fault in bad)])) from None
        except BackendError as error:
            # Of an answer that had begun: this mirror's, which says nothing of the others.
            if not opened or not self._several:
                raise
            if not left:
                return left, bad
            short = IntegrityError(pack.key, why=str(error.fields["why"]))
            return left[1:], [*bad, _Fault(left[0], short, misplaced=False)]
        if left and not bad and len(left) == len(places) and not self._stopped.is_set():
            why = "is shorter than its index says"
            if self._several:
                return left[1:], [_Fault(left[0], IntegrityError(pack.key, why=why), misplaced=True)]
            raise BackendError(f"{self._backend.url}/{pack.key}", why, status=200)
        return left, bad

    def _fetch_unindexed(self, pack: RemotePack) -> None:
        failures = 0
        doubt = Doubt(self._backend, pack)
        while True:
            stream = EntryStream()
            came_bytes = 0
            try:
                with open_avoiding(self._backend, pack.key, avoid=doubt.avoid) as body:
                    doubt.source = body.source or self._backend.url
                    self._probed.set()
                    for block in body:
                        came_bytes += len(block)
                        if came_bytes > PACK_LIMIT_BYTES:
                            raise BackendError(
                                f"{self._backend.url.rstrip('/')}/{pack.key}",
                                f"is larger than the {PACK_LIMIT_BYTES} bytes that a pack may have",
                            )
                        if self._stopped.is_set():
                            return
                        for _, entry in stream.feed(block):
                            if self._is_wanted(entry.chunk_id):
                                self._emit(entry)
                stream.finish()
            except TransientError as error:
                failures += 1
                if failures >= self._policy.attempts:
                    raise
                self._pause(failures, error)
            except IntegrityError as error:
                doubt.add(b"", error)
                if doubt.of_all:
                    raise doubt.given_up() from None
            else:
                doubt.settle()
                return


class _Fault(NamedTuple):
    """A wanted entry that came wrong; `misplaced` where what came is no entry, or another chunk's."""

    place: Place
    error: IntegrityError
    misplaced: bool


class _CutShort(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, error: TransientError, left: list[Place]) -> None:
        super().__init__(str(error))
        self.error = error
        self.left = left


def _slices(body: Body, places: list[Place]) -> Iterator[tuple[Place, Buffer]]:
    """The bytes of each place, in order, from an answer that begins at or before the first."""
    queue = ByteQueue()
    at = body.start  # offset of the first byte in the queue
    todo = iter(places)
    place = next(todo, None)
    for block in body:
        if place is None:
            continue  # reads to the end of the range, so that the connection can be used again
        queue.append(block)
        while place is not None:
            skipped = len(queue.take(min(max(0, place.offset - at), len(queue))))
            at += skipped
            if place.offset > at or len(queue) < place.stored:
                break
            at += place.stored
            yield place, queue.take(place.stored)
            place = next(todo, None)
        if place is None and body.start == 0:
            return


def _entry_at(place: Place, data: Buffer) -> Entry:
    entry = parse_entry(data)
    if entry.chunk_id != place.chunk_id:
        raise IntegrityError(
            _ENTRY,
            expected=f"blake3:{place.chunk_id.hex()}",
            got=f"blake3:{entry.chunk_id.hex()}",
        )
    return entry
