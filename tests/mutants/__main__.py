"""`python -m tests.mutants [WORD…]`: run the mutants whose names hold every word, and tell which lived."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.mutants.runner import FAILED, copy_project, mutate, run_tests
from tests.mutants.table import MUTANTS


def main(words: list[str]) -> int:
    """The exit code: 1 where one lived."""
    lived = 0
    for mutant in MUTANTS:
        if not all(word in mutant.name for word in words):
            continue
        with tempfile.TemporaryDirectory(prefix="ystore-mutant-") as place:
            project = copy_project(Path(place) / "project")
            mutate(project, mutant)
            code, output = run_tests(project, mutant.tests)
        killed = code == FAILED
        lived += not killed
        tail = "" if killed else f"\n{output}"
        print(f"{'killed' if killed else 'LIVED'}  {mutant.name}{tail}", flush=True)
    return 1 if lived else 0


sys.exit(main(sys.argv[1:]))
