"""docs/benchmarks.md is what its JSON holds, a partial run keeps the other tables, and the parts that only
`make bench` runs still fit the code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.bench import scale
from tests.bench.report import Report, Table

DOCS = Path(__file__).parents[2] / "docs"


def test_a_partial_run_replaces_its_tables_and_keeps_the_others(tmp_path: Path) -> None:
    shutil.copy(DOCS / "benchmarks.json", tmp_path)
    before = json.loads((tmp_path / "benchmarks.json").read_bytes())["tables"]
    report = Report("make bench", "a machine", tmp_path)
    report.add(Table("startup", "Start-up", ("command", "process"), [("ystore log", "1 ms")]), {"log": 0.001})
    after = json.loads((tmp_path / "benchmarks.json").read_bytes())["tables"]
    assert list(after) == list(before)
    assert {key for key in after if after[key] != before[key]} == {"startup"}
    assert "| ystore log | 1 ms |" in (tmp_path / "benchmarks.md").read_text()


def test_the_page_is_what_its_json_holds(tmp_path: Path) -> None:
    tables = json.loads((DOCS / "benchmarks.json").read_bytes())["tables"]
    last = list(tables)[-1]
    shutil.copy(DOCS / "benchmarks.json", tmp_path)
    report = Report("", "", tmp_path)
    report.tables[last] = tables[last]
    report.write()
    assert (tmp_path / "benchmarks.md").read_text() == (DOCS / "benchmarks.md").read_text()
    for plot in (DOCS / "benchmarks").iterdir():
        assert (tmp_path / "benchmarks" / plot.name).read_text() == plot.read_text()


def test_the_parts_of_the_benchmark_at_scale_run_on_a_thousand_chunks(tmp_path: Path) -> None:
    scale.make(1000, tmp_path)
    assert "find them in the packs" in scale.plan(tmp_path)
    assert len(scale.mark(tmp_path)) == 1
