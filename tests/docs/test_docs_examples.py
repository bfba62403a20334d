"""The examples run: the Python pages against a served registry, the demo, and the README's tour."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import REPO, blocks, shown_commands
from tests.support.servers import static_server
from yarnstore import Store

PYTHON_PAGES = ("docs/python.md", "README.md")


def run_examples(page: Path, models: Path, folder: Path) -> str:
    """Run a page's Python blocks as one program in `folder`; what they print."""
    registry = folder / "served"
    for version in ("1.0.0", "1.1.0"):
        Store.publish(models / "phi-3-mini" / version, f"phi-3-mini@{version}", registry=registry)
    (folder / "my-model").mkdir()
    (folder / "my-model" / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    with static_server(registry) as url:
        if page.name == "README.md":
            store = Store.open(folder / "home")
            store.add_registry("yarn", url)
            store.checkout("phi-3-mini@1.0.0")
        program = "\n".join(blocks(page, "python")).replace("https://models.example.org/", url)
        environment = {**os.environ, "YSTORE_HOME": str(folder / "home")}
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout


def test_the_python_page_runs(made_models: Path, tmp_path: Path) -> None:
    told = run_examples(REPO / "docs" / "python.md", made_models, tmp_path)
    assert "phi-3-mini 1.0.0 → 1.1.0 minor" in told
    assert "['1.1.0', '1.0.0']" in told
    assert "('rollback', '1.1.0', '1.0.0')" in told
    assert "write phi-3-mini 1.1.0: 100%" in told or "every chunk is here" in told or "['phi-3-mini']" in told
    assert "\n['phi-3-mini']\n" in told
    assert "\n[]\n" in told


def test_the_readme_example_runs(made_models: Path, tmp_path: Path) -> None:
    told = run_examples(REPO / "README.md", made_models, tmp_path).splitlines()
    assert told[0].startswith("phi-3-mini 1.0.0 → 1.1.0 minor ")
    assert told[1] == str((tmp_path / "home" / "models" / "phi-3-mini").resolve())


# --- the demo ----------------------------------------------------------------------------------


def run_demo(scratch: Path, script: Path = REPO / "fixtures" / "demo.sh") -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "TMPDIR": str(scratch)}
    return subprocess.run(
        ["bash", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the demo prints."""
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as scratch:
        ran = run_demo(Path(scratch))
        assert ran.returncode == 0, ran.stderr + ran.stdout[-2000:]
        assert os.listdir(scratch) == [], "the demo leaves something behind"
    return ran.stdout


def masked(line: str) -> str:
    """A line without numbers, times and temporary paths; version numbers stay."""
    line = re.sub(r"/\S*/store", "STORE", line)
    line = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "SERVER", line)
    line = re.sub(r"\b\d+(\.\d+)? (B|kB|MB|GB|s|ms)\b", "N", line)
    line = re.sub(r"\b\d\d:\d\d\b", "TIME", line)
    line = re.sub(r"(\d+ minutes? ago|just now)", "RECENTLY", line)
    line = re.sub(r"(?<![\w.])\d+(?![\w.])", "N", line)
    return re.sub(r" {2,}", "  ", line.rstrip())


def test_the_demo_shows_what_it_promises(demo: str) -> None:
    assert "FAILED" not in demo
    for words in (
        *("publish", "registry add", "search", "fetch", "checkout", "update", "log", "rollback", "list"),
        *("gc --keep 1", "fsck", "status"),
    ):
        assert f"\n$ ystore {words}" in demo
    assert "nothing downloaded" in demo
    assert "error" not in demo


def test_the_tour_of_the_readme_is_what_the_demo_prints(demo: str) -> None:
    real = [masked(line) for line in demo.splitlines()]
    tour = [(command, lines) for command, lines in shown_commands(REPO / "README.md") if lines]
    assert len(tour) >= 6
    for command, lines in tour:
        start = real.index(masked(f"$ {command}"))
        expected = [masked(line) for line in lines]
        assert real[start + 1 : start + 1 + len(lines)] == expected, command


def test_masking_keeps_what_is_said() -> None:
    assert (
        masked("phi 1.0.0: 18.4 MB of 23.8 MB in 0.4 s; 3 of 12 chunks")
        == "phi 1.0.0: N of N in N; N of N chunks"
    )
    assert masked("09:03  rollback  1.1.0 → 1.0.0") == "TIME  rollback  1.1.0 → 1.0.0"


def test_a_failing_step_fails_the_demo_and_leaves_nothing(tmp_path: Path) -> None:
    text = (REPO / "fixtures" / "demo.sh").read_text(encoding="utf-8")
    broken = tmp_path / "fixtures" / "demo.sh"
    broken.parent.mkdir()
    broken.write_text(text.replace("run ystore registry add yarn", "run ystore registry ad yarn"))
    (broken.parent / "made.py").write_bytes((REPO / "fixtures" / "made.py").read_bytes())
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    ran = run_demo(scratch, broken)
    assert ran.returncode == 2
    assert "the demo FAILED" in ran.stderr
    assert os.listdir(scratch) == []
