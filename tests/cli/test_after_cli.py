"""Commands that install free disk space after they printed their result, and exit as the install did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, assert_whole, make_site
from yarnstore.store.kernel import wait_lock

PATIENCE_S = 120


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.0.0 and 1.1.0 were installed; an update to 1.2.0 leaves 1.0.0 as chunks alone."""
    site = make_site(tmp_path_factory.mktemp("made"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        store.checkout(f"{MODEL}@1.1.0", wait=False)
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def command(site: Site, *words: str) -> list[str]:
    return [sys.executable, "-m", "yarnstore", *words, "--home", str(site.home)]


def run(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(site, *words), capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def views(site: Site) -> int:
    return len(os.listdir(site.home / "views"))


@contextmanager
def in_use(site: Site) -> Iterator[None]:
    """Another process reads the store."""
    fd = os.open(site.home / "lock", os.O_RDWR)
    try:
        wait_lock(fd, exclusive=False)
        yield
    finally:
        os.close(fd)


@pytest.mark.parametrize("words", [("update", MODEL), ("checkout", f"{MODEL}@1.2.0"), ("update", "--all")])
def test_json_is_one_document_and_the_rest_is_done(site: Site, words: tuple[str, ...]) -> None:
    ran = run(site, *words, "--json")
    assert ran.returncode == 0, ran.stderr
    done = json.loads(ran.stdout)
    assert done["results"][0]["status"] == "updated" if "results" in done else done["version"] == "1.2.0"
    assert ran.stderr == ""
    assert views(site) == 2
    assert_whole(site.home, site)


@pytest.mark.parametrize(
    "words",
    [("update", MODEL), ("checkout", f"{MODEL}@1.2.0"), ("auto-update", "run", "--now")],
)
def test_no_wait_leaves_it_to_gc(site: Site, words: tuple[str, ...]) -> None:
    with site.store() as store:
        store.set_auto_update(enabled=True, policy="minor")
    ran = run(site, *words, "--no-wait")
    assert ran.returncode == 0, ran.stderr
    assert views(site) == 3
    assert run(site, "gc").returncode == 0
    assert views(site) == 2
    assert_whole(site.home, site)


def test_an_update_with_rules_deletes_before_its_result_and_encodes_after_it(site: Site) -> None:
    (site.home / "config.toml").write_text("keep = 1\n")
    ran = run(site, "update", MODEL, "--json")
    assert json.loads(ran.stdout)["version"] == "1.2.0"
    assert views(site) == 2
    with site.store() as store:
        assert [row.version for row in store.list_versions(MODEL)] == ["1.2.0", "1.1.0"]


@pytest.mark.skipif(os.name == "nt", reason="on Windows only a console sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_after_its_result_it_exits_as_the_install_did(site: Site, number: signal.Signals) -> None:
    packs = site.home / "packs"
    with (
        in_use(site),  # so that it waits before it deletes
        subprocess.Popen(
            command(site, "update", MODEL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        ) as process,
    ):
        assert process.stdout is not None
        assert b"1.2.0" in process.stdout.readline()
        before = set(os.listdir(packs))
        give_up_s = time.monotonic() + PATIENCE_S
        while set(os.listdir(packs)) <= before and process.poll() is None and time.monotonic() < give_up_s:
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (0, b""), err
    assert views(site) == 3
    assert run(site, "gc").returncode == 0
    assert views(site) == 2
    assert_whole(site.home, site)


def test_killed_after_its_result_it_loses_nothing(site: Site) -> None:
    with in_use(site):
        process = subprocess.Popen(command(site, "update", MODEL), stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert b"1.2.0" in process.stdout.readline()  # the result comes before the work
        process.kill()
        process.communicate(timeout=PATIENCE_S)
    assert_whole(site.home, site)
    assert run(site, "gc", "--grace", "0").returncode == 0
    assert views(site) == 2
    assert_whole(site.home, site)
