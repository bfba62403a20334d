"""Find the chunks of a store and read them.

A chunk is an entry of a pack or a range of a materialised file; callers need not know which.  If the bytes at
a place do not hash to the chunk's name, the chunk counts as absent there.  `core/pack` and `core/index` have
the formats.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.codec import decode_entry, verified
from yarnstore.core.digest import Buffer, PackId, Sha256
from yarnstore.core.index import (
    Ids,
    Ints,
    PackIndex,
    distinct_ids,
    find_ids,
    id_bytes,
    parse_index,
    without_ids,
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
    YarnstoreError,
)
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.held import find
from yarnstore.store.layout import PackFolder, StoreLayout
from yarnstore.store.open_files import OpenFiles, pread_exact
from yarnstore.store.packs import UNFINISHED, PackWriter, recover_packs, scan_pack, write_index
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import ChunkTable, EntryPlace, FileRange, FileTable, select_rows

_CHECK_WINDOW = 16


@dataclass(frozen=True)
class FoundIndexes:
    """The indexes of a folder of packs; `faults` has the unusable ones."""

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
                    with contextlib.suppress(DiskFullError, ReadOnlyError):  # used for this call only
                        write_index(folder, indexes[-1])
    return FoundIndexes(indexes, faults)


def _load_index(folder: PackFolder, pack: PackId) -> PackIndex:
    found = fsread.stat_or_none(folder.pack(pack))
    if found is None:
        raise NotFoundError("pack", pack.hex)
    path = folder.index(pack)

    def read() -> PackIndex:
        try:
            data = fsread.read_bytes(path, INDEX_LIMIT_BYTES)
        except StorageError:
            if fsread.stat_or_none(path) is None or fsread.is_file(path):
                raise
            raise IntegrityError(f"index of pack {pack.hex}", why="is not a regular file") from None
        return parse_index(data, pack=pack)

    index = folder.memory.recall(path, read) if folder.memory else read()
    if index.pack_bytes != found.st_size:
        raise IntegrityError(f"pack {pack.hex}", why="has a different size than its index says")
    return index


def _worse(known: YarnstoreError | None, error: YarnstoreError) -> YarnstoreError:
    """Return the error that counts if all places of a chunk fail: one that does not make the chunk bad."""
    return known if isinstance(known, StorageError) else error


class PackReader:
    """Reads verified chunks of a folder of packs, through their deltas.  Safe to share by threads.

    `table` selects the packs; without it, it is made from the folder's indexes when first needed.
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
                    table = self._table = ChunkTable(self._load(), beside=self._beside)
        return table

    def _load(self) -> list[PackIndex]:
        return load_indexes(self.folder, rebuild=False).indexes

    def _beside(self, wanted: Ids) -> Ints:
        """See `places.Beside`: packs that belong to no store have nothing beside them."""
        return np.full(len(wanted), DELTA_DEPTH_LIMIT)

    def reload(self) -> None:
        """Read the disk again when a chunk is next needed, since it may have changed."""
        with self._loading:
            self._table = None
            self._files.close()

    def forget(self, chunk_ids: set[bytes]) -> None:
        """Remove damaged chunks from the indexes on disk, so that they count as absent and are fetched
        again.
        """
        self.forget_entries(dict.fromkeys(self.folder.pack_ids(), chunk_ids))

    def forget_entries(self, damaged: Mapping[PackId, set[bytes]]) -> None:
        """Remove damaged entries from the indexes on disk, by pack; other entries of their chunks stay."""
        for index in load_indexes(self.folder, rebuild=False).indexes:
            doomed = np.array(sorted(damaged.get(index.pack, ())), "S32")
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
        return self._entry_at(next(self.table.entries(row)))

    def _entry_at(self, place: EntryPlace) -> Entry:
        path = self._paths.get(place.pack)
        if path is None:
            path = self._paths[place.pack] = self.folder.pack(place.pack)
        with self._files.read(path) as fd:
            return parse_entry(pread_exact(fd, path, place.offset, place.length))

    def read_row(self, row: int, *, depth: int = 0) -> Buffer:
        """Return the verified bytes of a row's chunk, from the first of its entries that has them.

        Raises: IntegrityError if none does, NotFoundError; StorageError if one cannot be read and no other
        has them.
        """
        table = self.table
        chunk_id = id_bytes(table.ids, row)
        fault: YarnstoreError = NotFoundError("chunk", chunk_id.hex())
        for place in table.entries(row):
            try:
                return self.read_place(chunk_id, place, depth=depth)
            except (IntegrityError, NotFoundError, StorageError) as error:
                fault = _worse(fault, error)
        raise fault

    def read_place(self, chunk_id: bytes, place: EntryPlace, *, depth: int = 0) -> Buffer:
        """Return the verified bytes of a chunk from one entry.  Raises: as `read_row`."""
        entry = self._entry_at(place)
        if entry.chunk_id != chunk_id:
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


