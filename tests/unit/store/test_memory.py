"""What an operation has parsed is parsed again only where the file is another one."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from yarnstore import Store
from yarnstore.errors import NotFoundError
from yarnstore.store import fsread
from yarnstore.store.memory import Memory

_opened: Counter[str] | None = None


def _note_open(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened[str(arguments[0])] += 1


sys.addaudithook(_note_open)


def test_a_file_is_parsed_again_once_it_is_another_one(tmp_path: Path) -> None:
    path, memory = tmp_path / "file", Memory()
    path.write_bytes(b"old")
    first = memory.recall(path, lambda: [fsread.read_bytes(path, 9)])
    assert memory.recall(path, lambda: [b"not called"]) is first
    (tmp_path / "new").write_bytes(b"new")
    os.replace(tmp_path / "new", path)
    assert memory.recall(path, lambda: [fsread.read_bytes(path, 9)]) == [b"new"]
    path.unlink()
    with pytest.raises(NotFoundError):
        memory.recall(path, lambda: [fsread.read_bytes(path, 9)])


def test_gc_reads_each_manifest_and_index_once(tmp_path: Path) -> None:
    global _opened
    body = random.Random(1).randbytes(300_000)
    with Store.open(tmp_path / "home") as store:
        for n in range(4):
            (tmp_path / "m.bin").write_bytes(bytes([n]) + body)
            store.import_model(tmp_path / "m.bin", f"m@1.0.{n}")
            store.checkout(f"m@1.0.{n}", wait=False)
        _opened = Counter()
        try:
            assert store.gc(keep=2).versions == ["m@1.0.0", "m@1.0.1"]
            counts = _opened
        finally:
            _opened = None
    found = {path: count for path, count in counts.items() if path.endswith((".json", ".idx"))}
    assert len(found) > 4
    assert {path: count for path, count in found.items() if count > 1} == {}
