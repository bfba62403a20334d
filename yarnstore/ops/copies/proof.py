"""Proves, before files and packs are deleted, that the packs that stay have what they list.

An index says where a chunk is, and the disk may have lost it since.  docs/design.md (one copy) has the order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection

import numpy as np

from yarnstore.core.digest import PackId
from yarnstore.core.index import id_bytes
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError, StorageError
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter, plural
from yarnstore.store import held
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import EntryPlace, FileTable, manifest_chunks

# Chunks decoded ahead: each may have its base.
_WINDOW = 12


def forget_rotten_doubles(session: Session) -> bool:
    """Read the entries of chunks that have several in packs, since a plan keeps one of them without reading
    it.  Damaged ones are removed from the indexes if another is sound; a delta whose base is not in the store
    is not damaged, since it can be decoded again once the base is.

    Returns whether any was.  Needs the shared lock.
    """
    with ChunkStore(session.layout) as chunks:
        table = chunks.table
        rows = np.unique(table.find(table.more.ids)).tolist()
        if not rows:
            return False

        def is_sound(chunk_id: bytes, place: EntryPlace) -> bool:
            with contextlib.suppress(IntegrityError, NotFoundError, StorageError):
                chunks.read_place(chunk_id, place)
                return True
            return False

        def find_rotten(row: int) -> list[PackId]:
            chunk_id = id_bytes(table.ids, row)
            places = list(table.entries(row))
            rotten = [place for place in places if not is_sound(chunk_id, place)]
            if len(rotten) == len(places):
                return []  # they stay, for `fsck` to repair
            return [place.pack for place in rotten if not (place.base and _is_absent(chunks, place.base))]

        damaged: dict[PackId, set[bytes]] = {}
        for row, packs in zip(rows, ordered_map(find_rotten, rows, window=_WINDOW), strict=True):
            for pack in packs:
                damaged.setdefault(pack, set()).add(id_bytes(table.ids, row))
        if damaged:
            count = len(set().union(*damaged.values()))
            session.note(
                f"corrupt in packs: {plural(count, 'chunk')}; copies in other packs are kept instead"
            )
            chunks.forget_entries(damaged)
    return bool(damaged)


def _is_absent(chunks: ChunkStore, chunk_id: bytes) -> bool:
    return len(chunks.missing(np.array([chunk_id], "S32"))) > 0


def forget_damaged(session: Session, roots: Collection[Manifest], staying: Collection[str]) -> bool:
    """Read the entries in packs of chunks that `roots` need and that files have which are deleted: all but
    those `staying`, by their names in `files/`.  A damaged entry is removed from the indexes, so that the
    file counts as the chunk's place; a delta whose base is not in the store is not damaged.

    Returns whether any was.  Needs the shared lock.  Raises: StorageError.
    """
    layout = session.layout
    if held.names(layout).issubset(staying):
        return False
    with ChunkStore(layout) as chunks:
        table = chunks.table
        rows = table.find(manifest_chunks(roots)[0])
        rows = table.with_bases(rows[rows >= 0])
        if not len(rows):
            return False
        going = FileTable(layout, layout.readable_manifests({}), without=staying)
        rows = rows[going.find(table.ids[rows]) >= 0]
        meter = Meter(session.activity.report, "check", "packs", int(table.plain[rows].sum()))

        def is_damaged(row: int) -> bool:
            with contextlib.suppress(IntegrityError, NotFoundError):
                chunks.read_row(row)
                return False
            base = id_bytes(table.bases, row) if table.bases[row] else b""
            if base and _is_absent(chunks, base):
                return False  # which counts as no place already
            # Only a sound range can take its place; else the entry stays, for `fsck` to repair.
            chunk_id = id_bytes(table.ids, row)
            return any(chunks.is_at(chunk_id, *place[1:]) for place in going.places(chunk_id))

        damaged = set[bytes]()
        for row, lost in zip(
            rows.tolist(), ordered_map(is_damaged, rows.tolist(), window=_WINDOW), strict=True
        ):
            if lost:
                damaged.add(id_bytes(table.ids, row))
            meter.add(int(table.plain[row]))
        if damaged:
            session.note(
                f"corrupt in packs: {plural(len(damaged), 'chunk')}; the copies in files are kept instead"
            )
            chunks.forget(damaged)
    return bool(damaged)
