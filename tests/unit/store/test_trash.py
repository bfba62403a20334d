"""The trash: by rename, and for a day where a repair moved something aside."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from yarnstore.errors import StorageError
from yarnstore.store import native, trash
from yarnstore.store.filepath import Path as StorePath


def test_the_trash_takes_what_exists_by_any_name(tmp_path: Path) -> None:
    place = tmp_path / "trash"
    trash.discard(tmp_path / "gone", place)
    trash.move_aside(tmp_path / "gone", place)
    trash.keep_copy(tmp_path / "gone", place)
    assert not place.exists()
    for take in (trash.discard, trash.move_aside):
        (tmp_path / "x").write_bytes(b"x")
        take(tmp_path / "x", place)
        assert not (tmp_path / "x").exists()
    assert len(list(place.iterdir())) == 2
    assert all(path.name.endswith("-x") for path in place.iterdir())


def test_what_was_moved_aside_stays_for_a_day(tmp_path: Path) -> None:
    place = tmp_path / "trash"
    for name in ("file", "kept", "deleted"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("file", "folder", "link"):
        trash.move_aside(tmp_path / name, place)
    for name in ("kept", "pipe"):
        trash.keep_copy(tmp_path / name, place)
    trash.discard(tmp_path / "deleted", place)
    assert (tmp_path / "kept").read_bytes() == b"kept"  # until it is replaced
    assert not os.path.lexists(tmp_path / "pipe")  # nothing could replace it in its place

    trash.empty(place, time.time() + 23 * 3600)
    names = {path.name.rpartition("-")[2] for path in place.iterdir()}
    assert names == {"file", "folder", "link", "kept", "pipe"}
    trash.empty(place, time.time() + 25 * 3600)
    assert list(place.iterdir()) == []


def test_what_another_program_has_open_is_deleted_a_later_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, where a file that is open may be in a folder that was renamed."""
    (tmp_path / "trash").mkdir()
    for name in ("a", "open", "z"):
        (tmp_path / "trash" / name).touch()
    unlink, code = native.unlink, 32

    def refuse(name: str, **more: int) -> None:
        if os.path.basename(name) == "open":
            error = OSError(errno.EACCES, "denied")
            error.winerror = code  # type: ignore[attr-defined] - Windows sets it
            raise error
        unlink(name, **more)

    with monkeypatch.context() as patch:
        patch.setattr(native, "unlink", refuse)
        trash.empty(StorePath(tmp_path / "trash"), time.time())
        assert os.listdir(tmp_path / "trash") == ["open"]
        code = 2
        with pytest.raises(StorageError):
            trash.empty(StorePath(tmp_path / "trash"), time.time())
    trash.empty(StorePath(tmp_path / "trash"), time.time())
    assert os.listdir(tmp_path / "trash") == []


def test_what_another_program_has_open_stays_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows, where a file that is open by any of its links is not renamed."""
    place = StorePath(tmp_path / "trash")
    (tmp_path / "trash").mkdir()
    (tmp_path / "open").touch(0o444)
    error = OSError(errno.EACCES, "denied")
    error.winerror = 32  # type: ignore[attr-defined] - Windows sets it

    def refuse(*_names: object, **_more: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(native, "replace", refuse)
        assert not trash.discard(StorePath(tmp_path / "open"), place)
        assert (tmp_path / "open").stat().st_mode & 0o777 == 0o444
        error.winerror = 2  # type: ignore[attr-defined]
        with pytest.raises(StorageError):
            trash.discard(StorePath(tmp_path / "open"), place)
    assert trash.discard(StorePath(tmp_path / "open"), place)
    assert not (tmp_path / "open").exists()
