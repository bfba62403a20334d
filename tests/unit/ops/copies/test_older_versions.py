"""What an older version takes in a store is about what its delta from the newer one takes in a registry."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.reshaped import (
    Files,
    as_type,
    fine_tuned,
    fused,
    int8_per_channel,
    made,
    one_file,
    pruned,
    renamed,
    sharded,
    stepped,
    with_layer,
    with_rows,
)
from yarnstore import Store
from yarnstore.store import lock
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path as StorePath
from yarnstore.store.layout import FILES_FORMAT, MAPPED_FORMAT, StoreLayout

OLD = made(layers=3, width=320, vocabulary=3000)
TUNED = fine_tuned(OLD)
AGAIN = fine_tuned(TUNED, seed=7)

RESHAPED = {
    "same names": (lambda: one_file(OLD), lambda: one_file(TUNED)),
    "renamed": (lambda: one_file(OLD), lambda: one_file(renamed(TUNED))),
    "resharded": (lambda: sharded(OLD, 3), lambda: sharded(TUNED, 2)),
    "layer inserted": (lambda: one_file(OLD), lambda: one_file(with_layer(TUNED, 1))),
    "rows in front": (lambda: one_file(OLD), lambda: one_file(with_rows(TUNED, 9))),
    "fused": (lambda: one_file(OLD), lambda: one_file(fused(TUNED))),
    "all of them": (lambda: one_file(OLD), lambda: one_file(renamed(fused(with_rows(TUNED, 9))))),
    "another type": (lambda: one_file(OLD), lambda: one_file(as_type(OLD, "<f2"))),
    "renamed, another type": (lambda: one_file(OLD), lambda: one_file(as_type(renamed(TUNED), "<f2"))),
    "narrower": (lambda: one_file(as_type(OLD, "<f4")), lambda: one_file(OLD)),
    "quantised": (lambda: one_file(int8_per_channel(OLD)), lambda: one_file(int8_per_channel(TUNED))),
    "single steps": (lambda: one_file(OLD), lambda: one_file(stepped(OLD))),
    "pruned": (lambda: one_file(OLD), lambda: one_file(pruned(OLD))),
}


class World:
    """A registry with versions of a model, and a store that keeps older ones as deltas."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[str, Files] = {}
        home = root / "home"
        home.mkdir()
        (home / "config.toml").write_text('rollback = "thin"\n')

    def publish(self, *versions: Files) -> None:
        for n, files in enumerate(versions):
            version = f"1.{n}.0"
            self.contents[version] = files
            source = self.root / version
            source.mkdir()
            for name, content in files.items():
                (source / name).write_bytes(content)
            Store.publish(source, f"m@{version}", registry=self.root / "registry")

    def open(self, name: str = "home") -> Store:
        store = Store.open(self.root / name)
        store.add_registry("here", self.root / "registry")
        return store

    def size(self, version: str) -> int:
        return sum(map(len, self.contents[version].values()))

    def check(self, store: Store, version: str) -> None:
        path = Path(store.path(f"m@{version}"))
        for name, content in self.contents[version].items():
            assert (path if path.is_file() else path / name).read_bytes() == content

    def way_back(self) -> float:
        """What going back downloads, as a share of the older version."""
        with self.open("other") as store:
            store.checkout("m@1.1.0")
            return store.checkout("m@1.0.0").download_bytes / self.size("1.0.0")


