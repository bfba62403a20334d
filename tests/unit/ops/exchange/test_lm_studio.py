"""LM Studio's folder of models: imports, exports, and what is in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tools import gguf
from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError, UsageError

MODEL = gguf("Tiny", bytes(range(256)) * 40)


def test_a_model_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
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
