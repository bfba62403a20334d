"""Two models with newer versions in a registry, and a store that has the first of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.registries import publish
from yarnstore import Store


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    root = tmp_path / "registry"
    publish(root, "m@1.0.0", "m@1.1.0", "m@2.0.0", "other@1.0.0", "other@1.1.0")
    return root


@pytest.fixture
def store(tmp_path: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with m and other at 1.0.0, on a machine of 8 GB."""
    monkeypatch.setenv("YSTORE_RAM_GB", "8")
    opened = Store.open(tmp_path / "home")
    opened.add_registry("made", registry)
    for model in ("m", "other"):
        opened.checkout(f"{model}@1.0.0")
    return opened
