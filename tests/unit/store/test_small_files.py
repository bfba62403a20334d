"""Files of one small chunk: many at once, and as right as any other."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.support.small_stores import manifest_of, noise, write_packs
from yarnstore.core.digest import ChunkId, Sha256
from yarnstore.core.manifest import ManifestFile, pack_chunk_list
from yarnstore.errors import IntegrityError
from yarnstore.store import small_files
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout
from yarnstore.store.small_files import is_small, materialise_small


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    layout = StoreLayout(tmp_path / "home")
    layout.ensure()
    return layout


def small(count: int) -> tuple[ManifestFile, ...]:
    return manifest_of({f"{n:03}": [noise(n, 300)] for n in range(count)}).files


def test_only_one_small_chunk_is_small() -> None:
    files = manifest_of({"a": [b"one"], "b": [b"one", b"two"], "c": [], "d": [noise(1, 65_537)]}).files
    assert [is_small(file) for file in files] == [True, False, False, False]


def test_they_come_out_whole_read_only_and_in_several_batches(
    layout: StoreLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_files, "_BATCH_FILES", 4)
    run = manifest_of({"run": [b"run"]}).files[0]
    files = [*small(9), ManifestFile("run", 3, run.sha256, run.chunks, {"executable": True})]
    write_packs(layout.pack_folder, [*(noise(n, 300) for n in range(9)), b"run"])
    told: list[int] = []
    with ChunkStore(layout) as chunks:
        materialise_small(layout, chunks, files, told.append)
    assert told == [1200, 1200, 303]
    for n, file in enumerate(files[:-1]):
        assert layout.file(file).read_bytes() == noise(n, 300)
        assert stat.S_IMODE(layout.file(file).stat().st_mode) == 0o444
    assert stat.S_IMODE(layout.file(files[-1]).stat().st_mode) == 0o555
    assert list(layout.tmp.iterdir()) == []


def test_all_damaged_chunks_of_a_batch_are_named_and_no_file_of_it_is_made(layout: StoreLayout) -> None:
    files = small(6)
    (pack,) = write_packs(layout.pack_folder, [noise(n, 300) for n in range(6)])
    path = layout.pack_folder.pack(pack)
    data = bytearray(path.read_bytes())
    for n in (1, 4):
        data[data.index(noise(n, 300)) + 7] ^= 1
    path.write_bytes(data)
    with ChunkStore(layout) as chunks:
        with pytest.raises(IntegrityError, match="corrupt in this store"):
            materialise_small(layout, chunks, files, lambda _: None)
        assert chunks.bad == {ChunkId.of(noise(n, 300)).raw for n in (1, 4)}
    assert not layout.files.exists() or list(layout.files.iterdir()) == []


@pytest.mark.parametrize("fault", ["content", "length"])
def test_a_manifest_that_lies_makes_no_file(layout: StoreLayout, fault: str) -> None:
    data = b"the bytes"
    write_packs(layout.pack_folder, [data])
    size = len(data) - (fault == "length")
    promised = Sha256.of(data if fault == "length" else b"not these")
    lying = ManifestFile("a", size, promised, pack_chunk_list([(ChunkId.of(data).raw, size)]))
    with ChunkStore(layout) as chunks, pytest.raises(IntegrityError):
        materialise_small(layout, chunks, [lying], lambda _: None)
    assert not layout.files.exists() or list(layout.files.iterdir()) == []
