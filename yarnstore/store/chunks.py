"""Where the chunks of a store are, and reading them.

A chunk's place is an entry of a pack or a range of a materialised file; this module hides which.
A place whose bytes do not hash to the chunk's name is a place where it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from yarnstore.core.codec import decode_payload
from yarnstore.core.digest import Buffer, PackId, Sha256
from yarnstore.core.index import Ids, Ints, PackIndex, find_ids, id_bytes, parse_index, sorted_unique
from yarnstore.core.limits import INDEX_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import parse_entry
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsread
from yarnstore.store.layout import PackFolder, StoreLayout
from yarnstore.store.packs import rebuild_index, write_index

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FoundIndexes:
    """The indexes of a folder of packs; `faults` are those that could not be used."""

    indexes: list[PackIndex]
    faults: list[tuple[PackId, Exception]]


def load_indexes(folder: PackFolder, *, rebuild: bool) -> FoundIndexes:
    """Read every index whose pack is there.

    A bad index is a bad cache: with `rebuild` it is made anew from its pack, and one that has
    lost its pack is passed over.
    """
    indexes: list[PackIndex] = []
    faults: list[tuple[PackId, Exception]] = []
    for pack in folder.pack_ids():
        try:
            indexes.append(_load_index(folder, pack))
        except (IntegrityError, NotFoundError) as error:
            faults.append((pack, error))
            if rebuild:
                with contextlib.suppress(NotFoundError, StorageError):
                    indexes.append(rebuild_index(folder, pack))
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

    Columns of equal length in ascending order of `ids`; `pack` is a position in `packs`.
    """

    def __init__(self, indexes: list[PackIndex]) -> None:
        self.packs = [index.pack for index in indexes]
        ids = _concatenate([index.ids for index in indexes], "S32")
        self.ids, first = sorted_unique(ids)
        numbers = [np.full(len(index), n, np.int64) for n, index in enumerate(indexes)]
        self.pack = _concatenate(numbers, "i8")[first]
        self.offsets = _concatenate([index.offsets for index in indexes], "i8")[first]
        self.stored = _concatenate([index.stored for index in indexes], "i8")[first]
        self.plain = _concatenate([index.plain for index in indexes], "i8")[first]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, wanted: Ids) -> Ints:
        """Row of each wanted id, shape as `wanted`; -1 where it is not here."""
        return find_ids(self.ids, wanted)


def _concatenate(columns: list[Any], dtype: str) -> NDArray[Any]:
    return np.concatenate(columns) if columns else np.empty(0, dtype)


def read_entry_bytes(folder: PackFolder, table: ChunkTable, row: int) -> bytes:
    """The bytes of one entry, for a caller that reads few.  Raises: NotFoundError, FormatError."""
    path = folder.pack(table.packs[int(table.pack[row])])
    fd = fsread.open_read(path)
    try:
        return pread_exact(fd, path, int(table.offsets[row]), int(table.stored[row]))
    finally:
        os.close(fd)


def pread_exact(fd: int, path: Path, offset: int, length: int) -> bytes:
    """Raises: FormatError where the file ends before, StorageError."""
    with fsread.translating(path):
        data = os.pread(fd, length, offset)
    if len(data) != length:
        raise FormatError(str(path), "is cut short")
    return data


