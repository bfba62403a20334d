"""A real browser on the dashboard, driven as a person would.

with browsing() as browser:
    page = open_page(browser, service)               # logged in, on the first page
    expect(page.locator("h1")).to_have_text("…")     # waits: a page is never looked at only once

TEST_BROWSER_SLOWDOWN=6 makes the browser six times slower, to find tests that depend on its speed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.services import Running
from yarnstore.store.kernel import wait_lock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs a browser (Debian: apt install chromium) and pip install playwright",
)
AXE = "axe-core@4.14.1"
PATIENCE_MS = 120_000
SLOWDOWN = float(os.environ.get("TEST_BROWSER_SLOWDOWN", "1"))
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# What each page is and where; of the model of tests.support.gallery.
PAGES = {
    "updates": "#/updates",
    "installed": "#/installed",
    "history": "#/models/phi-3-mini",
    "compare": "#/models/phi-3-mini?tab=compare&old=1.0.0&new=1.1.0&run=1",
    "about": "#/models/phi-3-mini?tab=about",
    "registry": "#/registry",
    "storage": "#/storage",
    "jobs": "#/jobs",
    "settings": "#/settings",
    "statistics": "#/statistics",
}


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """The system's browser, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def expect(subject: Page | Locator) -> Any:
    """The assertions of playwright, which wait until what they say is so.

    What a script draws after a key or a click is there a moment later: tests assert it by these only.
    """
    from playwright.sync_api import expect as expecting

    expecting.set_options(timeout=PATIENCE_MS)
    return expecting(subject)


def open_page(
    browser: Browser, service: Running, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Page:
    """A new visitor who has logged in; any error in the page's scripts fails the next step."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = slowed(context.new_page())
    # As the page of the login does, which has tests of its own.
    headers = {"Origin": service.url.rstrip("/")}
    answer = context.request.post(
        f"{service.url}login", data={"token": service.ready["token"]}, headers=headers
    )
    assert answer.ok, answer.status
    page.goto(service.url)
    drawn(page)
    return page


def slowed(page: Page) -> Page:
    """The page, on a computer as slow as TEST_BROWSER_SLOWDOWN says."""
    if SLOWDOWN > 1:
        session = page.context.new_cdp_session(page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWDOWN})
    return page


def drawn(page: Page) -> Page:
    """The page once the content of its address is there."""
    page.wait_for_function(
        "() => { const main = document.getElementById('main');"
        " return main?.dataset.place === location.hash && !main.hasAttribute('aria-busy'); }"
    )
    return page


def visit(page: Page, name: str) -> Page:
    """Go to a page of PAGES."""
    place = PAGES[name]
    page.evaluate("place => { location.hash = place; }", place)
    page.wait_for_function("place => location.hash === place", arg=place)
    drawn(page)
    if name == "compare":
        page.wait_for_selector("#tensors")
    return page


def axe_source() -> str:
    """The rules of axe-core, which npm installs once beside the packages; skips the test without them."""
    cache = Path(sys.prefix) / "axe"
    cache.mkdir(exist_ok=True)
    npm = shutil.which("npm")
    script = cache / "node_modules" / "axe-core" / "axe.min.js"
    with open(cache / "lock", "w") as lock:  # two processes that run tests may both come here
        wait_lock(lock.fileno())
        if not script.exists():
            if npm is None:
                pytest.skip("npm is not installed (Debian: apt install npm): no axe-core")
            command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", AXE]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, cwd=cache, check=False, capture_output=True, timeout=120)
        if not script.exists():
            pytest.skip(f"npm could not install {AXE}")
        return script.read_text()


def faults(page: Page, axe: str) -> list[str]:
    """What axe-core finds wrong with the page as it is, or with its open dialog; one line each."""
    if page.evaluate("typeof axe === 'undefined'"):
        page.evaluate(axe)
    found: dict[str, Any] = page.evaluate(
        "() => axe.run(document.querySelector('dialog[open]') ?? document, { resultTypes: ['violations'] })"
    )
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
