"""The case scripts, each a test of its own, where their folder is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cases.scripts import case_name, case_scripts, cases_root, run_case


def test_the_folder_of_the_scripts_is_here() -> None:
    if not case_scripts():
        pytest.skip(f"no case scripts in {cases_root()}: YSTORE_TEST_CASES names their folder")


@pytest.mark.deep  # `make cases` runs them; the project's own tests have their scenarios
@pytest.mark.parametrize("script", case_scripts(), ids=case_name)
def test_a_case_ends_right(script: Path) -> None:
    outcome = run_case(script)
    if outcome.word == "not here":
        pytest.skip(outcome.why)
    assert outcome.word == "right", outcome.output
