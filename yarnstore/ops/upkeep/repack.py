"""Rewrite packs beside running readers, for `gc`.

New packs are written under the shared lock, and old ones deleted under the exclusive lock, after every live
chunk was found elsewhere.  `waste` chooses the packs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

import numpy as np

from yarnstore.core.codec import make_entry
from yarnstore.core.delta_entries import make_stored_delta
from yarnstore.core.digest import PackId
from yarnstore.core.index import NO_IDS, Ids, PackIndex, find_ids, id_bytes
from yarnstore.core.limits import DELTA_DEPTH_LIMIT, MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.core.pairing import chunk_elements
from yarnstore.errors import DiskFullError, IntegrityError, NotFoundError
from yarnstore.ops.copies.slim import as_deltas, pairs_of
from yarnstore.ops.session.mark import current_roots
from yarnstore.ops.session.session import Session
from yarnstore.registry.versions import precedence
from yarnstore.store import fsio, fsread, trash
from yarnstore.store.chunks import ChunkStore, PackReader, load_indexes
from yarnstore.store.packs import PackWriter
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import Beside, ChunkTable, beside_packs, manifest_chunks, without_chunks

# Given all kept manifests, returns the chunks that need no pack, ascending.
Redundant: TypeAlias = Callable[[Collection[Manifest]], Ids]

# Chunks encoded ahead of the writer: each has its base, and a thread of numpy has 14 MB of its own.
_WINDOW = 12
# Live bytes copied before the old packs are deleted: the temporary disk space of gc.
REWRITE_BATCH_BYTES = 512 * MIB


def none_redundant(_: Collection[Manifest]) -> Ids:
    """Return no chunk: packs keep all live chunks."""
    return NO_IDS


def encode_anew(session: Session, chunk_ids: list[bytes]) -> None:
    """Store chunks that are deltas against dead chunks as deltas against the installed version, or whole.

    Their other entries are then removed from the indexes, so that nothing needs the dead chunks.
    """
    layout = session.layout
    try:
        with layout.shared(), ChunkStore(layout) as chunks:
            packs = list(layout.pack_folder.pack_ids())
            ids = np.array(sorted(chunk_ids), "S32")
            with PackWriter(layout.pack_folder) as writer:
                made = set[bytes]()
                for entry in as_deltas(session, chunks, ids, current_roots(session)):
                    writer.add(entry)
                    made.add(entry.chunk_id)
            chunks.forget_entries(dict.fromkeys(packs, made))
    except DiskFullError as error:
        session.note(f"base versions of deltas are kept: {error.message}")


def rewrite_packs(session: Session, packs: list[PackId], redundant: Redundant = none_redundant) -> None:
    """Copy the live chunks of wasteful packs to new ones, batch by batch, and delete the old packs.

    Chunks that are `redundant` in packs are left out.
    """
    layout = session.layout
    folder = layout.pack_folder
    for batch in _batches(session, packs):
        doomed: set[PackId] = set()
        with layout.shared():
            roots = current_roots(session)
            backed = redundant(roots)
            ids, _ = manifest_chunks(roots)
            indexes = without_chunks(load_indexes(folder, rebuild=False).indexes, backed)
            table = ChunkTable(indexes, beside=beside_packs(layout))
            try:
                size = fsread.sum_sizes([folder.pack(pack) for pack in batch])
                fsread.require_space(layout.root, size, layout.reserve)
                with PackWriter(folder) as writer:
                    for pack, entries in _live_entries(session, table, ids, set(batch)):
                        for entry in entries:
                            writer.add(entry)
                        doomed.add(pack)
            except DiskFullError as error:
                session.note(f"some packs were not rewritten: {error.message}")
                return
        drop_packs(session, doomed, redundant)


def drop_packs(session: Session, doomed: set[PackId], redundant: Redundant = none_redundant) -> None:
    """Delete packs whose live chunks are elsewhere now, and keep the others.

    Marks again, under the exclusive lock: a process that fetched meanwhile may need a chunk that was dead.  A
    pack whose index cannot be read is kept, since its content is unknown.
    """
    with session.layout.exclusive():
        roots = current_roots(session)
        backed = redundant(roots)
        ids, _ = manifest_chunks(roots)
        ids = ids[find_ids(backed, ids) < 0]
        indexes = without_chunks(load_indexes(session.layout.pack_folder, rebuild=False).indexes, backed)
        doomed = doomed & {index.pack for index in indexes}
        beside = beside_packs(session.layout)
        while needed := _packs_needed(indexes, ids, doomed, beside):
            doomed -= needed
        if doomed and len(backed):
            fsio.sync_dir(session.layout.files)
            session.layout.rely_on_files()
        for pack in doomed:
            drop_pack(session, pack)
        empty_trash(session)


def _packs_needed(indexes: list[PackIndex], live: Ids, doomed: set[PackId], beside: Beside) -> set[PackId]:
    """Return the doomed packs without which live chunks, or bases of their deltas, would be lost."""
    here = ChunkTable([index for index in indexes if index.pack not in doomed], beside=beside)
    rows = here.find(live)
    needed = here.with_bases(rows[rows >= 0])
    hanging = needed[here.base_rows()[needed] == -2]
    nowhere = hanging[beside(here.bases[hanging]) >= DELTA_DEPTH_LIMIT]  # another pack may have these whole
    lost = np.concatenate([live[rows < 0], here.bases[hanging], here.ids[nowhere]])
    return {index.pack for index in indexes if (find_ids(index.ids, lost) >= 0).any()} & doomed


def _batches(session: Session, packs: list[PackId]) -> Iterator[list[PackId]]:
    batch: list[PackId] = []
    size = 0
    for pack in packs:
        found = fsread.stat_or_none(session.layout.pack_folder.pack(pack))
        size += found.st_size if found else 0
        batch.append(pack)
        if size >= REWRITE_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _live_entries(
    session: Session, table: ChunkTable, live: Ids, packs: set[PackId]
) -> Iterator[tuple[PackId, list[Entry]]]:
    """Yield each of `packs` with the verified entries of its live chunks.

    A pack with a chunk that has no sound copy is skipped, for `fsck` to repair.
    """
    rows = table.find(live)
    rows = table.with_bases(rows[rows >= 0])
    with ChunkStore(session.layout) as chunks, PackReader(session.layout.pack_folder, table) as reader:
        for n, pack in enumerate(table.packs):
            if pack in packs:
                here = rows[table.pack[rows] == n].tolist()
                try:
                    yield pack, [_read_sound(chunks, reader, row) for row in here]
                except IntegrityError as error:
                    session.note(f"pack {pack.hex[:12]}… was not rewritten: {error.message}")


def _read_sound(chunks: ChunkStore, reader: PackReader, row: int) -> Entry:
    """Return the entry of a row; if it is damaged, one made from another copy of its chunk.

    Raises: IntegrityError if no sound copy exists.
    """
    chunk_id = id_bytes(reader.table.ids, row)
    with contextlib.suppress(IntegrityError, NotFoundError):
        entry = reader.read_entry(row)
        if entry.chunk_id == chunk_id:
            chunks.decode(entry)
            return entry
    return make_entry(chunk_id, chunks.read(chunk_id, chunks.row_of(chunk_id)))


def repack(session: Session, redundant: Redundant = none_redundant) -> None:
    """Store the newest version of each model without deltas, and older ones as deltas against it."""
    layout = session.layout
    folder = layout.pack_folder
    with layout.shared():
        roots = current_roots(session)
        old = load_indexes(folder, rebuild=True).indexes
        fsread.require_space(layout.root, sum(index.pack_bytes for index in old), layout.reserve)
        with ChunkStore(layout) as chunks, PackWriter(folder) as writer:
            for entry in repacked(chunks, roots, redundant(roots)):
                writer.add(entry)
    drop_packs(session, {index.pack for index in old} - set(writer.packs), redundant)


def repacked(chunks: ChunkStore, roots: list[Manifest], backed: Ids = NO_IDS) -> Iterator[Entry]:
    """Yield every live chunk that packs have and must keep: whole if a newest version has it, else as a delta
    if that is smaller.
    """
    newest: dict[tuple[str, str], Manifest] = {}
    for manifest in sorted(roots, key=lambda item: precedence(item.version)):
        newest[manifest.model, manifest.variant] = manifest
    ids, _ = manifest_chunks(newest.values())
    whole = {id_bytes(ids, n) for n in range(len(ids))}
    elements = chunk_elements(roots)
    every, _ = manifest_chunks(roots)
    beside = ((manifest, newest[manifest.model, manifest.variant]) for manifest in roots)
    pairs = pairs_of(chunks, every[find_ids(ids, every) < 0], beside)

    def encode(chunk_id: bytes) -> Entry | None:
        row = chunks.row_of(chunk_id)
        if row < 0 or find_ids(backed, np.array([chunk_id], "S32"))[0] >= 0:
            return None  # of a partial download, damaged, or in a file
        try:
            stored = chunks.read_entry(row)
            pair = pairs.get(chunk_id)
            if pair is None and not stored.base:
                chunks.decode(stored)
                return stored
            data = chunks.read(chunk_id, row)
            if pair is not None:
                delta = make_stored_delta(pair, data, chunks.read_base(pair.base_id, depth=0))
                if delta is not None and (stored.base or delta.stored_bytes < stored.stored_bytes):
                    return delta
            return make_entry(chunk_id, data, elements[chunk_id]) if stored.base else stored
        except (IntegrityError, NotFoundError):
            with contextlib.suppress(IntegrityError):  # a materialised file or another pack may have it
                return make_entry(chunk_id, chunks.read(chunk_id, row), elements[chunk_id])
            return None

    first = [chunk_id for chunk_id in elements if chunk_id in whole]
    rest = [chunk_id for chunk_id in elements if chunk_id not in whole]
    for entry in ordered_map(encode, [*first, *rest], window=_WINDOW):
        if entry is not None:
            yield entry


def drop_pack(session: Session, pack: PackId) -> None:
    """Delete a pack, its index first: a pack without one counts as absent."""
    layout = session.layout
    trash.discard(layout.pack_folder.index(pack), layout.trash)
    trash.discard(layout.pack_folder.pack(pack), layout.trash)


def empty_trash(session: Session) -> None:
    """Empty the trash, except files that `fsck` moved aside within the last day."""
    trash.empty(session.layout.trash, session.clock())
