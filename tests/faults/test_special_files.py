"""Pipes, sockets, links and folders in place of files: never waited for or followed; errors or damage."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.support.operations import operations, site_in_use
from tests.support.stores import MODEL, Site, make_version, ystore
from yarnstore import Store
from yarnstore.errors import StorageError, YarnstoreError

_TIMEOUT_S = 30

PLACES = (
    *("packs/*.pack", "packs/*.idx", "manifests/*.json", "files/*", "views/*/config.json", "format", "lock"),
    *("config.toml", "managed.toml", "config.lock", "local-state.json", "queue.json", "queue.lock"),
    *(f"refs/versions/{MODEL}/default/*", f"refs/installed/{MODEL}", f"refs/pins/{MODEL}/default/*"),
    *(f"refs/holds/{MODEL}", f"refs/partial/{MODEL}/default/1.2.0"),
    *(f"logs/installed/{MODEL}", "logs/used/*", f"logs/origins/{MODEL}"),
    *("registries/made/registry.json", "registries/made/fetched.json", "registries/made/newest.json"),
    *("registries/made/health.json", "registries/made/plans.json"),
    *("tmp/left.pack", "tmp/left.file", "tmp/left.tmp", "tmp/left.download"),
)


class WaitedError(BaseException):
    """A command waits for a file."""


def _waited(_: int, __: FrameType | None) -> None:
    raise WaitedError


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _waited)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_in_use(tmp_path_factory.mktemp("made"))


def _plant(root: Path, place: str, kind: str) -> Path:
    found = sorted(root.glob(place)) if "*" in place else [root / place]
    assert found, place
    path = found[0]
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        (path / "more").mkdir(parents=True)
    else:
        here = os.getcwd()
        os.chdir(path.parent)  # the address of a socket is short
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind("s")
            os.rename("s", path.name)
        finally:
            os.chdir(here)
    return path


@pytest.mark.parametrize(
    ("place", "kind"),
    [*((place, "pipe") for place in PLACES), ("packs/*.pack", "socket"), ("files/*", "socket")],
)
def test_no_command_waits_for_what_is_no_file(made: Site, tmp_path: Path, place: str, kind: str) -> None:
    site = made.copy(tmp_path)
    _plant(site.home, place, kind)
    for command in operations(site):
        signal.alarm(_TIMEOUT_S)
        with contextlib.suppress(YarnstoreError), site.store(lock_timeout_s=5) as store:
            command(store)
        signal.alarm(0)


REPAIRED = (
    *PLACES[:6],
    *(f"refs/versions/{MODEL}/default/*", f"refs/pins/{MODEL}/default/*", f"refs/installed/{MODEL}"),
    *(f"logs/installed/{MODEL}", "logs/used/*", "logs/hashed/*", f"logs/origins/{MODEL}", "logs/seen/*"),
)
_IS_KIND = {"pipe": Path.is_fifo, "link": Path.is_symlink, "folder": Path.is_dir}


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize("place", REPAIRED)
def test_repair_puts_files_in_the_place_of_what_is_none(
    made: Site, tmp_path: Path, place: str, kind: str
) -> None:
    site = made.copy(tmp_path)
    path = _plant(site.home, place, kind)
    is_kind = _IS_KIND[kind]
    signal.alarm(2 * _TIMEOUT_S)
    with site.store() as store:
        assert store.fsck().problems != []
        result = store.fsck(repair=True)
        assert result.remaining == []
        assert not is_kind(path)
        assert any(map(is_kind, (site.home / "trash").rglob("*"))), "moved aside, not deleted"
        store.gc()
        assert any(map(is_kind, (site.home / "trash").rglob("*"))), "for a day"
        store.list_versions()
        store.check_for_updates()
        store.checkout(f"{MODEL}@1.0.0")
        store.rollback_model(MODEL)
        assert store.fsck().problems == []


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize("place", ["logs/hashed/*", "logs/used/*"])
def test_records_that_are_no_files_cost_a_hash_and_no_more(
    made: Site, tmp_path: Path, place: str, kind: str
) -> None:
    site = made.copy(tmp_path)
    for found in sorted(site.home.glob(place)):
        _plant(site.home, found.relative_to(site.home).as_posix(), kind)
    signal.alarm(2 * _TIMEOUT_S)
    with site.store() as store:
        for version in ("1.0.0", "1.1.0"):
            assert Path(store.path(f"{MODEL}@{version}")).exists()
        store.rollback_model(MODEL)
        store.check_for_updates()


@pytest.mark.parametrize("place", ["packs", "trash", "logs/hashed"])
def test_a_file_in_the_place_of_a_folder_is_moved_aside(made: Site, tmp_path: Path, place: str) -> None:
    site = made.copy(tmp_path)
    folder = site.home / place
    kept = folder.rename(tmp_path / "kept") if folder.exists() else None
    folder.write_bytes(b"somebody's own")
    with site.store() as store:
        found = store.fsck(quick=True).problems
        assert [(problem.kind, problem.where) for problem in found] == [("folder", place)]
        repaired = store.fsck(repair=True)
        assert repaired.remaining == []
        assert repaired.problems[0] == found[0]
        assert store.fsck().problems == []
    assert folder.is_dir()
    (aside,) = (site.home / "trash").glob(f"bad-*-{folder.name}.*")
    assert aside.read_bytes() == b"somebody's own", "a repair deletes nothing"
    assert kept is None or kept.is_dir()


def test_a_command_that_needs_a_folder_says_how_to_make_it(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    (site.home / "refs").rename(tmp_path / "kept")
    (site.home / "refs").write_bytes(b"")
    with site.store() as store, pytest.raises(StorageError, match="Not a directory") as caught:
        store.list_installed_models()
    assert "ystore fsck --repair" in caught.value.hint


def test_a_record_of_an_origin_that_names_no_registry_is_damage(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    (site.home / "logs" / "origins" / MODEL).write_bytes(b"no registry/\n\n")
    with site.store() as store:
        assert [problem.kind for problem in store.fsck(quick=True).problems] == ["record"]
        assert store.fsck(repair=True).remaining == []


@pytest.mark.parametrize(
    "place", ["registry.json", "manifests/*.json", "manifests/*.json.zst", "packs/*.pack", "packs/*.idx"]
)
def test_registries_with_pipes_are_read_and_published_to_without_waiting(
    made: Site, tmp_path: Path, place: str
) -> None:
    site = made.copy(tmp_path, registry=True)
    _plant(site.registry, place, "pipe")
    source = make_version(tmp_path / "new", "2.0.0")
    signal.alarm(2 * _TIMEOUT_S)
    with Store.open(tmp_path / "fresh") as store:
        with contextlib.suppress(YarnstoreError):
            store.add_registry("piped", site.registry)
        for version in (*site.versions, "2.0.0"):
            with contextlib.suppress(YarnstoreError):
                store.fetch(f"{MODEL}@{version}")
    for words in (
        ("registry", "lint", site.registry, "--deep"),
        ("publish", source, f"{MODEL}@2.0.0", "--registry", site.registry),
    ):
        signal.alarm(_TIMEOUT_S)
        done = ystore(tmp_path / "fresh", *words)
        assert done.returncode in range(9), done.stderr
        assert "Traceback" not in done.stderr


def test_sources_with_pipes_are_refused_by_name(made: Site, tmp_path: Path) -> None:
    source = make_version(tmp_path / "source", "3.0.0")
    os.mkfifo(source / "pipe.bin")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for words in (
        ("import", source, "x@1.0.0"),
        ("import", tmp_path / "pipe", "x@1.0.0"),
        ("import", tmp_path / "link", "x@1.0.0"),
        ("publish", source, "x@1.0.0", "--registry", tmp_path / "registry"),
        ("publish", tmp_path / "pipe", "x@1.0.0", "--registry", tmp_path / "registry"),
        ("inspect", tmp_path / "pipe"),
        ("diff", tmp_path / "pipe", source),
    ):
        signal.alarm(_TIMEOUT_S)
        done = ystore(tmp_path / "home", *words)
        assert done.returncode in (2, 4), (words, done.stderr)
        assert re.search(r"is not a|special file", done.stderr), (words, done.stderr)
    assert not (tmp_path / "registry").exists()
