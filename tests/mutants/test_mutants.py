"""T19: the tests themselves.  Each mutant lacks one check, one sync or one order, and a named test fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.runner import FAILED, PASSED, REPO, copy_project, find_source, mutate, run_tests
from tests.mutants.table import MUTANTS, Mutant


def mutant_id(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "-")


@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_id)
def test_a_mutant_is_of_this_source_and_its_tests_are_there(mutant: Mutant) -> None:
    find_source(REPO, mutant)
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (REPO / file).read_text(encoding="utf-8"), test


def test_names_are_distinct_and_there_are_enough() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 15


@pytest.mark.deep
def test_without_a_mutation_the_named_tests_pass(tmp_path: Path) -> None:
    tests = sorted({test for mutant in MUTANTS for test in mutant.tests})
    code, output = run_tests(copy_project(tmp_path / "project"), tests)
    assert code == PASSED, output
    if "SKIPPED" in output:
        pytest.skip(output)


@pytest.mark.deep
@pytest.mark.parametrize("mutant", MUTANTS, ids=mutant_id)
def test_a_mutant_is_killed(mutant: Mutant, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    mutate(project, mutant)
    code, output = run_tests(project, mutant.tests)
    if code == PASSED and "SKIPPED" in output:
        pytest.skip(output)
    assert code == FAILED, output
