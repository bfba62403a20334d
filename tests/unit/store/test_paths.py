"""Paths that callers give: of any type that is a path, and refused if no file can have them."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

from tests.support.stores import make_site
from yarnstore import Store
from yarnstore.errors import NoRegistryError, NotFoundError, StorageError, UsageError
from yarnstore.store.filepath import Path


class Given:
    """Any other type that is a path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)

    def __fspath__(self) -> str:
        return self._path


@pytest.mark.parametrize("kind", [str, pathlib.Path, Path, Given])
def test_every_method_takes_every_type(
    tmp_path: pathlib.Path, kind: Callable[[pathlib.Path], str | os.PathLike[str]]
) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    file, registry = tmp_path / "in" / "weights.bin", kind(site.registry)
    file.parent.mkdir()
    file.write_bytes(b"0" * 1000)
    Store.publish(kind(file.parent), "other@1.0.0", registry=registry)
    Store.set_alias("other", "stable", "1.0.0", registry=registry)
    Store.optimize_registry(registry, dry_run=True)
    with Store.open(kind(site.home)) as store:
        assert type(store.home) is type(tmp_path)
        store.add_registry("again", registry)
        store.set_mirrors("again", [kind(tmp_path / "mirror")])
        assert store.import_model(kind(file), "mine@1.0.0").model == "mine"
        assert isinstance(store.checkout("mine@1.0.0").path, str)
        store.export("mine", kind(tmp_path / "out"))
        assert store.identify(kind(file)).path == str(file)
        store.adopt(kind(file.parent))
        store.lint_registry(registry)
        store.lock("other@1.0.0", file=kind(tmp_path / "ystore.lock"))
        assert store.checkout_locked(kind(tmp_path / "ystore.lock"))
        store.write_timer("systemd", kind(tmp_path / "timer"))
        with pytest.raises(UsageError, match="is not a model folder of another tool"):
            store.import_from(kind(file.parent))
    assert Store.doctor(kind(site.home)).root == str(site.home)


@pytest.mark.parametrize("path", ["", "nul\0"])
def test_a_path_that_no_file_can_have_is_refused(path: str) -> None:
    for use in (Store.open, Store.doctor, lambda path: Store.publish(path, "m@1.0.0", registry="r")):
        with pytest.raises(UsageError, match=r"empty|NUL"):
            use(path)


def test_a_path_that_does_not_exist_is_named_with_its_folder_and_similar_names(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "tiny-model.gguf").write_bytes(b"0")
    wrong = tmp_path / "tiny-modle.gguf"
    with Store.open(tmp_path / "home") as store:
        uses: list[Callable[[pathlib.Path], object]] = [
            lambda path: store.import_model(path, "m@1.0.0"),
            lambda path: Store.publish(path, "m@1.0.0", registry=tmp_path / "r"),
            store.adopt, store.identify, lambda path: store.inspect(str(path)),
            lambda path: store.diff(str(path), str(path)),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(NotFoundError, match=r"Did you mean tiny-model\.gguf\?") as told:
                use(wrong)
            assert told.value.hint == f"{tmp_path} has no such file or folder"
            with pytest.raises(NotFoundError) as told:
                use(tmp_path / "no" / "tiny.gguf")
            assert told.value.hint == f"the folder {tmp_path / 'no'} does not exist"


def test_a_name_that_looks_like_that_of_a_file_is_no_missing_registry(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny-model.gguf").write_bytes(b"0")
    monkeypatch.chdir(tmp_path)
    with Store.open(tmp_path / "home") as store:
        for use in (store.inspect, lambda text: store.diff(text, "tiny-model.gguf")):
            with pytest.raises(NotFoundError, match=r'no file, folder or model "tiny-modle\.gguf"') as told:
                use("tiny-modle.gguf")
            assert told.value.fields["near"] == ["tiny-model.gguf"]
            assert "`ystore search`" in told.value.hint
            with pytest.raises(NoRegistryError):
                use("tiny-1.5")


def test_a_name_that_is_too_long_leads_nowhere(tmp_path: pathlib.Path) -> None:
    long = tmp_path / ("x" * 300)
    with pytest.raises(NotFoundError, match="no file or folder"):
        Store.publish(long, "m@1.0.0", registry=tmp_path)
    with pytest.raises(StorageError, match="name too long"):
        Store.open(long)
