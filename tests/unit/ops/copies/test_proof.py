"""A file or pack that goes is kept as long as the packs that stay have not what they list of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.small_stores import noise, write_packs
from tests.support.stores import flip, tree_hashes
from yarnstore import Store
from yarnstore.core.codec import make_delta_entry, make_entry
from yarnstore.core.digest import ChunkId
from yarnstore.core.index import id_bytes
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path as StorePath
from yarnstore.store.layout import StoreLayout
from yarnstore.store.packs import PackWriter

_COUNT = 120_000


def _import(store: Store, root: Path, spec: str, seed: int, mode: int = 0o644) -> Path:
    """Import a version of one file and install it; its source."""
    source = root / f"{spec}.bin"
    source.write_bytes(tune(weights(1, _COUNT), seed).tobytes())
    source.chmod(mode)
    store.import_model(source, spec)
    store.checkout(spec)
    return source


def _flip_packs(store: Store) -> None:
    """A bit of an entry in each pack, as a disk loses it."""
    for pack in (store.home / "packs").glob("*.pack"):
        flip(pack, pack.stat().st_size // 2)


def _assert_there(store: Store, spec: str, source: Path, out: Path) -> None:
    store.export(spec, f"{out}/")
    assert list(tree_hashes(out).values()) == list(tree_hashes(source).values())


@pytest.mark.parametrize("how", ["thin", "deleted"])
def test_a_sound_file_is_not_deleted_for_a_damaged_pack(how: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        if how == "thin":  # the file of the previous version goes, which its pack has too
            source = _import(store, tmp_path, "mine@1.0.0", 2)
            _import(store, tmp_path, "mine@1.1.0", 3)
        else:  # the file of a deleted version goes, which the pack of another version has too
            source = _import(store, tmp_path, "mine@1.0.0", 2)
            _import(store, tmp_path, "mine@1.1.0", 3)
            store.gc(thin="*", grace_s=0)
            _import(store, tmp_path, "same@1.0.0", 2, 0o755)  # its file has another name
            store.remove("same", whole_model=True)
        _flip_packs(store)
        said: list[str] = []
        store.gc(thin="*", grace_s=0, progress=lambda event: said.append(event.text))
        assert [text for text in said if "the copies in files are kept instead" in text]
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")
        store.fsck(repair=True)
        store.gc(thin="*", grace_s=0)
        assert store.fsck().problems == []
        _assert_there(store, "mine@1.0.0", source, tmp_path / "again")
        assert len(list((store.home / "files").iterdir())) == 1


@pytest.mark.parametrize("repack", [False, True])
def test_of_two_packs_the_one_with_sound_bytes_stays(repack: bool, tmp_path: Path) -> None:
    """The entry that counts is damaged, and the other pack has nothing else that is needed."""
    with Store.open(tmp_path / "home") as store:
        source = tmp_path / "1.bin"
        source.write_bytes(tune(weights(1, _COUNT), 2).tobytes())
        store.import_model(source, "mine@1.0.0")
        layout = StoreLayout(StorePath(store.home))
        with ChunkStore(layout) as chunks:
            chunk_id = id_bytes(chunks.table.ids, 0)
            write_packs(layout.pack_folder, [bytes(chunks.read_row(0)), noise(1)])
        with ChunkStore(layout) as chunks:
            row = chunks.row_of(chunk_id)
            rotten, sound = chunks.table.entries(row)
            flip(Path(layout.pack_folder.pack(rotten.pack)), rotten.offset + rotten.length - 1)
            chunks.read(chunk_id, row)  # a reader finds the other
            assert not chunks.bad
        assert sound.pack in layout.pack_folder.pack_ids()
        store.gc(grace_s=0, repack=repack)
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")
        store.fsck(repair=True)
        store.gc(grace_s=0)
        assert store.fsck().problems == []
        _assert_there(store, "mine@1.0.0", source, tmp_path / "again")


def test_a_delta_whose_base_is_not_here_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """Its base may come back; an index that lacked the delta would not match its pack then."""
    with Store.open(tmp_path / "home") as store:
        source = _import(store, tmp_path, "mine@1.0.0", 2)
        _import(store, tmp_path, "mine@1.1.0", 3)
        layout = StoreLayout(StorePath(store.home))
        data = source.read_bytes()
        with ChunkStore(layout) as chunks:
            assert chunks.row_of(ChunkId.of(data).raw) >= 0, "the file is not one chunk"
        base = weights(1, _COUNT).tobytes()
        delta = make_delta_entry(ChunkId.of(data).raw, data, ChunkId.of(base).raw, base)
        assert delta is not None
        with PackWriter(layout.pack_folder) as writer:
            writer.add(delta)
            writer.add(make_entry(ChunkId.of(noise(1)).raw, noise(1)))
        said: list[str] = []
        store.gc(grace_s=0, thin="*", progress=lambda event: said.append(event.text))
        assert [text for text in said if "corrupt" in text] == []
        write_packs(layout.pack_folder, [base])
        assert store.fsck().problems == []
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")


def test_a_delta_without_its_base_beside_a_file_that_goes_is_not_taken_for_damaged(tmp_path: Path) -> None:
    """The file is of a deleted version: files of kept ones replace entries, damaged or not."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('keep_copy = "never"\n')  # else gc adds a whole entry first
    with Store.open(home) as store:
        source = _import(store, tmp_path, "mine@1.0.0", 2)
        _import(store, tmp_path, "mine@1.1.0", 3)
        store.gc(thin="*", grace_s=0)
        _import(store, tmp_path, "same@1.0.0", 2, 0o755)  # its file has another name
        store.remove("same", whole_model=True)
        folder = StoreLayout(StorePath(store.home)).pack_folder
        for pack in folder.pack_ids():
            Path(folder.pack(pack)).unlink()
            Path(folder.index(pack)).unlink()
        data, base = source.read_bytes(), weights(1, _COUNT).tobytes()
        delta = make_delta_entry(ChunkId.of(data).raw, data, ChunkId.of(base).raw, base)
        assert delta is not None
        with PackWriter(folder) as writer:
            writer.add(delta)
        said: list[str] = []
        store.gc(grace_s=0, thin="*", progress=lambda event: said.append(event.text))
        assert [text for text in said if "corrupt" in text] == []
        write_packs(folder, [base])
        assert store.fsck().problems == []
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")


def test_a_plan_that_was_shown_is_carried_out_although_packs_are_damaged(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        source = _import(store, tmp_path, "mine@1.0.0", 2)
        _import(store, tmp_path, "mine@1.1.0", 3)
        _flip_packs(store)
        store.gc(expected=store.plan_gc(grace_s=0).fingerprint, grace_s=0)
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")
