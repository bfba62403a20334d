"""The store's own `Path` says the same as `pathlib.Path`."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.store.filepath import Path

PARTS = ("a", "b.txt", ".hidden", "c.tar.gz", "..", ".", "", "d.", "~", "e f", "ö")
texts = st.builds(
    lambda parts, before, after: before + "/".join(parts) + after,
    st.lists(st.sampled_from(PARTS), max_size=5),
    st.sampled_from(("", "/", "./")),
    st.sampled_from(("", "/", "/.")),
).filter(lambda text: not text.startswith("//"))

SAYS: dict[str, Callable[[Any], object]] = {
    "str": str,
    "fspath": os.fspath,
    "name": lambda path: path.name,
    "suffix": lambda path: path.suffix,
    "parent": lambda path: str(path.parent),
    "parents": lambda path: [str(above) for above in path.parents],
    "parts": lambda path: path.parts,
    "is_absolute": lambda path: path.is_absolute(),
    "as_posix": lambda path: path.as_posix(),
    "joined": lambda path: [str(path / other) for other in ("x", "x/y", "", ".", "/x", "x//y/", "./x")],
}


@given(texts)
def test_a_path_alone(text: str) -> None:
    ours, theirs = Path(text), pathlib.PurePosixPath(text)
    for what, says in SAYS.items():
        if what == "suffix" and theirs.name.endswith(".") and sys.version_info >= (3, 14):
            continue  # there, a dot alone is a suffix
        assert says(ours) == says(theirs), (what, text)
    assert hash(ours) == hash(theirs)
    for name in ("z", ".z", "..", ".", "", "y/z", "/z"):
        try:
            expected = str(theirs.with_name(name))
        except ValueError:
            with pytest.raises(ValueError, match="cannot be named"):
                ours.with_name(name)
        else:
            assert str(ours.with_name(name)) == expected


@given(texts, texts)
def test_two_paths(one: str, other: str) -> None:
    ours, theirs = (Path(one), Path(other)), (pathlib.PurePosixPath(one), pathlib.PurePosixPath(other))
    assert (ours[0] == ours[1]) is (theirs[0] == theirs[1])
    assert ours[0] != ours[1] or hash(ours[0]) == hash(ours[1])
    if theirs[0].is_absolute() is theirs[1].is_absolute():  # else pathlib's order changed in 3.12
        assert (ours[0] < ours[1]) is (theirs[0] < theirs[1])
    assert str(ours[0] / ours[1]) == str(theirs[0] / theirs[1])
    assert ours[0].is_relative_to(ours[1]) is theirs[0].is_relative_to(theirs[1])
    if theirs[0].is_relative_to(theirs[1]):
        assert str(ours[0].relative_to(ours[1])) == str(theirs[0].relative_to(theirs[1]))
    else:
        with pytest.raises(ValueError, match="is not below"):
            ours[0].relative_to(ours[1])


def test_both_kinds_mix(tmp_path: pathlib.Path) -> None:
    ours = Path(tmp_path)
    assert ours == tmp_path
    assert tmp_path == ours
    assert ours != str(tmp_path)
    assert tmp_path / Path("a") == ours / pathlib.Path("a")
    assert {ours: 1}[tmp_path] == {tmp_path: 1}[ours] == 1  # type: ignore[index]
    assert sorted([ours / "b", tmp_path / "a", ours]) == [tmp_path, ours / "a", tmp_path / "b"]
    assert (tmp_path / "a").relative_to(ours) == (ours / "a").relative_to(tmp_path)


@pytest.mark.parametrize("wrong", [b"bytes", None, 1])
def test_only_text_is_a_path(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"bytes|NoneType|int"):
        Path(wrong)
    with pytest.raises(TypeError, match=r"bytes|NoneType|int"):
        Path("a") / wrong
    assert Path("a") != wrong
    with pytest.raises(TypeError, match="not supported"):
        sorted([Path("a"), wrong])


def test_what_it_names(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    for target in ("file", "folder", "nothing", "loop"):
        (tmp_path / (target if target == "loop" else f"to-{target}")).symlink_to(target)
    names = ("file", "folder", "nothing", "to-file", "to-folder", "to-nothing", "loop", "file/in", "nul\0")
    for name, question in product(names, ("exists", "is_dir", "is_file", "is_symlink")):
        expected = getattr(tmp_path / name, question)()
        assert getattr(Path(tmp_path) / name, question)() is expected, (name, question)
    assert Path(tmp_path / "to-file").stat() == (tmp_path / "file").stat()
    assert Path(tmp_path / "to-folder" / ".." / "file").resolve() == (tmp_path / "file").resolve()
    assert not (Path(tmp_path) / ("x" * 300)).exists()


def test_what_is_unknown_is_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(PermissionError):
        Path("x").exists()
