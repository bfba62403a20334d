"""Executable files and empty folders: published, installed, exported, checked and freed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yarnstore import Store

SCRIPT = b"#!/bin/sh\necho hi\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "run.sh").write_bytes(SCRIPT)
    (folder / "bin" / "run.sh").chmod(0o755)
    (folder / "copy.sh").write_bytes(SCRIPT)
    (folder / "w.bin").write_bytes(b"w" * 5000)
    return folder


def modes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def open_store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def test_an_executable_is_one_where_it_is_installed_and_exported(source: Path, tmp_path: Path) -> None:
    Store.publish(source, "m@1.0.0", registry=tmp_path / "reg")
    with open_store(tmp_path) as store:
        store.add_registry("r", tmp_path / "reg")
        store.checkout("m@1.0.0")
        view = Path(os.path.realpath(store.path("m")))
        assert modes(view) == {"bin/run.sh": 0o555, "copy.sh": 0o444, "w.bin": 0o444}
        store.export("m@1.0.0", tmp_path / "out")
        assert modes(tmp_path / "out") == {"bin/run.sh": 0o755, "copy.sh": 0o644, "w.bin": 0o644}
        assert not store.fsck().problems
    names = sorted(path.name for path in (tmp_path / "home" / "files").iterdir())
    assert sum(name.endswith(".x") for name in names) == 1
    assert len(names) == 3  # one content, with the bit and without


def test_what_is_wrong_with_an_executable_is_found_and_made_anew(source: Path, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.import_model(source, "m@1.0.0")
        store.checkout("m@1.0.0")
        (made,) = (tmp_path / "home" / "files").glob("*.x")
        made.chmod(0o755)
        made.write_bytes(b"#!/bin/sh\necho ho\n")
        assert {item.what for item in store.fsck().problems} >= {"is corrupt"}
        assert not store.fsck(repair=True).remaining
        assert made.read_bytes() == SCRIPT
        made.chmod(0o444)
        assert {item.what for item in store.fsck(quick=True).problems} >= {"is not executable"}
        assert not store.fsck(repair=True).remaining
        view = Path(os.path.realpath(store.path("m")))
        assert modes(view)["bin/run.sh"] == 0o555


def test_gc_keeps_executables_in_use_and_frees_the_others(source: Path, tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        store.import_model(source, "m@1.0.0")
        store.checkout("m@1.0.0")
        store.gc()
        assert len(list((tmp_path / "home" / "files").glob("*.x"))) == 1
        (source / "bin" / "run.sh").write_bytes(SCRIPT + b"# 2\n")
        store.import_model(source, "m@2.0.0")
        store.checkout("m@2.0.0")
        store.remove("m@1.0.0")
        store.gc()
        (kept,) = (tmp_path / "home" / "files").glob("*.x")
        assert kept.read_bytes().endswith(b"# 2\n")
