"""Alternates: other stores on this machine whose chunks are used instead of downloads.

They are read without a lock and never written, so they may be on a read-only disk and in use. All bytes are
hashed before use; chunks that are missing or damaged there are downloaded. `doctor` reports unreadable
alternates.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator

import numpy as np

from yarnstore.core.codec import decode_entry, make_entry
from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.index import Ids, Ints, find_ids, id_bytes
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.pack import Entry
from yarnstore.errors import StorageError, YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter, format_size
from yarnstore.store import fsread, growing
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Drafts
from yarnstore.store.layout import StoreLayout
from yarnstore.store.moved import find_store
from yarnstore.store.pipeline import ordered_map

# Chunks read ahead of the writer.
_WINDOW = 16


def find_manifest(session: Session, digest: Sha256) -> Manifest | None:
    """Return a manifest that an alternate has, checked against its digest."""
    for layout in _layouts(session):
        with contextlib.suppress(YarnstoreError):
            return layout.read_manifest(digest)
    return None


def absent_from(session: Session, wanted: Ids) -> Ids:
    """Return the wanted chunks (distinct ids, ascending) that no alternate has according to its indexes."""
    for layout in _layouts(session):
        if len(wanted):
            with ChunkStore(layout, rebuild=False) as other:
                wanted = wanted[~_has(other, wanted)]
    return wanted


def has_file(session: Session, expected: Sha256) -> bool:
    """Whether an alternate's manifest lists the file with this SHA-256."""
    return any(_find_file(layout, expected) is not None for layout in _layouts(session))


def take_chunks(
    session: Session,
    manifest: Manifest,
    chunks: ChunkStore,
    wanted: Ids,
    lengths: Ints,
    drafts: Drafts | None,
) -> int:
    """Copy chunks (distinct ids, ascending, with their lengths) that alternates have into the store; with
    `drafts`, into the version's files, and into packs only if needed.

    Returns their length in bytes.  Raises: DiskFullError before anything is written; StorageError of this
    store.
    """
    taken = 0
    for layout in _layouts(session):
        absent = chunks.missing(wanted)
        if drafts is not None:
            absent = absent[~drafts.held(absent)]
        if not len(absent):
            break
        with ChunkStore(layout, rebuild=False) as other:
            found = absent[_has(other, absent)]
            if not len(found):
                continue
            size = int(lengths[find_ids(wanted, found)].sum())
            fsread.require_space(session.layout.root, size, session.layout.reserve)
            if drafts is not None:
                drafts.begin(manifest)
            before = taken
            meter = Meter(session.activity.report, "read", manifest.label, size)
            with chunks.writing() as writer:
                for entry, data in _read_all(other, found):
                    if drafts is None or not drafts.put(entry.chunk_id, data):
                        writer.add(entry)
                    meter.add(len(data))
                    taken += len(data)
        if taken > before:
            session.note(f"{manifest.label}: {format_size(taken - before)} copied from {layout.root}")
    return taken


def take_file(session: Session, expected: Sha256, part: growing.PartialFile) -> bool:
    """Write the file with this SHA-256 into `part`, which is empty, if an alternate has it.

    Raises: StorageError of this store.
    """
    for layout in _layouts(session) if not part.size_bytes else ():
        with ChunkStore(layout, rebuild=False) as other:
            file = _find_file(layout, expected)
            if file is None:
                continue
            sha256 = hashlib.sha256()
            ids, _ = file.chunk_list()
            try:
                for n in range(len(ids)):
                    came = _read(other, id_bytes(ids, n))
                    if came is None:
                        break
                    sha256.update(came[1])
                    part.write(came[1])
            except StorageError:
                part.truncate()  # frees the disk space
                raise
            if Sha256(sha256.digest()) == expected:
                session.note(f"{file.path}: {format_size(part.size_bytes)} copied from {layout.root}")
                return True
            part.truncate()
    return False


def _layouts(session: Session) -> Iterator[StoreLayout]:
    """Yield the alternates that are stores of a format that this release reads."""
    for root in session.alternates:
        with contextlib.suppress(YarnstoreError, OSError):
            layout = StoreLayout(find_store(root))
            if layout.exists() and not os.path.samefile(root, session.layout.root):
                yield layout


def _has(other: ChunkStore, wanted: Ids) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which chunks an alternate has according to its indexes; none if it cannot be read."""
    try:
        return (other.table.find(wanted) >= 0) | (find_ids(other.files.ids, wanted) >= 0)
    except (YarnstoreError, OSError):
        return np.zeros(len(wanted), bool)


def _read_all(other: ChunkStore, wanted: Ids) -> Iterator[tuple[Entry, Buffer]]:
    names = (id_bytes(wanted, n) for n in range(len(wanted)))
    for came in ordered_map(lambda name: _read(other, name), names, window=_WINDOW):
        if came is not None:
            yield came


def _read(other: ChunkStore, chunk_id: bytes) -> tuple[Entry, Buffer] | None:
    """Return a verified chunk of an alternate, and an entry that needs no base."""
    with contextlib.suppress(YarnstoreError, OSError):
        row = other.row_of(chunk_id)
        if row >= 0 and not other.table.bases[row]:
            entry = other.read_entry(row)  # unchanged, which saves encoding it again
            if entry.chunk_id == chunk_id and not entry.base:
                return entry, decode_entry(entry)
    with contextlib.suppress(YarnstoreError, OSError):
        data = other.read(chunk_id, other.row_of(chunk_id))
        return make_entry(chunk_id, data), data
    return None


def _find_file(layout: StoreLayout, expected: Sha256) -> ManifestFile | None:
    with contextlib.suppress(YarnstoreError, OSError):
        for digest in layout.manifest_ids():
            with contextlib.suppress(YarnstoreError):
                for file in layout.read_manifest(digest).files:
                    if file.sha256 == expected:
                        return file
    return None
