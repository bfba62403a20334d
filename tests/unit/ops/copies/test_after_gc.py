"""What removing a version, or going thin, frees is what `du` says, however versions are stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.faults import no_links
from tests.support.fine_tunes import MODEL, World, tune, weights
from tests.support.reshaped import fine_tuned, fused, made, safetensors
from tests.support.stores import copy_tree, remove_tree
from yarnstore import Store
from yarnstore.store.disk import disk_bytes

_COUNT = 400_000
VERSIONS = tuple(f"1.{n}.0" for n in range(4))
Prepare = Callable[[Store, Path], None]


def _installed(store: Store, root: Path) -> None:
    for version in VERSIONS:
        store.checkout(f"{MODEL}@{version}")


def _left_in_packs(store: Store, root: Path) -> None:
    for version in VERSIONS:
        store.fetch(f"{MODEL}@{version}")
        store.checkout(f"{MODEL}@{version}", wait=False)


def _fetched_around(store: Store, root: Path) -> None:
    """The version that others are deltas against is not installed."""
    for version in VERSIONS:
        store.fetch(f"{MODEL}@{version}")
    store.checkout(f"{MODEL}@{VERSIONS[1]}", wait=False)


def _fetched_variants(store: Store, root: Path) -> None:
    _installed(store, root)
    for version in VERSIONS[:2]:
        store.fetch(f"{MODEL}:small@{version}")


def _imported(store: Store, root: Path) -> None:
    for n, version in enumerate(VERSIONS[:3]):
        (root / "w.bin").write_bytes(tune(weights(9, _COUNT), n + 70).tobytes())
        store.import_model(root / "w.bin", f"mine@{version}")
        if n:
            store.checkout(f"mine@{version}")


def _many_small(store: Store, root: Path) -> None:
    """Which `gc` merges."""
    _left_in_packs(store, root)
    for n in range(5):
        (root / "w.bin").write_bytes(np.random.default_rng(n).bytes(300_000))
        store.import_model(root / "w.bin", f"small@1.{n}.0")


def _publish_and_install(store: Store, root: Path, *contents: dict[str, np.ndarray]) -> None:
    for version, content in zip(VERSIONS, contents, strict=False):
        (root / "model.safetensors").write_bytes(safetensors(content))
        Store.publish(root / "model.safetensors", f"fused@{version}", registry=root / "registry")
    store.add_registry("fused", root / "registry")
    for version in VERSIONS[: len(contents)]:
        store.checkout(f"fused@{version}")


def _fused(store: Store, root: Path) -> None:
    """Queries, keys and values are in one tensor of the installed version."""
    older = made(layers=2, width=448, vocabulary=600)
    _publish_and_install(store, root, older, fused(fine_tuned(older)))


def _split(store: Store, root: Path) -> None:
    """Queries, keys and values were in one tensor before the installed version."""
    older = made(layers=2, width=448, vocabulary=600)
    _publish_and_install(store, root, fused(older), fine_tuned(older))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A registry of four fine-tunes, and of two of another variant."""
    world = World(tmp_path_factory.mktemp("published"))
    bits = weights(1, _COUNT)
    for n, version in enumerate(VERSIONS):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    for n, version in enumerate(VERSIONS[:2]):
        source = world.root / "small.bin"
        source.write_bytes(tune(weights(1, _COUNT), n + 50).tobytes())
        Store.publish(source, f"{MODEL}:small@{version}", registry=world.registry)
    return world


@pytest.mark.parametrize("thin", [False, True], ids=["instant", "thin"])
@pytest.mark.parametrize(
    "prepare",
    [_installed, _left_in_packs, _fetched_around, _fetched_variants, _imported, _many_small, _fused, _split],
)
def test_removing_a_version_or_going_thin_frees_what_it_says(
    world: World, tmp_path: Path, prepare: Prepare, thin: bool
) -> None:
    _check(world, tmp_path, prepare, thin=thin)


@pytest.mark.parametrize("prepare", [_installed, _left_in_packs])
def test_the_same_without_hard_links(world: World, tmp_path: Path, prepare: Prepare) -> None:
    with no_links.refused():
        _check(world, tmp_path, prepare, thin=False)


def _check(world: World, tmp_path: Path, prepare: Prepare, *, thin: bool) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('rollback = "thin"\n' if thin else "")
    with Store.open(home) as store:
        store.add_registry("here", world.registry)
        prepare(store, tmp_path)
        models = store.storage().models
    otherwise = _after(home)
    wrong = []
    for item in models:
        for row in item.versions:
            if not row.installed:
                freed = otherwise - _after(home, remove=f"{item.model}:{row.variant}@{row.version}")
                wrong += _compare(f"{item.model}:{row.variant}@{row.version}", row.frees_bytes, freed)
        if any(row.installed for row in item.versions):
            told = sum(row.thin_frees_bytes for row in item.versions)
            wrong += _compare(f"{item.model}, thin", told, otherwise - _after(home, thin=item.model))
    assert wrong == []


def _after(home: Path, *, remove: str = "", thin: str | None = None) -> int:
    """The size of the store after `gc`, and a removal before."""
    copy = home.with_name("copy")
    copy_tree(home, copy)
    with Store.open(copy) as store:
        if remove:
            store.remove(remove)
        store.gc(keep=99, grace_s=0, thin=thin)
    size = disk_bytes(copy)
    remove_tree(copy)
    return size


def _compare(what: str, told: int, freed: int) -> list[tuple[str, int, int]]:
    near = abs(told - freed) <= max(64 << 10, abs(freed) // 100)
    return [] if near else [(what, told, freed)]
