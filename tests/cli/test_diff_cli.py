"""`ystore diff` and `ystore inspect`: what people read, what programs read, how they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Ystore


@pytest.fixture
def folders(made_models: Path) -> tuple[Path, Path]:
    folder = made_models / "phi-3-mini"
    return folder / "1.0.0", folder / "1.1.0"


@pytest.fixture
def imported(ystore: Ystore, folders: tuple[Path, Path]) -> Ystore:
    """A command whose store has phi-3-mini 1.0.0 and 1.1.0."""
    for folder in folders:
        assert ystore("import", folder, f"phi-3-mini@{folder.name}").code == 0
    return ystore


def test_people_read_what_changed_most(imported: Ystore) -> None:
    done = imported("diff", "phi-3-mini@1.0.0", "@1.1.0", people=True)
    assert done.code == 0
    assert done.out.startswith("phi-3-mini 1.0.0 → 1.1.0: ")
    assert "model.safetensors" in done.out
    assert "of 4" in done.out or "tensors" in done.out
    assert "CHANGED" in done.out
    rows = [line for line in done.out.splitlines() if ".weight" in line]
    assert 0 < len(rows) <= 20
    everything = imported("diff", "-v", "phi-3-mini@1.0.0", "@1.1.0", people=True)
    assert len(everything.out) >= len(done.out)
    same = imported("diff", "phi-3-mini@1.0.0", "phi-3-mini@1.0.0", people=True)
    assert "no difference in 4 files" in same.out


def test_programs_read_stable_rows(imported: Ystore) -> None:
    done = imported("diff", "phi-3-mini@1.0.0", "phi-3-mini@1.1.0")
    kinds = [row[0] for row in done.table]
    assert kinds == sorted(kinds, key=("file", "tensor", "total").index)
    assert {len(row) for row in done.table if row[0] == "tensor"} == {14}
    total = done.table[-1]
    assert len(total) == 10
    document = imported("diff", "--json", "phi-3-mini@1.0.0", "phi-3-mini@1.1.0").json
    assert document["totals"]["tensors"]["changed"] == int(total[2])
    assert document["totals"]["bytes_changed"] == int(total[9])
    first = document["tensors"][-1]
    assert 0 <= first["changed_share"] <= 1
    names = imported("diff", "-q", "phi-3-mini@1.0.0", "phi-3-mini@1.1.0").out.splitlines()
    assert names[0] == "README.md"
    assert len(names) == sum(row[1] != "same" for row in done.table if row[0] != "total")


def test_the_page_is_written_where_it_is_asked_for(
    ystore: Ystore, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "changes.html"
    done = ystore("diff", *folders, "--html", page)
    assert done.code == 0
    assert "changes.html" in done.err
    assert page.read_text().startswith("<!doctype html>")
    assert ystore("diff", *folders, "--html", tmp_path).code == 2


def test_inspect_speaks_to_both(imported: Ystore, folders: tuple[Path, Path]) -> None:
    people = imported("inspect", "phi-3-mini@1.1.0", people=True)
    assert "safetensors, " in people.out
    assert "STORED AS" in people.out
    rows = imported("inspect", folders[1]).table
    assert {row[0] for row in rows} == {"file", "tensor", "type", "total"}
    document = imported("inspect", "--json", "phi-3-mini@1.1.0").json
    assert int(rows[-1][3]) == document["parameters"]
    names = imported("inspect", "-q", folders[1]).out.splitlines()
    assert names == [row[1] for row in rows if row[0] == "tensor"]


def test_what_cannot_be_compared_says_why(ystore: Ystore, tmp_path: Path) -> None:
    missing = ystore("diff", "./missing", "./neither")
    assert missing.code == 3
    assert "missing" in missing.err
    assert ystore("diff", "./somewhere", "@1.0.0").code == 2
    assert ystore("inspect", "nothing@1.0.0").code == 3
    (tmp_path / "empty").mkdir()
    assert ystore("inspect", tmp_path / "empty").code == 2
