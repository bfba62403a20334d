"""What `fsck` says of packs and their indexes."""

from __future__ import annotations

from pathlib import Path

from tests.support.small_stores import noise, write_packs
from tests.support.stores import tree_hashes
from yarnstore import Store
from yarnstore.core.digest import ChunkId
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path as StorePath
from yarnstore.store.layout import StoreLayout


def test_an_index_may_leave_out_what_another_pack_has_and_nothing_else(tmp_path: Path) -> None:
    """As after a chunk was encoded anew into another pack."""
    source = tmp_path / "source"
    source.mkdir()
    for n in (1, 2):
        (source / f"{n}.bin").write_bytes(noise(n))
    with Store.open(tmp_path / "home") as store:
        store.import_model(source, "mine@1.0.0")
        folder = StoreLayout(StorePath(store.home)).pack_folder
        (first,) = folder.pack_ids()
        write_packs(folder, [noise(1)])
        (second,) = set(folder.pack_ids()) - {first}
        with ChunkStore(StoreLayout(StorePath(store.home))) as chunks:
            chunks.forget_entries({first: {ChunkId.of(noise(1)).raw}})
        assert store.fsck().problems == []

        for path in (folder.pack(second), folder.index(second)):
            Path(path).unlink()
        (problem,) = store.fsck().problems
        assert (problem.kind, problem.where, problem.what) == (
            "index",
            f"packs/{first.hex}.idx",
            "does not match its pack",
        )
        assert problem.hurts == ("mine 1.0.0",)
        store.fsck(repair=True)
        assert store.fsck().problems == []
        store.export("mine@1.0.0", f"{tmp_path / 'out'}/")
    assert tree_hashes(tmp_path / "out") == tree_hashes(source)
