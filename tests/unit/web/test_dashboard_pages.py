"""What holds of every page of the dashboard: access for all, keys, size, speed, and no request elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.browsers import PAGES, axe_source, drawn, expect, faults, needs_browser, open_page, visit
from tests.support.gallery import MODEL, THIRD
from tests.support.services import Running, needs_web, serving
from tests.support.stores import copy_tree
from tests.unit.web.conftest import Shown
from yarnstore import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

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


@pytest.fixture(scope="module")
def axe() -> str:
    return axe_source()


# Of each width and each theme one by default; the other pairs have the same rules and the same colours.
_VIEWS = [
    pytest.param(1280, False, id="wide-light"),
    pytest.param(390, True, id="narrow-dark"),
    pytest.param(1280, True, id="wide-dark", marks=pytest.mark.deep),
    pytest.param(390, False, id="narrow-light", marks=pytest.mark.deep),
]


@pytest.mark.parametrize(("width", "dark"), _VIEWS)
def test_axe_finds_no_fault_on_any_page(
    browser: Browser, service: Running, axe: str, width: int, dark: bool
) -> None:
    page = open_page(browser, service, width=width, dark=dark)
    found = {name: faults(visit(page, name), axe) for name in PAGES}
    visit(page, "compare").locator(".tensor").first.click()
    expect(page.locator(".tensor-detail h3")).to_be_visible()
    found["tensor"] = faults(page, axe)
    visit(page, "storage").click("#gc-make")
    expect(page.locator(".plan")).to_be_visible()
    found["plan"] = faults(page, axe)
    page.goto(f"{service.url}login?token=used")
    expect(page.locator("#fault")).to_contain_text("was used before")
    found["login"] = faults(page, axe)
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(("width", "dark"), _VIEWS)
def test_dialogs_have_no_fault_and_give_the_focus_back(
    browser: Browser, service: Running, axe: str, width: int, dark: bool
) -> None:
    page = open_page(browser, service, width=width, dark=dark)
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


def test_the_other_colours_have_their_contrast(browser: Browser, service: Running, axe: str) -> None:
    page = open_page(browser, service)
    theme = page.locator("#theme")
    for name in ("light", "dark"):
        theme.click()
        expect(theme).to_have_text(f"Theme: {name}")
    assert faults(visit(page, "updates"), axe) == []
    page.reload()
    expect(theme).to_have_text("Theme: dark")


@pytest.mark.parametrize("width", [360, 390, 1920])
def test_no_page_is_wider_than_the_screen(browser: Browser, service: Running, width: int) -> None:
    page = open_page(browser, service, width=width)
    wide = {
        name: found
        for name in PAGES
        if (found := visit(page, name).evaluate("document.documentElement.scrollWidth")) > width
    }
    assert wide == {}


def test_every_control_has_a_name_and_the_order_of_the_page(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    for name in PAGES:
        names = visit(page, name).evaluate(_CONTROLS)
        assert names[0] == "Skip to the content", name
        assert all(names), (name, names)
        assert not page.evaluate(
            'document.querySelector(\'[tabindex]:not([tabindex="0"], [tabindex="-1"])\')'
        ), name


@pytest.mark.parametrize("width", [390, 1280])
def test_the_tab_key_follows_the_order_of_reading(browser: Browser, service: Running, width: int) -> None:
    page = open_page(browser, service, width=width)
    found = {name: visit(page, name).evaluate(_BACKWARD) for name in PAGES}
    assert {name: lines for name, lines in found.items() if lines} == {}
    names = visit(page, "updates").evaluate(_CONTROLS)
    page.locator(".skip").focus()
    reached = [page.evaluate(_FOCUSED)]
    for _ in names[1:]:
        page.keyboard.press("Tab")
        reached.append(page.evaluate(_FOCUSED))
    assert reached == names


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


def test_nothing_is_asked_elsewhere_and_no_script_fails(browser: Browser, service: Running) -> None:
    page = open_page(browser, service)
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.reload()
    for name in PAGES:
        visit(page, name)
    page.evaluate("location.hash = '#/models/%'")  # as a person may type it
    expect(page.locator("h1")).to_have_text("This page cannot be shown")
    ours = urlsplit(service.url).netloc
    assert asked
    assert {urlsplit(url).netloc for url in asked} == {ours}
    # Of a model that is not stored the page asks for its text all the same, and is told 404.
    assert [text for text in wrong if "404" not in text and "400" not in text] == []


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
    assert held


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
