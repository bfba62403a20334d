"""`ystore://` through MLflow."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of MLflow itself
    mlflow = pytest.importorskip("mlflow", reason="needs pip install mlflow-skinny")
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import (
        _artifact_repository_registry as registry,
    )

    from yarnstore.plugins.mlflow_repository import YstoreArtifactRepository

pytestmark = pytest.mark.filterwarnings("default")
registry.register("ystore", YstoreArtifactRepository)


@pytest.fixture(autouse=True)
def home(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YSTORE_HOME", str(site.home))


def content(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    ("address", "version"),
    [
        (f"ystore://{MODEL}@1.1.0", "1.1.0"),
        (f"ystore://{MODEL}@1.1.0/", "1.1.0"),
        (f"ystore://{MODEL}", "1.0.0"),
        ("ystore://acme/own@0.1.0", "1.2.0"),
        ("ystore://acme/own", "1.2.0"),
    ],
)
def test_a_version_is_downloaded(site: Site, tmp_path: Path, address: str, version: str) -> None:
    folder = mlflow.artifacts.download_artifacts(address, dst_path=str(tmp_path))
    found = content(folder)
    assert found == content(str(site.source(version)))


@pytest.mark.parametrize("spec", [f"{MODEL}@1.0.0", "acme/own@0.1.0"])
def test_a_file_and_a_folder_are_downloaded(site: Site, tmp_path: Path, spec: str) -> None:
    version = "1.2.0" if "own" in spec else "1.0.0"
    file = mlflow.artifacts.download_artifacts(f"ystore://{spec}/config.json", dst_path=str(tmp_path / "a"))
    assert Path(file).read_bytes() == (site.source(version) / "config.json").read_bytes()
    folder = mlflow.artifacts.download_artifacts(f"ystore://{spec}/adapter", dst_path=str(tmp_path / "b"))
    assert content(folder) == content(str(site.source(version) / "adapter"))


def test_artifacts_are_listed() -> None:
    listed = mlflow.artifacts.list_artifacts(f"ystore://{MODEL}@1.0.0")
    assert [(item.path, item.is_dir) for item in listed] == [
        ("adapter", True), ("config.json", False), ("model.bin", False),
    ]  # fmt: skip
    repository = YstoreArtifactRepository("ystore://acme/own@0.1.0")
    assert [(item.path, item.file_size) for item in repository.list_artifacts("adapter")] == [
        ("adapter/delta.bin", 90_000)
    ]
    assert repository.list_artifacts("config.json") == []


def test_what_is_missing_and_writing_are_refused(tmp_path: Path) -> None:
    for address in (f"ystore://{MODEL}@9.9.9", f"ystore://{MODEL}@1.0.0/no", "ystore://nobody@1.0.0"):
        with pytest.raises(MlflowException):
            mlflow.artifacts.download_artifacts(address, dst_path=str(tmp_path))
    repository = YstoreArtifactRepository(f"ystore://{MODEL}@1.0.0")
    for write in (repository.log_artifact, repository.log_artifacts, repository.delete_artifacts):
        with pytest.raises(MlflowException, match="ystore publish"):
            write("x")
