"""Which of several places of a chunk counts."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support.fine_tunes import MODEL, World, tune, weights
from tests.support.small_stores import fill, noise, write_packs
from tests.support.stores import flip
from yarnstore.core.codec import make_delta_entry
from yarnstore.core.digest import ChunkId, PackId
from yarnstore.core.index import Ids, Ints, PackIndex
from yarnstore.core.layouts import BYTES
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.errors import IntegrityError
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path as StorePath
from yarnstore.store.layout import StoreLayout
from yarnstore.store.packs import PackWriter
from yarnstore.store.places import ChunkTable

A, B, NOWHERE = (bytes([n]) * 32 for n in (1, 2, 9))


def index(number: int, base: bytes) -> PackIndex:
    """A pack with chunk A alone, as a delta against a base."""
    return PackIndex.from_rows(PackId(bytes([number]) * 32), 100, [(A, number, 50, 60, 0, base)])


def beside(wanted: Ids) -> Ints:
    """A file has B."""
    return np.where(wanted == B, 0, DELTA_DEPTH_LIMIT)


@pytest.mark.parametrize("bases", [(NOWHERE, B), (B, NOWHERE), (A, B), (NOWHERE, A, B)])
def test_an_entry_whose_base_exists_counts_before_others(bases: tuple[bytes, ...]) -> None:
    table = ChunkTable([index(n, base) for n, base in enumerate(bases)], beside=beside)
    assert table.bases.tolist() == [B]


def test_of_two_with_bases_the_one_with_fewer_deltas_counts() -> None:
    long = PackIndex.from_rows(
        PackId(bytes(32)),
        100,
        [(A, 8, 50, 60, 0, NOWHERE[:31] + b"x"), (NOWHERE[:31] + b"x", 9, 50, 60, 0, B)],
    )
    for indexes in ([long, index(1, B)], [index(1, B), long]):
        table = ChunkTable(indexes, beside=beside)
        assert table.bases[table.row_of(A)] == B


def test_a_delta_without_its_base_hides_no_sound_one(tmp_path: Path) -> None:
    """It lies in an earlier pack, as an interrupted run may leave it: reading and `gc` use the other."""
    world = World(tmp_path)
    bits = weights(1, 100_000)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    (world.store.home / "config.toml").write_text('rollback = "thin"\n')
    store = world.store = type(world.store).open(world.store.home)
    store.checkout(f"{MODEL}@1.0.0")
    store.checkout(f"{MODEL}@1.1.0")  # 1.0.0 is deltas against its file
    layout = StoreLayout(StorePath(store.home))
    with ChunkStore(layout) as chunks:
        rows = np.flatnonzero(chunks.table.bases != b"")
        assert len(rows)
        sound = min(chunks.table.packs[n].hex for n in np.unique(chunks.table.pack[rows]))
        datas = [(chunks.table.ids[row].ljust(32, b"\0"), bytes(chunks.read_row(int(row)))) for row in rows]
    for seed in range(100):
        with PackWriter(layout.pack_folder) as writer:
            for chunk_id, data in datas:
                base = bytearray(data)
                base[seed] ^= 1
                delta = make_delta_entry(chunk_id, data, ChunkId.of(base).raw, base, BYTES)
                assert delta is not None
                writer.add(delta)
        if writer.packs[0].hex < sound:
            break  # it is looked into first
    shutil.rmtree(world.registry)  # which would help out
    store.export(f"{MODEL}@1.0.0", tmp_path / "out")
    store.gc()
    assert store.fsck().problems == []
    world.check("1.0.0")


def test_each_entry_of_a_chunk_is_known_also_after_packs_are_added() -> None:
    one = ChunkTable([index(1, b""), index(2, NOWHERE), index(3, B)], beside=beside)
    both = ChunkTable([index(4, b"")], one, beside=beside)
    for table, offsets in ((one, [1, 3, 2]), (both, [1, 4, 3, 2])):
        places = list(table.entries(table.row_of(A)))
        assert [place.offset for place in places] == offsets
        assert [place.pack.raw[0] for place in places] == offsets
    assert len(both) == 1


def test_a_chunk_is_read_from_any_place_that_has_it(tmp_path: Path) -> None:
    """Two packs, a file and a copy of it have the chunk; in turn all but one are damaged, then all."""
    data, other = noise(1), noise(2)
    layout = StoreLayout(StorePath(tmp_path))
    fill(layout, {"a": [data], "b": [other, data]})
    write_packs(layout.pack_folder, [data, noise(3)])
    chunk_id = ChunkId.of(data).raw
    with ChunkStore(layout) as chunks:
        packed = [
            (layout.pack_folder.pack(it.pack), it.offset + it.length - 1)
            for it in chunks.table.entries(chunks.row_of(chunk_id))
        ]
        filed = [(it.path, it.offset) for it in chunks.files.places(chunk_id)]
    places = [*packed, *filed]
    assert len(places) == 4
    for sound in places:
        for path, offset in places:
            if (path, offset) != sound:
                flip(Path(path), offset)
        with ChunkStore(layout) as chunks:
            assert chunks.read(chunk_id, chunks.row_of(chunk_id)) == data
            assert not chunks.bad
        for path, offset in places:
            if (path, offset) != sound:
                flip(Path(path), offset)
    for path, offset in places:
        flip(Path(path), offset)
    with ChunkStore(layout) as chunks:
        with pytest.raises(IntegrityError):
            chunks.read(chunk_id, chunks.row_of(chunk_id))
        assert chunks.bad == {chunk_id}
