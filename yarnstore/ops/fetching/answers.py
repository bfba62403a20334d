"""The answers to requests for packs: each entry is verified as it comes, and a wrong one is asked for again.

Leaves what becomes of an entry to its receiver in `transfer`, and who is to blame to `backends/sources`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from yarnstore.backends import Body, SourceSet
from yarnstore.backends.sources import BadPart
from yarnstore.core.digest import Buffer
from yarnstore.core.limits import PACK_LIMIT_BYTES
from yarnstore.core.pack import Entry, EntryStream, parse_entry
from yarnstore.errors import BackendError, IntegrityError
from yarnstore.ops.fetching.begun import Begun, Slices
from yarnstore.ops.fetching.ways import PackRange, RemotePack
from yarnstore.store import fsio
from yarnstore.store.filepath import Path
from yarnstore.store.files import UNFINISHED
from yarnstore.store.open_files import pread_exact

_ENTRY = "pack entry"
_HINT = "nothing was changed; the publisher must fix the registry"


class Receiver(Protocol):
    """Who gets the entries of a run: the transfer itself, or one stage of a relay."""

    def lacks(self, chunk_id: bytes) -> bool:
        """Whether a chunk has not arrived yet."""

    def emit(self, entry: Entry) -> None:
        """Verify an entry and hand it on.  Raises: IntegrityError."""


class Transfer(Receiver, Protocol):
    """What answers need of the transfer that they are for."""

    begun: Begun
    url: str
    probed: threading.Event
    ranges: bool

    @property
    def has_mirrors(self) -> bool:
        """Whether there are several sources."""

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is wanted."""

    def wants(self, chunk_id: bytes) -> bool:
        """Whether a chunk is wanted and has not arrived yet."""

    def with_rest(self, pack: RemotePack, places: list[PackRange]) -> list[PackRange]:
        """Return these places and all that are pending of the same pack, which one answer will bring."""


class IgnoresRangesError(Exception):
    """A server sends the whole pack for a part of it."""


class PackRanges:
    """The entries of a pack that its index names, as a `Wanted`."""

    def __init__(
        self, transfer: Transfer, pack: RemotePack, places: list[PackRange], receiver: Receiver
    ) -> None:
        self._transfer = transfer
        self._pack = pack
        self._receiver = receiver
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
            sorted(place for place in self._todo if self._receiver.lacks(place.chunk_id))
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
        if body.ignores_ranges and self._receiver is not transfer:
            raise IgnoresRangesError
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
            entry = entry_at(place, data)
        except IntegrityError as error:
            return BadPart(_damaged(self._pack, error), place.chunk_id, misplaced=True)
        try:
            self._receiver.emit(entry)
        except IntegrityError as error:
            return BadPart(_damaged(self._pack, error), place.chunk_id)
        return None


class WholePack:
    """All entries of a pack without a usable index, as a `Wanted`."""

    def __init__(self, transfer: Transfer, pack: RemotePack) -> None:
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


def entry_at(place: PackRange, data: Buffer) -> Entry:
    """Return the entry of a place from its bytes.  Raises: IntegrityError if it is of another chunk."""
    entry = parse_entry(data)
    if entry.chunk_id != place.chunk_id:
        raise IntegrityError(
            _ENTRY,
            expected=f"blake3:{place.chunk_id.hex()}",
            got=f"blake3:{entry.chunk_id.hex()}",
        )
    return entry


class Spool:
    """Packs that are downloaded whole, each once; safe to share by threads."""

    def __init__(self, backend: SourceSet, tmp: Path, is_stopped: Callable[[], bool]) -> None:
        self._backend = backend
        self._tmp = tmp
        self._is_stopped = is_stopped
        self._lock = threading.Lock()
        self._file: fsio.NewFile | None = None
        self._starts: dict[RemotePack, int] = {}

    def read(self, pack: RemotePack, place: PackRange) -> bytes:
        """Return the bytes of an entry, not verified.

        Raises: BackendError, StorageError; FormatError if the pack ends before.
        """
        with self._lock:
            if self._file is None:
                self._file = fsio.NewFile(self._tmp, UNFINISHED)
            if pack not in self._starts:
                start = self._file.size_bytes
                whole = _SpooledPack(self._backend.url, pack, self._file)
                self._backend.stream(pack.key, whole, is_stopped=self._is_stopped)
                self._starts[pack] = start
            file, start = self._file, self._starts[pack]
        return pread_exact(file.fileno(), file.path, start + place.offset, place.stored)

    def close(self) -> None:
        """Remove the file, without waiting for a download into it."""
        file = self._file
        if file is not None:
            file.discard()


class _SpooledPack:
    """All bytes of a pack, as a `Wanted`, appended to a file."""

    def __init__(self, url: str, pack: RemotePack, file: fsio.NewFile) -> None:
        self.came_bytes = 0
        self._url = url
        self._pack = pack
        self._file = file
        self._start = file.size_bytes
        self._is_whole = False

    def next_range(self) -> tuple[int, int | None] | None:
        """See `Wanted`."""
        return None if self._is_whole else (self.came_bytes, None)

    def receive(self, body: Body) -> Iterator[BadPart]:
        """See `Wanted`."""
        if body.start < self.came_bytes:  # ranges are ignored
            self.restart()
        for block in body:
            if self.came_bytes + len(block) > PACK_LIMIT_BYTES:
                raise BackendError(
                    f"{self._url.rstrip('/')}/{self._pack.key}",
                    f"is larger than the {PACK_LIMIT_BYTES} bytes allowed for a pack",
                )
            self._file.write(block)
            self.came_bytes += len(block)
        self._is_whole = True
        yield from ()

    def restart(self) -> bool:
        """See `Wanted`."""
        had = self.came_bytes > 0
        self.came_bytes, self._file.size_bytes = 0, self._start
        return had
