"""A published registry, and `ystore` run in this process or in one of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from yarnstore import Store
from yarnstore.cli import run

YSTORE = [sys.executable, "-m", "yarnstore"]


@dataclass(frozen=True)
class Ran:
    """What one command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def table(self) -> list[list[str]]:
        """The rows of piped output."""
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def facts(self) -> dict[str, str]:
        """The names and values of piped output."""
        return dict(line.split("\t", 1) for line in self.out.splitlines())


Ystore: TypeAlias = Callable[..., Ran]


@pytest.fixture(scope="session")
def published(made_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of phi-3-mini 1.0.0 and 1.1.0.  Shared: copy what you change."""
    root = tmp_path_factory.mktemp("published") / "registry"
    for version, changelog in (("1.0.0", "First version"), ("1.1.0", "Better dialogue\nFixes repetition")):
        Store.publish(
            made_models / "phi-3-mini" / version,
            f"phi-3-mini@{version}",
            registry=root,
            changelog=changelog,
            description="A small language model",
            tags=("language-model",),
        )
    return root


@pytest.fixture
def registry(published: Path, tmp_path: Path) -> Path:
    """A copy of `published` of this test's own."""
    return Path(shutil.copytree(published, tmp_path / "registry"))


@pytest.fixture
def ystore(tmp_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ystore:
    """Run a command line in this process; `people=True` for what a person on a terminal reads."""

    def command(*arguments: str | Path, people: bool = False) -> Ran:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setenv("YSTORE_OUTPUT", "people" if people else "plain")
            code = run([os.fspath(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return command


@pytest.fixture(scope="session")
def homes(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores to copy: `ready` and `installed`.  Making one syncs to the disk, copying does not."""
    root = tmp_path_factory.mktemp("homes")
    for name in ("ready", "installed"):
        with Store.open(root / name) as store:
            store.add_registry("yarn", published)
            if name == "installed":
                store.checkout("phi-3-mini@1.0.0", wait=False)  # what small files need stays in packs
    return root


@pytest.fixture
def ready(ystore: Ystore, homes: Path, tmp_home: Path) -> Ystore:
    """`ystore` with the registry `yarn` added."""
    shutil.copytree(homes / "ready", tmp_home, symlinks=True)
    return ystore


@pytest.fixture
def installed(ystore: Ystore, homes: Path, tmp_home: Path) -> Ystore:
    """… and phi-3-mini 1.0.0 installed."""
    shutil.copytree(homes / "installed", tmp_home, symlinks=True)
    return ystore


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry of `a` and `b` in three versions, and a store with the first of each."""
    root = tmp_path_factory.mktemp("sites")
    for model in ("a", "b"):
        for version in ("1.0.0", "1.1.0", "2.0.0"):
            source = root / "sources" / f"{model}-{version}.bin"
            source.parent.mkdir(exist_ok=True)
            source.write_bytes(f"{model} {version} ".encode() * 99)
            Store.publish(
                source, f"{model}@{version}", registry=root / "registry", changelog=f"Has {version}\nAnd more"
            )
    with Store.open(root / "home") as store:
        store.add_registry("yarn", root / "registry")
        store.checkout("a@1.0.0")
        store.checkout("b@1.0.0")
    return root


@pytest.fixture
def site(sites: Path, tmp_path: Path, tmp_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registry, of this test's own, and the store in `tmp_home` that knows it."""
    monkeypatch.setenv("YSTORE_RAM_GB", "8")
    shutil.copytree(sites / "home", tmp_home, symlinks=True)
    config = tmp_home / "managed.toml"
    config.write_text(config.read_text().replace(str(sites / "registry"), str(tmp_path / "registry")))
    registry = Path(shutil.copytree(sites / "registry", tmp_path / "registry"))
    with Store.open(tmp_home) as store:
        store.refresh_registries()
    return registry
