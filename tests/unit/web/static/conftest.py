"""What the tests of the dashboard share: one browser, one gallery with its registry on nginx."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import axe_source, browsing, open_page
from tests.support.gallery import make_gallery
from tests.support.servers import nginx_server
from tests.support.services import Running
from tests.support.stores import copy_tree

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# While the file `slow` exists, a download takes a minute.
_SLOW = "location /deltas/ {{ set $rate 0; if (-f {file}) {{ set $rate 2k; }} limit_rate $rate; }}"


@dataclass(frozen=True)
class Shown:
    """The gallery, with its registry on nginx.  Copy the store."""

    home: Path
    slow: Path  # the file that makes downloads slow


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A browser, which keeps an event loop in this thread: not beside tests that run one of their own."""
    with browsing() as found:
        yield found


@pytest.fixture(autouse=True)
def _closed_pages(browser: Browser) -> Iterator[None]:
    """A page that stays open is drawn again with each event, and takes time from the tests after it."""
    before = list(browser.contexts)
    yield
    for context in browser.contexts:
        if context not in before:
            context.close()


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
def page(browser: Browser, service: Running) -> Page:
    """A page of the module's service."""
    return open_page(browser, service)


@pytest.fixture(scope="session")
def axe() -> str:
    """The rules of axe-core."""
    return axe_source()
