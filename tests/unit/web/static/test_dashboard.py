"""The dashboard in a real browser, as a person uses it, with a registry that nginx serves."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import (
    PATIENCE_MS,
    expect,
    faults,
    needs_browser,
    open_page,
    slowed,
    visit,
)
from tests.support.gallery import MODEL, OTHER, THIRD
from tests.support.services import Running, needs_web, serving
from tests.support.stores import copy_tree, flip
from tests.unit.web.static.conftest import Shown
from yarnstore import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_web, needs_browser]


@contextlib.contextmanager
def served_copy(gallery: Shown, folder: Path) -> Iterator[Running]:
    """A service over a copy of the gallery's store."""
    copy_tree(gallery.home, folder / "home")
    with serving(folder / "home") as running:
        yield running


@pytest.fixture(scope="module")
def shared(gallery: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for tests that take back what they change, or change what no other looks at."""
    with served_copy(gallery, tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture(scope="module")
def freed(gallery: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for tests that delete data."""
    with served_copy(gallery, tmp_path_factory.mktemp("freed")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, shared: Running, gallery: Shown) -> Page:
    """A page of the shared service, whose downloads are quick."""
    gallery.slow.unlink(missing_ok=True)
    return open_page(browser, shared)


@pytest.fixture
def slow_page(page: Page, gallery: Shown) -> Page:
    """The same, whose downloads are slow."""
    gallery.slow.touch()
    return page


def installed(service: Running, model: str = MODEL) -> str | None:
    return next((row["version"] for row in service.get("/models").json() if row["model"] == model), None)


def said(page: Page, text: str) -> None:
    """Wait until the page says a sentence with `text`."""
    expect(page.locator("#said")).to_contain_text(text)


def hurry(service: Running, gallery: Shown) -> None:
    """Let the job that downloads end: its rate is that of its requests' start."""
    (job,) = [job for job in service.get("/jobs").json() if job["state"] in ("queued", "running")]
    service.post(f"/jobs/{job['id']}/pause")
    service.wait_for(job["id"], "paused")
    gallery.slow.unlink()
    service.post(f"/jobs/{job['id']}/resume")


def test_a_person_logs_in_updates_and_takes_it_back(
    browser: Browser, shared: Running, gallery: Shown, axe: str
) -> None:
    service = shared
    gallery.slow.touch()
    page = slowed(browser.new_page())
    page.set_default_timeout(PATIENCE_MS)
    page.goto(service.url)
    page.wait_for_url(f"{service.url}login")
    page.fill("#token", "not a token")
    page.click("text=Log in >> nth=-1")
    expect(page.locator("#fault")).to_contain_text("not valid")
    page.fill("#token", str(service.ready["login_url"]))
    page.press("#token", "Enter")
    expect(page.locator("#answer")).to_have_text("2 models have an update")
    expect(page.locator(".answer .lead")).to_contain_text("1 more model has a new major version.")
    assert service.get("/overview").json()["updates"] == 3

    card = page.locator(f"article[data-model='{MODEL}']")
    expect(page.locator("article").first).to_have_attribute("data-model", MODEL)
    told = ("security", "1.0.0", "1.2.0", "1.1.0", "CVE-2026-10437", "repetition", "MIT", ">=1.0.0", "1 GB")
    for text in told:
        expect(card).to_contain_text(text)
    expect(card).to_contain_text(re.compile(r"[\d.]+ [kM]B to download, of [\d.]+ [kM]B"))

    card.get_by_role("button", name=f"Update {MODEL} 1.2.0").click()
    expect(card.locator("progress")).to_be_visible()
    page.wait_for_function("() => /^\\d+ % · Updates/.test(document.title)")
    assert faults(page, axe) == []
    page.reload()  # the job is still there, and the other pages work meanwhile
    expect(page.locator(f"article[data-model='{MODEL}'] progress")).to_be_visible()
    visit(page, "registry")
    expect(page.locator("#activity progress")).to_be_visible()
    hurry(service, gallery)
    said(page, f"{MODEL} 1.0.0 → 1.2.0 is installed")
    service.until(lambda: installed(service) == "1.2.0")
    page.get_by_role("button", name="Undo").click()
    said(page, f"{MODEL} 1.2.0 → 1.0.0 is installed")
    service.until(lambda: installed(service) == "1.0.0")


def test_an_update_is_paused_cancelled_and_tried_again(
    slow_page: Page, shared: Running, gallery: Shown
) -> None:
    page, service = slow_page, shared
    card = page.locator(f"article[data-model='{OTHER}']")
    card.get_by_role("button", name=f"Update {OTHER} 3.1.0").click()
    card.get_by_role("button", name="Pause").click()
    card.get_by_role("button", name="Resume").click()
    card.get_by_role("button", name="Cancel").click()
    said(page, "was cancelled. What was downloaded is kept.")
    service.until(lambda: installed(service, OTHER) == "3.0.1")
    gallery.slow.unlink()
    visit(page, "jobs")
    page.get_by_role("button", name=f"Try again: update {OTHER}").click()
    said(page, f"{OTHER} 3.0.1 → 3.1.0 is installed")
    expect(page.locator("article.job[data-state=done]", has_text=OTHER)).to_be_visible()
    service.done(service.post(f"/models/{OTHER}/rollback", json={}))


def test_the_history_shows_what_a_rollback_changes_before_it_is_done(page: Page, shared: Running) -> None:
    visit(page, "history")
    dialog = page.locator("dialog")
    expect(page.locator(".timeline h3")).to_have_text(["1.2.0", "1.1.0", "1.0.0"])
    expect(page.locator(".timeline li").first).to_contain_text("latest")
    expect(page.locator(".moves li", has_text="rolled back1.1.0→1.0.0")).to_have_count(1)
    page.get_by_role("button", name="Install 1.1.0").click()
    expect(dialog).to_contain_text("nothing is downloaded")
    dialog.get_by_role("button", name="Install 1.1.0").click()
    said(page, f"{MODEL} 1.0.0 → 1.1.0 is installed")
    page.get_by_role("button", name="Roll back to 1.0.0").click()
    expect(dialog).to_contain_text("repetition is rare")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert installed(shared) == "1.1.0"
    page.get_by_role("button", name="Roll back to 1.0.0").click()
    dialog.get_by_role("button", name="Roll back to 1.0.0").click()
    said(page, f"{MODEL} 1.1.0 → 1.0.0 is installed")
    shared.until(lambda: installed(shared) == "1.0.0")


def test_two_versions_are_compared_tensor_by_tensor(page: Page) -> None:
    visit(page, "history")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.select_option("#old", "1.0.0")
    page.select_option("#new", "1.1.0")
    page.click("#compare")
    expect(page.locator("#tensors")).to_be_visible()
    page.wait_for_url(re.compile("old=1.0.0&new=1.1.0"))
    same = page.locator("[aria-label='model.layers.0.mlp.down_proj.weight: the same']")
    expect(same).to_have_attribute("data-step", "0")
    changed = page.locator("[aria-label^='model.layers.7.mlp.down_proj.weight: changed']")
    expect(changed).to_have_attribute("data-step", "6")
    changed.click()
    detail = page.locator(".tensor-detail")
    for told in ("model.layers.7.mlp.down_proj.weight", "changed", "f32", "Mean relative change"):
        expect(detail).to_contain_text(told)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(detail).to_contain_text("model.layers.6.mlp.down_proj.weight")
    page.reload()  # the comparison is in the address
    expect(page.locator("#tensors")).to_be_visible()


def test_a_window_and_a_setting_are_changed(page: Page, shared: Running) -> None:
    visit(page, "settings")
    expect(page.locator("#next-round")).to_have_text("Auto-update is off.")
    page.check("#auto-on")
    page.check("#policy-security")
    page.fill("#windows", "Sat,Sun 02:00-05:00")
    page.click("#save-auto")
    said(page, "Saved.")
    expect(page.locator("#next-round")).to_contain_text("The next check")
    status = shared.get("/auto-update").json()["status"]
    saved = (status["enabled"], status["policy"], status["windows"])
    assert saved == (True, "security", ["Sat,Sun 02:00-05:00"])
    page.fill("#windows", "whenever")
    page.click("#save-auto")
    said(page, "whenever")  # the error names it, and the field keeps it
    page.fill("#set-keep", "3")
    page.press("#set-keep", "Enter")
    said(page, "saved")
    shared.until(lambda: {row["name"]: row["value"] for row in shared.get("/settings").json()}["keep"] == 3)
    expect(page.locator("#windows")).to_have_value("whenever")


def test_a_model_is_removed_brought_back_and_its_space_freed(browser: Browser, freed: Running) -> None:
    service = freed
    page = visit(open_page(browser, service), "installed")
    dialog = page.locator("dialog")

    def remove() -> None:
        page.get_by_role("button", name=f"Remove {THIRD}").click()
        expect(dialog).to_contain_text("1.0.0 (installed)")
        dialog.get_by_role("button", name=f"Remove {THIRD}").click()
        said(page, f"{THIRD} is removed")
        service.until(lambda: installed(service, THIRD) is None)

    remove()
    page.get_by_role("button", name="Undo").click()
    said(page, f"{THIRD} 1.0.0 is in the store again")
    service.until(lambda: installed(service, THIRD) == "1.0.0")
    expect(page.locator(f"article[data-model='{THIRD}']")).to_be_visible()
    remove()
    visit(page, "storage")
    expect(page.locator(".treemap")).to_have_attribute("aria-label", re.compile("by size: "))
    page.fill("#gc-keep", "1")
    page.click("#gc-make")
    expect(page.locator(".plan h3")).to_have_text(re.compile(r"^[\d.]+ [kM]B would be freed$"))
    expect(page.locator(".plan .items li").first).to_be_visible()
    before = service.get("/storage").json()["total_bytes"]
    page.click("#gc-apply")
    dialog.get_by_role("button", name="Free").click()
    said(page, "Freed")
    assert service.get("/storage").json()["total_bytes"] < before
    assert {installed(service), installed(service, OTHER)} == {"1.0.0", "3.0.1"}


def test_a_plan_that_the_store_outran_is_refused(browser: Browser, freed: Running, gallery: Shown) -> None:
    service = freed
    gallery.slow.unlink(missing_ok=True)
    service.done(service.post(f"/models/{THIRD.replace('/', '~')}/checkout", json={"version": "1.0.0"}))
    page = visit(open_page(browser, service), "storage")
    service.request("DELETE", f"/models/{THIRD.replace('/', '~')}")
    page.click("#gc-make")
    expect(page.locator("#gc-apply")).to_be_visible()
    with Store.open(Path(service.get("/status").json()["root"])) as store:
        store.checkout(f"{THIRD}@1.0.0")
    page.click("#gc-apply")
    page.locator("dialog").get_by_role("button", name="Free").click()
    said(page, "the store changed since")
    assert installed(service, THIRD) == "1.0.0"


def test_the_registry_is_searched_and_a_model_installed_from_it(page: Page, shared: Running) -> None:
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("pictures")
    expect(page.locator("#found")).to_contain_text("1 model for")
    page.wait_for_url(re.compile("#/registry\\?q=pictures$"))
    page.click("text=florence-vision")
    page.click("#install")
    page.locator("dialog").get_by_role("button", name="Install 1.0.0").click()
    said(page, "florence-vision 1.0.0 is installed")
    page.get_by_role("link", name="About", exact=True).click()
    expect(page.locator("main")).to_contain_text("For use on this machine")
    expect(page.locator("main")).to_contain_text("safetensors")
    shared.until(lambda: installed(shared, "florence-vision") == "1.0.0")


def test_a_damaged_store_is_repaired(browser: Browser, gallery: Shown, tmp_path: Path) -> None:
    """From the first page, which says what is wrong, and from a page that cannot be shown."""
    gallery.slow.unlink(missing_ok=True)
    with served_copy(gallery, tmp_path) as service:
        page = open_page(browser, service)
        for manifest in (tmp_path / "home" / "manifests").rglob("*"):
            if manifest.is_file():
                flip(manifest, 0)
        page.evaluate("location.hash = '#/storage'")
        expect(page.locator("h1")).to_have_text("This page cannot be shown")
        expect(page.get_by_role("button", name="Check and repair")).to_be_visible()
        visit(page, "updates")
        expect(page.locator("#answer")).to_have_text("Something needs attention")
        expect(page.locator(".problems")).to_contain_text("cannot be read")
        page.click("#repair")
        expect(page.locator("main[data-page=jobs]")).to_be_visible()
        (job,) = [item for item in service.get("/jobs").json() if item["kind"] == "fsck"]
        assert service.wait_for(job["id"], "done", "failed")["state"] == "done"
        page.evaluate("location.hash = '#/updates'")
        expect(page.locator("#answer")).to_be_visible()
        expect(page.locator("#answer")).not_to_have_text("Something needs attention")
