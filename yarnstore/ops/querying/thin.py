"""Estimates what `gc --thin` would free: the files of the version that a rollback returns to, less what its
chunks take as deltas against the installed version.

A few chunks are encoded to learn how small the deltas are; nothing is written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from yarnstore.core.codec import make_delta_entry, make_entry
from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ids, find_ids, id_bytes
from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import chunk_elements, iter_pairs
from yarnstore.errors import IntegrityError, NotFoundError, StorageError
from yarnstore.ops.querying.space import Space
from yarnstore.ops.session.session import Session
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.places import manifest_chunks

# Chunks that are encoded in all, so that the estimate takes less than a second, however many the models are.
_SAMPLES = 24


def thin_frees(
    session: Session, space: Space, moves: Sequence[tuple[Manifest, Manifest]]
) -> dict[Sha256, int]:
    """Return how many bytes going thin would free, by the digest of the previous version.

    `moves` are pairs of a previous version that has its files, and the installed one.
    """
    frees: dict[Sha256, int] = {}
    stored, plain = 0, 0
    left = _SAMPLES
    with ChunkStore(session.layout, rebuild=False) as chunks:
        for n, (previous, installed) in enumerate(moves):
            ids, lengths = manifest_chunks([previous])
            alone = (chunks.table.find(ids) < 0) & (find_ids(manifest_chunks([installed])[0], ids) < 0)
            count = min(-(-left // (len(moves) - n)), int(alone.sum()))
            if count:
                left -= count
                sizes = _encoded(chunks, previous, installed, _spread(ids[alone], count))
                stored, plain = stored + sizes[0], plain + sizes[1]
                share = sizes[0] / sizes[1] if sizes[1] else 1.0
            else:
                share = stored / plain if plain else 1.0
            size = int(share * int(lengths[alone].sum()))
            frees[previous.digest] = max(0, space.own_files_bytes(previous.digest) - size)
    return frees


def _spread(ids: Ids, count: int) -> Ids:
    """Return `count` of the ids, evenly; they are hashes, so their order is no order of the files."""
    return ids[:: max(1, len(ids) // count)][:count]


def _encoded(chunks: ChunkStore, old: Manifest, new: Manifest, ids: Ids) -> tuple[int, int]:
    """Return what chunks of an old version take as entries, and their sizes without encoding, in bytes."""
    elements = chunk_elements([old])
    wanted = {id_bytes(ids, n) for n in range(len(ids))}
    bases = {
        pair.chunk.chunk_id: pair.base_id for pair in iter_pairs(old, new) if pair.chunk.chunk_id in wanted
    }
    stored, plain = 0, 0
    for chunk_id in wanted:
        with contextlib.suppress(IntegrityError, NotFoundError, StorageError):  # a damaged one says nothing
            data = chunks.read(chunk_id, chunks.row_of(chunk_id))
            element, entry = elements[chunk_id], None
            if chunk_id in bases:
                base = chunks.read_base(bases[chunk_id], depth=0)
                entry = make_delta_entry(chunk_id, data, bases[chunk_id], base, element)
            stored += (entry or make_entry(chunk_id, data, element)).stored_bytes
            plain += len(data)
    return stored, plain
