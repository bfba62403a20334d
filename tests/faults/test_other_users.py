"""Stores and registries that several users use: who may write, and how that is said."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.other_user import NOBODY, require_root, run_as
from tests.support.servers import ScriptedServer, files
from tests.support.stores import MODEL, Site, make_site, make_version
from yarnstore import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="users and modes are those of POSIX")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="yarnstore-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def shared(place: Path) -> Iterator[tuple[Site, ScriptedServer]]:
    """A store of root with 1.0.0 installed, and the server of its registry."""
    require_root()
    site = make_site(place)
    tree = {
        path.relative_to(site.registry).as_posix(): path.read_bytes()
        for path in site.registry.rglob("*")
        if path.is_file()
    }
    with ScriptedServer(files(tree)) as server:
        with Store.open(site.home) as store:
            store.remove_registry("made")
            store.add_registry("made", server.url)
            store.checkout(f"{MODEL}@1.0.0")
        yield replace(site, root=place), server


@pytest.mark.parametrize("words", [("fetch", f"{MODEL}@1.2.0"), ("checkout", f"{MODEL}@1.2.0")])
def test_a_second_user_is_refused_before_the_download(
    shared: tuple[Site, ScriptedServer], words: tuple[str, ...]
) -> None:
    site, server = shared
    server.seen.clear()
    done = run_as(NOBODY, site.home, *words)
    assert done.returncode == 7, done.stderr
    assert "cannot be written by nobody" in done.stderr
    assert "belongs to root" in done.stderr
    assert not [seen.path for seen in server.seen if "/packs/" in seen.path or "/deltas/" in seen.path]


def test_one_folder_that_cannot_be_written_is_enough(shared: tuple[Site, ScriptedServer]) -> None:
    site, server = shared
    for folder in [site.home, *site.home.rglob("*")]:
        if folder.is_dir() and not folder.is_symlink() and "views" not in folder.parts:
            folder.chmod(0o777)
    (site.home / "views").chmod(0o777)
    (site.home / "refs" / "versions" / MODEL).chmod(0o755)
    server.seen.clear()
    done = run_as(NOBODY, site.home, "checkout", f"{MODEL}@1.2.0")
    assert done.returncode == 7, done.stderr
    assert f"refs/versions/{MODEL} cannot be written" in done.stderr
    assert not [seen.path for seen in server.seen if "/packs/" in seen.path]


def test_a_second_user_reads_what_is_installed(shared: tuple[Site, ScriptedServer]) -> None:
    site, _ = shared
    done = run_as(NOBODY, site.home, "path", MODEL)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a store of root is trusted"
    assert (Path(done.stdout.strip()) / "config.json").exists()


def test_import_is_refused_before_it_reads(shared: tuple[Site, ScriptedServer]) -> None:
    site, _ = shared
    source = make_version(site.root / "more", "3.0.0")
    done = run_as(NOBODY, site.home, "import", source, "x@1.0.0")
    assert done.returncode == 7, done.stderr
    assert "cannot be written by nobody" in done.stderr


@pytest.mark.parametrize(
    ("mode", "owner", "status", "said"),
    [
        (0o777, 0, "wrong", "can be written by every user"),
        (0o1777, 0, "wrong", "can be written by every user"),
        (0o755, NOBODY, "note", "belongs to nobody"),
        (0o775, 0, "note", "can be written by the group nogroup"),
        (0o2775, 0, "ok", ""),
        (0o755, 0, "ok", ""),
    ],
)
def test_a_store_that_others_may_write_is_said(
    shared: tuple[Site, ScriptedServer], mode: int, owner: int, status: str, said: str
) -> None:
    site, _ = shared
    folder = site.home / "packs"
    os.chown(folder, owner, NOBODY)
    folder.chmod(mode)
    (check,) = [check for check in Store.doctor(site.home).checks if check.name == "permissions"]
    assert check.status == status
    assert said in check.what
    done = run_as(0, site.home, "path", MODEL)
    assert done.returncode == 0
    assert ("packs/ of the store" in done.stderr) == (status != "ok"), done.stderr
    assert said in done.stderr
    notes: list[str] = []
    with Store.open(site.home, progress=lambda event: notes.append(event.text)) as store:
        store.path(MODEL)
        store.path(MODEL)
        store.list_installed_models()
    assert sum(said in note for note in notes if said) == (status != "ok"), "once"


def test_folders_deep_inside_are_looked_at_by_doctor(shared: tuple[Site, ScriptedServer]) -> None:
    site, _ = shared
    (site.home / "refs" / "installed").chmod(0o777)
    (check,) = [check for check in Store.doctor(site.home).checks if check.name == "permissions"]
    assert (check.status, "refs/installed" in check.what) == ("wrong", True)


# --- registries --------------------------------------------------------------------------------


def _modes(registry: Path) -> tuple[set[int], set[int]]:
    """The modes of the folders, the registry's own included, and of the files."""
    found = [registry, *registry.rglob("*")]
    folders = {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()}
    return folders, {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()}


def _publish(place: Path, version: str, umask: int, *options: str) -> None:
    source = place / "sources" / version
    if not source.exists():
        make_version(source, version)
    words = ("publish", source, f"{MODEL}@{version}", "--registry", place / "registry", *options)
    done = run_as(0, place / "home", *words, umask=umask)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("umasks", [(0o077, 0o022, 0o077), (0o022, 0o077, 0o002), (0o027, 0o000, 0o077)])
def test_a_registry_has_one_mode_under_any_umask(tmp_path: Path, umasks: tuple[int, ...]) -> None:
    for number, umask in enumerate(umasks):
        _publish(tmp_path, f"1.{number}.0", umask)
        assert _modes(tmp_path / "registry") == ({0o755}, {0o644})
    _publish(tmp_path, "1.9.0", 0o077, "--split")
    words = (
        "registry",
        "yank",
        f"{MODEL}@1.0.0",
        "--registry",
        tmp_path / "registry",
    )
    done = run_as(0, tmp_path / "home", *words, umask=0o077)
    assert done.returncode == 0, done.stderr
    assert _modes(tmp_path / "registry") == ({0o755}, {0o644})


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o2775])
def test_the_folders_of_a_registry_follow_its_own(tmp_path: Path, mode: int) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry").chmod(mode)
    _publish(tmp_path, "1.0.0", 0o022)
    _publish(tmp_path, "1.1.0", 0o077)
    assert _modes(tmp_path / "registry") == ({mode}, {0o644})
