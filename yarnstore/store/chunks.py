"""Find the chunks of a store and read them.

A chunk is an entry of a pack or a range of a materialised file; callers need not know which.  If the bytes at
a place do not hash to the chunk's name, the chunk counts as absent there.  Leaves the bytes of packs and
indexes to `core/pack` and `core/index`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.codec import decode_entry, make_entry, verified
from yarnstore.core.digest import Buffer, PackId, Sha256
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
    IntegrityError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
)
from yarnstore.store import fsread
from yarnstore.store.layout import PackFolder, StoreLayout, file_name
from yarnstore.store.open_files import OpenFiles, pread_exact
from yarnstore.store.packs import UNFINISHED, PackWriter, recover_packs, scan_pack, write_index


@dataclass(frozen=True)
class FoundIndexes:
    """The indexes of a folder of packs; `faults` are those that could not be used."""

    indexes: list[PackIndex]
    faults: list[tuple[PackId, Exception]]


def load_indexes(folder: PackFolder, *, rebuild: bool) -> FoundIndexes:
    """Read every index whose pack exists.

    An index is a cache: with `rebuild`, a bad or lost index is made again from its pack; an index without its
    pack is ignored.

    Raises: StorageError if a pack cannot be read, which does not mean that it does not exist.
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
    path = folder.index(pack)
    try:
        data = fsread.read_bytes(path, INDEX_LIMIT_BYTES)
    except StorageError:
        if fsread.stat_or_none(path) is None or fsread.is_file(path):
            raise
        raise IntegrityError(f"index of pack {pack.hex}", why="is not a regular file") from None
    index = parse_index(data, pack=pack)
    if index.pack_bytes != found.st_size:
        raise IntegrityError(f"pack {pack.hex}", why="has a different size than its index says")
    return index


class ChunkTable:
    """Several pack indexes as one, for lookups in bulk.

    Columns of equal length in ascending order of `ids`; `pack` is a position in `packs`.  If a chunk has
    several entries, the first counts, and one without a base before any delta.
    """

    packs: list[PackId]
    ids: Ids
    bases: Ids
    pack: Ints
    offsets: Ints
    stored: Ints
    plain: Ints
    encodings: NDArray[np.uint8]

    def __init__(self, indexes: Sequence[PackIndex], before: ChunkTable | None = None) -> None:
        """Join indexes; `before` is a table to which they are added, and whose rows count first."""
        earlier = [before] if before is not None else []
        self.packs = [pack for table in earlier for pack in table.packs]
        numbers = [table.pack for table in earlier]
        for index in indexes:
            numbers.append(np.full(len(index), len(self.packs), np.int64))
            self.packs.append(index.pack)
        parts: list[ChunkTable | PackIndex] = [*earlier, *indexes]
        ids = _concatenate([part.ids for part in parts], "S32")
        bases = _concatenate([part.bases for part in parts], "S32")
        whole_first = np.argsort(bases != b"", kind="stable")
        self.ids, first = sorted_unique(ids[whole_first])
        self._sorted = SortedIds(self.ids)
        first = whole_first[first]
        self.bases = bases[first]
        self.pack = _concatenate(numbers, "i8")[first]
        self.offsets = _concatenate([part.offsets for part in parts], "i8")[first]
        self.stored = _concatenate([part.stored for part in parts], "i8")[first]
        self.plain = _concatenate([part.plain for part in parts], "i8")[first]
        self.encodings = _concatenate([part.encodings for part in parts], "u1")[first]

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, wanted: Ids) -> Ints:
        """Return the row of each wanted id, shape as `wanted`; -1 if it is not in the table."""
        return self._sorted.find(wanted)

    def row_of(self, wanted: bytes) -> int:
        """Do as `find`, for one id."""
        return self._sorted.find_one(wanted)

    def rows_of(self, wanted: Sequence[bytes]) -> list[int]:
        """Do as `find`, for a few ids."""
        return [self._sorted.find_one(item) for item in wanted]

    def base_rows(self) -> Ints:
        """Return the row of each row's base: -1 for a chunk without one, -2 for a base that is not in the
        table.
        """
        rows = np.full(len(self), -1, np.int64)
        deltas = self.bases != b""
        found = self.find(self.bases[deltas])
        rows[deltas] = np.where(found < 0, -2, found)
        return rows

    def depths(self) -> Ints:
        """Return how many deltas are between each row and a chunk without a base.

        It is one more than the limit if the chain is longer, broken or a circle.
        """
        bases = self.base_rows()
        depths = np.where(bases == -1, 0, DELTA_DEPTH_LIMIT + 1)
        for _ in range(DELTA_DEPTH_LIMIT):
            via = bases >= 0
            depths[via] = np.minimum(depths[via], depths[bases[via]] + 1)
        return depths

    def with_bases(self, rows: Ints) -> Ints:
        """Return the distinct rows given, and all rows that their deltas need."""
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


