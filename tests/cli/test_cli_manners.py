"""What is typed wrong, what is quiet, and sizes in errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Ystore
from yarnstore.store.fsread import format_sizes


@pytest.mark.parametrize(
    "command", ["publish {} m@1.0.0 --registry {}/../own --changelog x", "import {} m@1.0.0"]
)
def test_a_name_that_cannot_be_published_is_a_usage_error(
    ystore: Ystore, tmp_path: Path, command: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a:b").write_text("1")
    told = ystore(*command.format(source, source).split())
    assert told.code == 2
    assert "a:b" in told.err
    assert "rename it" in told.err.splitlines()[-1]


@pytest.mark.parametrize("wanted", ["9.0.0", "^9", ">=9"])
def test_an_update_into_a_range_that_nothing_matches_is_not_found(installed: Ystore, wanted: str) -> None:
    told = installed("update", "phi-3-mini", "--to", wanted)
    assert (told.code, told.out) == (3, "")
    assert "it has 1.1.0, 1.0.0" in told.err
    assert installed("update", "phi-3-mini", "--to", "1.0.0").code == 0


@pytest.mark.parametrize("people", [True, False])
@pytest.mark.parametrize("command", ["gc", "gc --keep 1", "fsck", "registry refresh"])
def test_quiet_prints_nothing_where_nothing_is_wrong(installed: Ystore, command: str, people: bool) -> None:
    ran = installed(*command.split(), "-q", people=people)
    assert (ran.code, ran.out, ran.err) == (0, "", "")


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ((80_000_000, 1_200_000, 100_000), ["80 000 kB", "1 200 kB", "100 kB"]),
        ((3_000_000, 0), ["3 MB", "0 MB"]),
        ((0, 0), ["0 B", "0 B"]),
        ((12_400, 300), ["12 400 B", "300 B"]),
    ],
)
def test_sizes_in_one_unit_can_be_told_apart(counts: tuple[int, ...], shown: list[str]) -> None:
    assert format_sizes(*counts) == shown
