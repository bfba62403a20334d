"""Files that are written while their chunks arrive.

A verified chunk is written into its place at once; where the file is to be the chunk's only place, it is
written nowhere else.  An interrupted draft stays under a name that the next run finds.  No byte of it is
trusted: what an earlier run wrote is hashed chunk by chunk before it counts, and `store/files` reads all of
the file back and hashes it before it gets its name.  docs/decisions/0017-files-from-arriving-chunks.md has
the reasons.
"""

from __future__ import annotations

import contextlib
import stat
from typing import Self

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.codec import verified
from yarnstore.core.digest import Buffer
from yarnstore.core.index import NO_IDS, Ids, find_ids, id_bytes
from yarnstore.core.limits import CHUNK_MIN_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import IntegrityError, StorageError
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.files import READ_THREADS, READ_WINDOW, UNFINISHED, missing_files
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.open_files import pread_exact
from yarnstore.store.pipeline import ordered_map

# How a draft ends, in `tmp/`, behind the name that the file is to have in `files/`.
DRAFT = ".draft"
# Smaller files are made from packs in no time.
_WORTH_BYTES = CHUNK_MIN_BYTES
# Files held open at once: the largest of a version, far below what any system lets a process have.
_OPEN_DRAFTS = 32


class Draft:
    """One file that is being written; `put` is safe to share by threads."""

    def __init__(self, file: ManifestFile, target: fsio.KeptNewFile) -> None:
        self.ids, self._lengths = file.chunk_list()
        self._offsets = np.cumsum(self._lengths) - self._lengths
        # By position in the file's list of chunks: what is in its place.
        self.placed = np.zeros(len(self.ids), bool)
        self.target = target

    @property
    def placed_bytes(self) -> int:
        """How many bytes of the file are in their place."""
        return int(self._lengths[self.placed].sum())

    def resume(self, size_bytes: int) -> None:
        """Find what an earlier run has written; each chunk is hashed.  Raises: StorageError."""
        ranges = self.target.limit(size_bytes)
        if not ranges:
            return
        begins, ends = np.array(ranges, np.int64).T
        within = np.searchsorted(begins, self._offsets, "right") - 1
        written = (within >= 0) & (ends[within] >= self._offsets + self._lengths)
        self._check(written)

    def check(self) -> None:
        """Hash what is in its place again.  Raises: StorageError."""
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
        sound = ordered_map(is_sound, numbers, threads=READ_THREADS, window=READ_WINDOW)
        for n, good in zip(numbers, sound, strict=True):
            self.placed[n] = good

    def put(self, n: int, data: Buffer) -> bool:
        """Write the chunk at position `n` of the file's list, and return whether it is in its place now.

        Raises: StorageError.
        """
        if not self.placed[n] and len(data) == self._lengths[n]:
            self.target.write_at(int(self._offsets[n]), data)
            self.placed[n] = True
        return bool(self.placed[n])


class _Table:
    """Where the chunks of several drafts belong, by id."""

    def __init__(self, drafts: list[Draft], elsewhere: Ids) -> None:
        """`elsewhere` are chunks, ascending, of files that have no draft."""
        self._drafts = drafts
        ids = np.concatenate([NO_IDS, *(draft.ids for draft in drafts)])
        order = np.argsort(ids, kind="stable")
        self._ids: Ids = ids[order]
        counts = [len(draft.ids) for draft in drafts]
        self._draft = np.repeat(np.arange(len(drafts)), counts)[order]
        self._position = np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in counts)])[
            order
        ]
        self._needs_pack = find_ids(elsewhere, self._ids) >= 0

    def places(self, chunk_id: bytes) -> tuple[list[tuple[Draft, int]], bool]:
        """Return the drafts that have a chunk, each with the position in its list, and whether a file without
        a draft has it too."""
        wanted = np.array([chunk_id], "S32")
        first = int(np.searchsorted(self._ids, wanted, "left")[0])
        last = int(np.searchsorted(self._ids, wanted, "right")[0])
        rows = range(first, last)
        places = [(self._drafts[int(self._draft[row])], int(self._position[row])) for row in rows]
        return places, bool(self._needs_pack[first:last].any())

    def has(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether drafts have a place for it, and no other file has one."""
        only_here: Ids = self._ids[~self._needs_pack]
        found: NDArray[np.bool_] = find_ids(only_here, wanted) >= 0
        return found

    def lacks(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether one of its places is empty."""
        placed = np.concatenate([np.empty(0, bool), *(draft.placed for draft in self._drafts)])
        ids = np.concatenate([NO_IDS, *(draft.ids for draft in self._drafts)])
        found: NDArray[np.bool_] = find_ids(np.sort(ids[~placed]), wanted) >= 0
        return found


class Drafts:
    """The drafts of one version.  Leaving the context keeps those that are not finished, for the next run.

    With `packs_too`, every chunk that arrives is for a pack as well; drafts are then not kept.
    """

    def __init__(self, layout: StoreLayout, *, packs_too: bool = False) -> None:
        self._layout = layout
        self._packs_too = packs_too
        # By name and list of chunks: another manifest may cut the same file elsewhere.
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._table = _Table([], NO_IDS)

    def __enter__(self) -> Self:
        # What killed processes left of files is never gone on with, and as large as what is to come.
        with contextlib.suppress(StorageError):
            remove_dead_files(self._layout)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for draft in self._drafts.values():
                stack.callback(self._close, draft)

    def _close(self, draft: Draft) -> None:
        if self._packs_too or not draft.placed.any():
            draft.target.discard()
        else:
            draft.target.keep()

    @property
    def placed_bytes(self) -> int:
        """How many bytes of the drafts are in their place, and need no more disk space."""
        return sum(draft.placed_bytes for draft in self._drafts.values())

    def begin(self, manifest: Manifest, *, resume_only: bool = False) -> None:
        """Begin the largest of the version's files that are not materialised; with `resume_only`, only those
        that an earlier run began.  Raises: StorageError.

        Drafts of another manifest, which the version had a moment ago, are closed.
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
        elsewhere = np.unique(np.concatenate([NO_IDS, *(file.chunk_list()[0] for file in others)]))
        self._table = _Table(list(self._drafts.values()), elsewhere)

    def put(self, chunk_id: bytes, data: Buffer) -> bool:
        """Write a verified chunk to its places; threads may do so at once.

        Returns whether it needs no pack.  Raises: StorageError.
        """
        places, needs_pack = self._table.places(chunk_id)
        placed = [draft.put(n, data) for draft, n in places]
        return bool(placed) and all(placed) and not needs_pack and not self._packs_too

    def for_packs(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether packs need it: for a file that has no draft, or for all."""
        if self._packs_too:
            return np.ones(len(wanted), bool)
        return ~self._table.has(wanted)

    def held(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether it is in its places, and needs no pack."""
        if self._packs_too:
            return np.zeros(len(wanted), bool)
        return self._table.has(wanted) & ~self._table.lacks(wanted)

    def find(self, file: ManifestFile) -> Draft | None:
        """Return the draft of a file, if it exists."""
        return self._drafts.get((file_name(file), file.chunks))


def remove_dead_files(layout: StoreLayout) -> None:
    """Remove what killed processes left of files that they were writing.  Raises: StorageError."""
    for name in fsread.list_names(layout.tmp):
        if name.endswith(UNFINISHED):
            with lock.claimed(layout.tmp / name) as dead:
                if dead:
                    fsio.remove(layout.tmp / name, sync=False)
