"""Deltas for versions in use: written by `publish`, and by `registry optimize`, which also drops some."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.registries import amend
from tests.support.trained import trained
from yarnstore import Store
from yarnstore.core.digest import PackId
from yarnstore.errors import NotFoundError, SpecError, UsageError
from yarnstore.progress import Progress

MODEL = "trained"
WEIGHTS = 1 << 18
SIZE = 2 * WEIGHTS
VERSIONS = 13
KEYS = {"deltas", "mapped_deltas"}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen versions, each 8 training steps after the one before."""
    root = tmp_path_factory.mktemp("trained")
    for n, content in enumerate(trained(VERSIONS, weights=WEIGHTS)):
        (root / "weights.bin").write_bytes(content)
        Store.publish(root / "weights.bin", f"{MODEL}@1.{n}.0", registry=root / "registry")
    return root / "registry"


@pytest.fixture
def plain(registry: Path, tmp_path: Path) -> Iterator[Path]:
    """The same registry in a folder of its own, where only the nearest versions have deltas."""
    copy = tmp_path / "registry"
    copy.mkdir()
    for path in registry.rglob("*"):
        target = copy / path.relative_to(registry)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())

    def nearest(models: dict[str, Any]) -> None:
        versions = models[MODEL]["versions"]
        order = list(versions)
        for n, version in enumerate(order):
            near = {*order[max(0, n - 1) : n], *order[n + 1 : n + 2]}
            for key in KEYS & versions[version].keys():
                kept = [delta for delta in versions[version][key] if delta["base"] in near]
                versions[version][key] = kept

    amend(copy, nearest)
    return copy


