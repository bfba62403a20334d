"""The doctor finds each ill that it says it looks for, and no other."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.servers import static_server
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.core.encodings import numpy_kernels
from yarnstore.errors import IncompatibleError
from yarnstore.ops.checking import doctor, doctor_disk
from yarnstore.ops.checking.doctor import DoctorResult, diagnose
from yarnstore.store import fsio, fsread


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make_site(tmp_path_factory.mktemp("doctor"), versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def ills(found: DoctorResult) -> dict[str, str]:
    return {check.name: check.status for check in found.checks if check.status != "ok"}


def test_a_healthy_machine(site: Site) -> None:
    before = sorted(path.relative_to(site.home) for path in site.home.rglob("*"))
    found = Store.doctor(site.home)
    assert ills(found) == {}
    assert found.wrong == 0
    assert {check.name for check in found.checks} == {
        "versions", "config", "auto-update", "store", "permissions", "locks", "hard links", "symlinks",
        "space", "clock", "registry made", "downloads", "queue", "leavings", "contents",
    }  # fmt: skip
    assert sorted(path.relative_to(site.home) for path in site.home.rglob("*")) == before, "it left something"


def test_kernels_that_were_asked_for_and_are_not_built_are_reported(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "kernels", numpy_kernels)
    for wanted, expected in (("", {}), ("numpy", {}), ("c", {"versions": "note"})):
        monkeypatch.setenv("YSTORE_KERNELS", wanted)
        assert ills(Store.doctor(site.home)) == expected, wanted


def test_a_machine_without_a_store(tmp_path: Path) -> None:
    found = Store.doctor(tmp_path / "none")
    assert ills(found) == {"registries": "note"}
    assert not (tmp_path / "none").exists()


def _bad_format(site: Site) -> None:
    (site.home / "format").write_text("yarnstore-store/9\n")


def _bad_config(site: Site) -> None:
    (site.home / "config.toml").write_text("registries = 3\n")


def _bad_registry_name(site: Site) -> None:
    (site.home / "config.toml").write_text('[[registries]]\nname = "../x"\nurl = "/srv"\n')


def _bad_managed(site: Site) -> None:
    (site.home / "managed.toml").write_text("[[registries]]\nname = 3\n")


def _bad_timezone(site: Site) -> None:
    path = site.home / "config.toml"
    path.write_text('[auto_update]\nenabled = true\ntimezone = "Mars/Olympus"\n')


def _bad_queue(site: Site) -> None:
    (site.home / "queue.json").write_text('{"items": [3]}')


def _clock(site: Site) -> None:
    log = site.home / "registries" / "made" / "fetched.json"
    assert log.exists()
    later = int((time.time() + 90_000) * 1000)
    with Store.open(site.home) as store, store._session() as session:
        session.activity.clock = lambda: later / 1000
        session.registries.refresh(session.registries.sources[0])


def _damage(site: Site) -> None:
    (site.home / "refs" / "installed" / MODEL).write_text("sha256:bad\n")


def _state(site: Site) -> None:
    path = site.home / "local-state.json"
    state = json.loads(path.read_text())
    state["installed_models"][MODEL]["version"] = "7.0.0"
    path.write_text(json.dumps(state))


def _partial(site: Site) -> None:
    ref = site.home / "refs" / "partial" / MODEL / "default" / "1.1.0"
    ref.parent.mkdir(parents=True)
    shutil.copy(site.home / "refs" / "versions" / MODEL / "default" / "1.0.0", ref)
    os.utime(ref, (1, 1))


def _registry(site: Site) -> None:
    with Store.open(site.home) as store:
        store.remove_registry("made")
    config = site.home / "config.toml"
    config.write_text('[[registries]]\nname = "made"\nurl = "/nowhere/registry"\n')


# Without a registry that has the version, its files are the only copy.
ONE_COPY = {"second copies": "note"}


@pytest.mark.parametrize(
    ("hurt", "expected"),
    [
        (_bad_config, {"config": "wrong", "registries": "note", **ONE_COPY}),
        (_bad_registry_name, {"config": "wrong", "registries": "note", **ONE_COPY}),
        (_bad_managed, {"config": "wrong", "registries": "note", **ONE_COPY}),
        (_bad_timezone, {"auto-update": "wrong"}),
        (_bad_queue, {"queue": "wrong"}),
        (_clock, {"clock": "wrong"}),
        (_damage, {"contents": "wrong"}),
        (_state, {"contents": "wrong"}),
        (_registry, {"registry made": "wrong", **ONE_COPY}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_each_ill_is_found_with_its_mend(
    site: Site, hurt: Callable[[Site], None], expected: dict[str, str]
) -> None:
    hurt(site)
    found = Store.doctor(site.home)
    assert ills(found) == expected
    for check in found.checks:
        if check.status != "ok":
            assert check.what
            assert check.mend, check.name
    assert found.wrong == sum(status == "wrong" for status in expected.values())


def test_a_newer_store(site: Site) -> None:
    _bad_format(site)
    found = Store.doctor(site.home)
    assert ills(found)["store"] == "wrong"
    (check,) = [check for check in found.checks if check.name == "store"]
    assert "format 9" in check.what
    (contents,) = [check for check in found.checks if check.name == "contents"]
    assert "format 9" in contents.what
    assert "fsck" not in contents.mend, "a repair must not lower the format"


def test_a_newer_store_is_neither_checked_nor_repaired(site: Site) -> None:
    _bad_format(site)
    before = {path: path.read_bytes() for path in site.home.rglob("*") if path.is_file()}
    with Store.open(site.home) as store:
        for use in (store.fsck, partial(store.fsck, quick=True), partial(store.fsck, repair=True)):
            with pytest.raises(IncompatibleError, match="in format 9"):
                use()
    assert {path: path.read_bytes() for path in site.home.rglob("*") if path.is_file()} == before


def test_what_was_left_is_noted(site: Site) -> None:
    _partial(site)
    found = Store.doctor(site.home)
    assert ills(found)["downloads"] == "note"


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have one name for both")
def test_names_that_only_case_distinguishes_are_noted(site: Site) -> None:
    refs = site.home / "refs" / "versions" / MODEL
    shutil.copytree(refs / "default", refs / "Default")
    (check,) = [check for check in Store.doctor(site.home).checks if check.name == "names"]
    assert check.status == "note"
    assert f"{MODEL}:Default@1.0.0 and {MODEL}:default@1.0.0" in check.what


def test_little_room(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsread, "free_bytes", lambda *_: (400, 500))
    assert ills(Store.doctor(site.home)) == {"space": "wrong"}
    monkeypatch.setattr(fsread, "free_bytes", lambda *_: (900, 500))
    assert ills(Store.doctor(site.home)) == {"space": "note"}


def test_a_file_system_that_lacks_something(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsio, "hard_link", lambda *_: False)
    monkeypatch.setattr(fsio, "swap_link", lambda *_, **__: False)
    monkeypatch.setattr(doctor_disk, "_locks", lambda _: False)
    assert ills(Store.doctor(site.home)) == {"hard links": "note", "symlinks": "note", "locks": "wrong"}


def test_a_clock_that_was_never_set(site: Site) -> None:
    with Store.open(site.home) as store, store._session() as session:
        session.activity.clock = lambda: 3.0
        assert ills(diagnose(session))["clock"] == "wrong"


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0,
    reason="root and Windows write in such a folder",
)
def test_a_store_that_cannot_be_written(site: Site) -> None:
    (site.home / "packs").chmod(0o555)
    try:
        assert ills(Store.doctor(site.home))["permissions"] == "wrong"
    finally:
        (site.home / "packs").chmod(0o755)


def test_the_mend_of_permissions_can_be_typed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    home = site.home.rename(site.home.with_name("it's a home"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    (check,) = [check for check in Store.doctor(home).checks if check.name == "permissions"]
    command = check.mend.partition(": ")[2]
    words = shlex.split(command)
    assert [word for word in words if word == str(home)] == [str(home)] * 2
    assert subprocess.run(["sh", "-nc", command], check=False).returncode == 0
    assert "USER" not in words


def test_a_registry_on_the_net_answers(site: Site) -> None:
    with static_server(site.registry) as url:
        with Store.open(site.home) as store:
            store.add_registry("net", url)
        found = Store.doctor(site.home)
    assert ills(found) == {}
    (check,) = [check for check in found.checks if check.name == "registry net"]
    assert "answers in" in check.what


def test_a_registry_that_is_gone_was_cached(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path, registry=True)
    with Store.open(site.home) as store:
        store.remove_registry("made")
        store.add_registry("made", site.registry)
    shutil.rmtree(site.registry)
    found = Store.doctor(site.home)
    assert ills(found) == {"registry made": "wrong"}
    (check,) = [check for check in found.checks if check.name == "registry made"]
    assert "the cached index" in check.what
