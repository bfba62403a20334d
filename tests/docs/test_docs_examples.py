"""The examples run: the Python pages against a served registry, the demo, and the README's tour."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.docs.pages import REPO, blocks, shown_commands
from tests.support.servers import static_server
from tests.support.services import needs_web
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
        if page.name != "python.md":
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
    assert (
        "write phi-3-mini 1.1.0: 100%" in told
        or "all chunks already stored" in told
        or "['phi-3-mini']" in told
    )
    assert "\n['phi-3-mini']\n" in told
    assert "\n[]\n" in told


@needs_web
def test_the_client_page_runs(made_models: Path, tmp_path: Path) -> None:
    told = run_examples(REPO / "docs" / "client.md", made_models, tmp_path)
    assert "phi-3-mini 1.0.0 → 1.1.0 minor" in told
    assert "rolled back to 1.0.0" in told
    assert "not-found no model" in told


def test_the_readme_example_runs(made_models: Path, tmp_path: Path) -> None:
    told = run_examples(REPO / "README.md", made_models, tmp_path).splitlines()
    assert told[0].startswith("phi-3-mini 1.0.0 → 1.1.0 minor ")
    assert told[1] == str((tmp_path / "home" / "models" / "phi-3-mini").resolve())


# --- the demo ----------------------------------------------------------------------------------


TOOLS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def run_demo(
    scratch: Path, script: Path = REPO / "fixtures" / "demo.sh", *, kept: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": TOOLS, "TMPDIR": str(scratch), "DEMO_DIR": str(kept or "")}
    return subprocess.run(
        ["bash", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the demo is told to leave behind."""
    return tmp_path_factory.mktemp("demo") / "tour"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, kept: Path) -> str:
    """What the demo prints."""
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as scratch:
        ran = run_demo(Path(scratch), kept=kept)
        assert ran.returncode == 0, ran.stderr + ran.stdout[-2000:]
        assert os.listdir(scratch) == [], "the demo leaves something behind"
    return ran.stdout


def masked(line: str) -> str:
    """A line without numbers, times and temporary paths; version numbers stay."""
    line = re.sub(r"/\S*/(my-|other-)?store", "STORE", line)
    line = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", line)
    line = re.sub(r"127\.0\.0\.1:\d+", "SERVER", line)
    line = re.sub(r"\b\d+(\.\d+)? (B|kB|MB|GB|s|ms)\b", "N", line)
    line = re.sub(r"\b\d\d:\d\d\b", "TIME", line)
    line = re.sub(r"(\d+ minutes? ago|just now)", "RECENTLY", line)
    line = re.sub(r"(?<![\w.])\d+(?![\w.])", "N", line)
    return re.sub(r" {2,}", "  ", line.rstrip())


def typed(commands: list[str], folder: Path) -> list[list[str]]:
    """Run commands one after the other in one shell, as a person types them; what each prints."""
    marker = "--- next command ---"
    script = "\n".join(f"echo '{marker}'\n{command}" for command in commands)
    environment = {**os.environ, "PATH": TOOLS, "YSTORE_OUTPUT": "people"}
    ran = subprocess.run(
        ["bash", "-e", "-c", f"exec 2>&1\n{script}"],
        cwd=folder,
        env={name: value for name, value in environment.items() if name != "YSTORE_HOME"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return [part.strip("\n").splitlines() for part in ran.stdout.split(f"{marker}\n")[1:]]


def assert_printed(steps: list[tuple[str, list[str]]], folder: Path) -> None:
    """Type commands one after the other: each prints what is shown below it, but for numbers and times."""
    printed = typed([command for command, _ in steps], folder)
    for (command, lines), real in zip(steps, printed, strict=True):
        shown = [line for line in lines if line]
        assert [masked(line) for line in real if line] == [masked(line) for line in shown], command


def test_a_first_model_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    steps = shown_commands(REPO / "docs" / "first-model.md")
    assert sum(bool(lines) for _, lines in steps) >= 10
    assert_printed(steps, tmp_path)
    assert os.listdir(tmp_path) == [], "the last step deletes everything"


def test_the_page_on_publishing_runs_in_its_order(made_models: Path, tmp_path: Path) -> None:
    for version in ("1.0", "1.1"):
        (tmp_path / f"phi-3-mini-{version}").symlink_to(made_models / "phi-3-mini" / f"{version}.0")
    (tmp_path / "my-chat").symlink_to(made_models / "phi-3-mini" / "1.1.0")
    own = [c for c, _ in shown_commands(REPO / "docs" / "publishing.md") if "ystore " in c]
    assert len(own) == 13
    (tmp_path / "registry").mkdir()
    with static_server(tmp_path / "registry") as url:
        local = [c.replace("http://127.0.0.1:8000/", url) for c in own]
        commands = [f'export YSTORE_HOME="{tmp_path}/home"']
        commands += [c.replace("https://models.example.org/", url) for c in local]
        typed(commands, tmp_path)
    entry = json.loads((tmp_path / "registry" / "registry.json").read_text())["models"]["phi-3-mini"]
    assert entry["current_version"] == "1.1.0"
    assert entry["versions"]["1.0.0"]["replaced_by"] == "1.1.0"
    assert entry["versions"]["1.0.0"]["yanked"] is True


def test_the_demo_shows_what_it_promises(demo: str) -> None:
    assert "FAILED" not in demo
    for words in (
        *("publish", "registry add", "search", "fetch", "checkout", "update", "log", "rollback", "list"),
        *("gc --keep 1", "fsck", "status"),
    ):
        assert f"\n$ ystore {words}" in demo
    assert "nothing downloaded" in demo
    assert "error" not in demo


def test_the_demo_leaves_its_registry_and_store_in_the_folder_that_is_named(demo: str, kept: Path) -> None:
    assert str(kept) in demo
    assert (kept / "registry" / "registry.json").is_file()
    with Store.open(kept / "store") as store:
        (update,) = store.check_for_updates("phi-3-mini")
        assert (update.installed, update.wanted, update.kind) == ("1.0.0", "1.2.0", "security")
        assert store.get_version_history("phi-3-mini").moves[-1].operation == "rollback"
    assert f"ystore serve --open --home {kept}/store\n" in demo


def test_the_tour_of_the_readme_can_be_typed_as_it_stands(demo: str, kept: Path) -> None:
    assert demo
    tour = [step for step in shown_commands(REPO / "README.md") if not step[0].startswith("make ")]
    assert sum(bool(lines) for _, lines in tour) >= 6
    assert_printed(tour, kept.parent)


def test_masking_keeps_what_is_said() -> None:
    assert (
        masked("phi 1.0.0: 18.4 MB of 23.8 MB in 0.4 s; 3 of 12 chunks")
        == "phi 1.0.0: N of N in N; N of N chunks"
    )
    assert masked("09:03  rollback  1.1.0 → 1.0.0") == "TIME  rollback  1.1.0 → 1.0.0"


def test_the_demo_deletes_its_folder_and_overwrites_none(tmp_path: Path) -> None:
    text = (REPO / "fixtures" / "demo.sh").read_text(encoding="utf-8")
    short = tmp_path / "demo.sh"
    short.write_text(text.partition('say "A generated model')[0])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert run_demo(scratch, short).returncode == 0
    assert os.listdir(scratch) == []
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    ran = run_demo(scratch, short, kept=full)
    assert (ran.returncode, os.listdir(full)) == (2, ["mine.txt"])
    assert "is not empty" in ran.stderr


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
