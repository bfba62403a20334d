"""Files that are written while their chunks arrive.

A verified chunk is written into its place at once, so that downloaded data need not be read and decoded
again. A draft is only a shortcut: `store/files` reads all of it back and hashes it before it gets its name,
and takes missing or wrong parts from the packs.  docs/decisions/0017-files-from-arriving-chunks.md has the
reasons.
"""

from __future__ import annotations

import contextlib
from typing import Self

import numpy as np

from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.index import Ids
from yarnstore.core.limits import CHUNK_MIN_BYTES
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import StorageError
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.files import UNFINISHED, missing_files
from yarnstore.store.layout import StoreLayout

# Smaller files are made from packs in no time.
_WORTH_BYTES = CHUNK_MIN_BYTES
# Files held open at once: the largest of a version, far below what any system lets a process have.
_OPEN_DRAFTS = 32


class Draft:
    """One file that is being written, under a temporary name; `put` is safe to share by threads."""

    def __init__(self, layout: StoreLayout, file: ManifestFile) -> None:
        self._ids, self._lengths = file.chunk_list()
        self._offsets = np.cumsum(self._lengths) - self._lengths
        self._order = np.argsort(self._ids, kind="stable")
        # By position in the file's list of chunks: what is in its place.
        self.placed = np.zeros(len(self._ids), bool)
        self.target = fsio.NewFile(layout.tmp, UNFINISHED)

    @property
    def placed_bytes(self) -> int:
        """How many bytes of the file are in their place."""
        return int(self._lengths[self.placed].sum())

    def put(self, chunk_id: Ids, data: Buffer) -> None:
        """Write a chunk to each of its places in the file; `chunk_id` has shape (1,).  Raises:
        StorageError.
        """
        first = int(np.searchsorted(self._ids, chunk_id, "left", self._order)[0])
        last = int(np.searchsorted(self._ids, chunk_id, "right", self._order)[0])
        for n in self._order[first:last].tolist():
            if len(data) == self._lengths[n]:
                self.target.write_at(int(self._offsets[n]), data)
                self.placed[n] = True


class Drafts:
    """The drafts of one version; leaving the context removes those that were not taken."""

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        # By content and list of chunks: another manifest may cut the same file elsewhere.
        self._drafts: dict[tuple[Sha256, str], Draft] = {}

    def __enter__(self) -> Self:
        # What killed processes left of files is never gone on with, and as large as what is to come.
        with contextlib.suppress(StorageError):
            remove_dead_files(self._layout)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as stack:
            for draft in self._drafts.values():
                stack.callback(draft.target.discard)

    @property
    def placed_bytes(self) -> int:
        """How many bytes of the drafts are in their place, and need no more disk space."""
        return sum(draft.placed_bytes for draft in self._drafts.values())

    def begin(self, manifest: Manifest) -> None:
        """Begin the largest of the version's files that are not materialised.  Raises: StorageError.

        Drafts of another manifest, which the version had a moment ago, are removed.
        """
        worth = [file for file in missing_files(self._layout, manifest) if file.size_bytes >= _WORTH_BYTES]
        files = {(file.sha256, file.chunks): file for file in worth}
        for key in self._drafts.keys() - files.keys():
            self._drafts.pop(key).target.discard()
        for key, file in sorted(files.items(), key=lambda item: -item[1].size_bytes):
            if key not in self._drafts and len(self._drafts) < _OPEN_DRAFTS:
                self._drafts[key] = Draft(self._layout, file)

    def put(self, chunk_id: bytes, data: Buffer) -> None:
        """Write a verified chunk to its places; threads may do so at once.  Raises: StorageError."""
        wanted = np.array([chunk_id], "S32")
        for draft in list(self._drafts.values()):
            draft.put(wanted, data)

    def take(self, file: ManifestFile) -> Draft | None:
        """Return the draft of a file, if it exists, and leave it to the caller."""
        return self._drafts.pop((file.sha256, file.chunks), None)


def remove_dead_files(layout: StoreLayout) -> None:
    """Remove what killed processes left of files that they were writing.  Raises: StorageError."""
    for name in fsread.list_names(layout.tmp):
        if name.endswith(UNFINISHED):
            with lock.claimed(layout.tmp / name) as dead:
                if dead:
                    fsio.remove(layout.tmp / name, sync=False)
