"""Skips on Windows the tests of `skips.txt`, each with its reason; tests/conftest.py loads it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SKIPS = Path(__file__).with_name("skips.txt")


def read_skips(text: str) -> dict[str, str]:
    """Return the reason of each test, by its path and name; of a whole file, by its path."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            test, _, reason = line.partition("  ")
            found[test] = reason.strip()
    return found


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Do not import files that are skipped as a whole: some import what Windows does not have."""
    place = os.path.relpath(collection_path, REPO).replace(os.sep, "/")
    return (
        True if sys.platform == "win32" and place in read_skips(SKIPS.read_text(encoding="utf-8")) else None
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that are skipped."""
    skips = read_skips(SKIPS.read_text(encoding="utf-8"))
    for item in items if sys.platform == "win32" else []:
        place = os.path.relpath(item.path, REPO).replace(os.sep, "/")
        name = getattr(item, "originalname", item.name)
        for key in (f"{place}::{item.name}", f"{place}::{name}"):
            if key in skips:
                item.add_marker(pytest.mark.skip(reason=skips[key]))
