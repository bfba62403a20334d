"""What takes one click or one form on the dashboard: update all, copy a path, registries, mirrors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import expect, needs_browser, visit
from tests.support.gallery import MODEL, OTHER, THIRD
from tests.support.services import Running, needs_web, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [needs_web, needs_browser]


@pytest.fixture(scope="module")
def service(gallery_home: Path) -> Iterator[Running]:
    with serving(gallery_home) as running:
        yield running


def versions(service: Running) -> dict[str, str]:
    return {row["model"]: row["version"] for row in service.get("/models").json()}


def said(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#said")).to_contain_text(text)


def undo(page: Page) -> None:
    page.locator("#said").get_by_role("button", name="Undo").click()


def test_all_models_are_updated_at_once(page: Page, service: Running) -> None:
    expect(page.locator("#update-all")).to_have_text(re.compile(r"^Update all \([\d.]+ [kM]B\)$"))
    page.click("#update-all")
    said(page, "2 models updated")
    expect(page.locator("#answer")).to_have_text("1 model has a new major version")
    found = versions(service)
    assert (found[MODEL], found[OTHER], found[THIRD]) == ("1.2.0", "3.1.0", "1.0.0")
    for model in (MODEL, OTHER):
        service.done(service.post(f"/models/{model}/rollback", json={}))


def test_a_major_update_needs_a_yes(page: Page, service: Running) -> None:
    button = page.get_by_role("button", name=f"Update to 2.0.0, a major version of {THIRD}")
    dialog = page.locator("dialog")
    button.click()
    expect(dialog).to_contain_text("what works with 1.0.0 may not work with it")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()
    assert versions(service)[THIRD] == "1.0.0"
    button.click()
    dialog.get_by_role("button", name="Update to 2.0.0").click()
    said(page, f"{THIRD} 1.0.0 → 2.0.0 is installed")
    service.until(lambda: versions(service)[THIRD] == "2.0.0")
    undo(page)
    said(page, f"{THIRD} 2.0.0 → 1.0.0 is installed")
    service.until(lambda: versions(service)[THIRD] == "1.0.0")


def test_a_path_is_copied_or_shown(page: Page, service: Running) -> None:
    path = service.get(f"/models/{MODEL}/path").json()["path"]
    visit(page, "installed")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=f"Copy path of {MODEL}").click()
    said(page, "The path is copied.")
    assert page.evaluate("navigator.clipboard.readText()") == path
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('refused')); }")
    page.get_by_role("button", name=f"Copy path of {MODEL}").click()
    expect(page.locator("dialog code")).to_have_text(path)


def test_a_registry_is_added_removed_and_brought_back(page: Page, service: Running) -> None:
    def names() -> list[str]:
        return [row["name"] for row in service.get("/registries").json()]

    url = service.get("/registries").json()[0]["url"]
    visit(page, "settings")
    page.fill("#registry-name", "second")
    page.fill("#registry-url", "http://127.0.0.1:1/")
    page.get_by_role("button", name="Add a registry").click()
    said(page, "127.0.0.1:1")
    expect(page.locator("#registry-name")).to_have_value("second")
    page.fill("#registry-url", url)
    page.get_by_role("button", name="Add a registry").click()
    said(page, "second is added: 5 models.")
    expect(page.locator(".registries h3")).to_have_text(["yarn", "second"])
    page.get_by_role("button", name="Check now: second").click()
    said(page, "second was checked.")
    remove = page.get_by_role("button", name="Remove the registry second")
    remove.click()
    page.locator("dialog").get_by_role("button", name="Remove the registry").click()
    said(page, "second is removed.")
    expect(page.locator(".registries h3")).to_have_text(["yarn"])
    assert names() == ["yarn"]
    undo(page)
    expect(remove).to_be_visible()
    assert names() == ["yarn", "second"]
    service.request("DELETE", "/registries/second")


def test_mirrors_are_edited(page: Page, service: Running) -> None:
    def mirrors() -> list[str]:
        found = service.get("/registries").json()[0]["mirrors"]
        return [row["url"] for row in found if row["configured"]]

    one, two = "https://one.example.org/", "https://two.example.org/"
    visit(page, "settings")
    button, dialog = page.get_by_role("button", name="Mirrors of yarn"), page.locator("dialog")
    button.click()
    page.fill("#mirrors", f"{one}\n\n{two}\n")
    dialog.get_by_role("button", name="Save the mirrors").click()
    said(page, "The mirrors of yarn are saved.")
    expect(page.locator(".mirrors code")).to_have_text([one, two])
    assert mirrors() == [one, two]
    button.click()
    expect(page.locator("#mirrors")).to_have_value(f"{one}\n{two}")
    page.fill("#mirrors", f"{two}\n/etc")
    dialog.get_by_role("button", name="Save the mirrors").click()
    expect(dialog.locator("#dialog-fault")).to_contain_text("needs an https:// or http:// address")
    expect(page.locator("#mirrors")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#mirrors")).to_have_value(f"{two}\n/etc")
    expect(page.locator("#mirrors")).to_be_focused()
    assert mirrors() == [one, two]
    page.fill("#mirrors", two)
    dialog.get_by_role("button", name="Save the mirrors").click()
    expect(dialog).to_have_count(0)
    expect(button).to_be_focused()
    service.until(lambda: mirrors() == [two])
    undo(page)
    service.until(lambda: mirrors() == [one, two])
    service.request("PUT", "/registries/yarn/mirrors", json={"mirrors": []})
