"""`registry lint` of real registries: whole ones are clean, and every damage behind the JSON is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tests.support.servers import static_server
from tests.support.stores import flip, make_version
from yarnstore import Store
from yarnstore.core.index import id_bytes
from yarnstore.core.manifest import Manifest, pack_chunk_list
from yarnstore.errors import IntegrityError, NotFoundError, UsageError
from yarnstore.ops.publishing.lint import LintResult, lint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of two versions, the second with deltas and two variants.  Shared: copy what you change."""
    root = tmp_path_factory.mktemp("lint")
    for version in ("1.0.0", "1.1.0"):
        source = make_version(root / "sources" / version, "same")
        with open(source / "model.bin", "r+b") as file:  # so that a delta pays
            file.seek(5000)
            file.write(version.encode())
        Store.publish(source, f"phi@{version}", registry=root / "registry", changelog="New")
    Store.publish(
        make_version(root / "gpu", "gpu") / "model.bin",
        "phi:gpu@1.1.0",
        registry=root / "registry",
        changelog="GPU",
    )
    return root / "registry"


@pytest.fixture
def registry(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "registry"))


def errors(result: LintResult) -> list[str]:
    return [f"{item.path}: {item.message}" for item in result.findings if item.severity == "error"]


def deltas_of(registry: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read(registry)["models"]["phi"]["versions"]["1.1.0"].get("deltas", [])
    return found


def read(registry: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((registry / "registry.json").read_text())
    return raw


def rewrite(registry: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change registry.json, and the model's own file with it."""
    raw = read(registry)
    change(raw["models"]["phi"]["versions"])
    (registry / "registry.json").write_text(json.dumps(raw))
    (registry / "models" / "phi.json").write_text(json.dumps(raw["models"]["phi"]))


def test_what_publish_makes_is_clean(whole: Path) -> None:
    assert deltas_of(whole), "the test needs deltas"
    done = lint(os.fspath(whole), decode=True)
    assert done.findings == []
    assert (done.models, done.versions, done.deep) == (1, 2, True)


def test_over_http_and_by_file(whole: Path) -> None:
    with static_server(whole) as url:
        assert lint(url, deep=True).findings == []
        assert lint(f"{url}registry.json").models == 1
        assert lint(f"{url}models/phi.json").models == 1
        with pytest.raises(UsageError):
            lint(url, decode=True)
        with pytest.raises(NotFoundError):
            lint(f"{url}nothing/")
    assert lint(os.fspath(whole / "models" / "phi.json")).findings == []
    assert lint(os.fspath(whole / "registry.json")).findings == []
    with pytest.raises(UsageError):
        lint(os.fspath(whole / "registry.json"), deep=True)
    with pytest.raises(NotFoundError):
        lint(os.fspath(whole / "gone"))


def test_one_model_alone(whole: Path) -> None:
    assert lint(os.fspath(whole), models=("phi",), deep=True).findings == []
    assert errors(lint(os.fspath(whole), models=("psi",))) == ["$.models['psi']: does not exist"]


def pick(registry: Path, pattern: str) -> Path:
    return min(registry.glob(pattern))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("manifest gone", lambda r: pick(r, "manifests/*.json").unlink(), ".json is missing"),
    ("manifest changed", lambda r: flip(pick(r, "manifests/*.json"), -100), "does not match"),
    ("compressed manifest changed", lambda r: cut(pick(r, "manifests/*.zst")), "compressed"),
    ("index gone", lambda r: pick(r, "packs/*.idx").unlink(), ".idx is missing"),
    ("index changed", lambda r: flip(pick(r, "packs/*.idx"), -100), ".idx "),
    ("pack gone", lambda r: pick(r, "packs/*.pack").unlink(), ".pack is missing"),
    ("pack cut", lambda r: cut(pick(r, "packs/*.pack")), "its index says"),
    ("delta gone", lambda r: pick(r, "deltas/*.pack").unlink(), ".pack is missing"),
    ("delta index gone", lambda r: pick(r, "deltas/*.idx").unlink(), ".idx is missing"),
    (
        "pack not named",
        lambda r: rewrite(r, lambda v: v["1.0.0"].update(packs=v["1.0.0"]["packs"][1:])),
        "chunks",
    ),
    (
        "size",
        lambda r: rewrite(r, lambda v: v["1.0.0"].update(size_bytes=5)),
        '$.models["phi"].versions["1.0.0"].size_bytes: is 5, but the manifest',
    ),
    (
        "checksum",
        lambda r: rewrite(r, lambda v: v["1.0.0"].update(checksum="ab" * 32)),
        '$.models["phi"].versions["1.0.0"].checksum: does not match the manifest\'s digest',
    ),
    (
        "another version's manifest",
        lambda r: rewrite(r, lambda v: v["1.0.0"].update(manifest=v["1.1.0"]["manifest"])),
        '$.models["phi"].versions["1.0.0"].manifest: belongs to phi 1.1.0',
    ),
    (
        "delta's size",
        lambda r: rewrite(r, lambda v: v["1.1.0"]["deltas"][0].update(size_bytes=7)),
        ".deltas[0].size_bytes: is 7, but the pack has",
    ),
    (
        "own file",
        lambda r: (r / "models" / "phi.json").write_text('{"versions": {}}'),
        "models/phi.json: differs from registry.json",
    ),
]


@pytest.mark.parametrize(("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES])
def test_a_damage_behind_the_entries_is_found(
    registry: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(registry)
    assert any(message in line for line in errors(lint(os.fspath(registry), deep=True)))


@pytest.mark.parametrize("pattern", ["packs/*.pack", "deltas/*.pack"])
def test_a_wrong_byte_is_found_by_decoding(registry: Path, pattern: str) -> None:
    flip(pick(registry, pattern), -100)
    assert errors(lint(os.fspath(registry), deep=True)) == []
    told = errors(lint(os.fspath(registry), decode=True))
    assert any("does not match the hash in its name" in line for line in told)


def test_lengths_that_lie_and_add_up(registry: Path, tmp_path: Path) -> None:
    """Put one after the other the chunks are the file; at the offsets that follow from their lengths, not."""
    old = read(registry)["models"]["phi"]["versions"]["1.0.0"]["manifest"].removeprefix("sha256:")
    manifest = Manifest.parse((registry / "manifests" / f"{old}.json").read_bytes())
    files = []
    for file in manifest.files:
        ids, lengths = file.chunk_list()
        order = [*range(1, len(ids)), 0]
        lying = [(id_bytes(ids, n), int(lengths[order[n]])) for n in range(len(ids))]
        files.append(replace(file, chunks=pack_chunk_list(lying)))
    made = Manifest.make(manifest.model, manifest.version, manifest.variant, files)
    (registry / "manifests" / f"{made.digest.hex}.json").write_bytes(made.data)
    named = {"manifest": str(made.digest), "checksum": str(made.digest)}
    rewrite(registry, lambda versions: versions["1.0.0"].update(named))
    found = errors(lint(os.fspath(registry), decode=True))
    assert any("model.bin has chunks whose lengths differ from the manifest" in line for line in found)
    with Store.open(tmp_path / "home") as store:
        store.add_registry("r", registry)
        with pytest.raises(IntegrityError, match="a chunk of a different length than its manifest says"):
            store.checkout("phi@1.0.0")
        assert store.list_installed_models() == []


def test_a_split_registry(whole: Path, registry: Path, tmp_path: Path) -> None:
    source = make_version(tmp_path / "psi", "1.0.0", model="psi")
    Store.publish(source, "psi@1.0.0", registry=registry, changelog="First", split=True)
    done = lint(os.fspath(registry), deep=True)
    assert (done.findings, done.models) == ([], 2)
    with static_server(registry) as url:
        assert lint(url, models=("phi",), deep=True).findings == []
        assert [item.path for item in lint(url).findings] == ["$.split"]
    pick(registry, "manifests/*.json").unlink()
    (registry / "models" / "psi.json").write_text('{"versions": {"1.0.0": {"size_bytes": -1}}}')
    told = errors(lint(os.fspath(registry), deep=True))
    assert any(line.startswith('models/psi.json$.versions["1.0.0"].size_bytes: ') for line in told)
    assert any(line.startswith("models/phi.json$.versions[") for line in told)
