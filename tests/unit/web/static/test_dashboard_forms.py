"""The dashboard's statistics, limits of the disk space, rules of single models, and long lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browsers import expect, needs_browser, open_page, visit
from tests.support.gallery import MODEL, OTHER
from tests.support.giant_registry import entry_of
from tests.support.services import Running, needs_web, serving
from yarnstore import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [needs_web, needs_browser]


@pytest.fixture(scope="module")
def service(gallery_home: Path) -> Iterator[Running]:
    with serving(gallery_home) as running:
        yield running


def test_the_statistics_show_savings_use_and_failures(page: Page, service: Running) -> None:
    service.done(service.post(f"/models/{OTHER}/update", json={}))
    service.finished(service.post(f"/models/{MODEL}/checkout", json={"version": "9.0.0"}))
    visit(page, "statistics")
    expect(page.locator("h1")).to_contain_text("of downloads saved")
    expect(page.locator("main")).to_contain_text("deltas and compression")
    table = page.get_by_role("region", name="Operations, table")
    expect(table.locator("tr", has_text="Update")).to_contain_text("1")
    expect(page.get_by_role("region", name="Failures, table")).to_contain_text("not-found")
    use = page.get_by_role("region", name="Use of models, table")
    expect(use.locator("tr", has_text=OTHER)).to_contain_text(" kB of ")
    page.get_by_role("link", name="7 days").click()
    page.wait_for_url("**/#/statistics?since=7d")
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "page")
    expect(page.locator("h1")).to_contain_text("of downloads saved")
    service.done(service.post(f"/models/{OTHER}/rollback", json={}))


def test_space_is_freed_by_size_and_by_age(page: Page, service: Running) -> None:
    service.done(service.post(f"/models/{MODEL}/fetch", json={"version": "1.2.0"}))
    fetched = f"{MODEL}@1.2.0"
    visit(page, "storage")
    plan = page.locator(".plan")
    page.fill("#gc-size", "much")
    page.click("#gc-make")
    expect(page.locator("#said")).to_contain_text("“much” is not a size")
    page.fill("#gc-size", "500 GB")
    page.click("#gc-make")
    expect(plan).to_be_visible()
    expect(plan.locator("> .items", has_text=fetched)).to_have_count(0)
    page.fill("#gc-size", "1kB")
    page.click("#gc-make")
    expect(plan.locator("> .items")).to_contain_text(fetched)
    page.fill("#gc-size", "")
    page.fill("#gc-unused", "400")
    page.click("#gc-make")
    expect(plan.locator("> .items", has_text=fetched)).to_have_count(0)
    page.fill("#gc-unused", "0")
    page.click("#gc-make")
    expect(plan.locator("> .items")).to_contain_text(fetched)


def test_what_a_rollback_takes_is_chosen_and_said(page: Page, service: Running) -> None:
    visit(page, "settings")
    expect(page.locator("#set-rollback-now")).to_contain_text("“thin” would free about")
    expect(page.locator("#set-keep-now")).to_contain_text("an update deletes no version")
    expect(page.locator("#set-reserve-now")).to_contain_text("are free")
    chosen = page.locator("#set-rollback")
    expect(chosen).to_have_value("instant")
    chosen.select_option("thin")
    page.get_by_role("button", name="Save: Rollback").click()
    expect(page.locator("#said")).to_contain_text("Rollback: saved.")
    page.locator("#set-keep_copy").select_option("always")
    page.get_by_role("button", name="Save: Second copies").click()
    expect(page.locator("#said")).to_contain_text("Second copies: saved.")
    found = {item["name"]: item["value"] for item in service.get("/settings").json()}
    assert (found["rollback"], found["keep_copy"]) == ("thin", "always")
    for title in ("Rollback", "Second copies"):
        page.get_by_role("button", name=f"Reset: {title}").click()
        expect(page.get_by_role("button", name=f"Reset: {title}")).to_have_count(0)
    expect(chosen).to_have_value("instant")


def test_one_model_gets_a_rule_of_its_own(page: Page, service: Running) -> None:
    visit(page, "settings")
    page.click("text=Change the rule of one model")
    page.select_option("#rule-model", OTHER)
    expect(page.locator("#rule-policy")).to_have_value("off")
    page.select_option("#rule-policy", "patch")
    page.fill("#rule-windows", "Sun 03:00-04:00")
    page.click("#save-rule")
    expect(page.locator("#said")).to_contain_text(f"Saved the rule of {OTHER}")
    expect(page.locator(".items li", has_text=OTHER)).to_contain_text("Sun 03:00-04:00")
    rules = {rule["model"]: rule for rule in service.get("/auto-update").json()["status"]["models"]}
    saved = rules[OTHER]
    assert (saved["enabled"], saved["policy"], saved["windows"]) == (True, "patch", ["Sun 03:00-04:00"])
    assert rules[MODEL]["enabled"] is False
    expect(page.locator("#rule-model")).to_have_value(OTHER)  # it stays chosen
    expect(page.locator("#rule-policy")).to_have_value("patch")
    page.select_option("#rule-model", MODEL)
    expect(page.locator("#rule-windows")).to_have_value("")
    expect(page.locator("#rule-policy")).to_have_value("off")
    remove = page.get_by_role("button", name=f"Remove the rule of {OTHER}")
    remove.click()
    expect(page.locator("#own-rules")).to_have_count(0)
    page.locator("#said").get_by_role("button", name="Undo").click()
    expect(page.locator("#own-rules")).to_contain_text("patch")
    remove.click()
    expect(page.locator("#own-rules")).to_have_count(0)
    service.until(lambda: not any(r["own"] for r in service.get("/auto-update").json()["status"]["models"]))


def test_the_last_automatic_check_says_what_it_did(page: Page, service: Running) -> None:
    visit(page, "settings")
    expect(page.locator("#last-round")).to_contain_text("This service has run no automatic check yet.")
    service.request("PUT", "/auto-update", json={"enabled": True, "policy": "notify", "jitter": "0s"})
    service.until(lambda: [job for job in service.get("/jobs").json() if job["kind"] == "auto-update"])
    expect(page.locator("#last-round")).to_contain_text("3 models with an update available")
    service.request("PUT", "/auto-update", json={"enabled": False})


def test_more_results_are_shown_when_asked_for(browser: Browser, tmp_path: Path) -> None:
    models = {name: entry_of(name, 1) for name in (f"model-{number:03}" for number in range(230))}
    (tmp_path / "registry").mkdir()
    document = {"registry_version": "1.0.0", "last_updated": "2024-01-01T00:00:00Z", "models": models}
    (tmp_path / "registry" / "registry.json").write_text(json.dumps(document))
    with Store.open(tmp_path / "home") as store:
        store.add_registry("large", tmp_path / "registry")
    with serving(tmp_path / "home") as service:
        page = visit(open_page(browser, service), "registry")
        offers, found = page.locator(".offer"), page.locator("#found")
        expect(found).to_have_text("The first 100 models in the registries")
        page.click("#more")
        expect(offers).to_have_count(200)
        expect(offers.nth(100)).to_be_focused()
        page.click("#more")
        expect(offers).to_have_count(230)
        expect(found).to_have_text("230 models in the registries")
        expect(page.locator("#more")).to_have_count(0)
        page.evaluate(
            "document.querySelector('.offers').id = 'old'; dispatchEvent(new Event('ystore:refresh'))"
        )
        expect(page.locator("#old")).to_have_count(0)
        expect(offers).to_have_count(230)
        page.fill("#search", "model-1")
        expect(found).to_have_text("100 models for “model-1”")
        expect(page.locator("#more")).to_have_count(0)
