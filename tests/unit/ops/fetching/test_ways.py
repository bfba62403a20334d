"""Versions that no delta leads to directly are reached over others, and never at more than the full way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fine_tunes import MODEL, SIZE, World, tune, weights
from tests.support.registries import amend
from tests.support.servers import ScriptedServer, files, static_server
from yarnstore import Store
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.errors import OfflineError
from yarnstore.ops.fetching import fetch as fetching
from yarnstore.ops.fetching.ways import DELTAS, DeltaPack, PackOffer, RemotePack, find_way
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout

VERSIONS = 5
NEWEST = f"{MODEL}@1.4.0"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Five versions, each with a delta from the one before only, and one back; the first is installed."""
    world = World(tmp_path_factory.mktemp("chain"))
    bits = weights(1)
    for n in range(VERSIONS):
        world.publish(f"1.{n}.0", bits, deltas=1)
        bits = tune_a_little(bits, n)
    amend(world.registry, lambda models: drop_skips(models[MODEL]["versions"]))
    world.connect()
    world.store.checkout(f"{MODEL}@1.0.0")
    return world


def tune_a_little(bits: np.ndarray, seed: int) -> np.ndarray:
    """As `tune`, for one weight in ten."""
    few = np.random.default_rng(seed).random(bits.size) < 0.1
    return np.where(few, tune(bits, seed), bits)


def drop_skips(versions: dict[str, Any]) -> None:
    order = list(versions)
    for n, version in enumerate(order):
        near = {*order[max(0, n - 1) : n], *order[n + 1 : n + 2]}
        entry = versions[version]
        entry["deltas"] = [delta for delta in entry.get("deltas", []) if delta["base"] in near]
        entry.pop("mapped_deltas", None)


