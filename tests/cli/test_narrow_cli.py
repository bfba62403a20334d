"""Narrow terminals, and colour: tables, the log and the bar fit; pipes get everything, uncoloured."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import YSTORE, Ystore
from tests.cli.terminal import lines_of, on_terminal
from yarnstore import Store
from yarnstore.cli.display import cells

LONG = "a-model-with-a-very-long-name-indeed-q4_k_m-instruct-2024-11"
TEXT = "Answers in whole sentences, also where the question came in several parts and languages 語彙"


@pytest.fixture
def store(ready: Ystore, tmp_path: Path) -> Ystore:
    """A registry and a store with a long id, long texts and several files."""
    root = tmp_path / "long"
    for version in ("1.0.0", "1.1.0"):
        source = tmp_path / version
        (source / "a-folder-in-the-model").mkdir(parents=True)
        (source / "weights.bin").write_bytes(version.encode() * 5_000)
        (source / "a-folder-in-the-model" / f"{'tokenizer' * 6}.json").write_text(version)
        Store.publish(
            source,
            f"{LONG}:cpu-int4@{version}",
            registry=root,
            changelog=f"{TEXT}\nAnd more",
            description=TEXT,
            category="language-model",
            minimum_ram_gb=1,
            recommended_ram_gb=900_000,
            compatibility=(">=1.0.0 <2.0.0", ">=3.0.0"),
        )
    assert ready("registry", "add", "long", root).code == 0
    assert ready("checkout", f"{LONG}@1.0.0", "--registry", "long").code == 0
    assert ready("checkout", "phi-3-mini@1.0.0").code == 0
    return ready


TABLES = [
    "list", "list --detailed", "list --all", "list --all --detailed", "outdated", "outdated --all",
    "outdated -v", f"compat {LONG}", f"compat {LONG} --app-version 1.5.0", "search", "registry list",
    f"log {LONG}", f"log -v {LONG}", f"log --moves {LONG}", f"inspect {LONG}@1.0.0", "status",
    f"diff {LONG}@1.0.0 @1.1.0", "queue", "auto-update status", "doctor", "gc --dry-run",
]  # fmt: skip


@pytest.mark.parametrize("width", [60, 40])
def test_tables_and_texts_fit_a_narrow_terminal(store: Ystore, width: int) -> None:
    store("fetch", "--queue", f"{LONG}@^1.0", "phi-3-mini@1.1.0")
    wide = []
    for command in TABLES:
        code, shown = on_terminal(command.split(), width=width)
        assert code in (0, 1, 6), (command, shown)
        lines = lines_of(shown)
        # Paths stay whole, since a cut one opens nothing, and on stderr ids, which are typed again.
        whole = [line for line in lines if "/" in line or line.strip() == LONG]
        wide += [(command, line) for line in lines if cells(line) > width and line not in whole]
        assert len(lines) > 1, command
    assert wide == []


def test_what_was_done_fits(store: Ystore) -> None:
    store("checkout", f"{LONG}@1.1.0")
    store("pin", f"{LONG}@1.0.0")
    for command in (["rollback", LONG], ["unpin", f"{LONG}@1.0.0"], ["pin", f"{LONG}@1.0.0"]):
        code, shown = on_terminal(command, width=60)
        assert code == 0, shown
        lines = lines_of(shown)
        assert len(lines) > 1
        wide = [line for line in lines if cells(line) > 60 and "/" not in line]
        assert wide == []


def test_ids_are_cut_in_the_middle_and_text_is_folded(store: Ystore) -> None:
    _, shown = on_terminal(["search"], width=60)
    lines = lines_of(shown)
    named = next(line for line in lines if "a-mode" in line)
    assert "…" in named
    assert named.split()[-1].endswith("2024-11")
    assert TEXT.split()[-2] in shown
    assert TEXT not in shown


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_the_bar_fits(store: Ystore, width: int) -> None:
    code, shown = on_terminal(["fetch", f"{LONG}@1.1.0"], width=width)
    assert code == 0
    lines = lines_of(shown)
    bars = [line for line in lines if "downloading a-" in line]
    assert bars, shown
    assert max(map(cells, bars)) <= width
    assert all("1.1.0" in line for line in bars), "the end of the subject is its version"
    assert ("━" in shown) == (width >= 60)
    assert ("/s" in "".join(bars)) == (width >= 80)


def test_what_is_piped_is_complete(store: Ystore) -> None:
    ran = subprocess.run(
        [*YSTORE, "search"], capture_output=True, text=True, check=True, env=None, timeout=60
    )
    row = next(line.split("\t") for line in ran.stdout.splitlines() if line.startswith(LONG))
    assert TEXT in row
    code, shown = on_terminal(["search", "--json"], width=40)
    assert code == 0
    assert {item["model"] for item in json.loads(shown)} == {LONG, "phi-3-mini"}


def test_errors_and_marks_are_coloured_on_a_terminal_alone(store: Ystore) -> None:
    for command, mark in ((["show", "none"], "error:"), (["log", LONG], "*")):
        _, shown = on_terminal(command)
        assert f"m{mark}\x1b[0m" in shown
        for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
            _, shown = on_terminal(command, **plain)
            assert mark in shown
            assert "\x1b" not in shown
        piped = subprocess.run([*YSTORE, *command], capture_output=True, text=True, check=False, timeout=60)
        assert "\x1b" not in piped.stdout + piped.stderr
