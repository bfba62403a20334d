"""`ystore://` through fsspec."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.docs.pages import REPO
from tests.support.stores import MODEL, Site

fsspec = pytest.importorskip("fsspec", reason="needs pip install fsspec")
fsspec.register_implementation("ystore", "yarnstore.plugins.filesystem.YstoreFileSystem", clobber=True)
URL = f"ystore://{MODEL}@1.1.0"


def test_a_file_is_opened_by_its_address(site: Site) -> None:
    with fsspec.open(f"{URL}/config.json", "rt", home=str(site.home)) as file:
        assert file.read() == (site.source("1.1.0") / "config.json").read_text()
    with fsspec.open("ystore://acme/own@0.1.0/adapter/delta.bin", home=str(site.home)) as file:
        file.seek(80_000)
        assert file.read() == (site.source("1.2.0") / "adapter" / "delta.bin").read_bytes()[80_000:]


def test_without_a_version_it_is_the_installed_one(site: Site) -> None:
    for model, version in ((MODEL, "1.0.0"), ("acme/own", "1.2.0")):
        with fsspec.open(f"ystore://{model}/config.json", home=str(site.home)) as file:
            assert file.read() == (site.source(version) / "config.json").read_bytes()


def test_it_is_a_file_system(site: Site, tmp_path: Path) -> None:
    files = fsspec.filesystem("ystore", home=str(site.home))
    root = f"{MODEL}@1.0.0"
    assert set(files.ls("", detail=False)) >= {root, "acme/own@0.1.0"}
    assert files.ls(root, detail=False) == [f"{root}/adapter", f"{root}/config.json", f"{root}/model.bin"]
    assert files.find(root) == [f"{root}/{path}" for path in sorted(site.contents("1.0.0"))]
    assert files.glob(f"{root}/*/*.bin") == [f"{root}/adapter/delta.bin"]
    assert files.info(f"{root}/model.bin")["sha256"] == site.contents("1.0.0")["model.bin"]
    assert files.isdir(f"{root}/adapter")
    assert not files.exists(f"{root}/no")
    data = (site.source("1.0.0") / "model.bin").read_bytes()
    assert files.cat_file(f"{root}/model.bin", 399_000, 401_000) == data[399_000:401_000]
    files.get(f"{root}/", str(tmp_path / "copy"), recursive=True)
    assert (tmp_path / "copy" / "adapter" / "delta.bin").stat().st_size == 90_000


def test_errors_are_those_of_files(site: Site) -> None:
    files = fsspec.filesystem("ystore", home=str(site.home))
    for missing, why in (
        ("whisper@1.0.0/x", "whisper"),
        (f"{MODEL}@9.9.9/config.json", f'no version "9.9.9" in {MODEL} (it has 1.2.0'),
        (f"{MODEL}@1.0.0/no", f'no file "no" in {MODEL} 1.0.0'),
    ):
        for use in (files.open, files.info, files.ls, files.cat_file):
            with pytest.raises(FileNotFoundError) as told:
                use(missing)
            assert told.value.filename == missing
            assert why in str(told.value)
            assert "No such file or directory" not in str(told.value)
    with pytest.raises(OSError, match="Read-only"):
        files.open(f"{MODEL}@1.0.0/config.json", "wb")


def test_the_package_names_its_plugins() -> None:
    found = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["entry-points"]
    for group in ("fsspec.specs", "pytest11"):
        assert EntryPoint("ystore", found[group]["ystore"], group).load()
