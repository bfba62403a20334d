"""Files that are written while their chunks arrive.

A verified chunk is written into the files that contain it at once, and into a pack only if a pack is needed
as well.  An interrupted draft is kept under a name that the next run finds.  Its bytes are not trusted:
chunks of an earlier run are hashed before they are used, and all of the file is read back and hashed before
`store/files` gives it its name: what is written without a gap while more arrives, the rest afterwards.
docs/decisions/0017-files-from-arriving-chunks.md has the reasons.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Collection, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.codec import verified
from yarnstore.core.digest import Buffer
from yarnstore.core.index import NO_IDS, Ids, distinct_ids, find_ids, id_bytes
from yarnstore.core.limits import CHUNK_MIN_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import IntegrityError, StorageError
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.disk import disk_bytes
from yarnstore.store.filepath import Path
from yarnstore.store.files import (
    READ_WINDOW,
    UNFINISHED,
    Hashed,
    has_file,
    missing_files,
    read_chunk,
    write_chunk,
)
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.open_files import pread_exact
from yarnstore.store.pipeline import ordered_map

# Whether a chunk will be `put`, or was.
IsComing = Callable[[bytes], bool]

# The suffix of a draft in `tmp/`, after the file's future name in `files/`.
DRAFT = ".draft"
# The suffixes of incomplete downloads in `tmp/`: of files, and of entries of packs and small files.
INCOMPLETE = (".download", DRAFT)
# Smaller files are made from packs quickly.
_WORTH_BYTES = CHUNK_MIN_BYTES
# Files open at once, the largest of a version; far below any system's limit of descriptors.
_OPEN_DRAFTS = 32


class Draft:
    """One file that is being written; `put` is thread-safe."""

    def __init__(self, file: ManifestFile, target: fsio.KeptNewFile) -> None:
        self.ids, self._lengths = file.chunk_list()
        self._offsets = np.cumsum(self._lengths) - self._lengths
        # For each position in the file's chunk list: whether the chunk is written.
        self.placed = np.zeros(len(self.ids), bool)
        self.hashed = Hashed()
        self.file = file
        self.target = target

    @property
    def placed_bytes(self) -> int:
        """How many bytes of the file are written."""
        return int(self._lengths[self.placed].sum())

    def resume(self, size_bytes: int) -> None:
        """Find the chunks that an earlier run wrote, by hashing each.  Raises: StorageError."""
        ranges = self.target.limit(size_bytes)
        if not ranges:
            return
        begins, ends = np.array(ranges, np.int64).T
        within = np.searchsorted(begins, self._offsets, "right") - 1
        written = (within >= 0) & (ends[within] >= self._offsets + self._lengths)
        self._check(written)

    def check(self) -> None:
        """Hash the written chunks again.  Raises: StorageError."""
        self._check(self.placed.copy())

    def _check(self, written: NDArray[np.bool_]) -> None:
        def is_sound(n: int) -> bool:
            offset, length = int(self._offsets[n]), int(self._lengths[n])
            with contextlib.suppress(IntegrityError):
                data = pread_exact(self.target.fileno(), self.target.path, offset, length)
                verified(id_bytes(self.ids, n), data)
                return True
            return False

        numbers = np.flatnonzero(written).tolist()
        self.placed[:] = False
        self.hashed = Hashed()
        sound = ordered_map(is_sound, numbers, window=READ_WINDOW)
        for n, good in zip(numbers, sound, strict=True):
            self.placed[n] = good

    def put(self, n: int, data: Buffer) -> bool:
        """Write the chunk at position `n` of the file's chunk list, and return whether it is written now.

        Raises: StorageError.
        """
        if not self.placed[n] and len(data) == self._lengths[n]:
            self.target.write_at(int(self._offsets[n]), data)
            self.placed[n] = True
        return bool(self.placed[n])

    def hash_next(self, chunks: ChunkStore, is_coming: IsComing) -> bool:
        """See `Drafts.hash_next`.  Raises: StorageError if a chunk cannot be written."""
        n = self.hashed.count
        if n == len(self.ids):
            return False
        offset, length, chunk_id = int(self._offsets[n]), int(self._lengths[n]), id_bytes(self.ids, n)
        try:
            if self.placed[n]:
                self.hashed.add(pread_exact(self.target.fileno(), self.target.path, offset, length))
                return True
            if is_coming(chunk_id):
                return False
            data, place = read_chunk(chunks, self.file, chunk_id, chunks.row_of(chunk_id), length)
        except (IntegrityError, StorageError):
            return False  # `materialise` reads it again, and says what is wrong
        write_chunk(chunks, self.target, offset, data, place)
        self.placed[n] = True
        self.hashed.add(data)
        return True


class _Table:
    """The places of chunks in several drafts, by id."""

    def __init__(self, drafts: list[Draft], elsewhere: Ids) -> None:
        """`elsewhere` are the chunks (ascending) of files without a draft."""
        self._drafts = drafts
        ids = np.concatenate([NO_IDS, *(draft.ids for draft in drafts)])
        order = np.argsort(ids, kind="stable")
        self._ids: Ids = ids[order]
        self._order = order
        counts = [len(draft.ids) for draft in drafts]
        self._draft = np.repeat(np.arange(len(drafts)), counts)[order]
        self._position = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])[
            order
        ]
        self._needs_pack = find_ids(elsewhere, self._ids) >= 0

    def places(self, chunk_id: bytes) -> tuple[list[tuple[Draft, int]], bool]:
        """Return the drafts that contain a chunk, each with the position in its chunk list.

        Also returns whether a file without a draft contains it.
        """
        wanted = np.array([chunk_id], "S32")
        first = int(np.searchsorted(self._ids, wanted, "left")[0])
        last = int(np.searchsorted(self._ids, wanted, "right")[0])
        rows = range(first, last)
        places = [(self._drafts[int(self._draft[row])], int(self._position[row])) for row in rows]
        return places, bool(self._needs_pack[first:last].any())

    def position(self, chunk_id: bytes) -> int:
        """Return the first place of a chunk among those of all drafts; their number if it has none."""
        row = int(find_ids(self._ids, np.array([chunk_id], "S32"))[0])
        return int(self._order[row]) if row >= 0 else len(self._order)

    def has(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether drafts contain it, and no other file does."""
        only_here: Ids = self._ids[~self._needs_pack]
        found: NDArray[np.bool_] = find_ids(only_here, wanted) >= 0
        return found

    def lacks(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether it is not written to one of its places."""
        placed = np.concatenate([np.empty(0, bool), *(draft.placed for draft in self._drafts)])
        ids = np.concatenate([NO_IDS, *(draft.ids for draft in self._drafts)])
        found: NDArray[np.bool_] = find_ids(np.sort(ids[~placed]), wanted) >= 0
        return found


class Drafts:
    """The drafts of one version.  Leaving the context keeps unfinished drafts for the next run.

    With `packs_too`, every chunk is written into a pack as well; drafts are then not kept.
    """

    def __init__(self, layout: StoreLayout, *, packs_too: bool = False) -> None:
        self._layout = layout
        self._packs_too = packs_too
        # By name and chunk list, since another manifest may cut the same file differently.
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._table = _Table([], NO_IDS)

    def __enter__(self) -> Self:
        # Other unfinished files of killed processes are not continued, and may be as large as the new ones.
        with contextlib.suppress(StorageError):
            remove_dead_files(self._layout)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for draft in self._drafts.values():
                stack.callback(self._close, draft)

    def _close(self, draft: Draft) -> None:
        # Another process may have made the file meanwhile.
        if self._packs_too or not draft.placed.any() or has_file(self._layout, draft.file):
            draft.target.discard()
        else:
            draft.target.keep()

    @property
    def placed_bytes(self) -> int:
        """How many bytes of the drafts are written, and need no more disk space."""
        return sum(draft.placed_bytes for draft in self._drafts.values())

    def begin(self, manifest: Manifest, *, resume_only: bool = False) -> None:
        """Begin the largest of the version's files that are not materialised; with `resume_only`, only those
        that an earlier run began.  Raises: StorageError.

        Drafts of a previous manifest of the version are closed.
        """
        missing = missing_files(self._layout, manifest)
        worth = [file for file in missing if file.size_bytes >= _WORTH_BYTES]
        files = {(file_name(file), file.chunks): file for file in worth}
        for key in self._drafts.keys() - files.keys():
            self._close(self._drafts.pop(key))
        for key, file in sorted(files.items(), key=lambda item: -item[1].size_bytes):
            if key in self._drafts or len(self._drafts) >= _OPEN_DRAFTS:
                continue
            path = self._layout.tmp / f"{file_name(file)}{DRAFT}"
            there = fsread.stat_or_none(path)
            if there is not None and not stat.S_ISREG(there.st_mode):
                fsio.remove_tree(path)  # nothing that a run has left
                there = None
            if resume_only and there is None:
                continue
            target = fsio.KeptNewFile(path)
            if target.locked:
                draft = self._drafts[key] = Draft(file, target)
                draft.resume(file.size_bytes)
        others = [file for file in missing if (file_name(file), file.chunks) not in self._drafts]
        elsewhere = distinct_ids(np.concatenate([NO_IDS, *(file.chunk_list()[0] for file in others)]))
        self._table = _Table(list(self._drafts.values()), elsewhere)

    def put(self, chunk_id: bytes, data: Buffer) -> bool:
        """Write a verified chunk to its places; thread-safe.

        Returns whether it needs no pack.  Raises: StorageError.
        """
        places, needs_pack = self._table.places(chunk_id)
        placed = [draft.put(n, data) for draft, n in places]
        return bool(placed) and all(placed) and not needs_pack and not self._packs_too

    def position(self, chunk_id: bytes) -> int:
        """Return where the drafts contain a chunk first, for sorting: draft after draft, each from its
        beginning; others come last.
        """
        return self._table.position(chunk_id)

    def hash_next(self, chunks: ChunkStore, is_coming: IsComing) -> bool:
        """Hash the next chunk of a draft: one that is written, or one that the store has and that is not
        coming, which is then written.  Returns whether a draft had one.  For one thread, whatever
        others `put`.

        Raises: StorageError.
        """
        return any(draft.hash_next(chunks, is_coming) for draft in self._drafts.values())

    def for_packs(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether packs need it: for a file without a draft, or for all."""
        if self._packs_too:
            return np.ones(len(wanted), bool)
        return ~self._table.has(wanted)

    def held(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether it is written to all of its places and needs no pack."""
        if self._packs_too:
            return np.zeros(len(wanted), bool)
        return self._table.has(wanted) & ~self._table.lacks(wanted)

    def find(self, file: ManifestFile) -> Draft | None:
        """Return the draft of a file, if it exists."""
        return self._drafts.get((file_name(file), file.chunks))


def remove_dead_files(layout: StoreLayout) -> None:
    """Remove unfinished files of killed processes.  Raises: StorageError."""
    for name in fsread.list_names(layout.tmp):
        if name.endswith(UNFINISHED):
            with lock.claimed(layout.tmp / name) as dead:
                if dead:
                    fsio.remove(layout.tmp / name, sync=False)


def _incomplete(layout: StoreLayout) -> Iterator[Path]:
    for name in fsread.list_names(layout.tmp):
        if name.endswith(INCOMPLETE) and fsread.is_file(layout.tmp / name):
            yield layout.tmp / name


def incomplete_bytes(layout: StoreLayout, *, without: Collection[Path] = ()) -> int:
    """Return the disk space of incomplete downloads in bytes, also of those that are running."""
    return sum(disk_bytes(path, freed=True) for path in _incomplete(layout) if path not in without)


def remove_incomplete(layout: StoreLayout) -> int:
    """Remove incomplete downloads that no process continues now; return how many bytes.

    Needs the exclusive lock.  Raises: StorageError.
    """
    freed = 0
    for path in _incomplete(layout):
        size = disk_bytes(path, freed=True)
        with lock.claimed(path) as dead:
            if dead and fsio.remove(path, sync=False):
                freed += size
    return freed
