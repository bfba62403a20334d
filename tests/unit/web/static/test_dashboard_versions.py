"""The versions of a model on the dashboard: removed and pinned one by one, and models of no registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import expect, needs_browser, visit
from tests.support.gallery import MODEL
from tests.support.services import Running, needs_web, serving
from yarnstore import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [needs_web, needs_browser]


@pytest.fixture(scope="module")
def home(gallery_home: Path) -> Path:
    """A copy of the gallery's store; the tests take back what they change."""
    return gallery_home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Running]:
    with serving(home) as running:
        yield running


def stored(service: Running) -> set[str]:
    rows = service.get(f"/models/{MODEL}/history").json()["versions"]
    return {row["version"] for row in rows if row["in_store"]}


def test_one_version_is_removed_and_brought_back(page: Page, service: Running) -> None:
    visit(page, "history")
    dialog = page.locator("dialog")
    expect(page.get_by_role("button", name="Remove 1.0.0")).to_have_count(0)  # it is installed
    page.get_by_role("button", name="Remove 1.1.0").click()
    expect(dialog).to_contain_text("Only this version")
    expect(dialog).to_contain_text("without a download")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert stored(service) == {"1.0.0", "1.1.0"}
    page.get_by_role("button", name="Remove 1.1.0").click()
    dialog.get_by_role("button", name="Remove 1.1.0").click()
    expect(page.locator("#said")).to_contain_text(f"{MODEL} 1.1.0 is removed")
    expect(page.get_by_role("button", name="Download only: 1.1.0")).to_be_visible()
    assert stored(service) == {"1.0.0"}
    page.locator("#said").get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Remove 1.1.0")).to_be_visible()
    assert stored(service) == {"1.0.0", "1.1.0"}


def test_a_version_that_is_not_installed_is_pinned(page: Page, service: Running) -> None:
    visit(page, "history")
    row = page.locator(".timeline li").filter(has=page.locator("h3", has_text="1.1.0"))
    row.get_by_role("button", name="Pin 1.1.0").click()
    expect(page.locator("#said")).to_contain_text("1.1.0 is pinned")
    expect(row.locator(".badge", has_text="pinned")).to_be_visible()
    expect(row.get_by_role("button", name="Remove 1.1.0")).to_have_count(0)
    pins = {
        row["version"]: row["pinned"] for row in service.get(f"/models/{MODEL}/history").json()["versions"]
    }
    assert (pins["1.0.0"], pins["1.1.0"]) == (False, True)
    row.get_by_role("button", name="Unpin 1.1.0").click()
    expect(page.locator("#said")).to_contain_text("1.1.0 is no longer pinned")
    expect(row.get_by_role("button", name="Remove 1.1.0")).to_be_visible()


def test_an_imported_model_is_one_of_this_machine(page: Page, service: Running, home: Path) -> None:
    weights = home.parent / "own.bin"
    weights.write_bytes(b"weights" * 1000)
    with Store.open(home) as store:
        store.import_model(weights, "own-model@1.0.0")
        store.checkout("own-model@1.0.0")
    row = page.locator("li.row", has_text="own-model")
    expect(row).to_contain_text("Only on this machine: no registry lists this model.")
    page.get_by_role("link", name="own-model").click()
    expect(page.locator(".timeline li")).to_contain_text("7.0 kB · in the store")
    visit(page, "installed")
    expect(page.get_by_role("button", name="Roll back own-model")).to_have_count(0)
    expect(page.get_by_role("button", name=f"Roll back {MODEL}")).to_be_visible()
    page.get_by_role("button", name="Remove own-model").click()
    dialog = page.locator("dialog")
    expect(dialog).to_contain_text("No registry has all of these versions")
    dialog.get_by_role("button", name="Remove own-model").click()
    expect(page.locator("article[data-model='own-model']")).to_have_count(0)
    page.locator("#said").get_by_role("button", name="Undo").click()
    expect(page.locator("article[data-model='own-model']")).to_be_visible()
    assert "own-model" in [row["model"] for row in service.get("/models").json()]


def test_an_installed_model_is_updated_from_its_card(page: Page, service: Running) -> None:
    visit(page, "installed")
    update = page.get_by_role("button", name=f"Update to 1.2.0: {MODEL}")
    update.click()
    expect(page.locator("#said")).to_contain_text(f"{MODEL} 1.0.0 → 1.2.0 is installed")
    expect(update).to_have_count(0)
    service.done(service.post(f"/models/{MODEL}/rollback", json={}))
