"""Replacing a file of another program: only by the content that was hashed."""

from __future__ import annotations

from pathlib import Path

import pytest

from yarnstore.errors import StorageError
from yarnstore.store import filepath, replacing


def test_a_source_that_changed_after_it_was_hashed_replaces_nothing(tmp_path: Path) -> None:
    source, path = filepath.Path(tmp_path / "source"), filepath.Path(tmp_path / "copy")
    for each in (source, path):
        Path(each).write_bytes(b"weights")
    found = Path(source).stat()
    state = replacing.content_state(found)
    Path(source).write_bytes(b"WEIGHTS")
    with pytest.raises(StorageError, match="source changed meanwhile"):
        replacing.replace_by_copy(source, path, replacing.Attributes.of(found), clone=False, state=state)
    assert Path(path).read_bytes() == b"weights"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "source"]
    Path(source).write_bytes(b"weights")
    state = replacing.content_state(Path(source).stat())
    assert replacing.replace_by_copy(source, path, replacing.Attributes.of(found), clone=False, state=state)
