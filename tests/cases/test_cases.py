"""The case scripts, each a test of its own, where their folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases.scripts import case_name, case_scripts, cases_root, run_case


def test_the_folder_of_the_scripts_is_here() -> None:
    if not case_scripts():
        pytest.skip(f"no case scripts in {cases_root()}: YSTORE_TEST_CASES names their folder")


# These take most of the time, and the project's own tests have their scenarios: `make cases` runs all.
_LONG = (
    "attack/01-gc-through-linked-folders",
    "attack/02-fsck-false-alarm-beside-writers",
    "attack/03-repair-does-not-keep-a-view-for-a-day",
    "attack/04-extra-file-in-a-view",
    "attack/05-broken-view-is-served",
    "attack/10-gc-takes-the-view-that-path-gave",
)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(script, marks=[pytest.mark.deep] if case_name(script) in _LONG else [])
        for script in case_scripts()
    ],
    ids=case_name,
)
def test_a_case_ends_right(script: Path) -> None:
    outcome = run_case(script)
    if outcome.word == "not here":
        pytest.skip(outcome.why)
    assert outcome.word == "right", outcome.output
