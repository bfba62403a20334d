"""Defects that were found, each kept from coming back."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.fine_tunes import SIZE, World, tune, weights
from tests.support.stores import MODEL, Site, flip, make_site
from yarnstore import Store
from yarnstore.core.digest import ChunkId, Sha256
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.errors import StorageError, YarnstoreError
from yarnstore.store.layout import StoreLayout
from yarnstore.store.open_files import OPEN_FILES, OpenFiles


def test_importing_again_heals_a_damaged_chunk(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(random.Random(1).randbytes(900_000))
    with Store.open(tmp_path / "home") as store:
        store.import_model(source, "mine@1.0.0")
        (pack,) = (store.home / "packs").glob("*.pack")
        flip(pack, pack.stat().st_size // 2)
        done = store.import_model(source, "mine@1.0.1")
        assert done.chunks_new >= 1
        store.export("mine@1.0.1", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == source.read_bytes()


def test_importing_over_a_delta_that_hangs_on_nothing_stores_the_bytes(tmp_path: Path) -> None:
    world = World(tmp_path)
    bits = weights(1)
    world.publish("1.0.0", bits)
    world.publish("2.0.0", tune(bits, 2))
    world.connect()
    for version in ("1.0.0", "2.0.0"):
        world.store.fetch(f"{MODEL_OF_WORLD}@{version}")
    layout = StoreLayout(world.store.home)
    for path in layout.pack_folder.packs.glob("*.idx"):  # the packs of 1.0.0, which are no deltas
        if path.stat().st_size and path.with_suffix(".pack").stat().st_size > 0.5 * SIZE:
            path.unlink()
            path.with_suffix(".pack").unlink()
    source = tmp_path / "copy.bin"
    source.write_bytes(world.contents["2.0.0"])
    assert world.store.import_model(source, "copy@1.0.0").chunks_new == 3
    world.store.export("copy@1.0.0", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == world.contents["2.0.0"]


MODEL_OF_WORLD = "tuned"


def test_a_manifest_that_lies_about_a_file_hides_no_chunk(tmp_path: Path) -> None:
    """Its digest may sort before the honest one's, and its model need never be fetched."""
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    layout = StoreLayout(site.home)
    honest = next(layout.read_manifest(digest) for digest in layout.manifest_ids())
    file = max(honest.files, key=lambda item: item.size_bytes)
    wanted = random.Random(5).randbytes(file.size_bytes)
    lie = ManifestFile(
        "x", file.size_bytes, file.sha256, pack_chunk_list([(ChunkId.of(wanted).raw, len(wanted))])
    )
    layout.write_manifest(Manifest.make("liar", "1.0.0", "default", [lie]))
    source = tmp_path / "victim.bin"
    source.write_bytes(wanted)
    with site.store() as store:
        store.import_model(source, "victim@1.0.0")
        store.export("victim@1.0.0", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == wanted


def test_a_file_that_changed_in_place_is_not_linked_into_another_version(tmp_path: Path) -> None:
    sources = [tmp_path / "a", tmp_path / "b"]
    shared = random.Random(3).randbytes(200_000)
    for n, source in enumerate(sources):
        source.mkdir()
        (source / "shared.bin").write_bytes(shared)
        (source / "version").write_text(str(n))
    with Store.open(tmp_path / "home") as store:
        store.import_model(sources[0], "m@1.0.0")
        store.import_model(sources[1], "m@2.0.0")
        store.checkout("m@1.0.0")
        flip(store.home / "files" / Sha256.of(shared).hex, 1000)
        store.checkout("m@2.0.0")
        assert (Path(store.path("m")) / "shared.bin").read_bytes() == shared


def test_a_reader_keeps_few_files_open(tmp_path: Path) -> None:
    files = OpenFiles()
    paths = [tmp_path / str(n) for n in range(4 * OPEN_FILES)]
    for path in paths:
        path.write_bytes(b"x")
        with files.read(path):
            pass
    assert len(files._open) <= OPEN_FILES
    files.close()


LIMITED = """
import resource, sys
from yarnstore import Store
resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
with Store.open(sys.argv[1]) as store:
    store.checkout("many@1.0.0")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_NOFILE")
def test_more_packs_than_descriptors_are_no_damage(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with Store.open(tmp_path / "home") as store:
        for n in range(60):  # a pack each
            (source / f"{n}.bin").write_bytes(random.Random(n).randbytes(70_000))
            store.import_model(source, f"step{n}@1.0.0")
        store.import_model(source, "many@1.0.0")
        before = store.status().chunks
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, store.home], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert store.status().chunks == before


def test_a_disk_that_refuses_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site: Site = make_site(tmp_path)
    with site.store() as store:
        store.fetch(f"{MODEL}@1.0.0")
        before = store.status().chunks
        with monkeypatch.context() as patch:
            patch.setattr("yarnstore.store.chunks.pread_exact", _refuse)
            with pytest.raises(StorageError):
                store.checkout(f"{MODEL}@1.0.0")
        assert store.status().chunks == before


def _refuse(*_: object) -> bytes:
    raise StorageError("input/output error")


def test_damage_without_a_registry_forgets_nothing(tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(random.Random(1).randbytes(900_000))
    with Store.open(tmp_path / "home") as store:
        store.import_model(source, "mine@1.0.0")
        (pack,) = (store.home / "packs").glob("*.pack")
        before = {path.name: path.read_bytes() for path in (store.home / "packs").glob("*.idx")}
        flip(pack, pack.stat().st_size // 2)
        with pytest.raises(YarnstoreError):
            store.checkout("mine@1.0.0")
        assert {path.name: path.read_bytes() for path in (store.home / "packs").glob("*.idx")} == before


def test_chains_are_counted_by_packs_alone(tmp_path: Path) -> None:
    """A base in a materialised file shortens no chain: the file may go."""
    world = World(tmp_path)
    bits = weights(1, SIZE // 6)
    for n in range(11):
        world.publish(f"1.{n}.0", bits, deltas=1)
        bits = tune(bits, n)
    world.connect()
    for n in range(11):
        world.store.fetch(f"{MODEL_OF_WORLD}@1.{n}.0")  # into packs
        world.store.checkout(f"{MODEL_OF_WORLD}@1.{n}.0", wait=False)
    world.forget_files()
    shutil.rmtree(world.registry)
    assert int(np.max(world.table().depths())) <= 8
    for version in world.contents:
        world.check(version)
