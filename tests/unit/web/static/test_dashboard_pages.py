"""What holds of every page of the dashboard: access for all, keys, size, speed, and no request elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.browsers import PAGES, drawn, expect, faults, needs_browser, open_page, visit
from tests.support.gallery import MODEL, THIRD
from tests.support.services import PATIENCE_S, Running, needs_web, serving
from tests.support.stores import copy_tree
from tests.unit.web.static.conftest import Shown
from yarnstore import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [needs_web, needs_browser]
_LIMIT_BYTES = 150_000
_FIRST_PAINT_MS = 300.0
# What the Tab key stops at, in its order; then the names of these.
_STOPS = """[...document.querySelectorAll(
      "a[href], button, input, select, textarea, summary, [tabindex='0']")]
    .filter((each) => each.tabIndex >= 0 && each.checkVisibility() && !each.disabled)"""
_CONTROLS = f"""() => {_STOPS}
    .map((each) => each.getAttribute("aria-label") || each.labels?.[0]?.textContent || each.textContent)
    .map((text) => text.trim())"""
_FOCUSED = "(document.activeElement.getAttribute('aria-label') || document.activeElement.textContent).trim()"
# Each of them that is above the one before it, or left of it, unless a column begins.
_BACKWARD = f"""() => {{
  const all = {_STOPS}.filter((each) => !each.closest(".skip"));
  const places = all.map((each) => each.getBoundingClientRect());
  return all.filter((_, index) => {{
    const [before, here] = [places[index - 1], places[index]];
    if (!before || here.left >= before.right - 1) return false;
    return here.bottom <= before.top + 1 || (here.top < before.bottom - 4 && here.right <= before.left + 1);
  }}).map((each) => each.outerHTML.slice(0, 120));
}}"""
_ORDERED = """[...document.querySelectorAll('[tabindex]:not([tabindex="0"], [tabindex="-1"])')]
    .map((each) => each.outerHTML.slice(0, 120))"""
# The dialogs: the page, and the button that opens it.
_DIALOGS = (
    ("updates", "#keys"),
    ("updates", f"[aria-label='Update to 2.0.0, a major version of {THIRD}']"),
    ("installed", f"[aria-label='Roll back {MODEL}']"),
    ("installed", f"[aria-label='Remove {MODEL}']"),
    ("history", "[aria-label='Install 1.2.0']"),
    ("history", "[aria-label='Remove 1.1.0']"),
    ("storage", "#gc-apply"),
    ("settings", "[aria-label='Mirrors of yarn']"),
    ("settings", "[aria-label='Remove the registry yarn']"),
)


@pytest.fixture(scope="module")
def service(gallery: Shown, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("pages") / "home"
    copy_tree(gallery.home, home)
    with Store.open(home) as store:
        store.fetch(f"{MODEL}@1.2.0")  # something that gc may delete
    with serving(home) as running:
        yield running


# Of each width and each theme one by default; the other pairs have the same rules and the same colours.
_VIEWS = [
    pytest.param((1280, False), id="wide-light"),
    pytest.param((390, True), id="narrow-dark"),
    pytest.param((1280, True), id="wide-dark", marks=pytest.mark.deep),
    pytest.param((390, False), id="narrow-light", marks=pytest.mark.deep),
]
# Widths at which a page must fit too, by the width at which it was drawn.
_OTHER_WIDTHS = {1280: (1920,), 390: (360,)}


@dataclass
class Walk:
    """What a walk through all pages found, in one width and theme; by page, where a page is wrong."""

    page: Page
    faults: dict[str, list[str]] = field(default_factory=dict)  # of axe-core
    wide: dict[str, int] = field(default_factory=dict)  # wider than the screen
    backward: dict[str, list[str]] = field(default_factory=dict)  # controls against the order of reading
    ordered: dict[str, object] = field(default_factory=dict)  # elements with an order of their own for Tab
    controls: dict[str, list[str]] = field(default_factory=dict)  # all names of controls
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def fits(self, name: str, width: int) -> None:
        found = self.page.evaluate("document.documentElement.scrollWidth")
        if found > width:
            self.wide[f"{name} at {width}"] = found

    def check(self, name: str, axe: str) -> None:
        if lines := faults(self.page, axe):
            self.faults[name] = lines


@pytest.fixture(scope="module", params=_VIEWS)
def walk(request: pytest.FixtureRequest, browser: Browser, service: Running, axe: str) -> Iterator[Walk]:
    """One walk through all pages, which several tests look at."""
    width, dark = request.param
    page = open_page(browser, service, width=width, dark=dark)
    size = page.viewport_size
    assert size is not None
    walk = Walk(page)
    page.on("request", lambda request: walk.asked.append(request.url))
    page.on("pageerror", lambda error: walk.wrong.append(str(error)))
    page.on("console", lambda message: walk.wrong.append(message.text) if message.type == "error" else None)
    page.reload()
    for name in PAGES:
        visit(page, name)
        walk.controls[name] = page.evaluate(_CONTROLS)
        if found := page.evaluate(_BACKWARD):
            walk.backward[name] = found
        if found := page.evaluate(_ORDERED):
            walk.ordered[name] = found
        walk.fits(name, width)
        for other in _OTHER_WIDTHS[width]:
            page.set_viewport_size({**size, "width": other})
            walk.fits(name, other)
        page.set_viewport_size(size)
        walk.check(name, axe)
        if name == "compare":
            page.locator(".tensor").first.click()
            expect(page.locator(".tensor-detail h3")).to_be_visible()
            walk.check("tensor", axe)
        elif name == "storage":
            page.fill("#gc-keep", "0")
            page.click("#gc-make")
            expect(page.locator("#gc-apply")).to_be_visible()
            walk.check("plan", axe)
            page.get_by_role("button", name="Keep everything").click()
    yield walk
    page.context.close()


def test_axe_finds_no_fault_on_any_page(walk: Walk) -> None:
    assert walk.faults == {}


def test_no_page_is_wider_than_the_screen(walk: Walk) -> None:
    assert walk.wide == {}


def test_every_control_has_a_name_and_the_order_of_the_page(walk: Walk) -> None:
    for name, names in walk.controls.items():
        assert names[0] == "Skip to the content", name
        assert all(names), (name, names)
    assert walk.ordered == {}


def test_nothing_is_asked_elsewhere_and_no_script_fails(walk: Walk, service: Running) -> None:
    assert walk.asked
    assert {urlsplit(url).netloc for url in walk.asked} == {urlsplit(service.url).netloc}
    # Of a model that is not stored the page asks for its text all the same, and is told 404.
    assert [text for text in walk.wrong if "404" not in text] == []


def test_the_tab_key_follows_the_order_of_reading(walk: Walk) -> None:
    assert walk.backward == {}
    page = visit(walk.page, "updates")
    names = page.evaluate(_CONTROLS)
    page.locator(".skip").focus()
    reached = [page.evaluate(_FOCUSED)]
    for _ in names[1:]:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(_FOCUSED))
    assert reached == names


def test_dialogs_have_no_fault_and_give_the_focus_back(walk: Walk, axe: str) -> None:
    page = walk.page
    dialog, found = page.locator("dialog"), {}
    visited = ""
    for place, opener in _DIALOGS:
        if place != visited:
            visit(page, place)
            visited = place
        if opener == "#gc-apply":
            page.fill("#gc-keep", "0")
            page.click("#gc-make")
        button = page.locator(opener)
        button.focus()
        page.keyboard.press("Enter")
        expect(dialog).to_be_visible()
        assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)"), opener
        if lines := faults(page, axe):
            found[opener] = lines
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(button).to_be_focused()
    assert found == {}


def test_the_login_page_has_no_fault(walk: Walk, service: Running, axe: str) -> None:
    page = walk.page.context.new_page()
    page.goto(f"{service.url}login?token=used")
    expect(page.locator("#fault")).to_contain_text("was used before")
    assert faults(page, axe) == []


def test_the_other_colours_have_their_contrast(browser: Browser, service: Running, axe: str) -> None:
    page = open_page(browser, service)
    theme = page.locator("#theme")
    for name in ("light", "dark"):
        theme.click()
        expect(theme).to_have_text(f"Theme: {name}")
    assert faults(visit(page, "updates"), axe) == []
    page.reload()
    expect(theme).to_have_text("Theme: dark")


def test_everything_is_reached_by_keys(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    dialog, search = page.locator("dialog"), page.locator("#search")
    page.keyboard.press("?")
    expect(dialog).to_contain_text("Search the registries")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    places = ("updates", "installed", "registry", "storage", "jobs", "settings", "statistics")
    for key, place in enumerate(places, start=1):
        page.keyboard.press(str(key))
        expect(page.locator(f"main[data-page={place}]")).to_be_focused()
    page.keyboard.press("/")
    expect(search).to_be_focused()
    page.keyboard.press("Escape")
    expect(search).not_to_be_focused()
    page.keyboard.press("?")
    page.uncheck("#single-keys")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("1")
    page.keyboard.press("?")
    # The keys would have done this at once.
    assert str(page.evaluate("location.hash")).startswith("#/registry")
    assert dialog.count() == 0


def test_an_address_that_is_no_uri_shows_the_page_of_problems(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    page.evaluate("location.hash = '#/models/%'")  # as a person may type it
    expect(page.locator("h1")).to_have_text("This page cannot be shown")


def test_the_first_paint_waits_for_the_style_alone(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    held: list[Route] = []
    page.route("**/api/**", lambda route: held.append(route))
    page.reload(wait_until="commit")
    page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length === 1")
    page.wait_for_function("() => performance.getEntriesByType('resource').length > 2")
    waited_for = page.evaluate(
        "performance.getEntriesByType('resource')"
        ".filter((each) => each.renderBlockingStatus === 'blocking').map((each) => each.name)"
    )
    assert waited_for == [f"{service.url}static/style.css"]
    give_up_s = time.monotonic() + PATIENCE_S
    while not held:  # the scripts ask for data after the first paint
        assert time.monotonic() < give_up_s
        page.wait_for_timeout(20)


@pytest.mark.deep
def test_the_first_paint_is_quick(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    best = 1e9
    for _ in range(5):
        page.reload()
        drawn(page)
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        best = min(best, page.evaluate(paint))
    assert best < _FIRST_PAINT_MS


def test_all_files_together_are_small() -> None:
    folder = resources.files("yarnstore.web").joinpath("static")
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) < _LIMIT_BYTES


def test_the_button_of_a_plan_keeps_the_focus_when_the_page_is_drawn_again(walk: Walk) -> None:
    page = walk.page
    visit(page, "storage")
    page.fill("#gc-keep", "0")
    page.click("#gc-make")
    page.locator("#gc-apply").focus()
    page.evaluate(
        "document.getElementById('gc-make').dataset.old = ''; dispatchEvent(new Event('ystore:refresh'))"
    )
    expect(page.locator("#gc-make[data-old]")).to_have_count(0)
    expect(page.locator("#gc-apply")).to_be_focused()
