"""Tables of the places of chunks: entries of packs, and ranges of materialised files.

Chooses among several places of a chunk.  `store/chunks` reads.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.digest import PackId
from yarnstore.core.index import Ids, Ints, PackIndex, SortedIds, find_ids, id_bytes, sorted_unique
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.core.manifest import Manifest
from yarnstore.errors import FormatError
from yarnstore.store import held
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout, file_name

# Returns for each id whether the chunk has another place.
Holds: TypeAlias = Callable[[Ids], NDArray[np.bool_]]
# Says for each id how many deltas count as below a chunk that is in a file: above the limit if it is in none.
Beside: TypeAlias = Callable[[Ids], Ints]


class EntryPlace(NamedTuple):
    """An entry of a pack; offset and length are in bytes, `base` is empty if it is no delta."""

    pack: PackId
    offset: int
    length: int
    base: bytes


class _Rows(NamedTuple):
    """Columns of equal length, as those of `ChunkTable`."""

    ids: Ids
    bases: Ids
    pack: Ints
    offsets: Ints
    stored: Ints
    plain: Ints
    encodings: NDArray[np.uint8]

    def at(self, places: Ints) -> _Rows:
        return _Rows(
            ids=self.ids[places],
            bases=self.bases[places],
            pack=self.pack[places],
            offsets=self.offsets[places],
            stored=self.stored[places],
            plain=self.plain[places],
            encodings=self.encodings[places],
        )


class ChunkTable:
    """Several pack indexes as one, for lookups in bulk.

    Columns of equal length in ascending order of `ids`; `pack` is a position in `packs`.  If a chunk has
    several entries, the one with the fewest deltas below it counts, of equal ones the first; `entries` has
    the others too.  A base may be in a file, as `beside` says; a delta whose base is nowhere comes last, as a
    circle of deltas does.  Without `beside`, a base that is in no pack counts as in a file that may go.
    """

    packs: list[PackId]
    rows: _Rows
    more: _Rows  # further entries of these chunks, by id, best first
    ids: Ids
    bases: Ids
    pack: Ints
    offsets: Ints
    stored: Ints
    plain: Ints
    encodings: NDArray[np.uint8]

    def __init__(
        self,
        indexes: Sequence[PackIndex],
        before: ChunkTable | None = None,
        *,
        beside: Beside | None = None,
    ) -> None:
        """Join indexes; `before` is a table to which they are added, and whose rows count first.

        `beside` is only called if a chunk has several entries, deltas among them.
        """
        earlier = [before.rows, before.more] if before is not None else []
        self.packs = list(before.packs) if before is not None else []
        numbers = [rows.pack for rows in earlier]
        for index in indexes:
            numbers.append(np.full(len(index), len(self.packs), np.int64))
            self.packs.append(index.pack)
        parts: list[_Rows | PackIndex] = [*earlier, *indexes]
        rows = _Rows(
            ids=_concatenate([part.ids for part in parts], "S32"),
            bases=_concatenate([part.bases for part in parts], "S32"),
            pack=_concatenate(numbers, "i8"),
            offsets=_concatenate([part.offsets for part in parts], "i8"),
            stored=_concatenate([part.stored for part in parts], "i8"),
            plain=_concatenate([part.plain for part in parts], "i8"),
            encodings=_concatenate([part.encodings for part in parts], "u1"),
        )
        deltas = rows.bases != b""
        order = np.argsort(deltas, kind="stable")
        distinct, first = sorted_unique(rows.ids[order] if deltas.any() else rows.ids)
        if len(distinct) != len(rows.ids) and deltas.any():
            order = np.argsort(_entry_depths(rows.ids, rows.bases, distinct, beside), kind="stable")
            distinct, first = sorted_unique(rows.ids[order])
        self.rows = rows.at(order[first])
        others = np.delete(order, first)
        self.more = rows.at(others[np.argsort(rows.ids[others], kind="stable")])
        self.ids, self.bases, self.pack, self.offsets, self.stored, self.plain, self.encodings = self.rows
        self._sorted = SortedIds(self.ids)

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, wanted: Ids) -> Ints:
        """Return the row of each wanted id, with the shape of `wanted`; -1 if it is not in the table."""
        return self._sorted.find(wanted)

    def row_of(self, wanted: bytes) -> int:
        """Do the same as `find` for one id."""
        return self._sorted.find_one(wanted)

    def rows_of(self, wanted: Sequence[bytes]) -> list[int]:
        """Do the same as `find` for a few ids."""
        return [self._sorted.find_one(item) for item in wanted]

    def entries(self, row: int) -> Iterator[EntryPlace]:
        """Yield the places of a row's chunk in packs, the one that counts first."""
        yield self._entry(self.rows, row)
        start, end = (np.searchsorted(self.more.ids, self.ids[row], side) for side in ("left", "right"))
        for n in range(int(start), int(end)):
            yield self._entry(self.more, n)

    def _entry(self, rows: _Rows, n: int) -> EntryPlace:
        pack, base = self.packs[rows.pack[n]], id_bytes(rows.bases, n) if rows.bases[n] else b""
        return EntryPlace(pack, int(rows.offsets[n]), int(rows.stored[n]), base)

    def base_rows(self) -> Ints:
        """Return the row of each row's base: -1 for a chunk without one, -2 for a base that is not in the
        table.
        """
        rows = np.full(len(self), -1, np.int64)
        deltas = self.bases != b""
        found = self.find(self.bases[deltas])
        rows[deltas] = np.where(found < 0, -2, found)
        return rows

    def depths(self, held: Holds | None = None) -> Ints:
        """Return how many deltas are between each row and a chunk without a base.

        It is one more than the limit if the chain is longer, broken or a circle.  `held` returns which ids
        have another place, at which a chain ends.
        """
        bases = self.base_rows()
        whole = bases == -1
        depths = np.where(whole, 0, DELTA_DEPTH_LIMIT + 1)
        if held is not None and not whole.all():
            deltas = np.flatnonzero(~whole)
            depths[deltas[held(self.bases[deltas])]] = 1
            depths[deltas[held(self.ids[deltas])]] = 0
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


