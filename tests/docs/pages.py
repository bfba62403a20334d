"""Code blocks of the documents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from yarnstore.cli import cli

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


def command_fault(words: Sequence[str]) -> str:
    """Why `ystore` does not accept a command line, empty if it does; `X` stands for any command of a group.

    A mention without arguments, such as `ystore fetch`, need not be complete.
    """
    return _fault(cli, "ystore", list(words))


def _fault(command: click.Command, name: str, words: list[str]) -> str:
    if isinstance(command, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(command, info_name=name)
        names = command.list_commands(context) if words[0] == "X" else [words[0]]
        below = [(each, command.get_command(context, each)) for each in names]
        faults = [_fault(found, each, words[1:]) if found else f"no command {each}" for each, found in below]
        return min(faults, key=len)
    known = {option for parameter in command.params for option in parameter.opts} | {"-h", "--help"}
    own = words[: words.index("--")] if "--" in words else words
    given = {word.partition("=")[0] for word in own if word.startswith("-") and len(word) > 1}
    if not given <= known:
        return f"no option {', '.join(sorted(given - known))}"
    if len(words) <= len(given):
        return ""
    try:
        command.make_context(name, [word for word in words if word not in ("-h", "--help")])
    except click.ClickException as fault:
        return fault.format_message()
    return ""
