"""The workflows of GitHub: what they may do, and what they leave where the source archive is built."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.meta.source import REPO

yaml = pytest.importorskip("yaml", reason="needs pip install pyyaml")

WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))


def steps(name: str) -> list[dict[str, Any]]:
    jobs: dict[str, Any] = yaml.safe_load((REPO / ".github" / "workflows" / name).read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_a_workflow_only_reads_the_repository_and_leaves_no_token_in_it() -> None:
    assert WORKFLOWS
    for path in WORKFLOWS:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}, path.name
        checkouts = [step for step in steps(path.name) if "checkout@" in step.get("uses", "")]
        assert checkouts
        assert all(step["with"]["persist-credentials"] is False for step in checkouts), path.name


def test_wheels_that_a_workflow_writes_are_no_part_of_the_source_archive() -> None:
    git = shutil.which("git")
    if not git or not (REPO / ".git").exists():
        pytest.skip("needs a clone")
    text = "\n".join(step.get("run", "") for step in steps("wheels.yml"))
    written = set(re.findall(r"(?:-w|--outdir) (\S+)", text))
    assert written
    for folder in written:  # hatchling leaves out what .gitignore names
        ignored = subprocess.run([git, "-C", REPO, "check-ignore", "-q", f"{folder}/x.whl"])
        assert ignored.returncode == 0, folder
