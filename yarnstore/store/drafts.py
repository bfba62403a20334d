"""Files that are written while their chunks arrive.

A verified chunk is written into its place at once; where the file is to be the chunk's only place, it is
written nowhere else.  An interrupted draft stays under a name that the next run finds.  No byte of it is
trusted: what an earlier run wrote is hashed chunk by chunk before it counts, and `store/files` reads all of
the file back and hashes it before it gets its name.  docs/decisions/0017-files-from-arriving-chunks.md has
the reasons.
"""

from __future__ import annotations

import contextlib
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
        self._order = np.argsort(self.ids, kind="stable")
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

    def put(self, chunk_id: Ids, data: Buffer) -> bool | None:
        """Write a chunk to each of its places in the file, and return whether it is in all of them now; None
        if it has none.  `chunk_id` has shape (1,).  Raises: StorageError.
        """
        first = int(np.searchsorted(self.ids, chunk_id, "left", self._order)[0])
        last = int(np.searchsorted(self.ids, chunk_id, "right", self._order)[0])
        numbers = self._order[first:last].tolist()
        for n in numbers:
            if len(data) == self._lengths[n] and not self.placed[n]:
                self.target.write_at(int(self._offsets[n]), data)
                self.placed[n] = True
        return bool(self.placed[numbers].all()) if numbers else None


class Drafts:
    """The drafts of one version.  Leaving the context keeps those that are not finished, for the next run.

    With `packs_too`, every chunk that arrives is for a pack as well; drafts are then not kept.
    """

    def __init__(self, layout: StoreLayout, *, packs_too: bool = False) -> None:
        self._layout = layout
        self._packs_too = packs_too
        # By name and list of chunks: another manifest may cut the same file elsewhere.
        self._drafts: dict[tuple[str, str], Draft] = {}
        self._elsewhere = NO_IDS  # chunks of files that have no draft, ascending

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
            if resume_only and fsread.stat_or_none(path) is None:
                continue
            target = fsio.KeptNewFile(path)
            if target.locked:
                draft = self._drafts[key] = Draft(file, target)
                draft.resume(file.size_bytes)
        others = [file for file in missing if (file_name(file), file.chunks) not in self._drafts]
        self._elsewhere = np.unique(np.concatenate([NO_IDS, *(file.chunk_list()[0] for file in others)]))

    def put(self, chunk_id: bytes, data: Buffer) -> bool:
        """Write a verified chunk to its places; threads may do so at once.

        Returns whether it needs no pack.  Raises: StorageError.
        """
        wanted = np.array([chunk_id], "S32")
        placed = {draft.put(wanted, data) for draft in list(self._drafts.values())}
        return True in placed and False not in placed and not self.for_packs(wanted)[0]

    def for_packs(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether packs need it: for a file that has no draft, or for all."""
        if self._packs_too or not self._drafts:
            return np.ones(len(wanted), bool)
        drafted = np.unique(np.concatenate([draft.ids for draft in self._drafts.values()]))
        needed: NDArray[np.bool_] = (find_ids(drafted, wanted) < 0) | (find_ids(self._elsewhere, wanted) >= 0)
        return needed

    def held(self, wanted: Ids) -> NDArray[np.bool_]:
        """Return for each wanted chunk whether it is in its places, and needs no pack."""
        if self._packs_too or not self._drafts:
            return np.zeros(len(wanted), bool)
        ids = np.concatenate([draft.ids for draft in self._drafts.values()])
        placed = np.concatenate([draft.placed for draft in self._drafts.values()])
        lacking = np.unique(np.concatenate([ids[~placed], self._elsewhere]))
        held = np.setdiff1d(np.unique(ids), lacking)
        found: NDArray[np.bool_] = find_ids(held, wanted) >= 0
        return found

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
