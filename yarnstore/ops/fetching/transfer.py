"""Download the chunks of a plan: the queue of requests, threads, decoding and writing.

`ops/fetching/plan` chooses what to download; `backends/sources` owns tries, sources and their faults. Every
chunk is decoded and hashed here; from a server without ranges, whole packs are read.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from yarnstore.backends import Body, SourceSet
from yarnstore.backends.sources import BadPart
from yarnstore.core.codec import decode_entry, make_entry
from yarnstore.core.digest import Buffer
from yarnstore.core.index import find_ids
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, PACK_LIMIT_BYTES
from yarnstore.core.pack import Entry, EntryStream, parse_entry
from yarnstore.errors import BackendError, IntegrityError
from yarnstore.ops.fetching.begun import Begun, Slices
from yarnstore.ops.fetching.plan import DELTAS, DownloadPlan, PackRange, RemotePack, Run
from yarnstore.progress import Meter
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Drafts
from yarnstore.store.packs import PackWriter

# Verified entries waiting for the writer.
_QUEUE_ENTRIES = 16
_ENTRY = "pack entry"
_HINT = "nothing was changed; the publisher must fix the registry"


@dataclass(frozen=True)
class TransferStats:
    """The downloaded bytes and chunks of a version.

    `deltas` of the chunks were deltas, most of them against the version `delta_from`.  In addition,
    `alternate_bytes` of chunks were copied from alternates.
    """

    download_bytes: int = 0
    chunks: int = 0
    deltas: int = 0
    delta_from: str | None = None
    alternate_bytes: int = 0


def download(
    backend: SourceSet,
    plan: DownloadPlan,
    chunks: ChunkStore,
    writer: PackWriter,
    connections: int,
    meter: Meter,
    begun: Begun,
    drafts: Drafts | None = None,
) -> tuple[int, set[RemotePack]]:
    """Download the planned chunks and write them; the bases of deltas are read from `chunks`.

    Parts of entries from interrupted responses are kept in `begun`.  With `drafts`, chunks are written into
    the version's files, and into packs only if needed.

    Returns the number of downloaded chunks, and the delta packs that were missing or bad, whose chunks are
    still missing.  Chunks written before an error or an interrupt are kept.

    Raises: BackendError, IntegrityError, StorageError.
    """
    transfer = _Transfer(backend, plan, chunks, begun, drafts)
    transfer.start(min(max(1, connections), len(plan.runs)))
    count = 0
    try:
        for came in transfer.entries():
            count += 1
            if came.entry is not None:
                writer.add(came.entry)
            meter.add(came.wire_bytes)
    finally:
        transfer.stop()
    return count, transfer.failed


@dataclass(frozen=True)
class _Came:
    """A verified entry to store, if it is for a pack, and its downloaded size."""

    entry: Entry | None
    wire_bytes: int


class _Transfer:
    """Workers that download runs, and the queue of verified entries that they fill."""

    def __init__(
        self,
        backend: SourceSet,
        plan: DownloadPlan,
        chunks: ChunkStore,
        begun: Begun,
        drafts: Drafts | None,
    ) -> None:
        self._backend = backend
        self.url = backend.url.rstrip("/")
        self.begun = begun
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
        # Set once it is known whether the server supports ranges; the other workers wait for that.
        self.probed = threading.Event()
        self.ranges = True
        self._out: queue.Queue[_Came | BaseException | None] = queue.Queue(_QUEUE_ENTRIES)
        self._threads: list[threading.Thread] = []

    @property
    def has_mirrors(self) -> bool:
        """Whether there are several sources."""
        return len(self._backend.sources) > 1

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is wanted."""
        return self._stopped.is_set()

    def start(self, count: int) -> None:
        for n in range(count):
            thread = threading.Thread(target=self._work, args=(n == 0,), name="yarnstore-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()

    def entries(self) -> Iterator[_Came]:
        """Yield verified entries as they arrive.  Raises: the first worker's error."""
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
        self.probed.set()
        deadline = 30  # with a timeout, since an interrupt must not wait for a stalled server
        while deadline and any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._out.get(timeout=0.05)
            deadline -= 1
        self.begun.close()

    # --- in the workers ------------------------------------------------------------------------

    def _work(self, first: bool) -> None:
        try:
            if not first:
                self.probed.wait()
            while not self._stopped.is_set() and (run := self._take()) is not None:
                if run.pack not in self.failed:
                    self._fetch_or_pass(run)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._put(error)
            self._stopped.set()  # before the others begin, so that unavailable packs are not requested again
        finally:
            self.probed.set()
            self._put(None)

    def _fetch_or_pass(self, run: Run) -> None:
        try:
            self._fetch(run)
        except (BackendError, IntegrityError):
            # A delta pack is optional: full packs have its chunks too.
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

    def with_rest(self, pack: RemotePack, places: list[PackRange]) -> list[PackRange]:
        """Return these entries and all pending ones of the same pack, which one response contains."""
        with self._lock:
            same = [other for other in self._pending if other.pack == pack]
            self._pending = deque(other for other in self._pending if other.pack != pack)
        return sorted([*places, *(place for other in same for place in other.places())])

    def emit(self, entry: Entry) -> None:
        """Verify an entry and hand it on.  Raises: IntegrityError."""
        base = self._chunks.read_base(entry.base, depth=0) if entry.base else None
        data = decode_entry(entry, base)
        with self._lock:
            if entry.chunk_id in self._came:
                return
            self._came.add(entry.chunk_id)
        kept: Entry | None = entry
        if self._drafts is not None and self._drafts.put(entry.chunk_id, data):
            kept = None
        elif self._too_deep(entry.base):
            kept = make_entry(entry.chunk_id, data)
        self._put(_Came(kept, entry.stored_bytes))

    def lacks(self, chunk_id: bytes) -> bool:
        """Whether a chunk has not arrived yet."""
        return chunk_id not in self._came

    def wants(self, chunk_id: bytes) -> bool:
        """Whether a chunk is wanted and has not arrived yet."""
        return self.lacks(chunk_id) and find_ids(self._wanted, np.array([chunk_id], "S32"))[0] >= 0

    def _too_deep(self, base: bytes) -> bool:
        row = self._chunks.row_of(base) if base else -1
        return row >= 0 and int(self._depths[row]) >= DELTA_DEPTH_LIMIT

    def _fetch(self, run: Run) -> None:
        pack = run.pack
        if not len(run.ids):
            self._backend.stream(pack.key, _WholePack(self, pack), is_stopped=self._stopped.is_set)
            return

        def whole() -> _WholePack:
            self.with_rest(pack, [])
            return _WholePack(self, pack)

        places = run.places() if self.ranges else self.with_rest(pack, run.places())
        self._backend.stream(
            pack.key,
            _PackRanges(self, pack, places),
            without_index=whole,
            index_source=self._index_sources.get(pack, ""),
            is_stopped=self._stopped.is_set,
        )


class _PackRanges:
    """The entries of a pack that its index names, as a `Wanted`."""

    def __init__(self, transfer: _Transfer, pack: RemotePack, places: list[PackRange]) -> None:
        self._transfer = transfer
        self._pack = pack
        self._todo = dict.fromkeys(places)
        # The entries of the next response, and the bytes of the first that have arrived already.
        self._asked: list[PackRange] = []
        self._begun = b""

    @property
    def came_bytes(self) -> int:
        """See `Wanted`; negative, since it counts missing bytes."""
        begun = self._transfer.begun
        return sum(begun.size(self._pack, place) - place.stored for place in self._todo)

    def next_range(self) -> tuple[int, int | None] | None:
        """See `Wanted`.  A partly downloaded entry is the first of a request, for the rest of it."""
        begun = self._transfer.begun
        self._todo = dict.fromkeys(
            sorted(place for place in self._todo if self._transfer.lacks(place.chunk_id))
        )
        self._asked, self._begun = list(self._todo), b""
        if not self._asked:
            return None
        if not self._transfer.ranges:
            return 0, None
        later = (n for n in range(1, len(self._asked)) if begun.size(self._pack, self._asked[n]))
        self._asked = self._asked[: next(later, None)]
        first = self._asked[0]
        self._begun = begun.read(self._pack, first)
        start = first.offset + len(self._begun)
        return start, self._asked[-1].end - start

    def receive(self, body: Body) -> Iterator[BadPart]:
        """See `Wanted`."""
        transfer, pack = self._transfer, self._pack
        if body.ignores_ranges:
            # Take all wanted entries of this pack.
            transfer.ranges = False
            self._asked, self._begun = transfer.with_rest(pack, list(self._todo)), b""
            self._todo = dict.fromkeys(self._asked)
        transfer.probed.set()
        slices = Slices(body, self._asked, self._begun)
        came = False
        with transfer.begun.watching(pack, slices, body.source):
            for place, data in slices:
                came = True
                bad = self._take(place, data)
                sources = transfer.begun.drop(pack, place)
                if bad is None:
                    del self._todo[place]
                else:
                    yield msgspec.structs.replace(bad, sources=sources)
                if transfer.is_stopped:
                    return
        if not came:
            first = self._asked[0]
            transfer.begun.drop(pack, first)
            why = "is shorter than its index says"
            if not transfer.has_mirrors:
                raise BackendError(f"{transfer.url}/{pack.key}", why, status=200)
            yield BadPart(IntegrityError(pack.key, why=why, hint=_HINT), first.chunk_id, misplaced=True)

    def restart(self) -> bool:
        """See `Wanted`: a pack that is too short does not belong to its index."""
        return False

    def _take(self, place: PackRange, data: Buffer) -> BadPart | None:
        """Verify an entry and pass it on, or return what is wrong with it."""
        try:
            entry = _entry_at(place, data)
        except IntegrityError as error:
            return BadPart(_damaged(self._pack, error), place.chunk_id, misplaced=True)
        try:
            self._transfer.emit(entry)
        except IntegrityError as error:
            return BadPart(_damaged(self._pack, error), place.chunk_id)
        return None


class _WholePack:
    """All entries of a pack without a usable index, as a `Wanted`."""

    def __init__(self, transfer: _Transfer, pack: RemotePack) -> None:
        self.came_bytes = 0
        self._transfer = transfer
        self._pack = pack
        self._is_whole = False
        self._stream = EntryStream()
        self._sources: set[str] = set()

    def next_range(self) -> tuple[int, int | None] | None:
        """See `Wanted`."""
        return None if self._is_whole else (self.came_bytes, None)

    def receive(self, body: Body) -> Iterator[BadPart]:
        """See `Wanted`."""
        transfer = self._transfer
        transfer.probed.set()
        if body.start < self.came_bytes:  # ranges are ignored
            self.restart()
        self._sources.add(body.source)
        try:
            for block in body:
                self.came_bytes += len(block)
                if self.came_bytes > PACK_LIMIT_BYTES:
                    raise BackendError(
                        f"{transfer.url}/{self._pack.key}",
                        f"is larger than the {PACK_LIMIT_BYTES} bytes allowed for a pack",
                    )
                if transfer.is_stopped:
                    return
                for _, entry in self._stream.feed(block):
                    if transfer.wants(entry.chunk_id):
                        transfer.emit(entry)
            self._stream.finish()
        except IntegrityError as error:
            sources = frozenset(self._sources)
            self.restart()
            yield BadPart(_damaged(self._pack, error), sources=sources)
        else:
            self._is_whole = True

    def restart(self) -> bool:
        """See `Wanted`."""
        had = self.came_bytes > 0
        self._stream, self.came_bytes = EntryStream(), 0
        self._sources.clear()
        return had


def _damaged(pack: RemotePack, fault: IntegrityError) -> IntegrityError:
    """Return the error for a pack that is damaged at all sources."""
    return IntegrityError(
        pack.key,
        expected=str(fault.fields.get("expected", "")),
        got=str(fault.fields.get("got", "")),
        why=f"is corrupt: {fault.fields.get('what', 'chunk')} {fault.fields.get('why', '')}".rstrip(),
        hint=_HINT,
    )


def _entry_at(place: PackRange, data: Buffer) -> Entry:
    entry = parse_entry(data)
    if entry.chunk_id != place.chunk_id:
        raise IntegrityError(
            _ENTRY,
            expected=f"blake3:{place.chunk_id.hex()}",
            got=f"blake3:{entry.chunk_id.hex()}",
        )
    return entry
