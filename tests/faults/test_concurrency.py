"""T10 and T18: several processes on one store, and readers through `models/` meanwhile."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.stores import (
    MODEL,
    VERSIONS,
    Site,
    assert_serves,
    assert_whole,
    chunks_of,
    command,
    make_site,
    quiet_env,
    remove_tree,
    tree_hashes,
)
from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.errors import LockTimeoutError
from yarnstore.store.layout import StoreLayout

_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("made"))


def _at_once(home: Path, commands: Sequence[Sequence[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Run commands at the same time, each in its own process."""
    started = [
        subprocess.Popen(
            command(home, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", **quiet_env()},
        )
        for words in commands
    ]
    done = []
    for process in started:
        out, err = process.communicate(timeout=_TIMEOUT_S)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


def _assert_all_done(done: Sequence[subprocess.CompletedProcess[str]]) -> None:
    for run in done:
        assert run.returncode == 0, (run.args, run.returncode, run.stdout[-500:], run.stderr[-1500:])


@pytest.mark.parametrize("specs", [("1.0.0", "1.0.0"), ("1.0.0", "1.1.0"), ("1.0.0", "1.1.0", "1.2.0")])
def test_fetches_at_once(specs: tuple[str, ...], made: Site, tmp_path: Path) -> None:
    for n in range(2):
        site = made.copy(tmp_path / str(n))
        _assert_all_done(_at_once(site.home, [["fetch", f"{MODEL}@{version}"] for version in specs]))
        for version in specs:
            assert_serves(site.home, site, version)
        assert_whole(site.home, site)


# Each process runs its words again and again, so that every pair of moments meets some time.
_LOOP = """
import json, random, sys
from yarnstore import Store
from yarnstore.errors import YarnstoreError
home, what, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
pick = random.Random(seed)
store = Store.open(home)
bad = []
for _ in range(rounds):
    version = pick.choice(["1.0.0", "1.1.0", "1.2.0"])
    spec = "phi-3-mini@" + version
    try:
        if what == "fetch":
            store.fetch(spec)
        elif what == "checkout":
            store.checkout(spec)
        elif what == "gc":
            store.gc(keep=0)
        elif what == "refresh":
            store.refresh_registries()
        elif what == "path":
            store.path(spec)
            store.close()
        elif what == "pin":
            store.pin("phi-3-mini@" + store.list_installed_models()[0].version)
            for installed in ("1.0.0", "1.1.0", "1.2.0"):
                try:
                    store.unpin("phi-3-mini@" + installed)
                except YarnstoreError:
                    pass
        elif what == "fsck":
            found = store.fsck().problems
            bad += [(item.kind, item.where, item.what) for item in found if item.kind != "link"]
    except YarnstoreError as error:
        if what != "pin":
            bad.append((what, spec, repr(error)))
print(json.dumps(bad))
"""


def _together(site: Site, kinds: Sequence[str], rounds: int) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _LOOP, str(site.home), kind, str(seed), str(rounds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", **quiet_env()},
        )
        for seed, kind in enumerate(kinds)
    ]
    bad = []
    for kind, process in zip(kinds, processes, strict=True):
        out, err = process.communicate(timeout=1800)
        assert process.returncode == 0, (kind, err[-3000:])
        bad += json.loads(out)
    assert bad == []
    found = [item for item in _problems(site) if item[0] != "link"]
    assert found == []
    for version in VERSIONS:
        assert_serves(site.home, site, version)


def _problems(site: Site) -> list[tuple[str, str]]:
    with site.store() as store:
        return [(item.kind, item.what) for item in store.fsck().problems]


_KINDS = ("fetch", "fetch", "checkout", "gc", "fsck", "refresh", "path")


