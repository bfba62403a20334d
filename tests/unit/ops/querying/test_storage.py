"""What fills the disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.fine_tunes import MODEL as TUNED
from tests.support.fine_tunes import World, tune, weights
from tests.support.stores import MODEL, Site, install_packed, make_site
from yarnstore import Store
from yarnstore.errors import NotFoundError
from yarnstore.store.disk import disk_bytes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.1.0 is installed, 1.0.0 is behind it, 1.2.0 is pinned and only in packs."""
    made = make_site(tmp_path_factory.mktemp("made"))
    with made.store() as store:
        install_packed(store, "1.0.0", "1.1.0")
        store.fetch(f"{MODEL}@1.2.0")
        store.pin(f"{MODEL}@1.2.0")
    return made


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def du_bytes(folder: Path) -> int:
    """What `du -s` says, in bytes."""
    words = ["du", "-s", "--block-size=1", str(folder)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[0])


def test_the_total_is_that_of_du(site: Site) -> None:
    (site.home / "trash").mkdir(exist_ok=True)
    (site.home / "trash" / "sparse").touch()
    os.truncate(site.home / "trash" / "sparse", 5_000_000)  # no blocks
    (site.home / "tmp" / "rest.download").write_bytes(b"x" * 100_000)
    with site.store() as store:
        found = store.storage()
    (model,) = found.models
    assert [(row.version, row.reason_kept, row.installed, row.form) for row in model.versions] == [
        ("1.2.0", "pinned", False, "deltas"),
        ("1.1.0", "installed", True, "file"),
        ("1.0.0", "rollback", False, "file"),
    ]
    assert found.total_bytes == model.own_bytes + sum(item.bytes for item in found.other)
    assert {"shared", "temporary", "records"} <= {item.kind for item in found.other}
    assert all(item.bytes > 0 for item in found.other)
    assert abs(found.total_bytes - du_bytes(site.home)) <= 0.01 * found.total_bytes


def test_removing_a_version_frees_what_it_says(site: Site) -> None:
    with site.store() as store:
        store.unpin(f"{MODEL}@1.2.0")
        store.gc(keep=9)
        before = store.storage()
        (wanted,) = [row for row in before.models[0].versions if row.version == "1.2.0"]
        store.remove(f"{MODEL}@1.2.0")
        store.gc(keep=9)
        freed = before.total_bytes - store.storage().total_bytes
    assert wanted.own_bytes > 300_000
    assert abs(freed - wanted.frees_bytes) <= 40_000  # manifests, refs and indexes are freed too


def test_one_model_is_listed_with_the_total_of_the_store(site: Site) -> None:
    with site.store() as store:
        found = store.storage(MODEL)
        assert [item.model for item in found.models] == [MODEL]
        assert found.total_bytes == store.storage().total_bytes
        with pytest.raises(NotFoundError, match="other"):
            store.storage("other")


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    from yarnstore import Store

    with Store.open(tmp_path / "home") as store:
        found = store.storage()
    assert (found.total_bytes, found.models, found.other) == (0, [], [])
    assert not (tmp_path / "home").exists()


def test_a_single_chunk_in_packs_may_be_a_delta_against_a_file(tmp_path: Path) -> None:
    bits = weights(1, 400_000)
    with Store.open(tmp_path / "home") as store:
        for n, version in enumerate(("1.0.0", "1.1.0")):
            (tmp_path / "w.bin").write_bytes((tune(bits, 9) if n else bits).tobytes())
            store.publish(tmp_path / "w.bin", f"mine@{version}", registry=tmp_path / "registry")
        store.add_registry("here", tmp_path / "registry")
        for version in ("1.0.0", "1.1.0"):
            store.checkout(f"mine@{version}")
        store.gc(thin="mine", grace_s=0)
        rows = {row.version: row for row in store.storage().models[0].versions}
    assert rows["1.0.0"].form == "deltas"
    assert rows["1.0.0"].frees_bytes > 10_000


# --- going thin ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("thin"))
    bits = weights(1)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    for version in ("1.0.0", "1.1.0"):
        world.store.checkout(f"{TUNED}@{version}")
    return world


def test_what_going_thin_frees_is_what_it_says(world: World) -> None:
    rows = {row.version: row for row in world.store.storage().models[0].versions}
    assert rows["1.1.0"].thin_frees_bytes == 0
    told = rows["1.0.0"].thin_frees_bytes
    before = disk_bytes(world.store.home)
    world.store.gc(thin=TUNED, grace_s=0)
    freed = before - disk_bytes(world.store.home)
    assert told == pytest.approx(freed, rel=0.03)
    assert freed > 2_000_000
    assert world.store.storage().models[0].versions[1].thin_frees_bytes == 0


def test_going_thin_frees_the_files_of_imports_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    bits = weights(5, 300_000)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        (tmp_path / "w.bin").write_bytes((bits if n == 0 else tune(bits, 9)).tobytes())
        world.store.import_model(tmp_path / "w.bin", f"mine@{version}")
        world.store.checkout(f"mine@{version}")
    (row,) = [row for row in world.store.storage().models[0].versions if row.reason_kept == "rollback"]
    assert row.thin_frees_bytes == pytest.approx(600_000, rel=0.03)


def test_what_removing_the_base_of_deltas_frees_is_about_what_it_says(tmp_path: Path) -> None:
    world = World(tmp_path)
    bits = weights(1)
    for n in range(5):
        world.publish(f"1.{n}.0", bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    (world.store.home / "config.toml").write_text('rollback = "thin"\n')
    with Store.open(world.store.home) as store:
        for n in range(5):
            store.checkout(f"{TUNED}@1.{n}.0")
        rows = {row.version: row for row in store.storage().models[0].versions}
        assert all(row.frees_bytes >= 0 for row in rows.values())
        told, before = rows["1.2.0"].frees_bytes, disk_bytes(store.home)
        assert 0 < told < rows["1.2.0"].shared_bytes  # 1.1.0 is a delta against it
        store.remove(f"{TUNED}@1.2.0")
        store.gc(keep=9)
        freed = before - disk_bytes(store.home)
        assert store.fsck().problems == []
    for version in ("1.0.0", "1.1.0", "1.3.0"):
        world.check(version)
    assert told == pytest.approx(freed, abs=0.05 * rows["1.2.0"].size_bytes)
