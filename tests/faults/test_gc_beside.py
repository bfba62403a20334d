"""`gc` beside everything else: two at once, and beside fetches, installs and programs with open views.

A run is one `gc`.  The other processes do their work again and again until the last `gc` has ended, so that
every pair of moments meets some time.  They pause in between, since a `gc` that needs the exclusive lock
waits for a moment in which no process has the shared one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fine_tunes import MODEL, publish_tuned
from tests.support.stores import Site, assert_whole, copy_tree, quiet_env
from yarnstore import Store

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")

_LOOP = """
import hashlib, json, random, sys, time
from pathlib import Path
import msgspec
from yarnstore import Store
from yarnstore.errors import YarnstoreError
home, what, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
right, end = json.loads(sys.argv[5]), Path(sys.argv[6])
pick = random.Random(seed)
store = Store.open(home)
store.settings = msgspec.structs.replace(store.settings, lock_timeout_s=300.0)
bad = []

def read(path):
    return {
        str(item.relative_to(path)): hashlib.sha256(item.read_bytes()).hexdigest()
        for item in Path(path).rglob("*") if item.is_file()
    }

done = 0
while done < rounds if what in ("gc", "thin") else not end.exists():
    done += 1
    began = time.monotonic()
    version = pick.choice(list(right))
    spec = "tuned@" + version
    try:
        if what == "gc":
            store.gc(keep=pick.choice([0, 1, 3]), grace_s=0, repack=pick.random() < 0.1)
        elif what == "thin":
            store.gc(keep=pick.choice([1, 3]), grace_s=0, thin=pick.choice([None, "*"]))
        elif what == "fetch":
            store.fetch(spec)
        elif what == "checkout":
            store.checkout(spec)
        elif what == "reader":
            # The view stays as long as the store is open, whatever is installed and deleted meanwhile.
            path = store.path(spec)
            for _ in range(3):
                if read(path) != right[version]:
                    bad.append((what, spec, "other bytes"))
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
    if what not in ("gc", "thin"):
        time.sleep(pick.uniform(0, 4) * (time.monotonic() - began))
print(json.dumps([done, bad]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("made")
    site = Site(root, root / "registry", root / "home", (MODEL,), VERSIONS)
    publish_tuned(site, 60_000, 40_000)
    with Store.open(site.home) as store:
        store.add_registry("made", site.registry)
        store.checkout(f"{MODEL}@1.0.0")
    return site


def _together(site: Site, kinds: Sequence[str], rounds: int) -> None:
    right = json.dumps({version: site.contents(version, MODEL) for version in VERSIONS})
    end = site.home.with_name("end")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LOOP, str(site.home), kind, str(seed), str(rounds), right, str(end)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", **quiet_env()},
        )
        for seed, kind in enumerate(kinds)
    ]
    bad, counts = [], []
    # The gcs come first.
    for n, (kind, process) in enumerate(zip(kinds, processes, strict=True)):
        if n == kinds.index("thin") + 1:
            end.touch()
        out, err = process.communicate(timeout=7200)
        assert process.returncode == 0, (kind, err[-3000:])
        done, found = json.loads(out)
        counts.append(f"{done} {kind}")
        bad += found
    print(", ".join(counts))
    assert bad == []
    assert_whole(site.home, site)


_KINDS = ("gc", "thin", "fetch", "checkout", "reader", "reader")


def test_gc_beside_everything(made: Site, tmp_path: Path) -> None:
    copy_tree(made.home, tmp_path / "home")
    _together(replace(made, home=tmp_path / "home"), _KINDS, 4)


@pytest.mark.deep
def test_a_thousand_gcs_beside_everything(made: Site, tmp_path: Path) -> None:
    copy_tree(made.home, tmp_path / "home")
    _together(replace(made, home=tmp_path / "home"), (*_KINDS, "fsck"), 500)
