"""Updates of fine-tuned models: deltas are planned, fetched, kept, and never more than a shortcut."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.support.fine_tunes import MODEL, SIZE, World, tune, weights
from tests.support.models import model_path
from tests.support.registries import amend
from tests.support.reshaped import as_type, made, safetensors
from yarnstore import Store
from yarnstore.core.digest import PackId
from yarnstore.core.index import parse_index
from yarnstore.core.limits import DELTA_DEPTH_LIMIT
from yarnstore.core.pack import encode_entry
from yarnstore.errors import IntegrityError
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout
from yarnstore.store.packs import iter_entries


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    bits = weights(1)
    for n in range(3):
        world.publish(f"1.{n}.0", bits)
        bits = tune(bits, 10 + n)
    world.connect()
    return world


MAPPED = "mapped_deltas"
SIZE_CONVERTED = 2 * 192 * (800 + 4 * 192 + 6 * 192)


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """A registry with a model in bf16, and its next version in f16."""
    old = made(layers=1, width=192, vocabulary=800)
    for version, content in (("1.0.0", old), ("1.1.0", as_type(old, "<f2"))):
        source = tmp_path / version
        source.mkdir()
        (source / "model.safetensors").write_bytes(safetensors(content))
        Store.publish(source, f"m@{version}", registry=tmp_path / "registry")
    return tmp_path / "registry"


def mapped_packs(registry: Path) -> list[Path]:
    raw = json.loads((registry / "registry.json").read_text())
    listed = raw["models"]["m"]["versions"]["1.1.0"][MAPPED]
    return [registry / "deltas" / f"{PackId.parse(delta['pack']).hex}.pack" for delta in listed]


def updated(registry: Path, home: Path) -> int:
    """What the update downloads; its files are right."""
    with Store.open(home) as store:
        store.add_registry("here", registry)
        store.checkout("m@1.0.0")
        came = store.checkout("m@1.1.0").download_bytes
        wanted = registry.parent / "1.1.0" / "model.safetensors"
        found = Path(store.path("m"))
        found = found if found.is_file() else found / wanted.name
        assert found.read_bytes() == wanted.read_bytes()
    return came


@pytest.mark.parametrize("damage", ["flipped", "later payload", "removed"])
def test_without_a_mapped_delta_that_can_be_read_full_packs_serve(
    converted: Path, tmp_path: Path, damage: str
) -> None:
    assert updated(converted, tmp_path / "good") < 0.02 * SIZE_CONVERTED
    for pack in mapped_packs(converted):
        content = bytearray(pack.read_bytes())
        for at, entry in list(iter_entries(pack)):
            content[at + len(encode_entry(entry)) - len(entry.payload)] ^= 0xFF if damage == "flipped" else 2
        pack.chmod(0o644)
        pack.write_bytes(content)
        if damage == "removed":
            pack.unlink()
    assert updated(converted, tmp_path / "bad") > 0.5 * SIZE_CONVERTED


def test_a_client_that_does_not_know_mapped_deltas_goes_on_with_the_others(
    converted: Path, tmp_path: Path
) -> None:
    def forget(models: dict[str, Any]) -> None:
        for entry in models["m"]["versions"].values():
            entry.pop(MAPPED, None)

    amend(converted, forget)
    assert updated(converted, tmp_path / "home") > 0.5 * SIZE_CONVERTED


def test_lint_reads_mapped_deltas(converted: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        assert store.lint_registry(converted, deep=True, decode=True).errors == 0
        mapped_packs(converted)[0].unlink()
        found = store.lint_registry(converted, deep=True).findings
    assert any(MAPPED in finding.path for finding in found if finding.severity == "error")


def test_a_file_without_header_is_known_for_numbers(world: World) -> None:
    packed = sum(path.stat().st_size for path in (world.registry / "packs").glob("*.pack"))
    assert packed < 0.72 * 3 * SIZE  # zstd alone leaves 0.78


def test_an_update_is_a_delta_and_says_from_what(world: World) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    done = world.store.fetch(f"{MODEL}@1.1.0")
    assert done.delta_from == "1.0.0"
    assert done.download_bytes < 0.3 * SIZE
    world.store.checkout(f"{MODEL}@1.1.0")
    world.check("1.1.0")
    assert world.store.fsck().problems == []


def test_the_nearest_base_counts(world: World) -> None:
    world.store.fetch(f"{MODEL}@1.0.0")
    world.store.fetch(f"{MODEL}@1.1.0")
    done = world.store.fetch(f"{MODEL}@1.2.0")
    assert done.delta_from == "1.1.0"


def test_without_any_base_the_full_packs_serve(world: World) -> None:
    done = world.store.fetch(f"{MODEL}@1.2.0")
    assert done.delta_from is None
    world.check("1.2.0")


def test_outdated_plans_the_delta(world: World) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    (update,) = world.store.check_for_updates()
    assert update.download_bytes == world.store.fetch(f"{MODEL}@1.2.0").download_bytes
    assert update.download_bytes is not None
    assert update.download_bytes < 0.4 * SIZE


@pytest.mark.parametrize("damage", ["missing pack", "missing index", "altered pack", "altered index"])
def test_a_bad_delta_is_replaced_by_full_packs(world: World, damage: str) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    what, kind = damage.split()
    for path in (world.registry / "deltas").glob("*.pack" if kind == "pack" else "*.idx"):
        if what == "missing":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    done = world.store.fetch(f"{MODEL}@1.1.0")
    assert done.chunks_fetched == done.chunks_total
    world.check("1.1.0")
    assert world.store.fsck().problems == []


def test_what_a_delta_filled_before_it_failed_needs_no_room_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that has room for the file and for its packs, and not for the file twice."""
    world.store.checkout(f"{MODEL}@1.0.0")
    for path in (world.registry / "deltas").glob("*.pack"):
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)
    before = used_bytes(world.store.home)

    def disk(_: object) -> SimpleNamespace:
        return SimpleNamespace(total=0, free=int(1.6 * SIZE) - (used_bytes(world.store.home) - before))

    monkeypatch.setattr(shutil, "disk_usage", disk)
    world.store.checkout(f"{MODEL}@1.1.0")
    world.check("1.1.0")


