"""What an install does at its end: older versions cost what changed, and nothing is on the disk twice."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.support.fine_tunes import MODEL, World, weights
from tests.support.models import model_path
from tests.support.stores import copy_tree
from yarnstore import Progress, Store
from yarnstore.errors import CancelledError
from yarnstore.progress import CANCEL, Cancel
from yarnstore.registry.policies import Retention
from yarnstore.store.disk import disk_bytes
from yarnstore.store.kernel import wait_lock

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
SIZE = 8 << 20
# In multiples of one version: after the install, after one update, after two.
GOALS = {"instant": (1.01, 2.02, 2.15), "thin": (1.01, 1.15, 1.25)}


def tune(bits: np.ndarray, seed: int) -> np.ndarray:
    """One of twelve weights moves by a step."""
    random = np.random.default_rng(seed)
    moved = random.integers(0, 12, bits.size) == 0
    steps = np.where(moved, random.choice([-1, 1], bits.size), 0).astype(np.int16)
    return (bits.view(np.int16) + steps).view(np.uint16)


def file_bytes(home: Path) -> int:
    """The sizes of all files, one of several names once; blocks would count for much beside a small model."""
    found = (path.lstat() for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return sum({item.st_ino: item.st_size for item in found}.values())


def with_settings(store: Store, **more: object) -> Store:
    store.settings = msgspec.structs.replace(store.settings, retention=Retention(**more))  # type: ignore[arg-type]
    return store


def names(home: Path, folder: str) -> list[str]:
    return sorted(path.name for path in (home / folder).iterdir())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("published"))
    bits = weights(1, SIZE // 2)
    for n, version in enumerate(VERSIONS):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    return world


@pytest.fixture
def world(published: World, tmp_path: Path) -> World:
    """An empty store beside that registry."""
    world = World(tmp_path)
    world.registry, world.contents = published.registry, published.contents
    world.connect()
    return world


@pytest.fixture(scope="module")
def updated(published: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with 1.0.0, fetched first, and 1.1.0 and 1.2.0 installed over it; nothing was freed."""
    world = World(tmp_path_factory.mktemp("updated"))
    world.registry, world.contents = published.registry, published.contents
    world.connect()
    world.store.fetch(f"{MODEL}@1.0.0")
    for version in VERSIONS:
        world.store.checkout(f"{MODEL}@{version}", wait=False)
    return world.store.home


@pytest.fixture
def left(published: World, updated: Path, tmp_path: Path) -> World:
    """A copy of that store."""
    copy_tree(updated, tmp_path / "home")
    world = World(tmp_path)
    world.registry, world.contents = published.registry, published.contents
    return world


def sound(world: World) -> None:
    assert world.store.fsck().problems == []
    for version in VERSIONS:
        world.check(version)
    world.store.close()


@pytest.mark.parametrize("rollback", ["instant", "thin"])
def test_older_versions_cost_what_changed_right_after_an_update(world: World, rollback: str) -> None:
    store = with_settings(world.store, rollback=rollback)
    store.checkout(f"{MODEL}@1.0.0")
    taken = [file_bytes(store.home)]
    for version in VERSIONS[1:]:
        assert store.update_model(f"{MODEL}@{version}").status == "updated"
        taken.append(file_bytes(store.home))
    shares = [size / SIZE for size in taken]
    assert all(share <= most for share, most in zip(shares, GOALS[rollback], strict=True)), shares
    assert len(names(store.home, "files")) == {"instant": 2, "thin": 1}[rollback]
    assert store.gc().freed_bytes == 0
    sound(world)


@pytest.mark.parametrize("rollback", ["instant", "thin"])
def test_the_real_model_takes_as_little(tmp_path: Path, rollback: str) -> None:
    registry = tmp_path / "registry"
    with Store.open(tmp_path / "home") as store:
        for version in VERSIONS:
            source = model_path("minilm-bf16", version)
            store.publish(source, f"m@{version}", registry=registry, deltas=1)
        store.add_registry("here", registry)
        with_settings(store, rollback=rollback)
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
        shares = []
        for version in VERSIONS:
            store.checkout(f"m@{version}")
            shares.append(disk_bytes(store.home) / size)
        assert all(share <= most for share, most in zip(shares, GOALS[rollback], strict=True)), shares
        assert abs(store.storage().total_bytes - disk_bytes(store.home)) <= 0.01 * size


def test_without_waiting_it_is_left_to_slim_or_gc(left: World) -> None:
    store = left.store
    assert len(names(store.home, "files")) == 3
    assert names(store.home, "packs")
    before = file_bytes(store.home)
    freed = store.slim(MODEL)
    assert len(names(store.home, "files")) == 2
    assert abs(before - file_bytes(store.home) - freed) < 20_000  # and indexes
    assert [row.version for row in store.list_versions(MODEL)] == ["1.2.0", "1.1.0", "1.0.0"]
    assert store.slim() == 0
    sound(left)


