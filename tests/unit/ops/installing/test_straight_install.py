"""An install of what the store lacks writes its files, and no packs beside them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.support.fine_tunes import MODEL, SIZE, World, tune, weights
from yarnstore.core.digest import Buffer
from yarnstore.errors import BackendError
from yarnstore.ops.fetching import transfer
from yarnstore.registry.policies import Retention
from yarnstore.store import packs
from yarnstore.store.drafts import Draft
from yarnstore.store.layout import StoreLayout

PACK_SLACK_BYTES = SIZE // 100


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Two versions in a registry, with a delta between them."""
    world = World(tmp_path)
    bits = weights(1)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    return world


def packs_bytes(world: World) -> int:
    return sum(path.stat().st_size for path in (world.store.home / "packs").glob("*"))


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def keep(world: World, **more: str) -> None:
    retention = Retention(**more)  # type: ignore[arg-type]
    world.store.settings = msgspec.structs.replace(world.store.settings, retention=retention)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="Linux counts what a process writes")
def test_an_install_writes_each_byte_once(world: World) -> None:
    before = written_bytes()
    world.store.checkout(f"{MODEL}@1.0.0")
    assert written_bytes() - before <= 1.02 * SIZE
    assert packs_bytes(world) <= PACK_SLACK_BYTES
    assert StoreLayout(world.store.home).relies_on_files
    assert world.store.fsck().problems == []
    world.check("1.0.0")


def test_a_delta_is_used_and_not_stored(world: World) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    done = world.store.update_model(MODEL)
    assert done.version == "1.1.0"
    assert done.download_bytes < SIZE // 2
    assert packs_bytes(world) <= PACK_SLACK_BYTES
    assert world.store.fsck().problems == []
    world.store.rollback_model(MODEL)
    for version in ("1.0.0", "1.1.0"):
        world.check(version)


def test_packs_are_written_where_files_do_not_stay_or_are_not_enough(world: World) -> None:
    world.store.path(f"{MODEL}@1.0.0")
    there = packs_bytes(world)
    assert there > SIZE // 3, "it is not installed"
    keep(world, keep_copy="always")
    world.store.checkout(f"{MODEL}@1.1.0")
    assert packs_bytes(world) > there
    assert not list((world.store.home / "tmp").iterdir())


def test_an_interrupted_install_goes_on_with_its_draft(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = World(world.root / "other")
    whole.registry, whole.contents = world.registry, world.contents
    whole.connect()
    all_bytes = whole.store.checkout(f"{MODEL}@1.0.0").download_bytes
    real, came = transfer._Transfer.emit, []

    def breaking(self: transfer._Transfer, entry: transfer.Entry) -> None:
        if came:
            raise BackendError("server", "is gone")
        came.append(entry.stored_bytes)
        real(self, entry)

    monkeypatch.setattr(transfer._Transfer, "emit", breaking)
    world.store.settings = msgspec.structs.replace(world.store.settings, connections=1)
    with pytest.raises(BackendError):
        world.store.checkout(f"{MODEL}@1.0.0")
    monkeypatch.undo()
    (draft,) = (world.store.home / "tmp").glob("*.draft")
    world.store.gc(keep=0)
    assert draft.exists()
    assert world.store.checkout(f"{MODEL}@1.0.0").download_bytes == all_bytes - sum(came)
    assert not draft.exists()
    world.check("1.0.0")


def test_chunks_are_requested_as_they_lie_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packs are listed by their names, so that the hash of the file could otherwise not follow."""
    monkeypatch.setattr(packs, "PACK_TARGET_BYTES", SIZE // 3)
    world = World(tmp_path)
    world.publish("1.0.0", weights(1, 2 * SIZE), deltas=0)
    world.connect()
    real: Callable[[Draft, int, Buffer], bool] = Draft.put
    placed: list[int] = []

    def put(draft: Draft, n: int, data: Buffer) -> bool:
        placed.append(n)
        return real(draft, n, data)

    monkeypatch.setattr(Draft, "put", put)
    world.store.settings = msgspec.structs.replace(world.store.settings, connections=1)
    world.store.checkout(f"{MODEL}@1.0.0")
    assert len(list((world.root / "registry" / "packs").glob("*.pack"))) == 12
    assert placed == list(range(12))
    world.check("1.0.0")


def test_an_old_draft_goes(world: World) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    draft = world.store.home / "tmp" / f"{'0' * 64}.draft"
    draft.write_bytes(b"part")
    world.store.gc()
    assert draft.exists()
    old_s = time.time() - 8 * 86_400
    os.utime(draft, (old_s, old_s))
    world.store.gc()
    assert not draft.exists()
