"""What the tests of the service share: one store and one service to read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import Running, serving
from tests.support.stores import MODEL, Site, make_site


@pytest.fixture(scope="package")
def made_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store with 1.0.0 installed and 1.1.0 stored; a registry that has 1.2.0 too.  Copy what you change."""
    site = make_site(tmp_path_factory.mktemp("web"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
    return site


@pytest.fixture(scope="package")
def service(made_site: Site) -> Iterator[Running]:
    """A service over that store, for tests that only read."""
    with serving(made_site.home) as running:
        yield running


@pytest.fixture
def home(made_site: Site, tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(made_site.home, tmp_path / "home", symlinks=True))


@pytest.fixture
def own(home: Path) -> Iterator[Running]:
    """A service over a store of this test's own."""
    with serving(home) as running:
        yield running
