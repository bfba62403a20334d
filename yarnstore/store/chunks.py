"""Where the chunks of a store are, and reading them.

A chunk's place is an entry of a pack or a range of a materialised file; this module hides which.
A place whose bytes do not hash to the chunk's name is a place where it is not.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.codec import decode_entry, make_entry, verified
from yarnstore.core.digest import Buffer, PackId
from yarnstore.core.index import (
    Ids,
    Ints,
    PackIndex,
    SortedIds,
    find_ids,
    id_bytes,
    parse_index,
    sorted_unique,
)
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, INDEX_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry, parse_entry
from yarnstore.errors import (
    DiskFullError,
    FormatError,
    IntegrityError,
    NotFoundError,
    ReadOnlyError,
)
from yarnstore.store import fsread
from yarnstore.store.layout import PackFolder, StoreLayout
from yarnstore.store.packs import UNFINISHED, PackWriter, recover_packs, scan_pack, write_index

# Files kept open: enough for the threads that read, far below what any system lets a process have.
OPEN_FILES = 16

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FoundIndexes:
    """The indexes of a folder of packs; `faults` are those that could not be used."""

    indexes: list[PackIndex]
    faults: list[tuple[PackId, Exception]]


def load_indexes(folder: PackFolder, *, rebuild: bool) -> FoundIndexes:
    """Read every index whose pack is there.

    A bad index is a bad cache: with `rebuild` it is made anew from its pack, as is one that was lost,
    and one that has lost its pack is passed over.

    Raises: StorageError where a pack cannot be read, which is no sign that it is not there.
    """
    indexes: list[PackIndex] = []
    faults: list[tuple[PackId, Exception]] = []
    lost = set(folder.pack_ids(".pack")) if rebuild else set()
    for pack in sorted(lost.union(folder.pack_ids())):
        try:
            indexes.append(_load_index(folder, pack))
        except (IntegrityError, NotFoundError) as error:
            faults.append((pack, error))
            if rebuild:
                with contextlib.suppress(NotFoundError, IntegrityError):
                    indexes.append(scan_pack(folder, pack))
                    with contextlib.suppress(DiskFullError, ReadOnlyError):  # it serves this once
                        write_index(folder, indexes[-1])
    return FoundIndexes(indexes, faults)


def _load_index(folder: PackFolder, pack: PackId) -> PackIndex:
    found = fsread.stat_or_none(folder.pack(pack))
    if found is None:
        raise NotFoundError("pack", pack.hex)
    index = parse_index(fsread.read_bytes(folder.index(pack), INDEX_LIMIT_BYTES), pack=pack)
    if index.pack_bytes != found.st_size:
        raise IntegrityError(f"pack {pack.hex}", why="has another size than its index says")
    return index


class ChunkTable:
    """Several pack indexes as one, for lookups in bulk.

    Columns of equal length in ascending order of `ids`; `pack` is a position in `packs`.  Of a chunk
    that is there several times the first counts, and one whole in itself before any delta.
    """

    def __init__(self, indexes: list[PackIndex]) -> None:
        self.packs = [index.pack for index in indexes]
        ids = _concatenate([index.ids for index in indexes], "S32")
        bases = _concatenate([index.bases for index in indexes], "S32")
        whole_first = np.argsort(bases != b"", kind="stable")
        self.ids, first = sorted_unique(ids[whole_first])
        self._sorted = SortedIds(self.ids)
        first = whole_first[first]
        numbers = [np.full(len(index), n, np.int64) for n, index in enumerate(indexes)]
        self.bases = bases[first]
        self.pack = _concatenate(numbers, "i8")[first]
        self.offsets = _concatenate([index.offsets for index in indexes], "i8")[first]
        self.stored = _concatenate([index.stored for index in indexes], "i8")[first]
        self.plain = _concatenate([index.plain for index in indexes], "i8")[first]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, wanted: Ids) -> Ints:
        """Row of each wanted id, shape as `wanted`; -1 where it is not here."""
        return self._sorted.find(wanted)

    def base_rows(self) -> Ints:
        """Row of each row's base: -1 for a chunk whole in itself, -2 for a base that is not here."""
        rows = np.full(len(self), -1, np.int64)
        deltas = self.bases != b""
        found = self.find(self.bases[deltas])
        rows[deltas] = np.where(found < 0, -2, found)
        return rows

    def depths(self) -> Ints:
        """How many deltas lie between each row and a chunk whole in itself; one more than the limit
        where the chain is longer, broken or a circle."""
        bases = self.base_rows()
        depths = np.where(bases == -1, 0, DELTA_DEPTH_LIMIT + 1)
        for _ in range(DELTA_DEPTH_LIMIT):
            via = bases >= 0
            depths[via] = np.minimum(depths[via], depths[bases[via]] + 1)
        return depths

    def with_bases(self, rows: Ints) -> Ints:
        """The distinct rows given, and all rows that their deltas need."""
        bases = self.base_rows()
        needed = np.zeros(len(self), bool)
        while len(rows):
            needed[rows] = True
            rows = bases[rows]
            rows = rows[rows >= 0]
            rows = rows[~needed[rows]]
        return np.flatnonzero(needed)


