"""What the tests of the service share: one store and one service to read, one browser, one gallery."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import browsing, open_page
from tests.support.gallery import make_gallery
from tests.support.servers import nginx_server
from tests.support.services import Running, serving
from tests.support.stores import MODEL, Site, copy_tree, make_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# While the file `slow` exists, a download takes a minute.
_SLOW = "location /deltas/ {{ set $rate 0; if (-f {file}) {{ set $rate 2k; }} limit_rate $rate; }}"


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


@dataclass(frozen=True)
class Shown:
    """The gallery, with its registry on nginx.  Copy the store."""

    home: Path
    slow: Path  # the file that makes downloads slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser, which keeps an event loop in this thread: not beside tests that run one of their own."""
    with browsing() as found:
        yield found


@pytest.fixture(scope="package")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    root = tmp_path_factory.mktemp("gallery")
    made = make_gallery(root)
    slow = root / "slow"
    with nginx_server(made.registry, root / "nginx", extra=_SLOW.format(file=slow)) as nginx:
        made.serve(nginx.url)
        yield Shown(made.home, slow)


@pytest.fixture(scope="module")
def gallery_home(gallery: Shown, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's own copy of the gallery's store, whose downloads are quick."""
    gallery.slow.unlink(missing_ok=True)
    home = tmp_path_factory.mktemp("gallery") / "home"
    copy_tree(gallery.home, home)
    return home


@pytest.fixture
def page(browser: Browser, service: Running) -> Iterator[Page]:
    """A page of the module's service."""
    opened = open_page(browser, service)
    yield opened
    opened.context.close()