def _entry_depths(ids: Ids, bases: Ids, distinct: Ids, beside: Beside | None) -> Ints:
    """Return for each entry how many deltas are between it and a chunk without a base or in a file.

    It is one more than the limit for a circle, and for a base that is nowhere.
    """
    chunk = find_ids(distinct, ids)
    base = find_ids(distinct, bases)
    whole = bases == b""
    depths = np.full(len(ids), DELTA_DEPTH_LIMIT + 1)
    if beside is None:
        depths[base < 0] = DELTA_DEPTH_LIMIT
    else:
        depths[~whole] = np.minimum(beside(bases[~whole]), DELTA_DEPTH_LIMIT) + 1
    depths[whole] = 0
    best = np.full(len(distinct), DELTA_DEPTH_LIMIT + 1)
    for _ in range(DELTA_DEPTH_LIMIT):
        np.minimum.at(best, chunk, depths)
        via = base >= 0
        depths[via] = np.minimum(depths[via], best[base[via]] + 1)
    return depths


def _concatenate(columns: list[Any], dtype: str) -> NDArray[Any]:
    if len(columns) == 1:
        return np.asarray(columns[0])  # of a million chunks, a copy is 32 MB
    return np.concatenate(columns) if columns else np.empty(0, dtype)


class FileRange(NamedTuple):
    """A range of a materialised file, which has `name` in `files/`."""

    name: str
    path: Path
    offset: int
    length: int