class PackReader:
    """Reads verified chunks of a folder of packs, through their deltas.  Safe to share by threads.

    `table` says which packs to read; without it, it is made from the folder's indexes when it is first
    needed.
    """

    def __init__(self, folder: PackFolder, table: ChunkTable | None = None) -> None:
        self.folder = folder
        self._table = table
        self._loading = threading.RLock()
        self._files = OpenFiles()
        self._paths: dict[PackId, Path] = {}

    @property
    def table(self) -> ChunkTable:
        """The table of the chunks."""
        table = self._table
        if table is None:
            with self._loading:
                table = self._table
                if table is None:
                    table = self._table = ChunkTable(self._load())
        return table

    def _load(self) -> list[PackIndex]:
        return load_indexes(self.folder, rebuild=False).indexes

    def reload(self) -> None:
        """Read the disk again when a chunk is needed next, since it may have changed."""
        with self._loading:
            self._table = None
            self._files.close()

    def forget(self, chunk_ids: set[bytes]) -> None:
        """Remove damaged chunks from the indexes on disk, so that they count as absent and are fetched
        again.
        """
        doomed = np.array(sorted(chunk_ids), "S32")
        for index in load_indexes(self.folder, rebuild=False).indexes:
            keep = find_ids(doomed, index.ids) < 0
            if not keep.all():
                write_index(self.folder, select_rows(index, keep))
        self.reload()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the packs."""
        self._files.close()

    def row_of(self, chunk_id: bytes) -> int:
        """Return the row of one chunk, -1 if it is absent; for thousands, use `table.find`."""
        return self.table.row_of(chunk_id)

    def read_entry(self, row: int) -> Entry:
        """Return the entry of a row, not verified.  Raises: FormatError, NotFoundError, StorageError."""
        table = self.table
        number = int(table.pack[row])
        path = self._paths.get(table.packs[number])
        if path is None:
            path = self._paths[table.packs[number]] = self.folder.pack(table.packs[number])
        with self._files.read(path) as fd:
            data = pread_exact(fd, path, int(table.offsets[row]), int(table.stored[row]))
        return parse_entry(data)

    def read_row(self, row: int, *, depth: int = 0) -> Buffer:
        """Return the verified bytes of a row's chunk.

        Raises: IntegrityError if they do not match its name, NotFoundError, StorageError.
        """
        entry = self.read_entry(row)
        if entry.chunk_id != id_bytes(self.table.ids, row):
            raise IntegrityError("pack entry", why="contains a different chunk than its index says")
        return self.decode(entry, depth=depth)

    def decode(self, entry: Entry, *, depth: int = 0) -> Buffer:
        """Return the verified bytes of an entry from any source whose bases are in the folder.

        Raises: as `read_row`.
        """
        if not entry.base:
            return decode_entry(entry)
        if depth >= DELTA_DEPTH_LIMIT:
            raise IntegrityError("a delta", why=f"depends on more than {DELTA_DEPTH_LIMIT} other deltas")
        return decode_entry(entry, self.read_base(entry.base, depth=depth + 1))

    def read_base(self, chunk_id: bytes, *, depth: int) -> Buffer:
        """Return the verified bytes of a chunk that a delta needs.  Raises: as `read_row`."""
        row = self.row_of(chunk_id)
        if row < 0:
            raise IntegrityError(f"base {chunk_id.hex()[:12]}…", why="of a delta is not in this store")
        return self.read_row(row, depth=depth)


class FileTable:
    """Where chunks are in materialised files: columns of equal length in ascending order of `ids`.

    This is only what manifests claim: a chunk exists once its bytes were read and hashed.
    """

    def __init__(self, layout: StoreLayout, known: Mapping[Sha256, Manifest]) -> None:
        """Locate chunks; `known` are manifests that need not be read."""
        self.paths: list[Path] = []
        seen: set[Path] = set()
        ids: list[Ids] = []
        places: list[NDArray[np.int64]] = []
        there = set(fsread.list_names(layout.files))
        for digest in layout.manifest_ids() if there else ():
            # One that cannot be read claims nothing.
            with contextlib.suppress(IntegrityError, NotFoundError, StorageError):
                for file in (known.get(digest) or layout.read_manifest(digest)).files:
                    if file_name(file) not in there:
                        continue
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
        self._sorted = SortedIds(self.ids)
        self._places = np.concatenate([np.empty((0, 3), np.int64), *places])[first]

    def find(self, chunk_id: bytes) -> tuple[Path, int, int] | None:
        """Return the file, offset and length of one chunk."""
        row = self._sorted.find_one(chunk_id)
        if row < 0:
            return None
        n, offset, length = self._places[row].tolist()
        return self.paths[n], offset, length


class ChunkStore(PackReader):
    """The chunks of one store as one operation sees them.

    It is opened once, under the shared lock, and passed from stage to stage.  Nothing is read until it is
    needed: indexes for the first chunk that is looked for, and manifests, which say what materialised files
    contain, for the first chunk that is read.  What the operation writes through `writing` is known without
    reading.  What other processes write meanwhile is not, and need not be: under the shared lock nothing is
    deleted.  `reload` reads the disk again; its callers say why.
    """

    def __init__(self, layout: StoreLayout, *, rebuild: bool = True) -> None:
        super().__init__(layout.pack_folder)
        self._layout = layout
        self._rebuild = rebuild  # bad indexes are made again
        self._lock = threading.Lock()
        self._located: FileTable | None = None
        self._manifests: dict[Sha256, Manifest] = {}
        self.bad: set[bytes] = set()  # chunks that have no sound place here

    def _load(self) -> list[PackIndex]:
        return load_indexes(self.folder, rebuild=self._rebuild).indexes

    @property
    def files(self) -> FileTable:
        """The chunks in materialised files, except in those that the operation makes: their chunks came
        from known places.
        """
        located = self._located
        if located is None:
            with self._loading:
                located = self._located
                if located is None:
                    located = self._located = FileTable(self._layout, self._manifests)
        return located

    def know(self, manifest: Manifest) -> None:
        """Use a manifest of the store that the caller already parsed."""
        self._manifests[manifest.digest] = manifest

    @contextlib.contextmanager
    def writing(self) -> Iterator[PackWriter]:
        """Write packs into the store; published ones are known afterwards, also after an error."""
        writer = PackWriter(self.folder)
        try:
            with writer:
                yield writer
        finally:
            with self._loading:
                if self._table is not None:
                    known = set(self._table.packs)
                    fresh = [index for index in writer.published if index.pack not in known]
                    self._table = ChunkTable(fresh, self._table) if fresh else self._table

    def reload(self) -> None:
        """Do as `PackReader.reload`, and locate files again.  Known manifests stay: they never change."""
        super().reload()
        self._located = None

    def forget(self, chunk_ids: set[bytes]) -> None:
        """Do as `PackReader.forget`."""
        super().forget(chunk_ids)
        self.bad -= chunk_ids

    def missing(self, wanted: Ids) -> Ids:
        """Return the wanted ids (distinct) that no pack has, or only as deltas whose bases are missing."""
        rows = self.table.find(wanted)
        usable = rows >= 0
        usable[usable] = self.table.depths()[rows[usable]] <= DELTA_DEPTH_LIMIT
        absent: Ids = wanted[~usable]
        return absent

    def read(self, chunk_id: bytes, row: int, *, depth: int = 0) -> Buffer:
        """Return the verified bytes of a chunk; `row` is its place in `table`, or -1.

        A materialised file is read first: it needs no decoding.

        Raises: IntegrityError if no place has it; it is then in `bad`, unless it is a delta against one that
        is. StorageError if the disk or the system refuses, which says nothing about the chunk.
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
            why="is corrupt in this store" if fault else "is not in this store",
            hint="`ystore fsck --repair` fetches it again",
        ) from fault

    def read_base(self, chunk_id: bytes, *, depth: int) -> Buffer:
        """Return the verified bytes of a chunk that a delta needs.  Raises: as `read`."""
        return self.read(chunk_id, self.row_of(chunk_id), depth=depth)

    def _read_range(self, chunk_id: bytes, path: Path, offset: int, length: int) -> Buffer:
        with self._files.read(path) as fd:
            return verified(chunk_id, pread_exact(fd, path, offset, length))


