"""`gc` beside everything else: two at once, and beside fetches, installs, removals and programs with open
views.

A run is one `gc`.  The other processes do their work again and again, without a pause, until the last `gc`
has ended, so that every pair of moments meets some time; each `gc` gets its turn among them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fine_tunes import MODEL, publish_tuned
from tests.support.small_stores import other_process
from tests.support.stores import (
    Site,
    assert_whole,
    command,
    copy_tree,
    memory_folder,
    quiet_env,
    remove_tree,
    ystore,
)
from yarnstore import Store
from yarnstore.store.layout import DEFAULT_LOCK_TIMEOUT_S

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")

_LOOP = """
import hashlib, json, random, sys, time
from pathlib import Path
from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError, YarnstoreError
home, what, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
right, end = json.loads(sys.argv[5]), Path(sys.argv[6])
pick = random.Random(seed)
store = Store.open(home)
bad = []

def read(path):
    return {
        item.relative_to(path).as_posix(): hashlib.sha256(item.read_bytes()).hexdigest()
        for item in Path(path).rglob("*") if item.is_file()
    }

def heard(event):  # nothing is damaged here, so none may say so
    if "corrupt" in event.text or "modified" in event.text:
        bad.append((what, spec, event.text))

done, longest_s = 0, 0.0
while done < rounds if what in ("gc", "thin") else not end.exists():
    done += 1
    began = time.monotonic()
    version = pick.choice(list(right))
    spec = "tuned@" + version
    try:
        if what == "gc":
            store.gc(keep=pick.choice([0, 1, 3]), grace_s=0, repack=pick.random() < 0.1, progress=heard)
        elif what == "thin":
            store.gc(keep=pick.choice([1, 3]), grace_s=0, thin=pick.choice([None, "*"]), progress=heard)
        elif what == "fetch":
            store.fetch(spec, progress=heard)
            if pick.random() < 0.3:
                try:
                    store.remove(spec)
                except (ConflictError, NotFoundError):
                    pass  # it is installed, or gc was first
        elif what == "checkout":
            store.checkout(spec, progress=heard)
        elif what == "reader":
            # The view stays as long as the store is open, whatever is installed and deleted meanwhile.
            path = store.path(spec)
            for _ in range(3):
                found = read(path)
                if found != right[version]:
                    wrong = sorted(found.items() - right[version].items())
                    bad.append((what, spec, f"{path} has {sorted(found)}, wrong are {wrong}"))
            store.close()
        elif what == "fsck":
            bad += [
                (item.kind, item.where, item.what) for item in store.fsck().problems
                if item.kind not in ("link", "state")
            ]
    except YarnstoreError as error:
        bad.append((what, spec, repr(error)))
    except FileNotFoundError as error:
        bad.append((what, spec, repr(error)))
    longest_s = max(longest_s, time.monotonic() - began)
