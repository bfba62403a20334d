"""LM Studio's folder of models: imports, exports, and what is in the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.tools import gguf
from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError, UsageError
from yarnstore.settings.tools import tool_folders

MODEL = gguf("Tiny", bytes(range(256)) * 40)


def test_a_model_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    folder = tmp_path / ".lmstudio/models/me/tiny"
    folder.mkdir(parents=True)
    (folder / "tiny-Q8.gguf").write_bytes(MODEL)
    store = Store.open(tmp_path / "home")
    assert [each.version for each in store.import_from("lmstudio://me/tiny")] == ["0.0.1"]
    assert store.import_from("lmstudio://me/tiny")[0].present
    (folder / "tiny-Q8.gguf").write_bytes(MODEL + b"more")
    assert [each.version for each in store.import_from("lmstudio://me/tiny/tiny-Q8.gguf")] == ["0.0.2"]
    written = store.export("me/tiny@0.0.1", "lmstudio://me/copy")
    assert Path(written.path, "tiny-Q8.gguf").read_bytes() == MODEL
    with pytest.raises(ConflictError, match="exists with other content"):
        store.export("me/tiny@0.0.1", "lmstudio://me/tiny")
    assert (folder / "tiny-Q8.gguf").read_bytes() == MODEL + b"more"
    with pytest.raises(NotFoundError, match="Did you mean tiny"):
        store.import_from("lmstudio://me/tin")
    with pytest.raises(UsageError):
        store.export("me/tiny@0.0.1", "lmstudio://tiny")


def test_its_folder_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert tool_folders().lmstudio == tmp_path / ".lmstudio/models"
    older = tmp_path / ".cache/lm-studio"
    older.mkdir(parents=True)
    assert tool_folders().lmstudio == older / "models"
    (tmp_path / ".lmstudio").mkdir()
    assert tool_folders().lmstudio == tmp_path / ".lmstudio/models"
    pointer, moved = tmp_path / ".lmstudio-home-pointer", tmp_path / "moved"
    pointer.write_text(f"{moved}\n")
    assert tool_folders().lmstudio == tmp_path / ".lmstudio/models"  # where it leads was removed
    moved.mkdir()
    assert tool_folders().lmstudio == moved / "models"
    settings = moved / "settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(tmp_path / "big disk")}))
    assert tool_folders().lmstudio == tmp_path / "big disk"
    for unusable in ("", "[]", *(f'{{"downloadsFolder": {value}}}' for value in ("3", '""', '"x"'))):
        settings.write_text(unusable)
        assert tool_folders().lmstudio == moved / "models"
    settings.write_bytes(b"\xff\x00")
    pointer.write_bytes(b"\xff\x00")
    assert tool_folders().lmstudio == tmp_path / ".lmstudio/models"
