"""Files and modules that pages and docstrings name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, REPO

SOURCES = sorted((REPO / "yarnstore").rglob("*.py"))
LAYERS = "core|registry|backends|store|ops|settings|api|cli|web"
MODULE = re.compile(rf"`((?:{LAYERS})/[a-z_/]+)`")
FILE = re.compile(r"`((?:yarnstore|tests|fixtures|docs)/[\w/.-]+)`|\b(docs/[\w/-]+\.md)")


def missing(text: str, root: Path = REPO) -> Iterator[str]:
    """The modules and files that a text names and that do not exist."""
    for name in MODULE.findall(text):
        place = root / "yarnstore" / name.rstrip("/")
        if not (place.is_dir() or place.with_suffix(".py").is_file()):
            yield name
    for match in FILE.finditer(text):
        if "://" not in text[text.rfind(" ", 0, match.start()) + 1 : match.start()]:
            name = match[1] or match[2]
            if not (root / name).exists():
                yield name


@pytest.mark.parametrize(
    "path",
    [page for page in PAGES if page.name != "CHANGELOG.md"] + SOURCES,
    ids=lambda path: path.relative_to(REPO).as_posix(),
)
def test_what_is_named_exists(path: Path) -> None:
    assert list(missing(path.read_text(encoding="utf-8"))) == []


def test_the_check_sees_what_is_missing(tmp_path: Path) -> None:
    text = "`ops/no_such`, `yarnstore/no_such.py`, docs/no-such.md, https://example.org/docs/elsewhere.md"
    assert list(missing(text, tmp_path)) == ["ops/no_such", "yarnstore/no_such.py", "docs/no-such.md"]