print(json.dumps([done, longest_s, bad]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("made")
    site = Site(root, root / "registry", root / "home", (MODEL,), VERSIONS)
    publish_tuned(site, 30_000, 20_000)
    with Store.open(site.home) as store:
        store.add_registry("made", site.registry)
        store.checkout(f"{MODEL}@1.0.0")
    return site


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    """In memory, where the system has such a place: stores are synced often."""
    root = memory_folder()
    copy_tree(made.home, root / "home")
    yield replace(made, home=root / "home")
    remove_tree(root)


def _start(site: Site, kinds: Sequence[str], rounds: int = 0) -> list[subprocess.Popen[str]]:
    right = json.dumps({version: site.contents(version, MODEL) for version in VERSIONS})
    end = str(site.home.with_name("end"))
    return [
        subprocess.Popen(
            [sys.executable, "-c", _LOOP, str(site.home), kind, str(seed), str(rounds), right, end],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", **quiet_env()},
        )
        for seed, kind in enumerate(kinds)
    ]


def _finish(kinds: Sequence[str], processes: Sequence[subprocess.Popen[str]]) -> None:
    """Nothing was wrong, and nobody waited for the lock until its limit."""
    bad, slow = [], []
    for kind, process in zip(kinds, processes, strict=True):
        out, err = process.communicate(timeout=7200)
        assert process.returncode == 0, (kind, err[-3000:])
        done, longest_s, found = json.loads(out)
        print(f"{done} {kind}, the longest took {longest_s:.1f} s", flush=True)
        bad += found
        slow += [(kind, longest_s)] if longest_s >= DEFAULT_LOCK_TIMEOUT_S else []
    assert not bad, json.dumps(bad, indent=1)
    assert slow == []


@contextmanager
def _beside(site: Site, kinds: Sequence[str]) -> Iterator[None]:
    """Others work meanwhile, and find nothing wrong; at the end the store is whole."""
    processes = _start(site, kinds)
    try:
        yield
    finally:
        site.home.with_name("end").touch()
        _finish(kinds, processes)
    assert_whole(site.home, site)


_GCS = ("gc", "thin")
_OTHERS = ("fetch", "checkout", "reader", "reader")


def test_gc_beside_everything(site: Site) -> None:
    with _beside(site, _OTHERS):
        _finish(_GCS, _start(site, _GCS, 4))


@pytest.mark.deep
def test_a_thousand_gcs_beside_everything(site: Site) -> None:
    with _beside(site, (*_OTHERS, "fsck")):
        _finish(_GCS, _start(site, _GCS, 500))


def test_the_command_gets_its_turn_beside_everything(site: Site) -> None:
    with _beside(site, (*_OTHERS, "fsck")):
        for words in (("--keep", "1"), ("--keep", "3", "--thin"), ("--keep", "0", "--repack")):
            began = time.monotonic()
            done = ystore(site.home, "gc", *words, "--grace", "0", timeout_s=300)
            took_s = time.monotonic() - began
            assert done.returncode == 0, done
            assert "kept:" not in done.stderr, "a lock that it did not get"
            assert took_s < DEFAULT_LOCK_TIMEOUT_S
            print(f"ystore gc {' '.join(words)}: {took_s:.1f} s", flush=True)


# --- children of one that holds the lock, while gc waits for it ---------------------------------

# Waits until gc has closed the gate, does what takes the shared lock, and says how long that took.
_CHILD = """
import os, sys, time
from pathlib import Path
from yarnstore import Store
from yarnstore.store import lock
home, said = Path(sys.argv[1]), Path(sys.argv[2])
said.touch()
limit = time.monotonic() + 300
while not lock.is_closed(home / "lock.gate"):
    assert time.monotonic() < limit, "gc does not wait"
    time.sleep(0.01)
began = time.monotonic()
with Store.open(home) as store:
    store.fetch("tuned@1.2.0")
took = time.monotonic() - began
assert lock.is_closed(home / "lock.gate"), "gc did not wait for the parent"
said.with_suffix(".part").write_text(str(took))
os.replace(said.with_suffix(".part"), said)
"""
# At the gate, where a system does not say whose child it is, and for the work itself on a busy machine; a
# lock that is not got takes a minute.
_CHILD_S = 2 + 10


def test_a_self_check_that_uses_the_store_ends_beside_a_gc_that_waits(site: Site, tmp_path: Path) -> None:
    said = tmp_path / "said"
    words = [sys.executable, "-c", _CHILD, str(site.home), str(said)]
    (site.home / "config.toml").write_text(f'[models."{MODEL}"]\nverify_command = {json.dumps(words)}\n')
    checkout = _run(site, "checkout", f"{MODEL}@1.1.0")
    _wait_for(said, checkout)
    gc = _run(site, "gc", "--keep", "3")
    _end(checkout)
    _end(gc)
    took_s = float(said.read_text())
    print(f"{took_s:.1f} s", flush=True)
    assert took_s < _CHILD_S
    assert_whole(site.home, site)


_HOLDER = """
from yarnstore.store.layout import StoreLayout
from yarnstore.store.filepath import Path
with StoreLayout(Path(sys.argv[1])).shared():
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_program_that_run_starts_is_delayed_by_a_gc_that_waits_and_no_more(
    site: Site, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with other_process(_HOLDER, str(site.home)):
        running = _run(site, "run", MODEL, "--", sys.executable, "-c", _CHILD, str(site.home), str(said))
        _wait_for(said, running)
        gc = _run(site, "gc", "--keep", "3")
        _end(running)
        assert gc.poll() is None
    _end(gc)
    took_s = float(said.read_text())
    print(f"{took_s:.1f} s", flush=True)
    assert took_s < _CHILD_S
    assert_whole(site.home, site)


def _run(site: Site, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(site.home, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", **quiet_env()},
    )


def _end(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
