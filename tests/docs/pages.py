"""Code blocks of the documents."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [REPO / "README.md", REPO / "CHANGELOG.md", REPO / "SECURITY.md", *(REPO / "docs").rglob("*.md")]
)


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a page that are marked as `language`."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^```([a-z]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [body for marked, body in found if marked == language]


def shown_commands(page: Path) -> list[tuple[str, list[str]]]:
    """Each `$ command` of a page with the lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in blocks(page):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif found:
                found[-1][1].append(line)
    return found


def section(page: Path, heading: str) -> str:
    """The text below a heading of the second level, up to the next."""
    _, found, rest = page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    assert found, f"{page.name} has no {heading!r}"
    return rest.partition("\n## ")[0]
