"""Publishing into one folder: by several at once, and split."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stores import command, quiet_env
from yarnstore import Store
from yarnstore.errors import ConflictError, FormatError, NotFoundError, SpecError, UsageError

PUBLISHERS = 4


def source(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(text.encode() * 2000)
    return folder / "model.bin"


def versions(registry: Path, model: str = "phi") -> list[str]:
    return list(json.loads((registry / "models" / f"{model}.json").read_text())["versions"])


def run_all(jobs: list[list[str]]) -> list[str]:
    """Run real processes at the same time; what each said on stderr."""
    started = [
        subprocess.Popen(
            job, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**quiet_env(), "PATH": ""}
        )
        for job in jobs
    ]
    errors = []
    for process in started:
        _, said = process.communicate(timeout=60)
        errors.append(said if process.returncode else "")
    return errors


@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_publishers_at_once_lose_nothing(tmp_path: Path, split: bool) -> None:
    registry, home = tmp_path / "registry", tmp_path / "home"
    Store.publish(source(tmp_path / "0", "0"), "phi@1.0.0", registry=registry, split=split)
    Store.publish(source(tmp_path / "0", "0"), "psi@1.0.0", registry=registry)
    jobs = [
        command(home, "publish", source(tmp_path / str(n), str(n)), f"phi@1.{n}.0", "--registry", registry)
        for n in range(1, PUBLISHERS + 1)
    ]
    jobs += [
        [
            sys.executable,
            "-m",
            "yarnstore",
            "registry",
            *words,
            "--registry",
            str(registry),
            "--home",
            str(home),
        ]
        for words in (
            ["deprecate", "phi@1.0.0", "--reason", "old"],
            ["alias", "phi", "first", "1.0.0"],
            ["yank", "psi@1.0.0"],
        )
    ]
    assert run_all(jobs) == [""] * len(jobs)
    assert versions(registry) == [f"1.{n}.0" for n in range(PUBLISHERS + 1)]
    phi = json.loads((registry / "models" / "phi.json").read_text())
    assert phi["versions"]["1.0.0"]["deprecated_reason"] == "old"
    assert phi["aliases"] == {"first": "1.0.0"}
    assert phi["current_version"] == f"1.{PUBLISHERS}.0"
    raw = json.loads((registry / "registry.json").read_text())
    assert raw["models"] == ({} if split else {"phi": phi, "psi": raw["models"].get("psi")})
    psi = json.loads((registry / "models" / "psi.json").read_text())
    assert psi["versions"]["1.0.0"]["yanked"] is True
    assert not (registry / ".tmp").exists()


def test_a_split_registry_stays_split_and_small(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    Store.publish(source(tmp_path / "1", "1"), "org/phi@1.0.0", registry=registry)
    raw = json.loads((registry / "registry.json").read_text())
    (registry / "registry.json").write_text(json.dumps({"x-kept": 1, **raw}))
    (registry / "models" / "org~phi.json").unlink()  # as a registry made by hand has none
    Store.publish(source(tmp_path / "2", "2"), "psi@1.0.0", registry=registry, split=True)
    small = json.loads((registry / "registry.json").read_text())
    assert (small["split"], small["models"], small["x-kept"]) == (True, {}, 1)
    assert versions(registry, "org~phi") == ["1.0.0"]
    done = Store.publish(source(tmp_path / "3", "3"), "org/phi@1.1.0", registry=registry)
    assert done.changed
    assert versions(registry, "org~phi") == ["1.0.0", "1.1.0"]
    assert versions(registry, "psi") == ["1.0.0"]
    assert json.loads((registry / "registry.json").read_text())["models"] == {}
    assert not Store.publish(source(tmp_path / "3", "3"), "org/phi@1.1.0", registry=registry).changed
    with pytest.raises(ConflictError):
        Store.publish(source(tmp_path / "4", "4"), "org/phi@1.1.0", registry=registry)
    with pytest.raises(ConflictError, match="differs only in case"):
        Store.publish(source(tmp_path / "4", "4"), "PSI@1.0.0", registry=registry)
    assert Store.yank("psi@1.0.0", registry=registry).changed


def test_what_cannot_be_changed(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    with pytest.raises(NotFoundError, match="no registry"):
        Store.yank("phi@1.0.0", registry=registry)
    Store.publish(source(tmp_path / "1", "1"), "phi@1.0.0", registry=registry)
    with pytest.raises(SpecError, match="exact version"):
        Store.yank("phi@^1", registry=registry)
    with pytest.raises(SpecError, match="only a model is needed"):
        Store.set_current("phi@1.0.0", "1.0.0", registry=registry)
    before = (registry / "registry.json").read_bytes()
    assert not Store.set_current("phi", "1.0.0", registry=registry).changed
    assert (registry / "registry.json").read_bytes() == before
    (registry / "registry.json").write_text('{"models": {"phi": 1}}')
    with pytest.raises(FormatError):
        Store.yank("phi@1.0.0", registry=registry)


@pytest.mark.parametrize("place", ["file", "file/below", "store"])
def test_a_path_that_can_be_no_registry_is_one_error_for_all(tmp_path: Path, place: str) -> None:
    made = source(tmp_path / "1", "1")
    (tmp_path / "file").write_text("x")
    Store.open(tmp_path / "store").import_model(made, "phi@1.0.0")
    registry = f"{tmp_path / place}/"
    for refused in (
        lambda: Store.publish(made, "phi@1.0.0", registry=registry),
        lambda: Store.yank("phi@1.0.0", registry=registry),
        lambda: Store.deprecate("phi@1.0.0", registry=registry),
        lambda: Store.set_alias("phi", "first", "1.0.0", registry=registry),
        lambda: Store.set_current("phi", "1.0.0", registry=registry),
    ):
        with pytest.raises(UsageError, match="is a store" if place == "store" else "file is not a folder"):
            refused()
    assert (tmp_path / "file").read_text() == "x"
