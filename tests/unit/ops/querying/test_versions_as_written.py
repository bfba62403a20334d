"""A version is accepted as people write it: with a `v` before it, and without its build metadata."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.stores import Site, make_site
from yarnstore import Store
from yarnstore.cli import run
from yarnstore.errors import ConflictError, NotFoundError, UsageError

MODEL = "phi-3-mini"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def call(home: Path, *words: str | Path) -> None:
    first, *rest = map(str, words)
    nested = [first, rest.pop(0)] if first == "registry" else [first]
    assert run([*nested, "--home", str(home), *rest]) == 0, words


def said(site: Site) -> dict[str, object]:
    found: dict[str, object] = json.loads((site.registry / "registry.json").read_text())["models"][MODEL]
    return found


def test_a_v_before_a_version_is_accepted_by_every_command(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = ("--registry", site.registry)
    call(site.home, "registry", "alias", MODEL, "stable", "v1.1.0", *folder)
    call(site.home, "registry", "set-current", MODEL, "v1.2.0", *folder)
    call(site.home, "registry", "deprecate", f"{MODEL}@v1.0.0", "--replaced-by", "v1.1.0", *folder)
    model = said(site)
    assert (model["aliases"], model["current_version"]) == ({"stable": "1.1.0"}, "1.2.0")
    assert model["versions"]["1.0.0"]["replaced_by"] == "1.1.0"  # type: ignore[index]
    call(site.home, "registry", "deprecate", f"{MODEL}@v1.0.0", "--undo", *folder)
    call(site.home, "registry", "yank", f"{MODEL}@v1.0.0", *folder)
    call(site.home, "registry", "yank", f"{MODEL}@v1.0.0", "--undo", *folder)
    call(site.home, "publish", site.source("1.0.0"), f"{MODEL}@v1.0.0", *folder)
    call(site.home, "publish", site.source("1.0.0"), "other@v1.0.0", *folder)
    call(site.home, "registry", "refresh")
    call(site.home, "show", f"{MODEL}@v1.0.0")
    call(site.home, "fetch", f"{MODEL}@v1.0.0")
    call(site.home, "checkout", f"{MODEL}@v1.0.0")
    call(site.home, "update", f"{MODEL}@v1.1.0")
    call(site.home, "update", MODEL, "v1.2.0")
    call(site.home, "rollback", MODEL, "v1.0.0")
    call(site.home, "update", MODEL, "--to", "^v1.0")
    call(site.home, "pin", f"{MODEL}@v1.1.0")
    call(site.home, "unpin", f"{MODEL}@v1.1.0")
    call(site.home, "pin", f"{MODEL}@^v1.0")
    call(site.home, "unpin", f"{MODEL}@^v1.0")
    call(site.home, "lock", f"{MODEL}@v1.0.0")
    call(site.home, "fetch", "--locked")
    call(site.home, "path", f"{MODEL}@v1.0.0")
    call(site.home, "inspect", f"{MODEL}@v1.0.0")
    call(site.home, "diff", f"{MODEL}@v1.0.0", f"{MODEL}@v1.1.0")
    call(site.home, "diff", f"{MODEL}@v1.0.0", "@v1.1.0")
    call(site.home, "compat", MODEL, "--app-version", "v1.0.0")
    call(site.home, "export", f"{MODEL}@v1.0.0", tmp_path / "out")
    call(site.home, "import", site.source("1.0.0"), "own@v1.0.0")
    call(site.home, "remove", "own@v1.0.0")


def test_a_v_before_a_version_is_accepted_by_the_methods(site: Site) -> None:
    Store.set_current(MODEL, "v1.2.0", registry=site.registry)
    Store.set_alias(MODEL, "beta", " v1.2.0 ", registry=site.registry)
    Store.deprecate(f"{MODEL}@v1.0.0", replaced_by="v1.2.0", registry=site.registry)
    Store.yank(f"{MODEL}@v1.0.0", registry=site.registry)
    Store.yank(f"{MODEL}@v1.0.0", undo=True, registry=site.registry)
    with site.store() as store:
        store.set_app_version("v2.0.0")
        store.fetch(f"{MODEL}@v1.1.0")
        store.checkout(f"{MODEL}@v1.2.0")
        assert store.update_model(f"{MODEL}@v1.1.0").version == "1.1.0"
        assert store.rollback_model(MODEL, "v1.2.0").version == "1.2.0"
        assert store.pin(f"{MODEL}@v1.2.0").version == "1.2.0"
        assert store.show(f"{MODEL}@v1.1.0").version == "1.1.0"


@pytest.fixture
def built(tmp_path: Path) -> Site:
    """A registry and a store with 1.0.0+cpu and 1.1.0+cpu, and the registry is gone."""
    site = make_site(tmp_path, versions=("1.0.0+cpu", "1.1.0+cpu"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0")
    shutil.move(site.registry, tmp_path / "away")
    return site


def test_the_store_finds_a_version_without_its_build_metadata(built: Site, tmp_path: Path) -> None:
    with built.store() as store:
        assert store.checkout(f"{MODEL}@1.0.0").version == "1.0.0+cpu"
        assert store.checkout(f"{MODEL}@v1.1.0").version == "1.1.0+cpu"
        assert store.path(f"{MODEL}@1.0.0") == store.path(f"{MODEL}@1.0.0+cpu")
        assert store.rollback_model(MODEL, "1.0.0").version == "1.0.0+cpu"
        assert store.fetch(f"{MODEL}@1.1.0").version == "1.1.0+cpu"
        assert store.pin(f"{MODEL}@1.1.0").version == "1.1.0+cpu"
        with pytest.raises(ConflictError):
            store.remove(f"{MODEL}@1.1.0")
        assert store.unpin(f"{MODEL}@1.1.0").version == "1.1.0+cpu"
        assert store.export(f"{MODEL}@1.1.0", tmp_path / "out").version == "1.1.0+cpu"
        assert store.remove(f"{MODEL}@1.1.0").versions == ["1.1.0+cpu"]
        with pytest.raises(NotFoundError):
            store.remove(f"{MODEL}@1.0.0+gpu")


def test_a_registrys_own_version_comes_before_one_with_build_metadata(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    with site.store() as store:
        store.import_model(site.registry / "registry.json", f"{MODEL}@1.0.0+own")
        assert store.checkout(f"{MODEL}@1.0.0").version == "1.0.0"
        assert store.checkout(f"{MODEL}@1.0.0+own").version == "1.0.0+own"


def test_a_publisher_names_a_version_without_its_build_metadata(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0+cpu", "1.1.0+cpu"))
    Store.set_current(MODEL, "1.1.0", registry=site.registry)
    Store.set_alias(MODEL, "stable", "1.1.0", registry=site.registry)
    Store.deprecate(f"{MODEL}@1.0.0", replaced_by="1.1.0", registry=site.registry)
    Store.yank(f"{MODEL}@1.0.0", registry=site.registry)
    model = said(site)
    assert (model["aliases"], model["current_version"]) == ({"stable": "1.1.0+cpu"}, "1.1.0+cpu")
    old = model["versions"]["1.0.0+cpu"]  # type: ignore[index]
    assert (old["replaced_by"], old["yanked"]) == ("1.1.0+cpu", True)
    with site.store() as store:
        assert not [item for item in store.lint_registry(site.registry).findings if "replaced" in item.path]


def test_removing_one_of_several_builds_names_it(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"w")
    with Store.open(tmp_path / "home") as store:
        for version in ("1.0.0+cpu", "1.0.0+gpu", "2.0.0+cpu"):
            store.import_model(tmp_path / "w.bin", f"m@{version}")
        with pytest.raises(UsageError, match=r"ambiguous: the store has 1\.0\.0\+cpu, 1\.0\.0\+gpu"):
            store.remove("m@1.0.0")
        assert len(store.list_versions("m")) == 3
        assert store.remove("m@1.0.0+cpu").versions == ["1.0.0+cpu"]
        assert store.remove("m@1.0.0").versions == ["1.0.0+gpu"]
        assert store.remove("m@v2.0.0").versions == ["2.0.0+cpu"]
        store.import_model(tmp_path / "w.bin", "m@3.0.0")
        store.import_model(tmp_path / "w.bin", "m@3.0.0+cpu")
        assert store.remove("m@3.0.0").versions == ["3.0.0"]