def listed(registry: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    versions = json.loads((registry / "registry.json").read_text())["models"][MODEL]["versions"]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for version, entry in versions.items():
        for delta in (delta for key in KEYS for delta in entry.get(key, [])):
            found.setdefault((delta["base"], version), []).append(delta)
    return found


def update_share(registry: Path, home: Path, version: str) -> float:
    """What an update of that version to the newest downloads, as a share of the files."""
    with Store.open(home) as store:
        store.add_registry("here", registry)
        store.checkout(f"{MODEL}@{version}")
        done = store.update_model(MODEL)
        assert done.version == f"1.{VERSIONS - 1}.0"
        assert done.download_bytes is not None
        return done.download_bytes / SIZE


@pytest.mark.parametrize("behind", [1, 4, 5, 8, 12])
def test_clients_far_behind_download_what_changed(registry: Path, tmp_path: Path, behind: int) -> None:
    assert update_share(registry, tmp_path, f"1.{VERSIONS - 1 - behind}.0") <= 0.15


def test_the_nearest_versions_have_deltas_directly_and_the_one_before_has_one_back(registry: Path) -> None:
    edges = listed(registry)
    order = [f"1.{n}.0" for n in range(VERSIONS)]
    for n, version in enumerate(order):
        assert all((base, version) in edges for base in order[max(0, n - 3) : n])
    back = {edge for edge in edges if edge in {(newer, older) for older, newer in pairwise(order)}}
    assert len(back) == VERSIONS - 1
    assert ("1.8.0", "1.12.0") not in edges, "1.9.0 and one step more are small enough"


def test_a_way_back_is_as_short_as_the_way_ahead(registry: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.add_registry("here", registry)
        store.checkout(f"{MODEL}@1.11.0")
        ahead = store.update_model(MODEL).download_bytes or 0
        store.remove(f"{MODEL}@1.11.0")
        store.gc(keep=0)
        assert store.checkout(f"{MODEL}@1.11.0").download_bytes <= ahead + SIZE // 100
    with Store.open(tmp_path / "other") as store:
        store.add_registry("here", registry)
        store.checkout(f"{MODEL}@1.12.0")
        assert store.checkout(f"{MODEL}@1.9.0").download_bytes <= 0.17 * SIZE


def test_without_deltas_none_is_written(tmp_path: Path) -> None:
    for n, content in enumerate(trained(3, weights=1 << 15)):
        (tmp_path / "weights.bin").write_bytes(content)
        done = Store.publish(
            tmp_path / "weights.bin", f"{MODEL}@1.{n}.0", registry=tmp_path / "registry", deltas=0
        )
        assert (done.deltas, done.back_bytes) == ({}, 0)
    assert not (tmp_path / "registry" / "deltas").exists()


def test_optimize_adds_what_shortens_ways_and_says_so_first(plain: Path, tmp_path: Path) -> None:
    assert update_share(plain, tmp_path / "before", "1.2.0") > 0.3
    before = listed(plain)
    text = (plain / "registry.json").read_bytes()
    forecast = Store.optimize_registry(plain, dry_run=True)
    assert (plain / "registry.json").read_bytes() == text
    assert not forecast.changed
    notes: list[str] = []

    def note(event: Progress) -> None:
        if event.phase == "note":
            assert (plain / "registry.json").read_bytes() == text
            notes.append(event.text)

    done = Store.optimize_registry(plain, progress=note)
    added = {(item.base, item.version): item for item in done.deltas if item.action == "add"}
    assert done.changed
    assert added.keys() == {(i.base, i.version) for i in forecast.deltas if i.action == "add"}
    assert len(notes) == len(added)
    assert set(listed(plain)) == {*before, *added}
    for edge, item in added.items():
        assert item.size_bytes == sum(delta["size_bytes"] for delta in listed(plain)[edge])
        replaced = sum(delta.get("replaced_bytes", 0) for delta in listed(plain)[edge])
        assert item.size_bytes - replaced < item.instead_of_bytes
    assert update_share(plain, tmp_path / "after", "1.2.0") <= 0.15
    with Store.open(tmp_path / "lint") as store:
        assert store.lint_registry(plain, deep=True, decode=True).errors == 0
    again = Store.optimize_registry(plain)
    assert not again.changed
    assert {item.action for item in again.deltas} == {"keep"}


def test_optimize_drops_what_leads_to_older_versions_from_far_away(plain: Path) -> None:
    Store.optimize_registry(plain, versions="1.0.0")
    far = listed(plain)[("1.0.0", "1.12.0")]
    with_more = Store.optimize_registry(plain, versions="1.0.0 || 1.2.0")
    assert with_more.dropped_bytes == 0
    paths = [plain / "deltas" / f"{PackId.parse(pack['pack']).hex}.pack" for pack in far]
    assert all(path.exists() for path in paths)
    done = Store.optimize_registry(plain, versions=">=1.5.0")
    assert ("1.0.0", "1.12.0") in {(d.base, d.version) for d in done.deltas if d.action == "drop"}
    assert done.dropped_bytes >= sum(pack["size_bytes"] for pack in far)
    assert ("1.0.0", "1.12.0") not in listed(plain)
    for path in paths:
        assert not path.exists()
        assert not path.with_suffix(".idx").exists()


def test_optimize_keeps_a_split_registry_split(plain: Path) -> None:
    (plain.parent / "more.bin").write_bytes(b"more" * 100)
    Store.publish(plain.parent / "more.bin", "other@1.0.0", registry=plain, split=True)
    done = Store.optimize_registry(plain, models=(MODEL,), versions="1.0.0")
    assert done.changed
    raw = json.loads((plain / "registry.json").read_text())
    assert (raw["split"], raw["models"]) == (True, {})
    own = json.loads((plain / "models" / f"{MODEL}.json").read_text())
    assert "1.0.0" in {delta["base"] for delta in own["versions"]["1.12.0"]["deltas"]}


def test_a_kill_before_the_registry_is_written_changes_nothing_and_is_made_up_for(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from yarnstore.ops.publishing import optimize

    def killed(*_: object, **__: object) -> bool:
        raise KeyboardInterrupt

    text = (plain / "registry.json").read_bytes()
    monkeypatch.setattr(optimize, "change_deltas", killed)
    with pytest.raises(KeyboardInterrupt):
        Store.optimize_registry(plain, versions="1.0.0")
    assert (plain / "registry.json").read_bytes() == text
    monkeypatch.undo()
    assert Store.optimize_registry(plain, versions="1.0.0").changed
    assert ("1.0.0", "1.12.0") in listed(plain)


def test_what_optimize_cannot_do_is_an_error(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        Store.optimize_registry(plain, models=("nothing",))
    with pytest.raises(SpecError):
        Store.optimize_registry(plain, versions="not a range")
    with pytest.raises(UsageError):
        Store.optimize_registry(tmp_path / "none")
