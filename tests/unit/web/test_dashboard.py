"""The dashboard in a real browser, as a person uses it, with a registry that nginx serves slowly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import browsing, drawn, expect, needs_browser, open_page, visit
from tests.support.gallery import MODEL, OTHER, THIRD, make_gallery
from tests.support.servers import nginx_server
from tests.support.services import Running, needs_web, serving
from tests.support.stores import copy_tree, flip, remove_tree
from yarnstore import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_web, needs_browser]
# Slow enough that a person sees the progress of an update, and can stop it.
_SLOW = "location /deltas/ { limit_rate 40k; }"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store whose registry is on nginx."""
    root = tmp_path_factory.mktemp("dashboard")
    gallery = make_gallery(root, scale=2)
    with nginx_server(gallery.registry, root / "nginx", extra=_SLOW) as nginx:
        gallery.serve(nginx.url)
        yield gallery.home


@pytest.fixture
def service(made: Path, tmp_path: Path) -> Iterator[Running]:
    copy_tree(made, tmp_path / "home")
    with serving(tmp_path / "home") as running:
        yield running
    remove_tree(tmp_path / "home")


def installed(service: Running, model: str = MODEL) -> str | None:
    return next((row["version"] for row in service.get("/models").json() if row["model"] == model), None)


def said(page: Page, text: str) -> None:
    """Wait until the page says a sentence with `text`."""
    page.wait_for_selector(f"#said :text('{text}')")


def test_a_person_logs_in_updates_and_takes_it_back(browser: Browser, service: Running) -> None:
    page = browser.new_page()
    page.goto(service.url)
    expect(page).to_have_url(f"{service.url}login")
    page.fill("#token", "not a token")
    page.click("text=Log in >> nth=-1")
    page.wait_for_selector("#fault:has-text('not valid')")
    page.fill("#token", str(service.ready["login_url"]))
    page.press("#token", "Enter")
    expect(page.locator("#answer")).to_have_text("2 models have an update")

    card = page.locator(f"article[data-model='{MODEL}']")
    expect(page.locator("article").first).to_have_attribute("data-model", MODEL)
    for told in (
        "security",
        "1.0.0",
        "1.2.0",
        "1.1.0",
        "CVE-2026-10437",
        "repetition",
        "MIT",
        ">=1.0.0",
        "1 GB",
    ):
        expect(card).to_contain_text(told, use_inner_text=True)
    expect(card).to_contain_text(re.compile(r"[\d.]+ [kM]B to download, of [\d.]+ MB"), use_inner_text=True)

    card.get_by_role("button", name=f"Update {MODEL} 1.2.0").click()
    card.locator("progress").wait_for()
    page.wait_for_function("() => /^\\d+ % · Updates/.test(document.title)")
    page.reload()  # the job is still there, and the other pages work meanwhile
    page.locator(f"article[data-model='{MODEL}'] progress").wait_for()
    visit(page, "registry")
    page.locator("#activity progress").wait_for()
    said(page, f"{MODEL} 1.0.0 → 1.2.0 is installed")
    assert installed(service) == "1.2.0"
    page.get_by_role("button", name="Undo").click()
    said(page, f"{MODEL} 1.2.0 → 1.0.0 is installed")
    assert installed(service) == "1.0.0"


def test_an_update_is_paused_cancelled_and_tried_again(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    card = page.locator(f"article[data-model='{MODEL}']")
    card.get_by_role("button", name=f"Update {MODEL} 1.2.0").click()
    card.get_by_role("button", name="Pause").click()
    card.get_by_role("button", name="Resume").click()
    card.get_by_role("button", name="Cancel").click()
    said(page, "was cancelled. What was downloaded is kept.")
    assert installed(service) == "1.0.0"
    visit(page, "jobs")
    page.get_by_role("button", name="Try again").click()
    said(page, f"{MODEL} 1.0.0 → 1.2.0 is installed")
    page.locator("article.job[data-state=done]").wait_for()
    assert installed(service) == "1.2.0"


def test_the_history_shows_what_a_rollback_changes_before_it_is_done(
    browser: Browser, service: Running
) -> None:
    page = visit(open_page(browser, service), "history")
    expect(page.locator(".timeline h3")).to_have_text(["1.2.0", "1.1.0", "1.0.0"])
    expect(page.locator(".timeline li").first).to_contain_text("latest")
    expect(page.locator(".moves li").first).to_have_text(
        re.compile(r"\nrolled back\n1\.1\.0→1\.0\.0$"), use_inner_text=True
    )
    page.get_by_role("button", name="Install 1.1.0").click()
    expect(page.locator("dialog")).to_contain_text("nothing is downloaded")
    page.locator("dialog").get_by_role("button", name="Install 1.1.0").click()
    said(page, f"{MODEL} 1.0.0 → 1.1.0 is installed")
    page.get_by_role("button", name="Roll back to 1.0.0").click()
    expect(page.locator("dialog")).to_contain_text("repetition is rare")
    page.keyboard.press("Escape")
    assert installed(service) == "1.1.0"
    page.get_by_role("button", name="Roll back to 1.0.0").click()
    page.locator("dialog").get_by_role("button", name="Roll back to 1.0.0").click()
    said(page, f"{MODEL} 1.1.0 → 1.0.0 is installed")
    assert installed(service) == "1.0.0"


def test_two_versions_are_compared_tensor_by_tensor(browser: Browser, service: Running) -> None:
    page = visit(open_page(browser, service), "history")
    page.get_by_role("link", name="Compare", exact=True).click()
    page.select_option("#old", "1.0.0")
    page.select_option("#new", "1.1.0")
    page.click("#compare")
    page.wait_for_selector("#tensors")
    expect(page).to_have_url(re.compile("old=1.0.0&new=1.1.0"))
    same = page.locator("[aria-label='model.layers.0.mlp.down_proj.weight: the same']")
    expect(same).to_have_attribute("data-step", "0")
    changed = page.locator("[aria-label^='model.layers.7.mlp.down_proj.weight: changed']")
    expect(changed).to_have_attribute("data-step", "6")
    changed.click()
    for told in ("model.layers.7.mlp.down_proj.weight", "changed", "f32", "Mean relative change"):
        expect(page.locator(".tensor-detail")).to_contain_text(told)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.locator(".tensor-detail")).to_contain_text("model.layers.6.mlp.down_proj.weight")
    page.reload()  # the comparison is in the address
    page.wait_for_selector("#tensors")


