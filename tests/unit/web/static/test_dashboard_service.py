"""The dashboard when its service ends, starts again, or refuses changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.browsers import expect, faults, needs_browser, open_page, visit
from tests.support.gallery import MODEL
from tests.support.services import needs_web, serving
from tests.support.stores import copy_tree, remove_tree
from tests.unit.web.static.conftest import Shown

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [needs_web, needs_browser]


@pytest.fixture
def home(gallery: Shown, tmp_path: Path) -> Iterator[Path]:
    """A copy of the gallery's store."""
    copy_tree(gallery.home, tmp_path / "home")
    yield tmp_path / "home"
    remove_tree(tmp_path / "home")


def test_after_a_restart_of_the_service_the_page_asks_to_log_in_again(browser: Browser, home: Path) -> None:
    with serving(home) as first:
        page = visit(open_page(browser, first), "storage")
        port = str(urlsplit(first.url).port)
        first.stop()
        expect(page.locator("#said")).to_contain_text("The connection to the service was lost")
    with serving(home, "--port", port) as second:
        page.wait_for_url(f"{second.url}login#/storage")
        page.fill("#token", str(second.ready["token"]))
        page.press("#token", "Enter")
        expect(page.locator("main[data-page=storage] h1")).to_contain_text("on the disk")


def test_more_tabs_than_a_browser_has_connections(browser: Browser, home: Path) -> None:
    """A browser opens six connections to one host; each stream of events keeps one busy."""
    with serving(home) as service:
        first = open_page(browser, service)
        tabs = [first, *(first.context.new_page() for _ in range(7))]
        for tab in tabs[1:]:
            tab.goto(f"{service.url}#/jobs")
            expect(tab.locator("h1")).to_have_text("No job is running")
        service.done(service.post("/fsck", json={"quick": True}))
        for tab in tabs[1:]:
            expect(tab.locator("#main .job")).to_have_count(1)
            expect(tab.locator("#main .job")).to_contain_text("Done", ignore_case=True)
            expect(tab.locator("h1")).to_have_text("No job is running")
            expect(tab.locator("#main .empty")).to_be_hidden()


def test_a_service_that_only_reads_offers_no_change(browser: Browser, home: Path, axe: str) -> None:
    with serving(home, "--read-only") as service:
        page = open_page(browser, service)
        expect(page.locator("#read-only")).to_contain_text("--read-only")
        expect(page.locator(f"article[data-model='{MODEL}'] .changes")).to_be_visible()
        expect(page.get_by_role("button", name="Update")).to_have_count(0)
        expect(page.get_by_role("link", name=f"Compare {MODEL}")).to_be_visible()
        assert faults(page, axe) == []
        visit(page, "installed")
        expect(page.get_by_role("button", name=f"Copy path of {MODEL}")).to_be_visible()
        for name in ("Pin", "Roll back", "Remove"):
            expect(page.get_by_role("button", name=f"{name} {MODEL}")).to_have_count(0)
        visit(page, "history")
        expect(page.get_by_role("button", name="Install")).to_have_count(0)
        visit(page, "storage")
        expect(page.locator(".treemap")).to_be_visible()
        expect(page.locator("#gc-make, #fsck")).to_have_count(0)
        visit(page, "settings")
        for field in ("#auto-on", "#windows", "#set-keep", "#registry-name"):
            expect(page.locator(field)).to_be_disabled()
        expect(page.locator("#main").get_by_role("button")).to_have_count(0)
        visit(page, "compare")  # comparing changes nothing