def test_everything_at_once(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    _together(site, _KINDS, 6)


@pytest.mark.deep
def test_everything_at_once_many_rounds(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
    _together(site, (*_KINDS, "checkout", "pin"), 60)


def test_publishers_at_once(made: Site, tmp_path: Path) -> None:
    """Each adds its version to the same new registry; none is lost."""
    registry = tmp_path / "registry"
    _assert_all_done(
        _at_once(
            tmp_path / "none",
            [["publish", str(made.source(v)), f"{MODEL}@{v}", "--registry", str(registry)] for v in VERSIONS],
        )
    )
    with Store.open(tmp_path / "home") as store:
        store.add_registry("made", registry)
        for version in VERSIONS:
            assert tree_hashes(Path(store.path(f"{MODEL}@{version}"))) == made.contents(version)


def test_waiting_for_the_lock_is_bounded_and_names_the_holder(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    layout = StoreLayout(site.home)
    with layout.exclusive():
        started = time.monotonic()
        with site.store(lock_timeout_s=0.3) as store, pytest.raises(LockTimeoutError) as caught:
            store.fetch(f"{MODEL}@1.0.0")
        assert time.monotonic() - started < 3
        assert caught.value.fields["holders"]
        done = _at_once(site.home, [["gc", "--lock-timeout", "0.2", "--json"]])[0]
        assert done.returncode == 8, done
    _assert_all_done(_at_once(site.home, [["gc"]]))


def test_a_killed_holder_leaves_no_lock(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom yarnstore.store.layout import StoreLayout\n"
        "with StoreLayout(Path(sys.argv[1])).exclusive():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    for _ in range(5):
        words = [sys.executable, "-c", script, str(site.home)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            process.kill()
        with StoreLayout(site.home, 1.0).exclusive():
            pass


# --- T18 ---------------------------------------------------------------------------------------


def _swap_under_readers(site: Site, rounds: int) -> int:
    """Check out and roll back while threads read through the link; how often they read."""
    right = {version: site.contents(version)["config.json"] for version in VERSIONS}
    link = site.home / "models" / MODEL
    stop = threading.Event()
    faults: list[str] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            try:
                data = (link / "config.json").read_bytes()
                (link / "adapter" / "delta.bin").stat()
            except OSError as error:
                faults.append(repr(error))
            else:
                if Sha256.of(data).hex not in right.values():
                    faults.append(f"read {data!r}")
            reads += 1

    readers = [threading.Thread(target=read) for _ in range(2)]
    with site.store() as store:
        for version in VERSIONS:
            store.checkout(f"{MODEL}@{version}")
        for reader in readers:
            reader.start()
        try:
            pick = random.Random(1)
            for n in range(rounds):
                if n % 3:
                    store.checkout(f"{MODEL}@{pick.choice(VERSIONS)}")
                else:
                    store.rollback_model(MODEL, pick.choice(VERSIONS))
        finally:
            stop.set()
            for reader in readers:
                reader.join()
    assert faults == []
    return reads


def test_a_reader_never_misses_a_file(made: Site, tmp_path: Path) -> None:
    assert _swap_under_readers(made.copy(tmp_path), 80) > 100


@pytest.mark.deep
def test_a_reader_never_misses_a_file_in_ten_thousand_swaps(made: Site, tmp_path: Path) -> None:
    assert _swap_under_readers(made.copy(tmp_path), 10_000) > 10_000


def test_the_reader_sees_a_link_that_is_removed_before_it_is_made(
    made: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof that T18 can fail."""
    from yarnstore.store import fsio

    def remove_then_make(link: Path, target: str, *, tmp_dir: Path) -> bool:
        place = Path(link)
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        time.sleep(0.002)
        place.symlink_to(target)
        return True

    monkeypatch.setattr(fsio, "swap_link", remove_then_make)
    with pytest.raises(AssertionError):
        _swap_under_readers(made.copy(tmp_path), 60)


def test_the_campaign_sees_a_gc_without_its_lock(
    made: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof that T10's promise rests on the lock: without it gc takes what a fetch has brought."""
    from contextlib import nullcontext

    from yarnstore.ops.fetching import fetch as ops_fetch

    site = made.copy(tmp_path)
    real = ops_fetch.ensure_chunks

    def then_gc(*args: object, **more: object) -> object:
        brought = real(*args, **more)  # type: ignore[arg-type]
        site.store().gc(keep=0)
        return brought

    monkeypatch.setattr(ops_fetch, "ensure_chunks", then_gc)
    with site.store(lock_timeout_s=0.2) as store:
        monkeypatch.setattr(Store, "gc", _impatient_gc)
        with pytest.raises(LockTimeoutError):
            store.fetch(f"{MODEL}@1.0.0")
        monkeypatch.setattr(StoreLayout, "exclusive", lambda self, **_: nullcontext())
        monkeypatch.setattr("yarnstore.store.refs.Refs.partials", lambda *_: [])
        store.fetch(f"{MODEL}@1.0.0")
    assert not chunks_of(site.home / "packs")
    assert _problems(site)
    remove_tree(site.home)


def _impatient_gc(store: Store, *, keep: int) -> object:
    from yarnstore.ops.querying.keeping import GcPolicy
    from yarnstore.ops.session.session import Session
    from yarnstore.ops.upkeep.gc import gc

    return gc(Session.without_registries(StoreLayout(store.home, 0.2)), GcPolicy(keep))
