"""docs/architecture.md leads to files that exist, and leaves out no package."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import REPO, section

PAGE = REPO / "docs" / "architecture.md"
GLOSSARY = REPO / "docs" / "glossary.md"
CODE_PATH = re.compile(r"`((?:yarnstore|docs|tests|fixtures)/[^`]*)`")


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a page's tables, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    body = [
        line
        for line, below in zip(lines, [*lines[1:], ""], strict=True)
        if not (line.startswith("|---") or below.startswith("|---"))
    ]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in body]


def missing_paths(text: str, root: Path = REPO) -> list[str]:
    """The paths that a text names and that do not exist."""
    return [path for path in CODE_PATH.findall(text) if not (root / path).exists()]


def missing_names(text: str, root: Path = REPO) -> list[str]:
    """The names in parentheses after a path, as "`x.py` (`NAME`)", that its file does not have."""
    found = re.findall(r"`([^` ]+/[^` ]+)` \(`(\w+)`", text)
    return [f"{path}: {name}" for path, name in found if name not in (root / path).read_text("utf-8")]


def test_ten_changes_lead_to_files_that_exist() -> None:
    changes = rows(section(PAGE, "Where a change goes"))
    assert len(changes) >= 10
    for change, files, _ in changes:
        assert CODE_PATH.findall(files), change
        assert missing_paths(files) == [], change
        assert missing_names(files) == [], change


def test_each_change_has_a_page() -> None:
    for change, _, page in rows(section(PAGE, "Where a change goes")):
        linked = re.findall(r"\]\(([^)#]+)", page)
        assert linked, change
        assert [name for name in linked if not (PAGE.parent / name).is_file()] == [], change


def test_every_path_on_the_page_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(CODE_PATH.findall(text)) > 40
    assert missing_paths(text) == []


def test_no_package_is_left_out() -> None:
    text = PAGE.read_text(encoding="utf-8")
    packages = [path.parent for path in (REPO / "yarnstore").glob("*/__init__.py")]
    packages += [path.parent for path in (REPO / "yarnstore" / "ops").glob("*/__init__.py")]
    packages.append(REPO / "yarnstore" / "native")
    assert len(packages) > 10
    for package in packages:
        assert f"`{package.relative_to(REPO).as_posix()}/`" in text, package.name
    for path in (REPO / "yarnstore").glob("[!_]*.py"):
        assert f"`{path.relative_to(REPO).as_posix()}`" in text, path.name


def test_each_stage_of_the_way_has_its_code() -> None:
    text = section(PAGE, "The way of a version")
    for stage, _, code in rows(text):
        assert stage in text.partition("| stage")[0], stage
        assert CODE_PATH.findall(code), stage


def test_the_terms_of_the_glossary_are_in_order_and_lead_to_code_that_exists() -> None:
    text = GLOSSARY.read_text(encoding="utf-8")
    assert missing_paths(text) == []
    for heading in ("Terms of users", "Terms of the code"):
        terms = [cells[0] for cells in rows(section(GLOSSARY, heading))]
        assert len(terms) > 15
        assert terms == sorted(terms)


def test_every_page_is_in_the_index() -> None:
    text = (REPO / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (REPO / "docs").glob("*.md")} - {"README.md"}
    assert {name for name in pages if f"({name})" not in text} == set()


def test_the_check_sees_a_missing_path(tmp_path: Path) -> None:
    assert missing_paths("see `yarnstore/no_such.py`", tmp_path) == ["yarnstore/no_such.py"]


def test_the_check_sees_a_missing_name(tmp_path: Path) -> None:
    (tmp_path / "yarnstore").mkdir()
    (tmp_path / "yarnstore" / "a.py").write_text("CHOICE = 1\n")
    text = "`yarnstore/a.py` (`CHOICE`), `yarnstore/a.py` (`OTHER`, of several)"
    assert missing_names(text, tmp_path) == ["yarnstore/a.py: OTHER"]