class FileTable:
    """The places of chunks in materialised files, according to manifests.

    `ids` (distinct, ascending) are the chunks.  The bytes may be damaged until they are read and hashed.
    """

    def __init__(
        self,
        layout: StoreLayout,
        manifests: Iterable[Manifest],
        *,
        within: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Locate the chunks of `manifests` in the files of a store: `within` some of them, by name, or
        `without` some.
        """
        self.paths: list[Path] = []
        self.names: list[str] = []  # of the same files, in `files/`
        seen: set[tuple[str, str]] = set()
        ids: list[Ids] = []
        places: list[NDArray[np.int64]] = []
        there = held.names(layout).difference(without)
        if within is not None:
            there &= set(within)
        for file in (file for manifest in (manifests if there else ()) for file in manifest.files):
            name = file_name(file)
            if name not in there or (name, file.chunks) in seen:
                continue
            seen.add((name, file.chunks))
            path, found = held.find(layout, name)
            if found is None or not stat.S_ISREG(found.st_mode):
                continue
            with contextlib.suppress(FormatError):  # an unreadable list is ignored
                file_ids, lengths = file.chunk_list()
                ends = np.cumsum(lengths)
                here = ends <= found.st_size  # a truncated file still has its first chunks
                n = np.full(len(file_ids), len(self.paths))
                places.append(np.stack([n, ends - lengths, lengths], axis=1)[here])
                ids.append(file_ids[here])
                self.paths.append(path)
                self.names.append(name)
        self._all_ids = _concatenate(ids, "S32")
        self._all_places = np.concatenate([np.empty((0, 3), np.int64), *places])
        self.ids, self._first = sorted_unique(self._all_ids)
        self._sorted = SortedIds(self.ids)

    def find(self, wanted: Ids) -> Ints:
        """Return the position in `ids` of each wanted id, -1 if no file has it."""
        return self._sorted.find(wanted)

    def ranges(self, rows: Ints) -> NDArray[np.int64]:
        """Return a place for each of these positions in `ids`: number of the path, offset and length."""
        return self._all_places[self._first[rows]]

    def holders(self, wanted: Ids) -> set[str]:
        """Return the names of all files that have one of the wanted ids (ascending)."""
        numbers = self._all_places[find_ids(wanted, self._all_ids) >= 0, 0]
        return {self.names[n] for n in np.unique(numbers).tolist()}

    def places(self, chunk_id: bytes) -> Iterator[FileRange]:
        """Yield the places of one chunk."""
        row = self._sorted.find_one(chunk_id)
        if row < 0:
            return
        first = int(self._first[row])
        yield self._place(first)
        # Only if the bytes at the first place are wrong.
        for n in np.flatnonzero(self._all_ids == self.ids[row]).tolist():
            if n != first:
                yield self._place(n)

    def _place(self, n: int) -> FileRange:
        number, offset, length = self._all_places[n].tolist()
        return FileRange(self.names[number], self.paths[number], offset, length)


def beside_packs(layout: StoreLayout, staying: Collection[str] | None = None) -> Beside:
    """Return the function that finds bases outside of packs: in files, according to manifests.

    A chunk in a file of `staying` (names; None means all) counts as without a delta, one in another file as
    with almost as many as are allowed.
    """

    def depths(wanted: Ids) -> Ints:
        manifests = list(layout.readable_manifests({}))
        found = np.full(len(wanted), DELTA_DEPTH_LIMIT)
        found[FileTable(layout, manifests).find(wanted) >= 0] = (
            0 if staying is None else DELTA_DEPTH_LIMIT - 1
        )
        if staying is not None:
            found[FileTable(layout, manifests, within=staying).find(wanted) >= 0] = 0
        return found

    return depths


def without_chunks(indexes: Iterable[PackIndex], chunk_ids: Ids) -> list[PackIndex]:
    """Return the indexes without the rows of some chunks (ascending)."""
    if not len(chunk_ids):
        return list(indexes)
    return [select_rows(index, find_ids(chunk_ids, index.ids) < 0) for index in indexes]


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


def lacking_ids(new: Manifest, base: Manifest) -> Ids:
    """Return the chunks of one version that another one does not have, ascending."""
    ids, _ = manifest_chunks([new])
    known, _ = manifest_chunks([base])
    return ids[find_ids(known, ids) < 0]


def manifest_chunks(manifests: Iterable[Manifest]) -> tuple[Ids, Ints]:
    """Return the distinct chunks of manifests: ids ascending as `S32`, lengths in bytes as int64."""
    ids: list[Ids] = []
    lengths: list[Ints] = []
    for manifest in manifests:
        for file in manifest.files:
            file_ids, file_lengths = file.chunk_list()
            ids.append(file_ids)
            lengths.append(file_lengths)
    distinct, first = sorted_unique(_concatenate(ids, "S32"))
    return distinct, _concatenate(lengths, "i8")[first]
