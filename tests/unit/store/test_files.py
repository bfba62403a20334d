"""Materialised files and views: whole, hashed, shared, and held against gc."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.support.small_stores import fill, manifest_of, noise, other_process, write_packs
from tests.support.stores import flip
from yarnstore.core.digest import ChunkId, Sha256
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.errors import IntegrityError, StorageError
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.files import has_file, materialise, missing_files
from yarnstore.store.hashed import file_sha256
from yarnstore.store.layout import StoreLayout
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import manifest_chunks
from yarnstore.store.views import (
    has_view,
    last_use,
    lease,
    link_model,
    linked_path,
    make_view,
    note_use,
    replace_view,
    unlink_model,
    version_path,
    view_in_use,
)

TWO = {
    "a.bin": [noise(1), noise(2)],
    "sub/deep/b.txt": [b"text " * 100],
    "sub/same.txt": [b"text " * 100],
    "empty": [],
}


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    return StoreLayout(tmp_path / "home")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


EXPECTED = {path: b"".join(chunks) for path, chunks in TWO.items()}


def test_a_view_is_the_version(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    assert missing_files(layout, manifest) == []
    make_view(layout, manifest)
    view = layout.view(manifest.digest)
    assert contents(view) == EXPECTED
    assert stat.S_IMODE((view / "a.bin").stat().st_mode) == 0o444
    assert (view / "sub/same.txt").stat().st_ino == (view / "sub/deep/b.txt").stat().st_ino
    assert len(list(layout.files.iterdir())) == 3
    assert list(layout.tmp.iterdir()) == []
    make_view(layout, manifest)
    assert contents(view) == EXPECTED
    assert list(layout.tmp.iterdir()) == []


def test_a_view_that_cannot_be_made_leaves_nothing(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    layout.file(manifest.files[-1]).unlink()
    with pytest.raises(Exception, match="file"):
        make_view(layout, manifest)
    assert not has_view(layout, manifest.digest)
    assert list(layout.tmp.iterdir()) == []


def test_a_damaged_view_is_made_anew(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    make_view(layout, manifest)
    view = layout.view(manifest.digest)
    (view / "a.bin").unlink()
    (view / "more").touch()
    replace_view(layout, manifest)
    assert contents(view) == EXPECTED
    assert len(list(layout.trash.iterdir())) == 1


def test_bytes_that_were_not_hashed_make_no_file(layout: StoreLayout) -> None:
    """Every chunk is right, and the manifest promises another file."""
    layout.ensure()
    write_packs(layout.pack_folder, [b"one", b"two"])
    good = manifest_of({"a": [b"one", b"two"]}).files[0]
    lying = ManifestFile("a", 6, Sha256.of(b"twoone"), good.chunks)
    with ChunkStore(layout) as chunks:
        with pytest.raises(IntegrityError, match="expected sha256:"):
            materialise(layout, chunks, lying, lambda _: None)
        assert chunks.bad == set()
        told: list[int] = []
        materialise(layout, chunks, good, told.append)
    assert told == [3, 3]
    assert [path.name for path in layout.files.iterdir()] == [good.sha256.hex]
    assert list(layout.tmp.iterdir()) == []


@pytest.mark.parametrize("lengths", [(20, 10, 10), (10, 10, 20), (1, 38, 1)])
def test_lengths_that_lie_and_add_up_make_no_file(layout: StoreLayout, lengths: tuple[int, ...]) -> None:
    """One after the other, the chunks are the file that is promised; where the manifest puts them, not."""
    layout.ensure()
    parts = [noise(1, 10), noise(2, 20), noise(3, 10)]
    write_packs(layout.pack_folder, parts)
    ids = [ChunkId.of(data).raw for data in parts]
    chunk_list = pack_chunk_list(list(zip(ids, lengths, strict=True)))
    lying = ManifestFile("a", 40, Sha256.of(b"".join(parts)), chunk_list)
    with ChunkStore(layout) as chunks:
        with pytest.raises(IntegrityError, match="different length than its manifest says"):
            materialise(layout, chunks, lying, lambda _: None)
        assert chunks.bad == set()
    assert list(layout.files.iterdir()) == []
    assert list(layout.tmp.iterdir()) == []


def test_no_thread_reads_on_after_an_error(layout: StoreLayout) -> None:
    layout.ensure()
    parts = [noise(n) for n in range(40)]
    write_packs(layout.pack_folder, parts)

    def full(_: int) -> None:
        raise StorageError("no space left")

    with ChunkStore(layout) as chunks:
        try:
            materialise(layout, chunks, manifest_of({"a": parts}).files[0], full)
        except StorageError:
            # While the error is handled, the packs and the file it happened to are closed.
            assert [thread.name for thread in threading.enumerate() if "yarnstore" in thread.name] == []
        else:
            pytest.fail("the error was swallowed")


def test_all_damaged_chunks_are_named_at_once(layout: StoreLayout) -> None:
    layout.ensure()
    parts = [noise(n) for n in range(6)]
    (pack,) = write_packs(layout.pack_folder, parts)
    manifest = manifest_of({"a": parts})
    path = layout.pack_folder.pack(pack)
    data = bytearray(path.read_bytes())
    for n in (1, 4):
        data[data.index(parts[n]) + 7] ^= 1
    path.write_bytes(data)
    with ChunkStore(layout) as chunks:
        with pytest.raises(IntegrityError, match="corrupt in this store"):
            materialise(layout, chunks, manifest.files[0], lambda _: None)
        assert chunks.bad == {ChunkId.of(parts[n]).raw for n in (1, 4)}
        ids, _ = manifest_chunks([manifest])
        assert len(chunks.missing(ids)) == 0
        chunks.forget(set(chunks.bad))
        assert len(chunks.missing(ids)) == 2
        assert chunks.bad == set()
    write_packs(layout.pack_folder, [parts[1], parts[4]])
    with ChunkStore(layout) as chunks:
        materialise(layout, chunks, manifest.files[0], lambda _: None)
    assert layout.file(manifest.files[0]).read_bytes() == b"".join(parts)


def test_a_chunk_whose_pack_is_gone_is_read_from_a_file(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    for path in layout.pack_folder.packs.iterdir():
        path.unlink()
    ids, _ = manifest_chunks([manifest])
    with ChunkStore(layout) as chunks:
        assert len(chunks.table) == 0
        assert not chunks.in_packs(ids).any()
        assert len(chunks.missing(ids)) == 0
        assert chunks.read(ChunkId.of(noise(2)).raw, -1) == noise(2)
        with pytest.raises(IntegrityError, match="not in this store"):
            chunks.read(b"z" * 32, -1)


def test_a_claim_of_a_manifest_is_no_chunk(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    for path in layout.pack_folder.packs.iterdir():
        path.unlink()
    flip(layout.file(manifest.files[0]), 0)
    ids, _ = manifest_chunks([manifest])
    with ChunkStore(layout) as chunks:
        assert len(chunks.missing(ids)) == 0
        chunks.check_files(ids)
        assert len(chunks.missing(ids)) == 1
        assert chunks.bad == set()


def test_a_file_of_the_same_size_with_other_bytes_serves_no_chunk(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    for path in layout.pack_folder.packs.iterdir():
        path.unlink()
    file = layout.file(manifest.files[0])
    file.chmod(0o644)
    file.write_bytes(noise(9, file.stat().st_size))
    with ChunkStore(layout) as chunks, pytest.raises(IntegrityError):
        chunks.read(ChunkId.of(noise(2)).raw, -1)


def test_a_file_of_another_size_counts_as_missing(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    path = layout.file(manifest.files[0])
    path.chmod(0o644)
    path.write_bytes(b"short")
    assert not has_file(layout, manifest.files[0])
    assert [file.path for file in missing_files(layout, manifest)] == ["a.bin"]
    with ChunkStore(layout) as chunks:
        materialise(layout, chunks, manifest.files[0], lambda _: None)
    assert file_sha256(path) == manifest.files[0].sha256


def other(version: str) -> Manifest:
    return manifest_of({"one.onnx": [b"one"]}, version=version)


def test_the_link_of_a_model_leads_to_what_is_installed(layout: StoreLayout) -> None:
    layout.ensure()
    for version in ("1.0.0", "1.1.0", "1.0.0"):
        digest = other(version).digest
        link_model(layout, "m", digest)
        assert os.readlink(layout.model_link("m")) == f"../views/{digest.hex}"
    assert linked_path(layout, other("1.0.0")) == layout.root / "models/m/one.onnx"
    assert linked_path(layout, other("1.1.0")) == layout.view(other("1.1.0").digest) / "one.onnx"
    unlink_model(layout, "m")
    unlink_model(layout, "m")
    assert linked_path(layout, other("1.0.0")) == layout.view(other("1.0.0").digest) / "one.onnx"
    assert version_path(Path("x"), manifest_of(TWO)) == Path("x")


def test_uses_are_counted(layout: StoreLayout, tmp_path: Path) -> None:
    digest = Sha256(b"x" * 32)
    assert last_use(layout, digest) == (0, 0.0)
    for count in (1, 2, 3):
        note_use(layout, digest)
        assert last_use(layout, digest)[0] == count
    assert last_use(layout, digest)[1] > 1_600_000_000


def test_a_use_that_cannot_be_noted_is_no_error(layout: StoreLayout, tmp_path: Path) -> None:
    layout.ensure()
    layout.logs.write_bytes(b"in the way")
    note_use(layout, Sha256(b"x" * 32))
    assert layout.logs.read_bytes() == b"in the way"


def test_a_view_is_held_as_long_as_its_descriptor_is_open(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    assert lease(layout, manifest.digest) is None
    assert not view_in_use(layout, manifest.digest)
    make_view(layout, manifest)
    assert not view_in_use(layout, manifest.digest)
    first, second = lease(layout, manifest.digest), lease(layout, manifest.digest)
    assert first is not None
    assert second is not None
    assert view_in_use(layout, manifest.digest)
    os.close(first)
    assert view_in_use(layout, manifest.digest)
    os.close(second)
    assert not view_in_use(layout, manifest.digest)


def test_a_killed_process_holds_no_view(layout: StoreLayout) -> None:
    manifest = fill(layout, TWO)
    make_view(layout, manifest)
    script = """