def test_a_window_and_a_setting_are_changed(browser: Browser, service: Running) -> None:
    page = visit(open_page(browser, service), "settings")
    expect(page.locator("#next-round")).to_have_text("Auto-update is off.")
    page.check("#auto-on")
    page.check("#policy-security")
    page.fill("#windows", "Sat,Sun 02:00-05:00")
    page.click("#save-auto")
    said(page, "Saved.")
    page.wait_for_selector("#next-round:has-text('The next check')")
    status = service.get("/auto-update").json()["status"]
    assert (status["enabled"], status["policy"], status["windows"]) == (
        True,
        "security",
        ["Sat,Sun 02:00-05:00"],
    )
    page.fill("#windows", "whenever")
    page.click("#save-auto")
    said(page, "whenever")  # the error names it, and the field keeps it
    expect(page.locator("#windows")).to_have_value("whenever")
    page.fill("#set-keep", "3")
    page.press("#set-keep", "Enter")
    said(page, "saved")
    assert {row["name"]: row["value"] for row in service.get("/settings").json()}["keep"] == 3


def test_a_model_is_removed_brought_back_and_its_space_freed(browser: Browser, service: Running) -> None:
    page = visit(open_page(browser, service), "installed")

    def remove() -> None:
        page.get_by_role("button", name=f"Remove {THIRD}").click()
        expect(page.locator("dialog")).to_contain_text("1.0.0 (installed)")
        page.locator("dialog").get_by_role("button", name=f"Remove {THIRD}").click()
        said(page, f"{THIRD} is removed")

    remove()
    assert installed(service, THIRD) is None
    page.get_by_role("button", name="Undo").click()
    said(page, f"{THIRD} 1.0.0 is installed")
    assert installed(service, THIRD) == "1.0.0"
    page.wait_for_selector(f"article[data-model='{THIRD}']")
    remove()
    visit(page, "storage")
    expect(page.locator(".treemap")).to_have_attribute("aria-label", re.compile("by size: "))
    page.fill("#gc-keep", "1")
    page.click("#gc-make")
    expect(page.locator(".plan h3")).to_have_text(re.compile(r"^[\d.]+ [kM]B would be freed$"))
    expect(page.locator(".plan .items li").first).to_be_visible()
    before = service.get("/storage").json()["total_bytes"]
    page.click("#gc-apply")
    page.locator("dialog").get_by_role("button", name="Free").click()
    said(page, "Freed")
    assert service.get("/storage").json()["total_bytes"] < before
    assert {installed(service), installed(service, OTHER)} == {"1.0.0", "3.0.1"}


def test_a_plan_that_the_store_outran_is_refused(browser: Browser, service: Running) -> None:
    page = visit(open_page(browser, service), "storage")
    service.request("DELETE", f"/models/{THIRD.replace('/', '~')}")
    page.click("#gc-make")
    page.wait_for_selector("#gc-apply")
    with Store.open(Path(service.get("/status").json()["root"])) as store:
        store.checkout(f"{THIRD}@1.0.0")
    page.click("#gc-apply")
    page.locator("dialog").get_by_role("button", name="Free").click()
    said(page, "the store changed since")
    assert installed(service, THIRD) == "1.0.0"


def test_the_registry_is_searched_and_a_model_installed_from_it(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    page.keyboard.press("/")
    page.wait_for_selector("#search:focus")
    page.keyboard.type("pictures")
    page.wait_for_selector("#found:has-text('1 model for')")
    expect(page).to_have_url(re.compile(r"#/registry\?q=pictures$"))
    page.click("text=florence-vision")
    page.click("#install")
    page.locator("dialog").get_by_role("button", name="Install 1.0.0").click()
    said(page, "florence-vision 1.0.0 is installed")
    drawn(page)
    page.get_by_role("link", name="About", exact=True).click()
    page.wait_for_selector("text=A made model for the tests")
    expect(page.locator("main")).to_contain_text("safetensors")
    assert installed(service, "florence-vision") == "1.0.0"


def test_a_damaged_store_is_repaired_where_no_page_can_be_shown(
    browser: Browser, service: Running, tmp_path: Path
) -> None:
    page = open_page(browser, service)
    for manifest in (tmp_path / "home" / "manifests").rglob("*"):
        if manifest.is_file():
            flip(manifest, 0)
    page.reload()
    page.click("text=Check and repair")
    page.wait_for_selector("main[data-page=jobs]")
    (job,) = [item for item in service.get("/jobs").json() if item["kind"] == "fsck"]
    assert service.wait_for(job["id"], "done", "failed")["state"] == "done"
    page.evaluate("location.hash = '#/updates'")
    expect(page.locator("#answer")).to_be_visible()
