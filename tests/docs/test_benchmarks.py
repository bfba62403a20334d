"""docs/benchmarks.md is what its JSON holds, a partial run keeps the other tables, and the parts that only
`make bench` runs still fit the code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.bench import scale
from tests.bench.entropy import fine_tuned_share, quants_bits, rounded_normal_bits
from tests.bench.report import Report, Table
from tests.support.reshaped import bf16, values

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


def test_a_number_that_is_always_rounded_to_the_same_has_no_entropy_and_one_in_the_middle_has_a_bit() -> None:
    assert rounded_normal_bits(1.0, 1e-5) == 0
    assert rounded_normal_bits(1.0 + 2**-8, 1e-5) == pytest.approx(1)


def test_the_entropy_of_rounded_numbers_is_that_of_their_counts() -> None:
    random = np.random.default_rng(0)
    for mean, deviation in ((0.0, 0.02), (0.013, 0.0001)):
        _, counts = np.unique(bf16(random.normal(mean, deviation, 1_000_000)), return_counts=True)
        shares = counts / counts.sum()
        counted = -(shares * np.log2(shares)).sum()
        assert rounded_normal_bits(mean, deviation) == pytest.approx(counted, rel=0.005)


def test_the_entropy_of_a_fine_tune_is_the_mean_of_those_of_its_weights() -> None:
    weights = bf16(np.array([0.01, -0.01, 0.02, -0.03]))
    deviation = 0.004 * float(np.array([0.01, -0.01, 0.02, -0.03]).std())
    each = [rounded_normal_bits(mean, deviation) for mean in (0.010009765625, 0.0200195, 0.0299072265625)]
    assert fine_tuned_share(weights, 0.004) == pytest.approx(
        (2 * each[0] + each[1] + each[2]) / 4 / 16, rel=0.02
    )


def test_the_entropy_of_quants_is_what_their_probabilities_cost_on_average() -> None:
    random = np.random.default_rng(0)
    deviation, moved, step = 0.02, 0.00008, 0.0003
    before = values(bf16(random.normal(0, deviation, 4000)))
    before = before[np.abs(before) < 126 * step]
    after = values(bf16(before + random.normal(0, moved, before.size)))
    old, new = (np.rint(some / step).astype(int) for some in (before, after))
    scales = np.full(old.size, step)
    _, counts = np.unique(new - old, return_counts=True)
    shares = counts / counts.sum()
    steps_alone = -(shares * np.log2(shares)).sum()
    assert 0.9 * steps_alone < quants_bits(old, scales, scales, deviation, moved) < steps_alone
    assert quants_bits(old, scales, scales, deviation, 1e-9) == pytest.approx(0, abs=1e-6)
