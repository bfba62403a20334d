"""Small records: what counts as absent, what is an error, and what the bytes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from yarnstore.errors import FormatError
from yarnstore.store import records
from yarnstore.store.records import CheckedRecord, Damage

DAMAGE = Damage("logs/note", "delete it")


class Note(CheckedRecord, frozen=True, kw_only=True):
    text: str


def test_a_record_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "note"
    assert records.read(path, Note, on_damage=DAMAGE) is None
    records.write(path, Note(text="é"), tmp_dir=tmp_path)
    found = records.read(path, Note, on_damage=DAMAGE)
    assert found is not None
    assert found.text == "é"
    assert found == found.sealed()


def test_a_record_without_a_check_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "numbers"
    records.write(path, {"a": 1}, tmp_dir=tmp_path)
    assert path.read_bytes() == b'{"a":1}'
    assert records.read(path, dict[str, int], on_damage="absent") == {"a": 1}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is damaged"),
        (b"\xff", "is damaged"),
        (b'{"text": 1}', "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b'{"text":"x","check":""}', "does not match its checksum"),
        (b'{"text":"x"}', "does not match its checksum"),
    ],
)
def test_damage_is_absence_or_an_error(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "note"
    path.write_bytes(data)
    assert records.read(path, Note, on_damage="absent") is None
    with pytest.raises(FormatError, match=why) as caught:
        records.read(path, Note, on_damage=DAMAGE)
    assert "logs/note" in caught.value.message
    assert caught.value.hint == "delete it"


def test_a_record_that_is_too_large_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "note"
    path.write_bytes(b" " * (1 << 21))
    assert records.read(path, Note, on_damage="absent") is None
    with pytest.raises(FormatError):
        records.read(path, Note, on_damage=DAMAGE)
