"""Download the chunks of a plan: the queue of requests, threads, decoding and writing.

`ops/fetching/plan` chooses what to download; `backends/sources` owns tries, sources and their faults. Every
chunk is decoded and hashed here; from a server without ranges, whole packs are read.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from yarnstore.backends import SourceSet
from yarnstore.core.codec import NOT_STORED, Encoding, decode_entry, make_delta_entry, make_entry
from yarnstore.core.digest import Buffer
from yarnstore.core.index import find_ids, id_bytes
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.core.pack import Entry
from yarnstore.errors import BackendError, IntegrityError, NotFoundError
from yarnstore.ops.fetching.answers import (
    IgnoresRangesError,
    PackRanges,
    Receiver,
    Spool,
    WholePack,
    entry_at,
)
from yarnstore.ops.fetching.begun import Begun
from yarnstore.ops.fetching.cheapest import Relay
from yarnstore.ops.fetching.plan import DownloadPlan
from yarnstore.ops.fetching.ways import DELTAS, PackRange, RemotePack, Run
from yarnstore.progress import Meter
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Drafts
from yarnstore.store.packs import PackWriter
from yarnstore.store.transposing import Transposer

# Verified entries waiting for the writer.
_QUEUE_ENTRIES = 16


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
    transfer.start(min(max(1, connections), len(plan.runs) + len(plan.relays)))
    count = 0
    try:
        for came in transfer.entries():
            count += came.is_wanted
            if came.entry is not None:
                writer.add(came.entry)
            meter.add(came.wire_bytes)
    finally:
        transfer.stop()
    return count, transfer.failed


@dataclass(frozen=True)
class _Came:
    """A verified entry as it will be stored, if it is for a pack, and its size on the wire.

    One that is only the base of others is not `is_wanted`.
    """

    entry: Entry | None
    wire_bytes: int
    is_wanted: bool = True


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
        self._transposer = Transposer(chunks.read_manifest, self.read_base)
        self.failed: set[RemotePack] = set()
        self._pending: deque[Run | Relay] = deque([*plan.relays, *self._ordered(plan.runs)])
        self._spool = Spool(backend, chunks.folder.tmp, lambda: self.is_stopped)
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

    def _ordered(self, runs: list[Run]) -> list[Run]:
        """Return the runs as they lie in the drafts, so that the hash of a file can follow them."""
        drafts = self._drafts
        if drafts is None:
            return runs
        return sorted(runs, key=lambda run: drafts.position(id_bytes(run.ids, 0) if len(run.ids) else b""))

    def entries(self) -> Iterator[_Came]:
        """Yield verified entries as they arrive; hash drafts meanwhile.  Raises: a worker's first error."""
        running = len(self._threads)
        while running:
            while self._drafts is not None and self._out.empty() and self._hash_next(self._drafts):
                pass
            item = self._out.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item

    def _hash_next(self, drafts: Drafts) -> bool:
        return drafts.hash_next(self._chunks, self.is_wanted)

    def stop(self) -> None:
        self._stopped.set()
        self.probed.set()
        deadline = 30  # with a timeout, since an interrupt must not wait for a stalled server
        while deadline and any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):
                self._out.get(timeout=0.05)
            deadline -= 1
        self.begun.close()
        self._spool.close()

    # --- in the workers ------------------------------------------------------------------------

    def _work(self, first: bool) -> None:
        try:
            if not first:
                self.probed.wait()
            while not self._stopped.is_set() and (todo := self._take()) is not None:
                if isinstance(todo, Run):
                    self._fetch_or_pass(todo, self)
                else:
                    self._fetch_relay(todo)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._put(error)
            self._stopped.set()  # before the others begin, so that unavailable packs are not requested again
        finally:
            self.probed.set()
            self._put(None)

    def _fetch_or_pass(self, run: Run, receiver: Receiver) -> bool:
        """Fetch a run; a delta pack is only a shortcut: what it does not bring, others do.

        Returns whether it came.  Raises: BackendError, IntegrityError for a full pack.
        """
        if run.pack in self.failed:
            return False
        try:
            self._fetch(run, receiver)
        except (BackendError, IntegrityError):
            if run.pack.folder != DELTAS:
                raise
            self.failed.add(run.pack)
            return False
        return True

    def _fetch_relay(self, relay: Relay) -> None:
        """Fetch chunks over several deltas, stage by stage."""
        bases: dict[bytes, Buffer] = {}
        for n, runs in enumerate(relay.stages):
            stage = _Stage(self, bases, is_last=n == len(relay.stages) - 1)
            for run in runs:
                if self.is_stopped or not self._fetch_or_pass(run, stage):
                    return
            bases = stage.came

    def _put(self, item: _Came | BaseException | None) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._out.put(item, timeout=0.1)
                return

    def _take(self) -> Run | Relay | None:
        with self._lock:
            return self._pending.popleft() if self._pending else None

    def with_rest(self, pack: RemotePack, places: list[PackRange]) -> list[PackRange]:
        """Return these entries and all pending ones of the same pack, which one response contains."""
        with self._lock:
            same = [other for other in self._pending if isinstance(other, Run) and other.pack == pack]
            self._pending = deque(
                other for other in self._pending if not (isinstance(other, Run) and other.pack == pack)
            )
        return sorted([*places, *(place for other in same for place in other.places())])

    def emit(self, entry: Entry) -> None:
        """Verify an entry and hand it on.  Raises: IntegrityError."""
        self.hand_on(entry, self.decode(entry, {}), too_deep=self._too_deep(entry.base))

    def decode(self, entry: Entry, bases: Mapping[bytes, Buffer]) -> Buffer:
        """Return the verified bytes of an entry whose base is one of `bases` or in the store.

        Raises: IntegrityError.
        """
        if entry.encoding == Encoding.TRANSPOSED:
            try:
                return self._transposer.decode(entry)
            except NotFoundError as error:
                raise IntegrityError("transposed chunk", why=f"lacks its {error.message}") from None
        base = bases.get(entry.base) if entry.base else None
        if base is None and entry.base:
            base = self.read_base(entry.base)
        return decode_entry(entry, base)

    def read_base(self, chunk_id: bytes) -> Buffer:
        """Return the verified bytes of a chunk of the store.  Raises: IntegrityError."""
        return self._chunks.read_base(chunk_id, depth=0)

    def _for_stores(self, entry: Entry, data: Buffer) -> Entry:
        """Encode a delta that is not for stores as another one, or whole if that does not save half of it."""
        if entry.encoding == Encoding.TRANSPOSED:
            return make_entry(entry.chunk_id, data)
        other = make_delta_entry(entry.chunk_id, data, entry.base, self.read_base(entry.base))
        if other is not None and 2 * other.stored_bytes <= len(data):
            return other
        return make_entry(entry.chunk_id, data)

    def hand_on(self, entry: Entry, data: Buffer, *, too_deep: bool, is_wanted: bool = True) -> None:
        """Hand on an entry with its verified bytes: into files, else into a pack, where it is stored whole
        if its base is `too_deep`, and encoded again if stores do not have its encoding.  One that is not
        wanted is only counted."""
        with self._lock:
            if is_wanted and entry.chunk_id in self._came:
                is_wanted = False
            elif is_wanted:
                self._came.add(entry.chunk_id)
        kept: Entry | None = entry
        if not is_wanted or (self._drafts is not None and self._drafts.put(entry.chunk_id, data)):
            kept = None
        elif too_deep:
            kept = make_entry(entry.chunk_id, data)
        elif entry.encoding in NOT_STORED:
            kept = self._for_stores(entry, data)
        self._put(_Came(kept, entry.stored_bytes, is_wanted))

    def lacks(self, chunk_id: bytes) -> bool:
        """Whether a chunk has not arrived yet."""
        return chunk_id not in self._came

    def wants(self, chunk_id: bytes) -> bool:
        """Whether a chunk is wanted and has not arrived yet."""
        return self.lacks(chunk_id) and self.is_wanted(chunk_id)

    def is_wanted(self, chunk_id: bytes) -> bool:
        """Whether a chunk is one of those that are to be stored."""
        return bool(find_ids(self._wanted, np.array([chunk_id], "S32"))[0] >= 0)

    def _too_deep(self, base: bytes) -> bool:
        row = self._chunks.row_of(base) if base else -1
        return row >= 0 and int(self._depths[row]) >= DELTA_DEPTH_LIMIT

    def _fetch(self, run: Run, receiver: Receiver) -> None:
        pack = run.pack
        if not len(run.ids):
            self._backend.stream(pack.key, WholePack(self, pack), is_stopped=self._stopped.is_set)
            return
        if receiver is not self:
            with contextlib.suppress(IgnoresRangesError):
                if self.ranges:
                    self._stream(pack, run.places(), receiver)
                    return
            self.ranges = False
            self.probed.set()
            self._take_spooled(pack, run, receiver)
            return
        self._stream(pack, run.places() if self.ranges else self.with_rest(pack, run.places()), receiver)

    def _stream(self, pack: RemotePack, places: list[PackRange], receiver: Receiver) -> None:
        def whole() -> WholePack:
            self.with_rest(pack, [])
            return WholePack(self, pack)

        self._backend.stream(
            pack.key,
            PackRanges(self, pack, places, receiver),
            without_index=whole if receiver is self else None,
            index_source=self._index_sources.get(pack, ""),
            is_stopped=self._stopped.is_set,
        )

    def _take_spooled(self, pack: RemotePack, run: Run, receiver: Receiver) -> None:
        """Do as `_stream` with a server that sends whole packs only: each pack comes once."""
        for place in run.places():
            if receiver.lacks(place.chunk_id):
                receiver.emit(entry_at(place, self._spool.read(pack, place)))


class _Stage:
    """One stage of a relay: its chunks, verified, are what the deltas of the next one are against."""

    def __init__(self, transfer: _Transfer, bases: dict[bytes, Buffer], *, is_last: bool) -> None:
        self._transfer = transfer
        self._bases = bases
        self._is_last = is_last
        self.came: dict[bytes, Buffer] = {}

    def lacks(self, chunk_id: bytes) -> bool:
        """See `Receiver`."""
        return chunk_id not in self.came

    def emit(self, entry: Entry) -> None:
        """See `Receiver`."""
        transfer = self._transfer
        data = transfer.decode(entry, self._bases)
        self.came[entry.chunk_id] = b"" if self._is_last else data
        is_wanted = transfer.is_wanted(entry.chunk_id)
        transfer.hand_on(entry, data, too_deep=bool(entry.base), is_wanted=is_wanted)
