"""Publishing again what is published: nothing changes but what is said, and only that field."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import zstandard

from yarnstore import Store
from yarnstore.errors import ConflictError, UsageError

FIRST: dict[str, Any] = {
    "changelog": "First",
    "compatibility": (">=2.0.0",),
    "minimum_ram_gb": 4,
    "recommended_ram_gb": 8,
    "security": True,
    "download_url": "https://models.example/w.bin",
    "name": "Model",
    "description": "What it is",
    "tags": ("one", "two"),
    "category": "llm",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "w.bin").write_bytes(random.Random(1).randbytes(300_000))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture(params=[False, True], ids=["whole", "split"])
def registry(source: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "reg"
    Store.publish(source, "m@1.0.0", registry=folder, split=request.param, **FIRST)
    Store.publish(source, "m:small@1.0.0", registry=folder, changelog="Small", compatibility=(">=3.0.0",))
    Store.deprecate("m@1.0.0", registry=folder, reason="old")
    Store.set_alias("m", "stable", "1.0.0", registry=folder)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            state = path.stat()
            found[path.relative_to(folder).as_posix()] = (path.read_bytes(), state.st_mtime_ns, state.st_ino)
    return found


def model(folder: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((folder / "models" / "m.json").read_text())
    return raw


def test_the_same_again_rewrites_no_file(source: Path, registry: Path) -> None:
    before = snapshot(registry)
    for spec in ("m@1.0.0", "m:small@1.0.0", "m:default@1.0.0"):
        done = Store.publish(source, spec, registry=registry)
        assert (done.changed, done.updated, done.published_before) == (False, [], True)
    assert snapshot(registry) == before
    for item in sorted(FIRST):
        assert not Store.publish(source, "m@1.0.0", registry=registry, **{item: FIRST[item]}).changed
    assert snapshot(registry) == before


@pytest.mark.parametrize(
    ("option", "value", "key", "found"),
    [
        ("changelog", "Second", "changelog", "Second"),
        ("compatibility", ("^3.0.0", "^4.0.0"), "compatibility", ["^3.0.0", "^4.0.0"]),
        ("minimum_ram_gb", 2.5, "minimum_ram_gb", 2.5),
        ("recommended_ram_gb", 16, "recommended_ram_gb", 16),
        ("download_url", "https://other.example/w", "download_url", "https://other.example/w"),
        ("name", "Other", "name", "Other"),
        ("description", "", "description", ""),
        ("tags", ("three",), "tags", ["three"]),
        ("category", "vision", "category", "vision"),
    ],
)
def test_an_option_changes_its_own_field_alone(
    source: Path, registry: Path, option: str, value: object, key: str, found: object
) -> None:
    before = model(registry)
    done = Store.publish(source, "m@1.0.0", registry=registry, **{option: value})  # type: ignore[arg-type]
    assert (done.changed, done.updated) == (True, [key])
    after = model(registry)
    where = before if key in before else before["versions"]["1.0.0"]
    where[key] = found
    assert after == before


def test_an_option_of_a_variant_changes_that_variant_alone(source: Path, registry: Path) -> None:
    before = model(registry)
    done = Store.publish(source, "m:small@1.0.0", registry=registry, security=True)
    assert done.updated == ["security"]
    before["versions"]["1.0.0"]["variants"]["small"]["security"] = True
    assert model(registry) == before


def test_entries_that_others_wrote_keep_their_spelling(source: Path, registry: Path) -> None:
    raw = json.loads((registry / "registry.json").read_text())
    path = registry / ("models/m.json" if raw.get("split") else "registry.json")
    raw = json.loads(path.read_text())
    version = raw.get("models", {"m": raw})["m"]["versions"]["1.0.0"]
    version["manifest"] = version["manifest"].removeprefix("sha256:")
    version["x-own"] = {"kept": True}
    del version["model_id"], version["version"]
    path.write_text(json.dumps(raw))
    before = snapshot(registry)
    assert not Store.publish(source, "m@1.0.0", registry=registry).changed
    assert snapshot(registry) == before


def test_lost_packs_are_written_again_and_listed(source: Path, registry: Path) -> None:
    for path in (registry / "packs").iterdir():
        path.unlink()
    done = Store.publish(source, "m@1.0.0", registry=registry)
    assert done.chunks_new == done.chunks_total > 0
    found = Store.open(registry.parent / "home").lint_registry(registry, decode=True).findings
    assert not [item for item in found if "pack" in item.message or "pack" in item.path]


def test_packs_of_others_that_hold_the_same_chunks_change_nothing(source: Path, tmp_path: Path) -> None:
    registry, other = tmp_path / "reg", tmp_path / "other"
    Store.publish(source, "m@1.0.0", registry=registry, deltas=0)
    (source / "more.bin").write_bytes(random.Random(2).randbytes(200_000))
    Store.publish(source, "m@2.0.0", registry=other, deltas=0)
    for path in (other / "packs").iterdir():
        os.link(path, registry / "packs" / path.name)
    (source / "more.bin").unlink()
    before = snapshot(registry)
    assert not Store.publish(source, "m@1.0.0", registry=registry).changed
    assert snapshot(registry) == before


def test_a_manifest_that_another_zstd_packed_stays(source: Path, registry: Path) -> None:
    for path in (registry / "manifests").glob("*.json"):
        packed = zstandard.ZstdCompressor(level=19).compress(path.read_bytes())
        path.with_name(path.name + ".zst").write_bytes(packed)
    before = snapshot(registry)
    Store.publish(source, "m@1.0.0", registry=registry)
    assert snapshot(registry) == before


def test_an_entry_without_a_manifest_keeps_what_is_said_of_it(source: Path, tmp_path: Path) -> None:
    registry = tmp_path / "reg"
    (source / "config.json").unlink()
    Store.publish(source, "m@1.0.0", registry=registry, **FIRST)
    Store.deprecate("m@1.0.0", registry=registry, reason="old")
    raw = json.loads((registry / "registry.json").read_text())
    whole = raw["models"]["m"]["versions"]["1.0.0"]
    plain = {key: value for key, value in whole.items() if key not in ("manifest", "packs")}
    raw["models"]["m"]["versions"]["1.0.0"] = plain
    (registry / "registry.json").write_text(json.dumps(raw))
    assert Store.publish(source, "m@1.0.0", registry=registry).changed
    assert json.loads((registry / "registry.json").read_text())["models"]["m"]["versions"]["1.0.0"] == whole


def test_memory_needs_are_compared_with_those_published(source: Path, registry: Path) -> None:
    with pytest.raises(UsageError, match="--min-ram 9 is more than --recommended-ram 8"):
        Store.publish(source, "m@1.0.0", registry=registry, minimum_ram_gb=9)
    with pytest.raises(UsageError, match="--min-ram 4 is more than --recommended-ram 3"):
        Store.publish(source, "m@1.0.0", registry=registry, recommended_ram_gb=3)


@pytest.mark.parametrize("second", ["1.0.0+gpu", "1.0.0", "1.0.0+cpu.2"])
def test_one_number_has_one_build_metadata(source: Path, tmp_path: Path, second: str) -> None:
    registry = tmp_path / "reg"
    Store.publish(source, "m@1.0.0+cpu", registry=registry)
    before = snapshot(registry)
    for spec in (f"m@{second}", f"m:other@{second}"):
        with pytest.raises(
            ConflictError, match=r"1\.0\.0\+cpu is already published, and .* only in build metadata"
        ):
            Store.publish(source, spec, registry=registry)
    assert snapshot(registry) == before
    Store.publish(source, "m@1.0.1+gpu", registry=registry)
    Store.publish(source, "m:other@1.0.0+cpu", registry=registry)


def test_a_version_named_without_its_build_metadata_is_found(source: Path, tmp_path: Path) -> None:
    Store.publish(source, "m@1.0.0+cpu", registry=tmp_path / "reg")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("r", tmp_path / "reg")
        assert store.checkout("m@1.0.0").version == "1.0.0+cpu"