class ChunkStore(PackReader):
    """The chunks of one store as one operation sees them.

    It is opened once, under the shared lock, and passed from stage to stage.  Data is read when needed:
    indexes for the first lookup of a chunk, and manifests, which list the chunks of materialised files, for
    the first read.  Chunks that the operation writes through `writing` are known without reading.  Those that
    other processes write meanwhile are not, which is safe, since under the shared lock nothing is deleted.
    `reload` reads the disk again; its callers give the reason.
    """

    def __init__(self, layout: StoreLayout, *, rebuild: bool = True, without: Collection[str] = ()) -> None:
        """Open a store; `without` are names of damaged files to ignore."""
        super().__init__(layout.pack_folder)
        self._without = without
        self._layout = layout
        self._rebuild = rebuild  # whether to rebuild bad indexes
        self._lock = threading.Lock()
        self._located: FileTable | None = None
        self._manifests: dict[Sha256, Manifest] = {}
        self._wrong: set[bytes] = set()  # chunks that no file has although manifests list them
        self.bad: set[bytes] = set()  # chunks without any sound copy

    def _load(self) -> list[PackIndex]:
        return load_indexes(self.folder, rebuild=self._rebuild).indexes

    def _beside(self, wanted: Ids) -> Ints:
        return np.where(self.in_files(wanted), 0, DELTA_DEPTH_LIMIT)

    @property
    def files(self) -> FileTable:
        """The chunks in materialised files, without files that the operation makes, whose chunks have other
        known places.
        """
        located = self._located
        if located is None:
            with self._loading:
                located = self._located
                if located is None:
                    manifests = self._layout.readable_manifests(self._manifests)
                    located = self._located = FileTable(self._layout, manifests, without=self._without)
        return located

    @property
    def is_empty(self) -> bool:
        """Whether no pack and no file has any chunk."""
        return not len(self.table) and not len(self.files.ids)

    def know(self, manifest: Manifest) -> None:
        """Add a manifest of the store that the caller has parsed already."""
        self._manifests[manifest.digest] = manifest

    def read_manifest(self, digest: Sha256) -> Manifest:
        """Return a manifest of the store.  Raises: NotFoundError, IntegrityError."""
        return self._manifests.get(digest) or self._layout.read_manifest(digest)

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
                    if fresh:
                        self._table = ChunkTable(fresh, self._table, beside=self._beside)

    def reload(self) -> None:
        """Do the same as `PackReader.reload`, and locate files again.

        Known manifests are kept, since they never change.
        """
        super().reload()
        self._located = None

    def forget(self, chunk_ids: set[bytes]) -> None:
        """Do the same as `PackReader.forget`."""
        super().forget(chunk_ids)
        self.bad -= chunk_ids

    def in_files(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted id whether a materialised file has it according to manifests."""
        held: NDArray[np.bool_] = self.files.find(wanted) >= 0
        if self._wrong:
            held &= find_ids(np.array(sorted(self._wrong), "S32"), wanted) < 0
        return held

    def in_packs(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted id whether packs have it, with all bases of its delta."""
        return self._usable(wanted, self.table.depths())

    def _usable(self, wanted: Ids, depths: Ints) -> NDArray[np.bool_]:
        rows = self.table.find(wanted)
        usable: NDArray[np.bool_] = rows >= 0
        usable[usable] = depths[rows[usable]] <= DELTA_DEPTH_LIMIT
        return usable

    def bases_of(self, wanted: Ids) -> Ids:
        """Return the chunks that deltas of wanted chunks need, ascending."""
        rows = self.table.find(wanted)
        bases = distinct_ids(self.table.bases[self.table.with_bases(rows[rows >= 0])])
        needed: Ids = bases[bases != b""]
        return needed

    def missing(self, wanted: Ids) -> Ids:
        """Return the wanted ids (distinct) that are in no pack and no file, or only as deltas whose bases are
        missing.
        """
        absent = without_ids(wanted, self.in_packs(wanted))
        if len(absent):
            absent = without_ids(absent, self._usable(absent, self.table.depths(self.in_files)))
        return without_ids(absent, self.in_files(absent)) if len(absent) else absent

    def check_files(self, wanted: Ids) -> None:
        """Read the wanted chunks (distinct ids) that only files have, and the bases of wanted deltas that
        only files have: damaged ones then count as missing.
        """
        only = wanted[~self.in_packs(wanted)]
        if len(only):
            only = distinct_ids(np.concatenate([only, self.bases_of(only)]))
            only = only[self.in_files(only)]

        def check(n: int) -> None:
            chunk_id = id_bytes(only, n)
            with contextlib.suppress(IntegrityError):
                self._read_file(chunk_id)

        for _ in ordered_map(check, range(len(only)), window=_CHECK_WINDOW):
            pass

    def read(self, chunk_id: bytes, row: int, *, depth: int = 0) -> Buffer:
        """Do as `locate`, and return only the bytes."""
        return self.locate(chunk_id, row, depth=depth)[0]

    def locate(self, chunk_id: bytes, row: int, *, depth: int = 0) -> tuple[Buffer, FileRange | None]:
        """Return the verified bytes of a chunk, and the range of a file that has them, unless a pack has;
        `row` is its place in `table`, or -1.

        A materialised file is preferred, since it needs no decoding.

        Raises: IntegrityError if no place has it; it is then in `bad`, unless it is a delta against a chunk
        that is.  StorageError if reading fails, which does not make the chunk bad.
        """
        fault: YarnstoreError | None = None
        try:
            return self._read_file(chunk_id)
        except NotFoundError:
            pass
        except (IntegrityError, StorageError) as error:
            fault = error
        if row >= 0:
            try:
                return self.read_row(row, depth=depth), None
            except (IntegrityError, NotFoundError, StorageError) as error:
                fault = _worse(fault, error)
        if isinstance(fault, StorageError):
            raise fault
        base = id_bytes(self.table.bases, row) if row >= 0 and self.table.bases[row] else b""
        with self._lock:
            if base not in self.bad:
                self.bad.add(chunk_id)
        raise IntegrityError(
            f"chunk {chunk_id.hex()[:12]}…",
            why="is corrupt in this store" if fault else "is not in this store",
            hint="`ystore fsck --repair` fetches it again",
        ) from fault

    def is_at(self, chunk_id: bytes, path: Path, offset: int, length: int) -> bool:
        """Whether a range of a file has a chunk now; it is read and hashed.  Raises: StorageError."""
        with contextlib.suppress(IntegrityError, NotFoundError):
            self._read_range(chunk_id, path, offset, length)
            return True
        return False

    @contextlib.contextmanager
    def opened(self, place: FileRange) -> Iterator[int]:
        """Return a descriptor of the file that a range is in.  Raises: NotFoundError, StorageError."""
        with self._files.read(place.path) as fd:
            yield fd

    def _read_range(self, chunk_id: bytes, path: Path, offset: int, length: int) -> Buffer:
        with self._files.read(path) as fd:
            return verified(chunk_id, pread_exact(fd, path, offset, length))

    def _read_file(self, chunk_id: bytes) -> tuple[Buffer, FileRange]:
        """Return the verified bytes of a chunk from a materialised file, and where they were.

        Raises: NotFoundError if no file should have it; IntegrityError if no file has it, which is then
        recorded; StorageError if a file cannot be read and no other has it.
        """
        fault: YarnstoreError | None = None
        for place in self.files.places(chunk_id):
            try:
                try:
                    return self._read_range(chunk_id, *place[1:]), place
                except NotFoundError:  # a view took it, or gave it back
                    place = place._replace(path=find(self._layout, place.name).path)
                    return self._read_range(chunk_id, *place[1:]), place
            except (IntegrityError, NotFoundError, StorageError) as error:
                fault = _worse(fault, error)
        if fault is None:
            raise NotFoundError("chunk", chunk_id.hex())
        if not isinstance(fault, StorageError):
            with self._lock:
                self._wrong.add(chunk_id)
        raise fault

    def read_base(self, chunk_id: bytes, *, depth: int) -> Buffer:
        """Return the verified bytes of a chunk that a delta needs.  Raises: as `read`."""
        return self.read(chunk_id, self.row_of(chunk_id), depth=depth)


def recover_chunks(chunks: ChunkStore) -> None:
    """Keep the entries that killed processes wrote into packs of a store, including deltas."""
    folder = chunks.folder
    if any(name.endswith(UNFINISHED) for name in fsread.list_names(folder.tmp)):
        recover_packs(folder, chunks.decode)
        chunks.reload()  # another process may have recovered them and written the index