def used_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_a_delta_that_was_fetched_stays_one(world: World) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    world.store.checkout(f"{MODEL}@1.1.0")
    assert world.store.status().stored_bytes < (0.7 + 0.3) * SIZE
    world.forget_files()
    world.check("1.1.0")


def test_chains_end_at_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path)
    bits = weights(1, SIZE // 6)
    for n in range(DELTA_DEPTH_LIMIT + 3):
        world.publish(f"1.{n}.0", bits, deltas=1)
        bits = tune(bits, n)
    world.connect()
    for n in range(DELTA_DEPTH_LIMIT + 3):
        world.store.fetch(f"{MODEL}@1.{n}.0")
    depths = world.table().depths()
    assert depths.max() == DELTA_DEPTH_LIMIT
    for n in range(DELTA_DEPTH_LIMIT + 3):
        world.check(f"1.{n}.0")


def test_gc_encodes_anew_what_hangs_on_a_dead_base(world: World) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        world.store.fetch(f"{MODEL}@{version}")
    world.store.remove(f"{MODEL}@1.0.0")
    before = world.store.status().chunks
    world.store.gc(keep=3)
    table = world.table()
    assert len(table) < before
    assert (table.base_rows() != -2).all()
    world.check("1.1.0")
    world.check("1.2.0")
    assert world.store.fsck().problems == []


def test_repack_keeps_the_newest_whole_and_the_others_as_deltas(world: World) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        world.store.fetch(f"{MODEL}@{version}")
    world.store.gc(repack=True)
    assert world.store.status().stored_bytes < (0.7 + 2 * 0.35) * SIZE
    layout = StoreLayout(world.store.home)
    with ChunkStore(layout) as chunks:
        digest = next(d for d in layout.manifest_ids() if layout.read_manifest(d).version == "1.2.0")
        ids, _ = layout.read_manifest(digest).files[0].chunk_list()
        rows = chunks.table.find(ids)
        assert (chunks.table.base_rows()[rows] == -1).all()
        assert (chunks.table.base_rows() >= 0).any()
    for version in world.contents:
        world.check(version)
    assert world.store.fsck().problems == []


def test_a_circle_of_deltas_is_an_error_and_no_hang(world: World) -> None:
    world.store.fetch(f"{MODEL}@1.0.0")
    world.store.fetch(f"{MODEL}@1.1.0")
    world.forget_files()
    table = world.table()
    # 1.0.0's chunks vanish: the deltas hang on nothing.
    layout = StoreLayout(world.store.home)
    for path in layout.pack_folder.packs.glob("*.idx"):
        index = parse_index(path.read_bytes(), pack=PackId.parse(path.stem))
        if not (index.bases != b"").any():
            path.unlink()
            path.with_suffix(".pack").unlink()
    assert len(world.table()) < len(table)
    with ChunkStore(layout) as chunks:
        row = int(np.flatnonzero(chunks.table.bases != b"")[0])
        with pytest.raises(IntegrityError, match="not in this store"):
            chunks.read_row(row)


MEASURED = [
    ("minilm-bf16", "1.0.0", "1.1.0", "model.safetensors", 0.122),
    ("minilm-bf16", "1.1.0", "1.2.0", "model.safetensors", 0.05),
    ("minilm-q4_0", "1.0.0", "1.1.0", "minilm-q4_0.gguf", 0.06),
]


@pytest.mark.models
@pytest.mark.parametrize(("model", "old", "new", "file", "share"), MEASURED)
def test_real_updates_cost_what_changed(
    tmp_path: Path, model: str, old: str, new: str, file: str, share: float
) -> None:
    store = Store.open(tmp_path / "home")
    for version in (old, new):
        store.publish(model_path(model, version), f"{model}@{version}", registry=tmp_path / "registry")
    store.add_registry("here", tmp_path / "registry")
    store.fetch(f"{model}@{old}")
    done = store.fetch(f"{model}@{new}")
    source = model_path(model, new) / file
    assert done.download_bytes <= share * source.stat().st_size
    store.checkout(f"{model}@{new}")
    path = Path(store.path(f"{model}@{new}"))
    got = path if path.is_file() else path / file
    assert hashlib.sha256(got.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