def packs_bytes(store: Store) -> int:
    return sum(path.stat().st_size for path in (store.home / "packs").glob("*.pack"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", RESHAPED)
def test_an_older_version_takes_what_its_delta_takes(name: str, world: World) -> None:
    old, new = RESHAPED[name]
    world.publish(old(), new())
    with world.open() as store:
        store.checkout("m@1.0.0")
        store.checkout("m@1.1.0")
        assert packs_bytes(store) / world.size("1.0.0") < world.way_back() + 0.01
        store.remove_registry("here")
        store.rollback_model("m")
        world.check(store, "1.0.0")
        assert store.fsck().problems == []


def test_three_versions_with_names_of_their_own_take_little_more_than_one(world: World) -> None:
    world.publish(one_file(OLD), one_file(renamed(TUNED)), one_file(renamed(AGAIN, seed=8)))
    with world.open() as store:
        for version in world.contents:
            store.checkout(f"m@{version}")
        assert packs_bytes(store) < 0.45 * world.size("1.0.0")
        with ChunkStore(StoreLayout(store.home)) as chunks:
            assert chunks.table.depths(chunks.in_files).max() == 2  # each against the next one
        for version in ("1.1.0", "1.0.0", "1.2.0"):
            store.checkout(f"m@{version}")
            world.check(store, version)
        assert store.fsck().problems == []


def test_repacked_versions_are_found_under_other_names_too(world: World) -> None:
    world.publish(one_file(OLD), one_file(renamed(TUNED)))
    with world.open() as store:
        store.fetch("m@1.1.0")
        store.fetch("m@1.0.0")
        store.gc(repack=True)
        assert packs_bytes(store) < 1.1 * world.size("1.0.0")
        for version in world.contents:
            world.check(store, version)
        assert store.fsck().problems == []


@pytest.mark.parametrize("name", ["renamed", "fused"])
def test_what_thin_frees_is_known_before(name: str, world: World) -> None:
    world.publish(*(make() for make in RESHAPED[name]))
    (world.root / "home" / "config.toml").write_text('rollback = "instant"\n')
    with world.open() as store:
        store.checkout("m@1.0.0")
        store.checkout("m@1.1.0")
        versions = [item for model in store.storage().models for item in model.versions]
        told = next(item.thin_frees_bytes for item in versions if item.version == "1.0.0")
        forecast = store.gc(thin="*", grace_s=0, dry_run=True).freed_bytes
        freed = store.gc(thin="*", grace_s=0).freed_bytes
        assert abs(forecast - freed) < 0.02 * freed
        assert told < freed + 0.05 * world.size("1.0.0")
        if name == "renamed":
            assert abs(told - freed) < 0.05 * freed


def test_a_store_has_format_4_before_a_pack_that_needs_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier releases refuse it then."""
    world.publish(one_file(OLD), one_file(as_type(OLD, "<f2")))
    with world.open() as store:
        store.checkout("m@1.0.0")
        store.checkout("m@1.1.0", wait=False)
        layout, formats = StoreLayout(store.home), list[bytes]()
        assert layout.format == FILES_FORMAT

        def spied(call: Callable[..., None]) -> Callable[..., None]:
            def spy(name: str, target: str, **more: object) -> None:
                if str(target).endswith(".pack"):
                    formats.append(layout.format)
                call(name, target, **more)

            return spy

        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, spied(getattr(os, name)))
        store.gc(grace_s=0)
        assert formats
        assert set(formats) == {MAPPED_FORMAT}
        assert store.fsck().problems == []


def test_a_mapped_delta_that_comes_into_a_pack_stays_one(world: World) -> None:
    world.publish(one_file(OLD), one_file(as_type(OLD, "<f2")))
    with world.open() as store:
        store.checkout("m@1.0.0")
        store.fetch("m@1.1.0")
        assert packs_bytes(store) < 0.01 * world.size("1.1.0")
        assert StoreLayout(store.home).format == MAPPED_FORMAT
        store.remove_registry("here")
        store.checkout("m@1.1.0")
        for version in world.contents:
            world.check(store, version)
        assert store.fsck().problems == []
    moved = world.root / "moved"
    with Store.open(world.root / "home") as store:
        store.move(moved)
    assert StoreLayout(moved).format == MAPPED_FORMAT


def test_two_processes_that_raise_the_format_end_with_the_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = StoreLayout(tmp_path / "home")
    layout.ensure()
    whole = lock.hold_folder

    def late(folder: StorePath) -> contextlib.AbstractContextManager[None]:
        monkeypatch.setattr(lock, "hold_folder", whole)
        layout.allow_mapped()  # by another one, after this one had found format 1
        return whole(folder)

    monkeypatch.setattr(lock, "hold_folder", late)
    layout.rely_on_files()
    assert layout.format == MAPPED_FORMAT
