"""The README of a stored version."""

from __future__ import annotations

from pathlib import Path

import pytest

from yarnstore import Store
from yarnstore.errors import NotFoundError


def import_version(store: Store, root: Path, files: dict[str, bytes]) -> None:
    root.mkdir()
    for name, data in files.items():
        (root / name).write_bytes(data)
    store.import_model(root, "m@1.0.0")


@pytest.mark.parametrize("name", ["README.md", "readme.md", "README", "Readme.txt"])
def test_it_is_read_from_the_store(tmp_path: Path, name: str) -> None:
    with Store.open(tmp_path / "home") as store:
        import_version(store, tmp_path / "m", {"a.bin": b"a" * 99, name: "# Größe\n".encode()})
        found = store.readme("m@1.0.0")
        assert (found.path, found.text, found.truncated) == (name, "# Größe\n", False)


def test_a_long_one_is_cut(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        import_version(store, tmp_path / "m", {"README.md": b"\xff" + b"x" * 300_000})
        found = store.readme("m@1.0.0")
        assert (len(found.text), found.truncated, found.text[0]) == (256 * 1024, True, "\ufffd")


def test_none_is_not_found(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        import_version(store, tmp_path / "m", {"a.bin": b"a" * 99})
        with pytest.raises(NotFoundError, match="README"):
            store.readme("m@1.0.0")
        with pytest.raises(NotFoundError):
            store.readme("other@1.0.0")
