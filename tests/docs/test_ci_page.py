"""docs/ci.md runs: its steps as they stand there, one after the other, against a registry of made models."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REPO, blocks
from tests.support.stores import make_version
from yarnstore import Store

PAGE = REPO / "docs" / "ci.md"
# What is not ours, and not on this machine.
FOREIGN = ("pip ", "aws ", "git ")


def steps(workflow: str) -> list[str]:
    """The scripts of a workflow's `run:` steps, in order."""
    found: list[str] = []
    lines = workflow.splitlines()
    for number, line in enumerate(lines):
        match = re.match(r"^( +(?:- )?)run: (.*)$", line)
        if match and match[2] == "|":
            inner = re.compile(rf"^ {{{len(match[1]) + 1},}}\S|^$")
            script = itertools.takewhile(inner.match, lines[number + 1 :])
            found.append("\n".join(part.strip() for part in script))
        elif match:
            found.append(match[2])
    return found


def job(name: str) -> list[str]:
    (workflow,) = [block for block in blocks(PAGE, "yaml") if block.startswith(f"name: {name}\n")]
    return [step for step in steps(workflow) if not step.startswith(FOREIGN)]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a `VERSION`, and the registry that is served."""
    served, work = tmp_path / "served", tmp_path / "work"
    for spec in ("phi-3-mini@1.0.0", "phi-3-mini@1.1.0", "whisper:cpu-int8@3.1.0"):
        source = make_version(tmp_path / "sources" / spec, spec)
        Store.publish(source, spec, registry=served, changelog="New", compatibility=(">=1.0.0",))
    Store.set_alias("whisper", "stable", "3.1.0", registry=served)
    work.mkdir()
    (work / "VERSION").write_text("1.5.0\n")
    script(work / "run-tests.sh", 'test -e "$MODEL"')
    script(work / "build-model.sh", 'cp -r ../sources/phi-3-mini@1.1.0 "$1" && echo new > "$1/new.txt"')
    script(work / "upload.sh", f'cp -r "$1"/. {served}/')
    shell = f'exec "{sys.executable}" -m yarnstore "$@"'
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "ystore", shell)
    monkeypatch.chdir(work)
    return tmp_path


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\nset -e\n{text}\n")
    path.chmod(0o755)


def run(site: Path, step: str, **variables: str) -> str:
    ran = subprocess.run(
        ["bash", "-e", "-c", step.replace("https://models.example.org/", str(site / "served"))],
        env={
            **os.environ,
            "PATH": f"{site / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPO),
            "YSTORE_HOME": str(site / "home"),
            "GITHUB_OUTPUT": str(site / "output"),
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, f"{step}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


def test_the_pipelines_run(site: Path) -> None:
    words = [line.removeprefix("$ ") for block in blocks(PAGE) for line in block.splitlines()]
    for line in words:
        if not line.startswith(FOREIGN):
            run(site, line)
    assert Path("ystore.lock").exists()
    shutil.rmtree(site / "home")  # as on another runner

    tested = job("test")
    assert len(tested) == 5
    for step in tested:
        run(site, step)
    assert re.fullmatch(r"digest=sha256:[0-9a-f]{64}\n", (site / "output").read_text())

    shutil.copytree(site / "served", "registry")
    published = job("publish")
    assert len(published) == 7
    inputs = {"VERSION": "1.2.0", "NOTES": "Better dialogue", "REPLACES": "1.1.0"}
    assert all(published)
    told = [run(site, step, **inputs) for step in published]
    assert told[3] == "", "lint finds nothing"
    versions = json.loads((site / "served" / "registry.json").read_text())["models"]["phi-3-mini"]["versions"]
    assert (versions["1.1.0"]["deprecated"], versions["1.1.0"]["replaced_by"]) == (True, "1.2.0")

    (update,) = [step for step in job("models") if "lock" in step]
    assert "1.2.0" in run(site, update)
