"""What `du` says that going thin frees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fine_tunes import MODEL, World, tune, weights
from yarnstore.store.disk import disk_bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("thin"))
    bits = weights(1)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    for version in ("1.0.0", "1.1.0"):
        world.store.checkout(f"{MODEL}@{version}")
    return world


def test_it_is_what_gc_then_frees(world: World) -> None:
    rows = {row.version: row for row in world.store.storage().models[0].versions}
    assert rows["1.1.0"].thin_frees_bytes == 0
    told = rows["1.0.0"].thin_frees_bytes
    before = disk_bytes(world.store.home)
    world.store.gc(thin=MODEL, grace_s=0)
    freed = before - disk_bytes(world.store.home)
    assert told == pytest.approx(freed, rel=0.03)
    assert freed > 2_000_000
    assert world.store.storage().models[0].versions[1].thin_frees_bytes == 0


def test_an_import_keeps_its_packs_so_its_files_are_freed_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    bits = weights(5, 300_000)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        (tmp_path / "w.bin").write_bytes((bits if n == 0 else tune(bits, 9)).tobytes())
        world.store.import_model(tmp_path / "w.bin", f"mine@{version}")
        world.store.checkout(f"mine@{version}")
    (row,) = [row for row in world.store.storage().models[0].versions if row.reason_kept == "rollback"]
    assert row.thin_frees_bytes == pytest.approx(600_000, rel=0.03)