def _concatenate(columns: list[Any], dtype: str) -> NDArray[Any]:
    return np.concatenate(columns) if columns else np.empty(0, dtype)


def pread_exact(fd: int, path: Path, offset: int, length: int) -> bytes:
    """Raises: FormatError where the file ends before, StorageError."""
    with fsread.translating(path):
        data = os.pread(fd, length, offset)
    if len(data) != length:
        raise FormatError(str(path), "is cut short")
    return data


class OpenFiles:
    """Descriptors of the files read last, few enough for any process; safe to share by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[Path, _OpenFile] = OrderedDict()

    @contextlib.contextmanager
    def read(self, path: Path) -> Iterator[int]:
        """A descriptor to read from while the context lasts.  Raises: NotFoundError, StorageError."""
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = _OpenFile(fsread.open_read(path))
            self._open.move_to_end(path)
            file.users += 1
            self._close_oldest()
        try:
            yield file.fd
        finally:
            with self._lock:
                file.users -= 1

    def _close_oldest(self) -> None:
        idle = [path for path, file in self._open.items() if not file.users]
        for path in idle[: max(0, len(self._open) - OPEN_FILES)]:
            os.close(self._open.pop(path).fd)

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1].fd)


@dataclass
class _OpenFile:
    fd: int
    users: int = 0


class PackReader:
    """Reads verified chunks of a folder of packs, through their deltas.  Safe to share by threads."""

    def __init__(self, folder: PackFolder, table: ChunkTable) -> None:
        self.folder = folder
        self.table = table
        self._files = OpenFiles()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the packs."""
        self._files.close()

    def reload(self) -> None:
        """See the packs that have come since."""
        self.table = ChunkTable(load_indexes(self.folder, rebuild=False).indexes)

    def forget(self, chunk_ids: set[bytes]) -> None:
        """Drop damaged chunks from the indexes, so that they count as absent and come anew."""
        doomed = np.array(sorted(chunk_ids), "S32")
        for index in load_indexes(self.folder, rebuild=False).indexes:
            keep = find_ids(doomed, index.ids) < 0
            if not keep.all():
                write_index(self.folder, select_rows(index, keep))
        self.reload()

    def row_of(self, chunk_id: bytes) -> int:
        """The row of one chunk, -1 where it is not here; for thousands, ask `table.find`."""
        return int(self.table.find(np.array([chunk_id], "S32"))[0])

    def read_entry(self, row: int) -> Entry:
        """The entry of a row, not verified.  Raises: FormatError, NotFoundError, StorageError."""
        path = self.folder.pack(self.table.packs[int(self.table.pack[row])])
        with self._files.read(path) as fd:
            data = pread_exact(fd, path, int(self.table.offsets[row]), int(self.table.stored[row]))
        return parse_entry(data)

    def read_row(self, row: int, *, depth: int = 0) -> Buffer:
        """The verified bytes of a row's chunk.

        Raises: IntegrityError where they are not what they are named, NotFoundError, StorageError.
        """
        entry = self.read_entry(row)
        if entry.chunk_id != id_bytes(self.table.ids, row):
            raise IntegrityError("pack entry", why="is of another chunk than its index says")
        return self.decode(entry, depth=depth)

    def decode(self, entry: Entry, *, depth: int = 0) -> Buffer:
        """The verified bytes of an entry, from here or elsewhere, whose bases are here.

        Raises: as `read_row`.
        """
        if not entry.base:
            return decode_entry(entry)
        if depth >= DELTA_DEPTH_LIMIT:
            raise IntegrityError("a delta", why=f"hangs on more than {DELTA_DEPTH_LIMIT} others")
        return decode_entry(entry, self.read_base(entry.base, depth=depth + 1))

    def read_base(self, chunk_id: bytes, *, depth: int) -> Buffer:
        """The verified bytes of a chunk that a delta needs.  Raises: as `read_row`."""
        row = self.row_of(chunk_id)
        if row < 0:
            raise IntegrityError(f"base {chunk_id.hex()[:12]}…", why="of a delta is not here")
        return self.read_row(row, depth=depth)