from yarnstore.core.digest import Sha256
from yarnstore.store.layout import StoreLayout
from yarnstore.store.views import lease
assert lease(StoreLayout(Path(sys.argv[1])), Sha256.parse(sys.argv[2])) is not None
print("ready", flush=True)
sys.stdin.read()
"""
    with other_process(script, str(layout.root), str(manifest.digest)) as process:
        assert view_in_use(layout, manifest.digest)
        process.kill()
        process.wait(10)
        assert not view_in_use(layout, manifest.digest)


def test_a_link_in_a_views_place_is_not_held(layout: StoreLayout, tmp_path: Path) -> None:
    layout.views.mkdir(parents=True)
    digest = Sha256(b"x" * 32)
    layout.view(digest).symlink_to(tmp_path)
    assert lease(layout, digest) is None
    with pytest.raises(StorageError):
        view_in_use(layout, digest)


@pytest.mark.parametrize(("asked", "window", "threads"), [("3", 8, 3), ("16", 5, 5), ("1", 4, 1)])
def test_ordered_map_uses_the_threads_of_the_machine(
    monkeypatch: pytest.MonkeyPatch, asked: str, window: int, threads: int
) -> None:
    monkeypatch.setenv("YSTORE_THREADS", asked)
    together = threading.Barrier(threads)

    def meet(n: int) -> int:
        together.wait(60)  # ends when so many threads are at work
        return n

    assert list(ordered_map(meet, range(3 * threads), window=window)) == list(range(3 * threads))
    names = set()
    list(ordered_map(lambda _: names.add(threading.current_thread().name), range(50), window=window))
    assert len(names) <= threads


def test_ordered_map_keeps_order_and_stays_within_its_window() -> None:
    taken = 0

    def items() -> list[int]:
        nonlocal taken
        for n in range(100):
            taken = n + 1
            yield n

    done = []
    for value in ordered_map(lambda n: n * 2, items(), threads=2, window=5):
        done.append(value)
        assert taken <= len(done) + 5
    assert done == [n * 2 for n in range(100)]


def test_an_error_in_the_pipeline_comes_out_where_it_belongs() -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        seen.extend(ordered_map(lambda n: 6 // n, [3, 2, 0, 1], threads=2, window=2))
    results = ordered_map(lambda n: 6 // n, [3, 2, 0, 1], threads=2, window=2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