def test_a_rollback_frees_the_version_that_nothing_returns_to(world: World) -> None:
    store = world.store
    for version in VERSIONS:
        store.checkout(f"{MODEL}@{version}")
    store.rollback_model(MODEL)
    assert len(names(store.home, "files")) == 2  # both stay
    store.rollback_model(MODEL)  # decodes 1.0.0: 1.1.0 is behind, 1.2.0 becomes deltas
    kept = {hashlib.sha256(world.contents[version]).hexdigest() for version in ("1.0.0", "1.1.0")}
    assert set(names(store.home, "files")) == kept
    sound(world)


def test_a_thin_rollback_says_before_it_starts_what_it_must_decode(world: World) -> None:
    store = with_settings(world.store, rollback="thin")
    store.checkout(f"{MODEL}@1.0.0")
    store.checkout(f"{MODEL}@1.1.0")
    told: list[str] = []
    store.rollback_model(MODEL, progress=lambda event: told.append(f"{event.phase}: {event.text}"))
    assert told[0] == f"note: {MODEL} 1.0.0: 8.4 MB to decode and write first"
    assert "write: " in told
    world.check("1.0.0")
    told.clear()
    with_settings(store, rollback="instant")
    store.checkout(f"{MODEL}@1.1.0")
    store.rollback_model(MODEL, progress=lambda event: told.append(event.text))
    assert told == []


def test_only_the_model_that_changed_is_looked_at(left: World) -> None:
    """An update must not read what other models have: those may be large, and of an older layout."""
    store = left.store
    (left.root / "other.bin").write_bytes(np.random.default_rng(9).bytes(300_000))
    store.import_model(left.root / "other.bin", "other@1.0.0")
    store.checkout("other@1.0.0")
    assert len(names(store.home, "files")) == 4
    store.slim("other")
    assert len(names(store.home, "files")) == 4
    assert names(store.home, "packs")


@contextmanager
def held(home: Path) -> Iterator[None]:
    """Another process reads or writes the store."""
    fd = os.open(home / "lock", os.O_RDWR)
    try:
        wait_lock(fd, exclusive=False)
        yield
    finally:
        os.close(fd)


def test_it_waits_for_no_other_process_and_keeps_none_waiting(left: World) -> None:
    notes: list[str] = []

    def listen(event: Progress) -> None:
        if event.phase == "note":
            notes.append(event.text)

    left.store.settings = msgspec.structs.replace(left.store.settings, lock_timeout_s=0.1)
    with held(left.store.home):
        assert left.store.slim(MODEL, progress=listen) == 0
    assert len(names(left.store.home, "files")) == 3
    assert any("next `ystore gc`" in note or "are kept" in note for note in notes), notes
    assert left.store.slim(MODEL) > 0
    sound(left)


def test_a_second_command_runs_beside_it(left: World) -> None:
    """What takes long is done under the shared lock, which others share."""
    reached, go_on = threading.Event(), threading.Event()

    def listen(event: Progress) -> None:
        if event.phase in ("write", "check") and not reached.is_set():
            reached.set()
            assert go_on.wait(60)

    work = threading.Thread(target=left.store.slim, args=(MODEL,), kwargs={"progress": listen})
    work.start()
    try:
        assert reached.wait(60)
        with Store.open(left.store.home) as other:
            other.settings = msgspec.structs.replace(other.settings, lock_timeout_s=0.0)
            assert other.rollback_model(MODEL, wait=False).version == "1.1.0"
    finally:
        go_on.set()
        work.join()
    sound(left)


def test_a_stop_loses_nothing_and_the_install_stays(left: World) -> None:
    cancel = Cancel(lambda: CancelledError("stopped"))
    seen = 0

    def listen(event: Progress) -> None:
        nonlocal seen
        seen += event.phase in ("write", "check")
        if seen == 3:
            cancel.stop()

    token = CANCEL.set(cancel)
    try:
        left.store.slim(MODEL, progress=listen)
    finally:
        CANCEL.reset(token)
    assert seen == 3
    assert left.store.slim(MODEL) > 0
    assert len(names(left.store.home, "files")) == 2
    sound(left)


def test_chains_of_deltas_stay_short(published: World, tmp_path: Path) -> None:
    """Each update encodes what was against the version before against the new one, or keeps chains short."""
    world = World(tmp_path)
    bits = weights(1, 100_000)
    for n in range(10):
        world.publish(f"1.{n}.0", bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    with_settings(world.store, rollback="thin")
    for n in range(10):
        world.store.checkout(f"{MODEL}@1.{n}.0")
    table = world.table()
    deepest = int(table.depths(lambda ids: np.zeros(len(ids), bool) | (table.find(ids) < 0)).max())
    assert deepest <= 8
    assert len(names(world.store.home, "files")) == 1
    assert world.store.fsck().problems == []
    for n in range(10):
        world.check(f"1.{n}.0")
