"""`fsck` of a sound store reports nothing, whatever others write meanwhile; only `gc` waits for it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.stores import MODEL, VERSIONS, Site, make_site, quiet_env
from yarnstore import Store
from yarnstore.store.kernel import try_lock

_RUNS = 2_000
_WRITERS = 4


class Interruptions:
    """Calls a function just before the process lists the n-th folder; audit hooks cannot be removed, so
    there is one."""

    def __init__(self) -> None:
        self.action: Callable[[], None] | None = None
        self.seen = self.at = 0
        sys.addaudithook(self._hook)

    def _hook(self, event: str, _: object) -> None:
        if event == "os.listdir" and self.action is not None:
            self.seen += 1
            if self.seen == self.at:
                action, self.action = self.action, None
                action()

    def arm(self, at: int, action: Callable[[], None]) -> None:
        self.seen, self.at, self.action = 0, at, action

    def disarm(self) -> bool:
        """Whether the function was called."""
        called = self.action is None
        self.action = None
        return called


@pytest.fixture(scope="module")
def interruptions() -> Iterator[Interruptions]:
    made = Interruptions()
    yield made
    made.disarm()


def _something_moves(home: Path) -> bool:
    """Whether the check itself keeps others from moving what is installed: they would wait."""
    fd = os.open(home / "logs" / "installed", os.O_RDONLY)
    try:
        return not try_lock(fd, exclusive=True)
    finally:
        os.close(fd)


def _write(site: Site, number: int) -> None:
    """A version comes, another goes, what is installed moves, and a pin is set."""
    if _something_moves(site.home):
        return
    source = site.root / f"own-{number}"
    source.mkdir()
    (source / "w.bin").write_bytes(random.Random(number).randbytes(40_000))
    with site.store() as store:
        store.import_model(source, f"own@0.{number}.0")
        if number % 3 == 2:
            store.checkout(f"own@0.{number}.0")
        store.checkout(f"{MODEL}@{VERSIONS[number % 3]}")
        store.pin(f"own@0.{number}.0")
        store.unpin(f"own@0.{number}.0")
        if number % 3 == 2:
            store.remove("own", whole_model=True)
        else:
            store.remove(f"own@0.{number}.0")
        store.refresh_registries()


def test_a_writer_between_any_two_listings_is_not_damage(
    tmp_path: Path, interruptions: Interruptions
) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        for version in VERSIONS:
            store.checkout(f"{MODEL}@{version}")
            store.pin(f"{MODEL}@{version}")
    at, called = 0, True
    while called:
        at += 1
        interruptions.arm(at, partial(_write, site, at))
        with site.store() as store:
            found = store.fsck(quick=at % 4 != 0).problems
        called = interruptions.disarm()
        assert found == [], (at, found)
    assert at > 15
    with site.store() as store:
        assert store.fsck().problems == []


_WRITER = """
    import os, sys
    from pathlib import Path
    from yarnstore import Store

    home, root, own, stop = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    number = 0
    while not stop.exists():
        number += 1
        source = root / f"{own}-{number}"
        source.mkdir()
        (source / "w.bin").write_bytes(os.urandom(20_000))
        with Store.open(home) as store:
            spec = f"own{own}@0.{number}.0"
            store.import_model(source, spec)
            if number % 2:
                store.checkout(spec)
            elif number % 6 == 0:
                store.remove(f"own{own}", whole_model=True)
            elif number % 4 == 0:
                store.remove(f"own{own}@0.{number}.0")
            store.checkout(f"phi-3-mini@1.{number % 3}.0")
            if number % 40 == 0:
                store.gc(keep=1)
"""


@pytest.mark.deep
def test_no_false_alarm_in_two_thousand_runs_beside_four_writers(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        for version in VERSIONS:
            store.checkout(f"{MODEL}@{version}")
    stop = tmp_path / "stop"
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(_WRITER))
    words = [sys.executable, str(script), str(site.home), str(tmp_path)]
    env = {**os.environ, **quiet_env(), "YSTORE_LOCK_TIMEOUT": "600"}
    writers = [subprocess.Popen([*words, str(n), str(stop)], env=env) for n in range(_WRITERS)]
    alarms = []
    began = time.monotonic()
    try:
        for run in range(_RUNS):
            with site.store(lock_timeout_s=600.0) as store:
                found = store.fsck(quick=run % 2 == 1).problems
            alarms += [(run, problem) for problem in found]
            assert all(writer.poll() is None for writer in writers), "a writer failed"
    finally:
        stop.touch()
        for writer in writers:
            writer.wait(timeout=700)
    print(f"{_RUNS} runs in {time.monotonic() - began:.0f} s")
    assert alarms == []
    with Store.open(site.home) as store:
        assert store.fsck().problems == []