class FileTable:
    """Where chunks lie in materialised files: columns of equal length in ascending order of `ids`.

    What manifests claim of files, no more: a chunk is there once its bytes were read and hashed.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self.paths: list[Path] = []
        seen: set[Path] = set()
        ids: list[Ids] = []
        places: list[NDArray[np.int64]] = []
        for digest in layout.manifest_ids():
            with contextlib.suppress(IntegrityError, NotFoundError):
                for file in layout.read_manifest(digest).files:
                    path = layout.file(file)
                    found = fsread.stat_or_none(path)
                    if path in seen or found is None or found.st_size != file.size_bytes:
                        continue
                    file_ids, lengths = file.chunk_list()
                    n = np.full(len(file_ids), len(self.paths))
                    places.append(np.stack([n, np.cumsum(lengths) - lengths, lengths], axis=1))
                    ids.append(file_ids)
                    seen.add(path)
                    self.paths.append(path)
        self.ids, first = sorted_unique(_concatenate(ids, "S32"))
        self._places = np.concatenate([np.empty((0, 3), np.int64), *places])[first]

    def find(self, chunk_id: bytes) -> tuple[Path, int, int] | None:
        """The file, offset and length of one chunk."""
        row = int(find_ids(self.ids, np.array([chunk_id], "S32"))[0])
        if row < 0:
            return None
        n, offset, length = self._places[row].tolist()
        return self.paths[n], offset, length


class ChunkStore(PackReader):
    """The chunks of one store as they are now; made for one operation, under the shared lock."""

    def __init__(self, layout: StoreLayout, *, rebuild: bool = True) -> None:
        super().__init__(layout.pack_folder, ChunkTable([]))
        self._layout = layout
        self._rebuild = rebuild  # bad indexes are made anew
        self._lock = threading.Lock()
        self.bad: set[bytes] = set()  # chunks that have no sound place here
        self.reload()

    def reload(self) -> None:
        """See what has come since."""
        self.table = ChunkTable(load_indexes(self.folder, rebuild=self._rebuild).indexes)
        self.files = FileTable(self._layout)

    def missing(self, wanted: Ids) -> Ids:
        """Those of the wanted ids (distinct) that no pack has, or only as deltas against what none has."""
        rows = self.table.find(wanted)
        usable = rows >= 0
        usable[usable] = self.table.depths()[rows[usable]] <= DELTA_DEPTH_LIMIT
        absent: Ids = wanted[~usable]
        return absent

    def read(self, chunk_id: bytes, row: int, *, depth: int = 0) -> Buffer:
        """The verified bytes of a chunk; `row` is its place in `table`, or -1.

        A materialised file is asked first: it needs no decoding.

        Raises: IntegrityError where no place has it; it is then in `bad`, unless it is a delta against
        one that is.  StorageError where the disk or the system refuses, which says nothing of the chunk.
        """
        place = self.files.find(chunk_id)
        if place is not None:
            with contextlib.suppress(IntegrityError, NotFoundError):
                return self._read_range(chunk_id, *place)
        fault: Exception | None = None
        if row >= 0:
            try:
                return self.read_row(row, depth=depth)
            except (IntegrityError, NotFoundError) as error:
                fault = error
        base = id_bytes(self.table.bases, row) if row >= 0 and self.table.bases[row] else b""
        with self._lock:
            if base not in self.bad:
                self.bad.add(chunk_id)
        raise IntegrityError(
            f"chunk {chunk_id.hex()[:12]}…",
            why="is damaged in this store" if fault else "is not in this store",
            hint="`ystore fsck --repair` fetches it again",
        ) from fault

    def read_base(self, chunk_id: bytes, *, depth: int) -> Buffer:
        """The verified bytes of a chunk that a delta needs.  Raises: as `read`."""
        return self.read(chunk_id, self.row_of(chunk_id), depth=depth)

    def _read_range(self, chunk_id: bytes, path: Path, offset: int, length: int) -> Buffer:
        with self._files.read(path) as fd:
            return verified(chunk_id, pread_exact(fd, path, offset, length))

    def forget(self, chunk_ids: set[bytes]) -> None:
        """As `PackReader.forget`."""
        super().forget(chunk_ids)
        self.bad -= chunk_ids


def take_from_files(layout: StoreLayout, wanted: Ids) -> None:
    """Put into packs what only materialised files have of the wanted chunks (distinct ids), verified."""
    with ChunkStore(layout) as chunks:
        absent = chunks.missing(wanted)
        absent = absent[find_ids(chunks.files.ids, absent) >= 0]
        if not len(absent):
            return
        with PackWriter(layout.pack_folder) as writer:
            for n in range(len(absent)):
                chunk_id = id_bytes(absent, n)
                with contextlib.suppress(IntegrityError):
                    writer.add(make_entry(chunk_id, chunks.read(chunk_id, -1)))


def recover_chunks(layout: StoreLayout) -> None:
    """Keep what killed processes had written of packs in a store, deltas too."""
    if any(name.endswith(UNFINISHED) for name in fsread.list_names(layout.tmp)):
        with ChunkStore(layout) as chunks:
            recover_packs(layout.pack_folder, chunks.decode)


def select_rows(index: PackIndex, keep: NDArray[np.bool_]) -> PackIndex:
    """The index with only the rows where `keep` is true."""
    return PackIndex(
        pack=index.pack,
        pack_bytes=index.pack_bytes,
        ids=index.ids[keep],
        offsets=index.offsets[keep],
        stored=index.stored[keep],
        plain=index.plain[keep],
        encodings=index.encodings[keep],
        bases=index.bases[keep],
    )


def manifest_chunks(manifests: Iterable[Manifest]) -> tuple[Ids, Ints]:
    """The distinct chunks of manifests: ids ascending as `S32`, lengths as int64."""
    ids: list[Ids] = []
    lengths: list[Ints] = []
    for manifest in manifests:
        for file in manifest.files:
            file_ids, file_lengths = file.chunk_list()
            ids.append(file_ids)
            lengths.append(file_lengths)
    distinct, first = sorted_unique(_concatenate(ids, "S32"))
    return distinct, _concatenate(lengths, "i8")[first]


MapFn = Callable[[T], R]


def ordered_map(function: MapFn[T, R], items: Iterable[T], *, threads: int, window: int) -> Iterator[R]:
    """Apply `function` in threads and yield the results in order, at most `window` ahead.

    The one pipeline of the engine: what is yielded is written or hashed by the caller while the
    next items are read, decoded and verified.  A single item needs no thread.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="yarnstore")
    try:
        for item in chain(first, rest):
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        pool.shutdown(wait=True, cancel_futures=True)
