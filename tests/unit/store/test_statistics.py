"""The file of statistics: bounded, with sums that stay, and readable after a kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from yarnstore.store.layout import StoreLayout
from yarnstore.store.statistics import LIMIT_BYTES, StatisticsRow, add_statistics, read_statistics

DAY_MS = 86_400_000


def _layout(root: Path) -> StoreLayout:
    layout = StoreLayout(root / "store")
    layout.ensure()
    layout.logs.mkdir()
    return layout


def _row(number: int, *, model: str = "m") -> StatisticsRow:
    return StatisticsRow(
        at_ms=number * DAY_MS // 10,
        operation="update",
        model=model,
        took_ms=3,
        size_bytes=1000,
        downloaded_bytes=100,
        reused_bytes=500,
    )


def _sums(rows: list[StatisticsRow]) -> tuple[int, int, int, int, int]:
    return (
        sum(row.count for row in rows),
        sum(row.took_ms for row in rows),
        sum(row.size_bytes for row in rows),
        sum(row.downloaded_bytes for row in rows),
        sum(row.reused_bytes for row in rows),
    )


def test_the_file_stays_below_its_bound_and_the_sums_stay(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    rows = [_row(number, model=f"organisation/model-{number}") for number in range(9000)]
    for start in range(0, len(rows), 500):
        add_statistics(layout, rows[start : start + 500])
        assert layout.statistics.stat().st_size < LIMIT_BYTES + 100_000
    found = read_statistics(layout)
    assert layout.statistics.stat().st_size <= LIMIT_BYTES
    assert _sums(found) == _sums(rows)
    assert found[-1] == rows[-1]


def test_rows_of_one_day_become_one(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    for _ in range(60):
        add_statistics(layout, [_row(1)] * 100)
    found = read_statistics(layout)
    assert sum(row.count for row in found) == 6000
    assert len(found) < 6000


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    add_statistics(layout, [_row(1)])
    with layout.statistics.open("ab") as file:
        file.write(b'{"at_ms":12,"opera')
    add_statistics(layout, [_row(2)])
    assert read_statistics(layout) == [_row(1), _row(2)]


def test_bytes_of_another_program_are_no_error(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    layout.statistics.write_bytes(b"\xff" * (LIMIT_BYTES + 1))
    assert read_statistics(layout) == []
    add_statistics(layout, [_row(1)])
    add_statistics(layout, [_row(2)])
    assert _row(2) in read_statistics(layout)
    assert layout.statistics.stat().st_size < 1000


def test_what_is_no_store_stays_none(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path / "store")
    add_statistics(layout, [_row(1)])
    assert not (tmp_path / "store").exists()


_WRITER = """
import sys
from pathlib import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.statistics import StatisticsRow, add_statistics
layout = StoreLayout(Path(sys.argv[1]))
for number in range(1500):
    row = StatisticsRow(at_ms=number, operation="fetch", model="m" * 100, size_bytes=1)
    add_statistics(layout, [row] * 3)
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(layout.root)]) for _ in range(3)]
    assert [writer.wait(300) for writer in writers] == [0, 0, 0]
    rows = read_statistics(layout)
    assert sum(row.count for row in rows) == 3 * 1500 * 3
    assert layout.statistics.stat().st_size <= LIMIT_BYTES