class ChunkStore:
    """The chunks of one store as they are now; made for one operation, under the shared lock.

    Safe to read from several threads.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._folder = layout.pack_folder
        self._lock = threading.Lock()
        self._fds: dict[Path, int] = {}
        self._ranges: dict[bytes, tuple[Path, int, int]] | None = None
        self.bad: set[bytes] = set()  # chunks that have no sound place here
        self.reload()

    def __enter__(self) -> ChunkStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def reload(self) -> None:
        """See the packs that have come since."""
        self.table = ChunkTable(load_indexes(self._folder, rebuild=True).indexes)

    def missing(self, wanted: Ids) -> Ids:
        """Those of the wanted ids (distinct) that are nowhere in the store."""
        absent: Ids = wanted[self.table.find(wanted) < 0]
        if len(absent):
            ranges = self._file_ranges()
            keep = [id_bytes(absent, n) not in ranges for n in range(len(absent))]
            absent = absent[np.array(keep, bool)]
        return absent

    def read(self, chunk_id: bytes, row: int) -> Buffer:
        """The verified bytes of a chunk; `row` is its place in `table`, or -1.

        Raises: IntegrityError where no place has it; it is then in `bad`.
        """
        fault: Exception | None = None
        if row >= 0:
            try:
                return self._read_entry(chunk_id, row)
            except (IntegrityError, NotFoundError, StorageError) as error:
                fault = error
        place = self._file_ranges().get(chunk_id)
        if place is not None:
            with contextlib.suppress(IntegrityError, NotFoundError, StorageError):
                return self._read_range(chunk_id, *place)
        with self._lock:
            self.bad.add(chunk_id)
        raise IntegrityError(
            f"chunk {chunk_id.hex()[:12]}…",
            why="is damaged in this store" if fault else "is not in this store",
            hint="`ystore fsck --repair` fetches it again",
        ) from fault

    def _read_entry(self, chunk_id: bytes, row: int) -> Buffer:
        table = self.table
        path = self._folder.pack(table.packs[int(table.pack[row])])
        data = self._pread(path, int(table.offsets[row]), int(table.stored[row]))
        entry = parse_entry(data)
        return _verified(chunk_id, decode_payload(entry.encoding, entry.payload, entry.plain_bytes))

    def _read_range(self, chunk_id: bytes, path: Path, offset: int, length: int) -> Buffer:
        return _verified(chunk_id, self._pread(path, offset, length))

    def _pread(self, path: Path, offset: int, length: int) -> bytes:
        with self._lock:
            fd = self._fds.get(path)
            if fd is None:
                fd = self._fds[path] = fsread.open_read(path)
        return pread_exact(fd, path, offset, length)

    def _file_ranges(self) -> dict[bytes, tuple[Path, int, int]]:
        """Every chunk that a materialised file holds: the second place to look."""
        with self._lock:
            if self._ranges is None:
                self._ranges = {}
                for digest in self._layout.manifest_ids():
                    with contextlib.suppress(IntegrityError, NotFoundError, StorageError):
                        self._add_ranges(self._layout.read_manifest(digest), self._ranges)
            return self._ranges

    def _add_ranges(self, manifest: Manifest, ranges: dict[bytes, tuple[Path, int, int]]) -> None:
        for file in manifest.files:
            path = self._layout.file(file.sha256)
            found = fsread.stat_or_none(path)
            if found is None or found.st_size != file.size_bytes:
                continue
            ids, lengths = file.chunk_list()
            offsets = np.cumsum(lengths) - lengths
            for n in range(len(ids)):
                ranges[id_bytes(ids, n)] = (path, int(offsets[n]), int(lengths[n]))

    def forget(self, chunk_ids: set[bytes]) -> None:
        """Drop damaged chunks from the indexes, so that they count as absent and come anew."""
        doomed = np.array(sorted(chunk_ids), "S32")
        for index in load_indexes(self._folder, rebuild=False).indexes:
            keep = find_ids(doomed, index.ids) < 0
            if not keep.all():
                write_index(self._folder, select_rows(index, keep))
        self.bad -= chunk_ids
        self._ranges = {key: place for key, place in self._file_ranges().items() if key not in chunk_ids}
        self.reload()


def select_rows(index: PackIndex, keep: NDArray[np.bool_]) -> PackIndex:
    """The index with only the rows where `keep` is true."""
    return PackIndex(
        index.pack,
        index.pack_bytes,
        index.ids[keep],
        index.offsets[keep],
        index.stored[keep],
        index.plain[keep],
        index.encodings[keep],
        index.bases[keep],
    )


def _verified(chunk_id: bytes, data: Buffer) -> Buffer:
    digest = blake3(data).digest()
    if digest != chunk_id:
        raise IntegrityError("chunk", expected=f"blake3:{chunk_id.hex()}", got=f"blake3:{digest.hex()}")
    return data


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


def file_sha256(path: Path) -> Sha256:
    """Hash a whole file.  Raises: NotFoundError, StorageError."""
    with fsread.translating(path), open(path, "rb") as file:
        return Sha256(hashlib.file_digest(file, "sha256").digest())


MapFn = Callable[[T], R]


def ordered_map(function: MapFn[T, R], items: Iterable[T], *, threads: int, window: int) -> Iterator[R]:
    """Apply `function` in threads and yield the results in order, at most `window` ahead.

    The one pipeline of the engine: what is yielded is written or hashed by the caller while the
    next items are read, decoded and verified.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="yarnstore")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        pool.shutdown(wait=True, cancel_futures=True)