def take_from_files(chunks: ChunkStore, wanted: Ids) -> None:
    """Write those wanted chunks (distinct ids) into packs that only materialised files have, verified."""
    absent = chunks.missing(wanted)
    if len(absent):
        absent = absent[find_ids(chunks.files.ids, absent) >= 0]
    if not len(absent):
        return
    with chunks.writing() as writer:
        for n in range(len(absent)):
            chunk_id = id_bytes(absent, n)
            with contextlib.suppress(IntegrityError):
                writer.add(make_entry(chunk_id, chunks.read(chunk_id, -1)))


def recover_chunks(chunks: ChunkStore) -> None:
    """Keep what killed processes had written of packs in a store, deltas too."""
    folder = chunks.folder
    if any(name.endswith(UNFINISHED) for name in fsread.list_names(folder.tmp)):
        recover_packs(folder, chunks.decode)
        chunks.reload()  # what was recovered may be another process's work, index included


def select_rows(index: PackIndex, keep: NDArray[np.bool_]) -> PackIndex:
    """Return the index with only the rows for which `keep` is true."""
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
    """Return the distinct chunks of manifests: ids ascending as `S32`, lengths as int64."""
    ids: list[Ids] = []
    lengths: list[Ints] = []
    for manifest in manifests:
        for file in manifest.files:
            file_ids, file_lengths = file.chunk_list()
            ids.append(file_ids)
            lengths.append(file_lengths)
    distinct, first = sorted_unique(_concatenate(ids, "S32"))
    return distinct, _concatenate(lengths, "i8")[first]
