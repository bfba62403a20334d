"""Download the chunks of a plan: ranges, connections, resuming and retries.

Leaves the choice of what to download to `ops/fetching/plan`.  Decodes and hashes every chunk before it
leaves this module; a server without ranges is read pack by pack.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from yarnstore.backends import Body, SourceSet
from yarnstore.backends.retry import Tries
from yarnstore.core.codec import decode_entry, make_entry
from yarnstore.core.digest import Buffer
from yarnstore.core.index import find_ids
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, PACK_LIMIT_BYTES
from yarnstore.core.pack import Entry, EntryStream, parse_entry
from yarnstore.errors import (
    BackendError,
    IntegrityError,
    TransientError,
)
from yarnstore.ops.fetching.begun import Begun, Slices
from yarnstore.ops.fetching.doubt import SourceFaults
from yarnstore.ops.fetching.plan import DELTAS, DownloadPlan, PackRange, RemotePack, Run
from yarnstore.progress import Meter
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Drafts
from yarnstore.store.packs import PackWriter

# Verified entries waiting for the writer.
_QUEUE_ENTRIES = 16
_ENTRY = "pack entry"


@dataclass(frozen=True)
class TransferStats:
    """How much came over the wire for a version, in bytes and in chunks; `deltas` of these came as
    differences, most of them from the version `delta_from`."""

    download_bytes: int = 0
    chunks: int = 0
    deltas: int = 0
    delta_from: str | None = None


def download(
    backend: SourceSet,
    plan: DownloadPlan,
    chunks: ChunkStore,
    writer: PackWriter,
    connections: int,
    meter: Meter,
    begun: Begun,
    drafts: Drafts | None = None,
) -> set[RemotePack]:
    """Bring the planned chunks and write them; the bases of deltas are read from `chunks`.

    What came of an entry before an answer broke off is kept in `begun`.  With `drafts`, what arrives is
    put into the version's files as well.

    Returns the delta packs that were missing or bad: what they were to bring has not come.  What was
    written before an error or an interrupt stays.

    Raises: BackendError, IntegrityError, StorageError.
    """
    transfer = _Transfer(backend, plan, chunks, begun, drafts)
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
        self,
        backend: SourceSet,
        plan: DownloadPlan,
        chunks: ChunkStore,
        begun: Begun,
        drafts: Drafts | None,
    ) -> None:
        self._backend = backend
        self._begun = begun
        # Entries put together from parts of several mirrors or runs that were wrong.
        self._mixed: set[tuple[RemotePack, PackRange]] = set()
        self._drafts = drafts
        self._chunks = chunks
        self._depths = chunks.table.depths()
        self.failed: set[RemotePack] = set()
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
        return len(self._backend.sources) > 1

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
        self._begun.close()

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
            self._stopped.set()  # before the others begin: what one could not get is not asked for again
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

    def _with_rest(self, pack: RemotePack, places: list[PackRange]) -> list[PackRange]:
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
        tries = self._backend.tries(is_stopped=self._stopped.is_set)
        doubt = SourceFaults(self._backend, run.pack)
        while todo and not self._stopped.is_set():
            before = self._bytes_left(run.pack, todo)
            cut: TransientError | None = None
            try:
                todo, bad = self._fetch_once(run.pack, todo, doubt, tries)
            except _CutShort as short:
                cut, todo, bad = short.error, short.left, short.bad
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
            if cut is not None:
                self._resume(tries, doubt, cut, before - self._bytes_left(run.pack, todo))
        doubt.settle()

    def _doubt_index(
        self, pack: RemotePack, doubt: SourceFaults, todo: list[PackRange], *, misplaced: bool
    ) -> None:
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
            self._backend.report_bad_bytes(source, f"{pack.key}: its index gives wrong offsets")

    def _open(
        self, pack: RemotePack, start: int, length: int, doubt: SourceFaults, tries: Tries
    ) -> AbstractContextManager[Body]:
        if self._ranges:
            return self._backend.open(pack.key, start=start, length=length, avoid=doubt.avoid, tries=tries)
        return self._backend.open(pack.key, avoid=doubt.avoid, tries=tries)

    def _bytes_left(self, pack: RemotePack, places: list[PackRange]) -> int:
        return sum(place.stored - self._begun.size(pack, place) for place in places)

    def _resume(self, tries: Tries, doubt: SourceFaults, error: TransientError, gained_bytes: int) -> None:
        """Wait until the next request.  Raises: the error, where no source may be asked again."""
        try:
            self._backend.resume(tries, error, gained_bytes)
        except TransientError:
            if doubt.avoid:
                raise doubt.given_up() from None
            raise

    def _next_stretch(self, pack: RemotePack, places: list[PackRange]) -> tuple[list[PackRange], bytes]:
        """The places to ask for in one request, and what there is of the first.

        An entry that has begun is the first of a request, which begins behind what there is of it.
        """
        if not self._ranges:
            return places, b""
        size = next((n for n in range(1, len(places)) if self._begun.size(pack, places[n])), len(places))
        return places[:size], self._begun.read(pack, places[0])

    def _fetch_once(
        self, pack: RemotePack, places: list[PackRange], doubt: SourceFaults, tries: Tries
    ) -> tuple[list[PackRange], list[_Fault]]:
        """One request.  Returns the places that have not come, and those that came wrong."""
        asked, begun = self._next_stretch(pack, places)
        later = places[len(asked) :]
        start = asked[0].offset + len(begun)
        left = list(asked)
        bad: list[_Fault] = []
        opened = came = False
        try:
            with self._open(pack, start, asked[-1].end - start, doubt, tries) as body:
                opened = True
                doubt.source = body.source or self._backend.url
                if body.ignores_ranges:
                    # Take all that is wanted of this pack.
                    self._ranges = False
                    left, later, begun = self._with_rest(pack, [*left, *later]), [], b""
                self._probed.set()
                slices = Slices(body, left, begun)
                with self._begun.watching(pack, slices, doubt.source):
                    for place, data in slices:
                        left, came = left[1:], True
                        fault = self._take_in(place, data)
                        if not self._is_settled(pack, place, fault, doubt):
                            later.append(place)
                        elif fault is not None:
                            bad.append(fault)
                        if self._stopped.is_set():
                            break
        except TransientError as error:
            raise _CutShort(error, sorted([*left, *later]), bad) from None
        except BackendError as error:
            # Of an answer that had begun: this mirror's, which says nothing of the others.
            if not opened or not self._several:
                raise
            if not left:
                return sorted(later), bad
            short = IntegrityError(pack.key, why=str(error.fields["why"]))
            return sorted([*left[1:], *later]), [*bad, _Fault(left[0], short, misplaced=False)]
        if left and not came and not self._stopped.is_set():
            self._begun.drop(pack, left[0])
            why = "is shorter than its index says"
            if self._several:
                fault = _Fault(left[0], IntegrityError(pack.key, why=why), misplaced=True)
                return sorted([*left[1:], *later]), [fault]
            raise BackendError(f"{self._backend.url}/{pack.key}", why, status=200)
        return sorted([*left, *later]), bad

    def _take_in(self, place: PackRange, data: Buffer) -> _Fault | None:
        """Verify an entry and hand it on, or say what is wrong with it."""
        try:
            entry = _entry_at(place, data)
        except IntegrityError as error:
            return _Fault(place, error, misplaced=True)
        try:
            self._emit(entry)
        except IntegrityError as error:
            return _Fault(place, error, misplaced=False)
        return None

    def _is_settled(
        self, pack: RemotePack, place: PackRange, fault: _Fault | None, doubt: SourceFaults
    ) -> bool:
        """Forget what was kept of an entry that is whole.  False where it is to come again, and nobody is
        to blame: it is wrong, and parts of it are of another run or mirror."""
        sources = self._begun.drop(pack, place)
        if fault is None or not sources - {doubt.source} or (pack, place) in self._mixed:
            return True
        self._mixed.add((pack, place))
        return False

    def _fetch_unindexed(self, pack: RemotePack) -> None:
        tries = self._backend.tries(is_stopped=self._stopped.is_set)
        doubt = SourceFaults(self._backend, pack)
        stream = EntryStream()
        came_bytes = 0
        sources: set[str] = set()
        mixed = False
        while True:
            before = came_bytes
            try:
                with self._backend.open(pack.key, start=came_bytes, avoid=doubt.avoid, tries=tries) as body:
                    doubt.source = body.source or self._backend.url
                    self._probed.set()
                    if body.start < came_bytes:  # ranges are ignored
                        stream, came_bytes, sources = EntryStream(), 0, set()
                    sources.add(doubt.source)
                    for block in body:
                        came_bytes += len(block)
                        if came_bytes > PACK_LIMIT_BYTES:
                            raise BackendError(
                                f"{self._backend.url.rstrip('/')}/{pack.key}",
                                f"is larger than the {PACK_LIMIT_BYTES} bytes allowed for a pack",
                            )
                        if self._stopped.is_set():
                            return
                        for _, entry in stream.feed(block):
                            if self._is_wanted(entry.chunk_id):
                                self._emit(entry)
                stream.finish()
            except TransientError as error:
                self._resume(tries, doubt, error, came_bytes - before)
            except IntegrityError as error:
                stream, came_bytes = EntryStream(), 0
                if len(sources) > 1 and not mixed:
                    mixed = True  # nobody knows whose part is wrong
                else:
                    doubt.add(b"", error)
                sources = set()
                if doubt.of_all:
                    raise doubt.given_up() from None
            else:
                doubt.settle()
                return


class _Fault(NamedTuple):
    """A wanted entry that came wrong; `misplaced` where what came is no entry, or another chunk's."""

    place: PackRange
    error: IntegrityError
    misplaced: bool


class _CutShort(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, error: TransientError, left: list[PackRange], bad: list[_Fault]) -> None:
        super().__init__(str(error))
        self.error = error
        self.left = left
        self.bad = bad


def _entry_at(place: PackRange, data: Buffer) -> Entry:
    entry = parse_entry(data)
    if entry.chunk_id != place.chunk_id:
        raise IntegrityError(
            _ENTRY,
            expected=f"blake3:{place.chunk_id.hex()}",
            got=f"blake3:{entry.chunk_id.hex()}",
        )
    return entry
