"""Delta packs: a version's chunks as deltas against an earlier version's.

A delta pack is optional: the full packs contain all chunks, and a chunk whose delta saves nothing is not in
it.  `core/pairing` pairs chunks, `core/codec` encodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from yarnstore.core.codec import make_delta_entry
from yarnstore.core.digest import PackId
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.core.pairing import Pair, iter_pairs
from yarnstore.progress import Meter
from yarnstore.store.chunks import PackReader, load_indexes
from yarnstore.store.layout import PackFolder
from yarnstore.store.packs import PackWriter
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import ChunkTable

# Chunks encoded ahead of the writer: each has its base, and a thread of numpy has 14 MB of its own.
_WINDOW = 12
# A delta must be this much smaller than the chunk's entry in the full pack; otherwise reading the base and
# decoding costs more than the bytes saved.
_PAYS_SHARE = 0.9


@dataclass(frozen=True)
class WrittenDeltas:
    """The delta packs from one version, with the bytes of each."""

    packs: list[tuple[PackId, int]]
    chunks: int
    stored_bytes: int


def iter_deltas(reader: PackReader, pairs: Iterable[Pair], meter: Meter) -> Iterator[Entry]:
    """Yield the entries of the pairs whose delta saves bytes, each decoded and compared.

    Raises: IntegrityError, NotFoundError if a chunk of either version cannot be read.
    """

    def encode(pair: Pair) -> tuple[int, Entry | None]:
        chunk = pair.chunk
        row, base_row = reader.row_of(chunk.chunk_id), reader.row_of(pair.base_id)
        if row < 0 or base_row < 0:
            return chunk.length, None
        data, base = reader.read_row(row), reader.read_row(base_row)
        entry = make_delta_entry(chunk.chunk_id, data, pair.base_id, base, chunk.element)
        pays = entry is not None and entry.stored_bytes <= _PAYS_SHARE * int(reader.table.stored[row])
        return chunk.length, entry if pays else None

    for length, entry in ordered_map(encode, pairs, window=_WINDOW):
        meter.add(length)
        if entry is not None:
            yield entry


def write_deltas(
    folder: PackFolder, deltas: PackFolder, new: Manifest, base: Manifest, meter: Meter
) -> WrittenDeltas:
    """Write the delta packs that lead from `base` to `new`, both in the packs of `folder`.

    Raises: IntegrityError, StorageError.
    """
    table = ChunkTable(load_indexes(folder, rebuild=False).indexes)
    with PackReader(folder, table) as reader, PackWriter(deltas) as writer:
        for entry in iter_deltas(reader, iter_pairs(new, base), meter):
            writer.add(entry)
    sizes = [(pack, deltas.pack(pack).stat().st_size) for pack in writer.packs]
    return WrittenDeltas(sizes, writer.chunks, writer.stored_bytes)
