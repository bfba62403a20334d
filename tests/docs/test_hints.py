"""Messages of the source name commands that can be typed: every `ystore …` in a string is parsed by click."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.docs.cli_reference import commands
from tests.docs.pages import command_fault
from tests.meta.source import MODULES, Module
from yarnstore.cli import cli

# What stands for a value that is not known before the message is made.
VALUE = "X"
COMMAND = re.compile(
    r"`(ystore [^`\n]+)`"  # in a sentence
    r"|(?:^|\n|\(|: )[ $]*(ystore [a-z][^`;)\n]*)"  # a line, or the end of one
)
OPTION = re.compile(r"(?<![\w./-])--[a-z][a-z0-9-]+")
# Options of other programs: of timers, notifications and NetworkManager, and those that pytest gets.
OTHERS = {"--now", "--user", "--bind", "--app-name", "--auto-start", "--smoke-test"}
OTHERS |= {"--ystore-home", "--ystore-skip-missing"}


def strings(module: Module) -> Iterator[tuple[int, str]]:
    """The line and the text of each string, with `VALUE` for what is put in; docstrings among them."""
    inner: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(part) for part in node.values}
            parts = [str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


def faults_of(module: Module) -> list[str]:
    """The commands in a module's strings that `ystore` does not accept."""
    faults = []
    for line, text in strings(module):
        for found in COMMAND.finditer(text):
            command = (found[1] or found[2]).strip()
            if not set("…|") & set(command) and (fault := command_fault(shlex.split(command)[1:])):
                faults.append(f"{module.name}:{line} {command}: {fault}")
    return faults


def unknown_options(module: Module) -> list[str]:
    """The options in a module's strings that no command has."""
    every = [cli, *(command for _, command in commands(cli))]
    known = {name for command in every for option in command.params for name in option.opts}
    known |= {"--help", *OTHERS}
    return [
        f"{module.name}:{line} {option}"
        for line, text in strings(module)
        for option in OPTION.findall(text)
        if option not in known
    ]


def test_every_command_in_a_message_can_be_typed() -> None:
    assert [fault for module in MODULES for fault in faults_of(module)] == []


def test_every_option_in_a_message_exists() -> None:
    assert [fault for module in MODULES for fault in unknown_options(module)] == []


def test_the_messages_are_found() -> None:
    found = [text for module in MODULES for _, text in strings(module) if COMMAND.search(text)]
    assert len(found) > 150, "checker is broken"


@pytest.mark.parametrize(
    "text",
    [
        '"`ystore fetsch a`"',
        '"`ystore gc --kep 1` frees space"',
        '"add one: ystore registry ad NAME URL"',
        'f"   (back: ystore rolback {model})"',
        'f"`ystore registry yank {model}@{version} --undo`"',  # without --registry
        '"""ystore move\\nystore path a b"""',
    ],
)
def test_the_check_sees_a_command_that_does_not_exist(text: str) -> None:
    assert faults_of(Module("x", f"hint = {text}")), "checker is broken"


def test_the_check_sees_an_option_that_does_not_exist() -> None:
    assert unknown_options(Module("x", 'hint = "use --fource"')), "checker is broken"


@pytest.mark.parametrize(
    "text",
    [
        'f"`ystore registry {verb} {model}@{version} --undo --registry DIR`"',
        'f"`ystore checkout {model}:{variant}@{version}` ignores it"',
        '"start `ystore serve` again, with --read-only"',
        'f"(ystore update {major}{model})"',
    ],
)
def test_the_check_lets_other_messages_be(text: str) -> None:
    module = Module("x", f"hint = {text}")
    assert faults_of(module) == []
    assert unknown_options(module) == []