@pytest.fixture
def world(chain: World, tmp_path: Path) -> World:
    """The same, with a store and a registry of its own."""
    world = World(tmp_path)
    world.contents = chain.contents
    for name in ("registry", "home"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        shutil.copytree(chain.root / name, tmp_path / name, symlinks=True)
    world.store = Store.open(tmp_path / "home")
    world.store.remove_registry("here")
    world.connect()
    return world


def forward_bytes(world: World) -> int:
    """What the deltas from each version to the next weigh."""
    return sum(int(delta["size_bytes"]) for delta in deltas_of(world, lambda base, to: base < to))


def deltas_of(world: World, wanted: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def look(models: dict[str, Any]) -> None:
        for version, entry in models[MODEL]["versions"].items():
            found.extend(delta for delta in entry["deltas"] if wanted(delta["base"], version))

    amend(world.registry, look)
    return found


def tree_of(world: World) -> dict[str, bytes]:
    found = (path for path in world.registry.rglob("*") if path.is_file())
    return {path.relative_to(world.registry).as_posix(): path.read_bytes() for path in found}


def pack_of(world: World, base: str, to: str) -> Path:
    (delta,) = deltas_of(world, lambda one, other: (one, other) == (base, to))
    return world.registry / "deltas" / f"{PackId.parse(delta['pack']).hex}.pack"


def test_an_update_over_several_versions_takes_all_their_deltas(world: World) -> None:
    done = world.store.fetch(NEWEST)
    assert done.delta_from == "1.0.0"
    assert 0.9 * forward_bytes(world) < done.download_bytes <= forward_bytes(world) < 0.4 * SIZE
    world.forget_files()
    world.check("1.4.0")


def test_outdated_and_dry_run_say_what_an_install_takes(world: World) -> None:
    (update,) = world.store.check_for_updates()
    planned = world.store.update_model(MODEL, dry_run=True)
    done = world.store.update_model(MODEL)
    assert done.version == "1.4.0"
    assert update.download_bytes == planned.download_bytes == done.download_bytes
    assert 0 < done.download_bytes <= forward_bytes(world)
    world.check("1.4.0")
    assert not list((world.store.home / "packs").glob("*.pack"))
    assert world.store.fsck().problems == []


def test_ways_lead_back_to_a_version_that_was_deleted(world: World) -> None:
    ahead = world.store.update_model(MODEL).download_bytes
    world.store.remove(f"{MODEL}@1.0.0")
    world.store.gc(keep=0)
    done = world.store.checkout(f"{MODEL}@1.3.0")
    assert done.download_bytes <= (ahead or 0) / 4 + SIZE // 100
    assert world.store.checkout(f"{MODEL}@1.1.0").download_bytes <= (ahead or 0) / 2 + SIZE // 100
    world.check("1.1.0")


@pytest.mark.parametrize("ranges", [True, False])
def test_servers_send_each_entry_or_each_pack_once(world: World, *, ranges: bool) -> None:
    world.store.remove_registry("here")
    tree = tree_of(world)
    if ranges:
        with ScriptedServer(files(tree)) as server:
            world.store.add_registry("here", server.url)
            done = world.store.update_model(MODEL)
            asked = [seen.path for seen in server.seen]
        assert not any(path.startswith("/packs/") and path.endswith(".pack") for path in asked)
        indexes = [path for path in asked if path.startswith("/deltas/") and path.endswith(".idx")]
        assert len(indexes) == VERSIONS - 1, "only those along the way"
    else:
        with static_server(world.registry) as url:
            world.store.add_registry("here", url)
            done = world.store.update_model(MODEL)
    assert done.download_bytes is not None
    assert done.download_bytes <= forward_bytes(world)
    world.check("1.4.0")
    assert not list((world.store.home / "tmp").iterdir())


@pytest.mark.parametrize("step", [("1.0.0", "1.1.0"), ("1.1.0", "1.2.0"), ("1.3.0", "1.4.0")])
@pytest.mark.parametrize("damage", ["missing pack", "missing index", "altered pack", "altered index"])
def test_a_bad_delta_on_the_way_is_replaced_by_full_packs(
    world: World, damage: str, step: tuple[str, str]
) -> None:
    what, kind = damage.split()
    path = pack_of(world, *step).with_suffix(".pack" if kind == "pack" else ".idx")
    if what == "missing":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    done = world.store.fetch(NEWEST)
    assert done.chunks_fetched == done.chunks_total
    world.forget_files()
    world.check("1.4.0")


def test_a_lying_mirror_on_the_way_is_passed_over(world: World, tmp_path: Path) -> None:
    tree = tree_of(world)
    key = f"deltas/{pack_of(world, '1.1.0', '1.2.0').name}"
    bad = bytearray(tree[key])
    bad[len(bad) // 2] ^= 1
    world.store.remove_registry("here")
    with ScriptedServer(files({**tree, key: bytes(bad)})) as own, ScriptedServer(files(tree)) as other:
        (world.store.home / "config.toml").write_text(
            f'[[registries]]\nname = "here"\nurl = "{own.url}"\nmirrors = ["{other.url}"]\n'
        )
        store = Store.open(world.store.home)
        done = store.update_model(MODEL)
        assert done.download_bytes is not None
        assert done.download_bytes <= forward_bytes(world)
        assert not any("/packs/" in seen.path and seen.path.endswith(".pack") for seen in other.seen)
    world.check("1.4.0")


KILLED = """
import os, signal, sys
from yarnstore import Store
from yarnstore.ops.fetching import transfer

real, came = transfer._Stage.emit, []

def emit(self, entry):
    came.append(entry)
    if len(came) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    real(self, entry)

transfer._Stage.emit = emit
Store.open(sys.argv[1]).update_model("{model}")
"""


@pytest.mark.parametrize("after", [1, 5, 11])
def test_a_killed_update_goes_on(world: World, after: int) -> None:
    code = KILLED.format(model=MODEL)
    ran = subprocess.run([sys.executable, "-c", code, world.store.home, str(after)], check=False)
    assert abs(ran.returncode) == 9
    done = world.store.update_model(MODEL)
    assert done.download_bytes is not None
    assert done.download_bytes <= forward_bytes(world)
    world.check("1.4.0")
    assert world.store.fsck().problems == []
    assert not list((world.store.home / "tmp").iterdir())


def test_offline_the_error_names_the_version(world: World) -> None:
    world.store.remove_registry("here")
    with ScriptedServer(files(tree_of(world))) as server:
        world.store.add_registry("here", server.url)
    (world.store.home / "config.toml").write_text("offline = true\n")
    with pytest.raises(OfflineError, match=r"1\.4\.0"):
        Store.open(world.store.home).checkout(NEWEST)


def test_a_reader_that_takes_single_deltas_installs_from_the_registry(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier release does: it looks into all deltas of the version, those back too."""
    monkeypatch.setattr(fetching, "find_way", lambda offer, *_, **__: [list(offer.deltas)])
    world.store.fetch(f"{MODEL}@1.1.0")
    assert world.store.fetch(f"{MODEL}@1.2.0").delta_from == "1.1.0"
    assert world.store.fetch(NEWEST).delta_from is None
    assert world.store.fetch(f"{MODEL}@1.3.0").delta_from in {"1.2.0", "1.4.0"}
    world.forget_files()
    for version in ("1.1.0", "1.2.0", "1.3.0", "1.4.0"):
        world.check(version)


# --- the graph -----------------------------------------------------------------------------------


def digest(n: int) -> Sha256:
    return Sha256.of(f"version {n}".encode())


def delta(base: int, to: int, size_bytes: int = 100) -> DeltaPack:
    pack = RemotePack(DELTAS, PackId(digest(100 * base + to).raw))
    return DeltaPack(pack, digest(base), f"{base}.0.0", digest(to), size_bytes)


def test_what_a_registry_claims_leads_nowhere_it_should_not(world: World) -> None:
    """Circles, deltas of a version against itself, and chains that are too long: no way, and no hang."""
    layout = StoreLayout(world.store.home)
    (installed,) = layout.manifest_ids()
    circle = (delta(1, 2), delta(2, 1), delta(1, 1), delta(2, 2))
    long = [delta(n, n + 1) for n in range(2, DELTA_DEPTH_LIMIT + 3)]
    start = DeltaPack(delta(0, 2).pack, installed, "1.0.0", digest(2), 1)
    into = delta(2, 1)
    with ChunkStore(layout) as chunks:

        def way(ways: tuple[DeltaPack, ...], deltas: tuple[DeltaPack, ...], size: int = 10_000) -> Any:
            return find_way(PackOffer((), deltas, ways, size), {installed}, chunks)

        assert way((*circle, into), (into,)) == [[into]], "nothing in the store leads there"
        assert way((*circle, start), (into,)) == [[into], [start]]
        end = long[-1]
        assert way((*long, start), (end,)) == [[end]], "one step too many"
        dear = DeltaPack(start.pack, installed, "1.0.0", digest(2), 9_950)
        assert way((*circle, dear), (into,)) == [[into]], "as much as the files"
