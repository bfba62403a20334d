"""Runs the project's own tests on copies of it from which one check was taken away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.table import Mutant

REPO = Path(__file__).resolve().parents[2]
PACKAGE = "yarnstore"
_TIMEOUT_S = 300.0
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
# pytest's exit codes: every test passed, a test failed.
PASSED, FAILED = 0, 1


def copy_project(target: Path) -> Path:
    """The package and its tests, to be changed."""
    shutil.copytree(REPO, target, ignore=_LEFT_OUT)
    return target


def find_source(project: Path, mutant: Mutant) -> Path:
    """The one module that has the mutant's text, wherever it lies now.

    Raises: LookupError where none has it, or it is there twice.
    """
    found = {
        path: count
        for path in sorted((project / PACKAGE).rglob("*.py"))
        if (count := path.read_text(encoding="utf-8").count(mutant.before))
    }
    if list(found.values()) != [1]:
        where = ", ".join(str(path.relative_to(project)) for path in found) or "no module"
        raise LookupError(
            f"mutant {mutant.name!r}: its text is in {where}, not in one place; "
            f"write in tests/mutants/table.py what it is now:\n{mutant.before}"
        )
    return next(iter(found))


def mutate(project: Path, mutant: Mutant) -> None:
    """Take the check away in a copy.  Raises: LookupError, SyntaxError."""
    path = find_source(project, mutant)
    text = path.read_text(encoding="utf-8").replace(mutant.before, mutant.after)
    compile(text, str(path), "exec")
    path.write_text(text, encoding="utf-8")


def run_tests(project: Path, tests: Sequence[str]) -> tuple[int, str]:
    """pytest's exit code and output, for tests of a copy that import the copy's package."""
    env = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    env.pop("HYPOTHESIS_PROFILE", None)  # the tests named are quick ones
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-rs", *tests],
            cwd=project, env=env, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return FAILED, f"no end after {error.timeout:.0f} s"
    return done.returncode, done.stdout + done.stderr
