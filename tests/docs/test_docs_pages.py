"""The documents say what is so: commands exist, pages are current, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tests.docs.cli_reference import DOCS, PAGES, commands
from tests.docs.pages import PAGES as EVERY_PAGE
from tests.docs.pages import REPO, command_fault, shown_commands
from yarnstore.cli import cli


@pytest.mark.parametrize("name", PAGES)
def test_the_made_pages_are_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_no_command_and_no_option_is_undocumented() -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    found = list(commands(cli))
    assert len(found) >= 20
    for path, command in found:
        heading = re.search(rf"^###? {re.escape(path)}$(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
        assert heading, f"{path} is not in docs/cli.md"
        for option in command.params:
            if isinstance(option, click.Option):
                assert option.opts[-1] in page, f"{path} {option.opts[-1]}"


def ystore_commands(page: Path) -> list[list[str]]:
    """The command lines of `ystore` that a page shows, in blocks and in the text."""
    text = page.read_text(encoding="utf-8")
    lines = [command for command, _ in shown_commands(page)]
    lines += [span for span in re.findall(r"`(ystore [^`]+)`", text) if "…" not in span]
    found = []
    for line in lines:
        for part in re.split(r"\s*(?:&&|\||#)\s*", line):
            words = shlex.split(part) if part.count("'") % 2 == 0 else []
            if words and words[0] == "ystore":
                found.append(words[1:])
    return found


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_commands_that_pages_show_can_be_parsed(page: Path) -> None:
    for words in ystore_commands(page):
        assert command_fault(words) == "", f"{page.name}: ystore {' '.join(words)}"


def test_the_command_check_sees_what_is_wrong(tmp_path: Path) -> None:
    for line in ("ystore fetsch a", "ystore gc --kep 1", "ystore registry ad x y"):
        page = tmp_path / "page.md"
        page.write_text(f"```\n$ {line}\n```\n")
        with pytest.raises(AssertionError):
            test_commands_that_pages_show_can_be_parsed(page)


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("0*.md")), ids=lambda page: page.name)
def test_a_decision_has_its_options_and_its_cost(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in ("Decided", "Options", "Cost"):
        assert f"\n**{part}.**" in text, f"{page.name}: no {part}"


@pytest.mark.parametrize("page", sorted((DOCS / "format").glob("*.md")), ids=lambda page: page.name)
def test_tables_of_formats_have_the_types_of_their_fields(page: Path) -> None:
    heads = re.findall(r"^(\|.*\|)\n\|---", page.read_text(encoding="utf-8"), re.MULTILINE)
    for head in heads:
        cells = [cell.strip() for cell in head.strip("|").split("|")]
        if any(cell.startswith(("field", "offset", "path", "file")) for cell in cells):
            assert "type" in cells, f"{page.name}: {head}"


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            found = page.parent / name if name else page
            assert found.exists(), f"{page.relative_to(REPO)} → {target}"
            assert not anchor or anchor in anchors(found), f"{page.relative_to(REPO)} → {target}"


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
