"""Partial downloads, kept so that the next request continues them.

They are stored in `tmp/*.download`, where another run finds them and `gc` deletes them after some days.  They
are not trusted: the hash of the complete data decides, and a partial download that leads to a wrong hash is
deleted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from yarnstore.backends import Body
from yarnstore.core.bytequeue import ByteQueue
from yarnstore.core.digest import Buffer, Sha256
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.ops.fetching.ways import PackRange, RemotePack
from yarnstore.store import fsio, fsread, growing
from yarnstore.store.filepath import Path

_SUFFIX = ".download"
# An entry that is incomplete after this time is written to disk, in case the process is killed.
_KEEP_EVERY_S = 0.2
# The source of data that an earlier run kept.
_EARLIER = ""

_Name: TypeAlias = str


class KeptFile:
    """The partial download of one small file of a registry."""

    def __init__(self, tmp: Path, key: str, limit_bytes: int) -> None:
        self._path = tmp / (Sha256.of(f"file {key}".encode()).hex + _SUFFIX)
        self._limit_bytes = limit_bytes

    def read(self) -> bytes:
        """Return the partial download; empty if it does not exist or is too large."""
        try:
            return fsread.read_bytes(self._path, self._limit_bytes)
        except (FormatError, NotFoundError, StorageError):
            return b""

    def keep(self, came: Buffer) -> None:
        """Store the first bytes of a file, some of which may be stored already."""
        with (
            contextlib.suppress(FormatError, NotFoundError, StorageError),
            growing.PartialFile(self._path) as part,
        ):
            if part.locked and part.is_there() and part.size_bytes < len(came):
                part.write(memoryview(came)[part.size_bytes :])

    def drop(self) -> None:
        """Delete the partial download."""
        with contextlib.suppress(FormatError, NotFoundError, StorageError):
            fsio.remove(self._path, sync=False)


class Slices:
    """Yields the bytes of each range, in order, from a response that begins at or before the first.

    `begun` are earlier bytes of the first range; the response begins after them.
    """

    def __init__(self, body: Body, places: Sequence[PackRange], begun: Buffer = b"") -> None:
        self._body = body
        self._todo = iter(places)
        self._place = next(self._todo, None)
        self._queue = ByteQueue()
        self._at = body.start  # offset of the first byte in the queue
        if begun and self._place is not None:
            self._queue.append(begun)
            self._at = self._place.offset
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[PackRange, Buffer]]:
        for block in self._body:
            if self._is_done():
                continue  # reads to the end of the range, so that the connection can be reused
            with self._lock:
                self._queue.append(block)
            while (found := self._take()) is not None:
                yield found
            if self._is_done() and self._body.start == 0:
                return

    def _is_done(self) -> bool:
        return self._place is None

    def _take(self) -> tuple[PackRange, Buffer] | None:
        with self._lock:
            place = self._place
            if place is None:
                return None
            self._at += len(self._queue.take(min(max(0, place.offset - self._at), len(self._queue))))
            if place.offset > self._at or len(self._queue) < place.stored:
                return None
            self._at += place.stored
            self._place = next(self._todo, None)
            return place, self._queue.take(place.stored)

    def unfinished(self) -> tuple[PackRange, bytes] | None:
        """Return the range that has arrived in part, and that part.  Thread-safe."""
        with self._lock:
            place = self._place
            if place is None or place.offset != self._at or not 0 < len(self._queue) < place.stored:
                return None
            return place, self._queue.peek()


class Begun:
    """Partly downloaded entries of packs, for one download; shared by its threads."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp
        self._lock = threading.Lock()
        # The number of bytes of each, and the mirrors that they came from.
        self._kept: dict[_Name, tuple[int, frozenset[str]]] = {}
        self._watched: dict[int, tuple[RemotePack, Slices, str]] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        for name in fsread.list_names(tmp):
            found = fsread.stat_or_none(tmp / name) if name.endswith(_SUFFIX) else None
            if found is not None and found.st_size:
                self._kept[name] = found.st_size, frozenset({_EARLIER})

    def size(self, pack: RemotePack, place: PackRange) -> int:
        """Return how many bytes of an entry have arrived."""
        return self._kept[name][0] if self._kept and (name := _name(pack, place)) in self._kept else 0

    def read(self, pack: RemotePack, place: PackRange) -> bytes:
        """Return the bytes of an entry that have arrived."""
        size = self.size(pack, place)
        data = KeptEntry(self._tmp, pack, place).read() if size else b""
        if size and not data:
            self.drop(pack, place)
        return data

    def drop(self, pack: RemotePack, place: PackRange) -> frozenset[str]:
        """Delete the bytes of an entry, and return the mirrors that they came from."""
        with self._lock:
            _, sources = (
                self._kept.pop(_name(pack, place), (0, frozenset())) if self._kept else (0, frozenset())
            )
        if sources:
            KeptEntry(self._tmp, pack, place).drop()
        return sources

    @contextlib.contextmanager
    def watching(self, pack: RemotePack, slices: Slices, source: str) -> Iterator[None]:
        """While the context lasts, store an entry that stays incomplete for a while; also when it ends."""
        with self._lock:
            self._watched[id(slices)] = pack, slices, source
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="yarnstore-keep", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(id(slices), None)
            if not self._ended.is_set():
                self._keep(pack, slices, source)

    def close(self) -> None:
        """Store incomplete entries for the next run."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            watched = list(self._watched.values())
        for pack, slices, source in watched:
            self._keep(pack, slices, source)

    def _watch(self) -> None:
        before: dict[int, PackRange] = {}
        while not self._ended.wait(_KEEP_EVERY_S):
            with self._lock:
                watched = dict(self._watched)
            now: dict[int, PackRange] = {}
            for number, (pack, slices, source) in watched.items():
                found = slices.unfinished()
                if found is None:
                    continue
                now[number] = found[0]
                if before.get(number) == found[0]:
                    self._keep(pack, slices, source)
            before = now

    def _keep(self, pack: RemotePack, slices: Slices, source: str) -> None:
        found = slices.unfinished()
        if found is None:
            return
        place, came = found
        name = _name(pack, place)
        with self._lock:
            size, sources = self._kept.get(name, (0, frozenset()))
            if len(came) <= size:
                return
            self._kept[name] = len(came), sources | {source}
        KeptEntry(self._tmp, pack, place).keep(came)


class KeptEntry(KeptFile):
    """The partial download of one entry of a pack."""

    def __init__(self, tmp: Path, pack: RemotePack, place: PackRange) -> None:
        super().__init__(tmp, "", place.stored - 1)
        self._path = tmp / _name(pack, place)


def _name(pack: RemotePack, place: PackRange) -> _Name:
    what = f"entry {pack.key} {place.offset} {place.stored} {place.chunk_id.hex()}"
    return Sha256.of(what.encode()).hex + _SUFFIX
