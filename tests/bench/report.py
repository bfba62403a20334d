"""The report of a run: tables on the terminal, docs/benchmarks.md with a plot for each, and JSON.

The page is made from `benchmarks.json`, which keeps each table with the run that measured it.  So a run of
some sections replaces those and leaves the others, and one that fails keeps what it has measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tests.bench.floors import cores
from tests.bench.plot import Bar, draw

_INTRO = """\
# Benchmarks

All figures are measured: `make bench` wrote this page, its plots and `benchmarks.json`.
Below each table is the run that measured it; times of different runs do not compare, since the load differs.
In commands, `PEER-PYTHON` is an interpreter with hf_xet and zipnn, and `YSTORE-OF-COMMIT` the `ystore` of a commit.

Figures of `ystore` are those of a whole process, including the start of the interpreter.
Times are medians of the rounds (`--repeats`, else 3), unless a table says otherwise; peak memory is the highest of all runs.
Sizes are in MB of 10⁶ bytes.
Files are read soon after they were written, so they come from the page cache.
A figure that misses its goal is **bold**.

| model | versions |
|---|---|
| `minilm-bf16` | all-MiniLM-L6-v2, rounded to bf16, 45.4 MB and 0.7 MB of other files: 1.0.0; 1.1.0, all weights fine-tuned (150 steps); 1.2.0, the last two layers fine-tuned further |
| `minilm-q4_0` | 1.0.0 and 1.1.0 of these as GGUF with Q4_0 |
| `magika-onnx` | Google's classifier of files, 3.2 MB, trained again for each version, so that deltas save almost nothing |
| `made-bf16-1gb`, `made-bf16-8gb` | generated bf16 weights (`fixtures/made.py`) of that size; in 1.1.0 each has moved by a random step, of deviation 0.00034 |
"""  # noqa: E501 - rows of a table are one line each


@dataclass(frozen=True)
class Table:
    """One question and its answer; the first column is text, `bars` are what is drawn of it."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    unit: str = ""
    mark: float | None = None  # where the plot has a line: the goal


@dataclass
class Report:
    """All tables of a run, and what they were made of; each is written into `out` as it is added."""

    command: str
    machine: str
    out: Path | None = None
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)  # by key, as benchmarks.json has them
    over: list[str] = field(default_factory=list)  # what took longer than its bound

    def add(self, table: Table, data: object) -> None:
        """Keep a table with its figures, print it and write it."""
        run = {"command": self.command, "machine": self.machine}
        self.tables[table.key] = {**_plain(table), "data": data, "run": run}
        print("\n".join(("", table.title, "", *_aligned(table), "", *table.notes)), flush=True)
        self.write()

    def write(self) -> None:
        """Update the page in `out`."""
        if self.out:
            _write(self.out, _kept(self.out) | self.tables)


def _kept(out: Path) -> dict[str, Any]:
    path = out / "benchmarks.json"
    return json.loads(path.read_bytes())["tables"] if path.exists() else {}


def _write(out: Path, tables: dict[str, dict[str, Any]]) -> None:
    """Write benchmarks.json, then benchmarks.md and benchmarks/*.svg from what it holds."""
    plots = out / "benchmarks"
    plots.mkdir(parents=True, exist_ok=True)
    document = json.dumps({"tables": tables}, indent=1, default=_plain) + "\n"
    (out / "benchmarks.json").write_text(document, "utf-8")
    for old in plots.glob("*.svg"):
        old.unlink()
    parts = [_INTRO]
    for key, kept in json.loads(document)["tables"].items():
        run = kept.pop("run")
        del kept["data"]
        table = msgspec.convert(kept, Table)
        parts += [f"## {table.title}\n", "\n".join(_markdown(table)), ""]
        if table.notes:
            parts += ["\n".join(table.notes), ""]
        parts += [f"`{run['command']}`, {run['machine']}", ""]
        if table.bars:
            plot = plots / f"{key}.svg"
            plot.write_text(draw(table.title, table.bars, table.unit, table.mark), "utf-8")
            parts += [f"![{table.title}](benchmarks/{plot.name})", ""]
    (out / "benchmarks.md").write_text("\n".join(parts).rstrip() + "\n", "utf-8")


def machine() -> str:
    """The machine, the day and the commit, as one line."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    load = os.getloadavg()[0]
    return (
        f"{cpu}, {cores()} cores, {platform.system()}, Python {platform.python_version()}, {day}, "
        f"commit {_commit()}; load average before: {load:.1f}."
    )


def _commit() -> str:
    git = ("git", "describe", "--always", "--dirty", "--abbrev=7")
    try:
        return (
            subprocess.run(git, cwd=Path(__file__).parent, capture_output=True, text=True).stdout.strip()
            or "–"
        )
    except OSError:
        return "–"


def _plain(value: object) -> Any:
    if isinstance(value, Path):
        return "/".join(value.parts[-3:])  # model, version and file, of whatever machine
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)  # type: ignore[call-overload]


def _aligned(table: Table) -> list[str]:
    lines: list[Sequence[str]] = [table.columns, *table.rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(table.columns))]

    def row(line: Sequence[str]) -> str:
        first = line[0].ljust(widths[0])
        return "  ".join([first, *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])

    return [row(lines[0]), "  ".join("-" * width for width in widths), *map(row, lines[1:])]


def _markdown(table: Table) -> list[str]:
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    return [f"| {' | '.join(table.columns)} |", rule, *(f"| {' | '.join(row)} |" for row in table.rows)]


# --- figures for people ------------------------------------------------------------------------


def seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s"


def times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ×"


def marked(text: str, goal: str) -> str:
    """A figure, in bold type where it is over the goal as both are printed."""
    over = "–" not in (text, goal) and float(text.split()[0]) > float(goal.split()[0])
    return bold(text, over)


def bold(text: str, misses_goal: bool) -> str:
    """A figure, in bold type if it misses its goal."""
    return f"**{text}**" if misses_goal else text


def megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value / 1e6:.1f}"


def mebibytes(value: float) -> str:
    return f"{value / (1 << 20):.0f} MiB"


def percent(part: float | None, whole: float) -> str:
    if part is None:
        return "–"
    share = 100 * part / whole
    return f"{share:.{1 if share == 0 or share >= 1 else 2}f} %"
