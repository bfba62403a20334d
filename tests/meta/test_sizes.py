"""Modules stay small, and none is a drawer for what has no place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.meta.source import MODULES, Module, module_id

LIMIT_LINES = 500
DRAWERS = ("utils", "util", "helpers", "misc", "common")


def size_faults(module: Module) -> Iterator[str]:
    """A module too long to read, or named for nothing."""
    lines = len(module.text.splitlines())
    if lines > LIMIT_LINES:
        yield f"{module.name} has {lines} lines, {LIMIT_LINES} at most"
    if set(module.name.split(".")) & set(DRAWERS):
        yield f"{module.name}: name it for what it does"


@pytest.mark.parametrize("module", MODULES, ids=module_id)
def test_module_is_small_and_has_a_place(module: Module) -> None:
    assert list(size_faults(module)) == []


def test_the_check_sees_a_long_module() -> None:
    assert list(size_faults(Module("yarnstore.core.x", "\n" * 501))), "checker is broken"
    assert list(size_faults(Module("yarnstore.core.x", "\n" * 500))) == []


@pytest.mark.parametrize("name", ["yarnstore.utils", "yarnstore.utils.text", "yarnstore.core.utils"])
def test_the_check_sees_a_drawer(name: str) -> None:
    assert list(size_faults(Module(name, ""))), "checker is broken"
