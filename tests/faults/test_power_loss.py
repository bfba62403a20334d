"""T2: in every state that a power failure may leave, nothing that was reported as done is lost.

Each scenario is traced once; then the states are made at the same place, one after another, and opened.
"""

from __future__ import annotations

import copy
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.faults import no_links
from tests.faults.powerloss import Disk, State, end_states, put, record, replay, some_states, states, tree
from tests.faults.scenarios import set_rollback
from tests.faults.tracing import Call, answer_of, require_strace
from tests.support.fine_tunes import MODEL, publish_tuned
from tests.support.stores import Site, command, memory_folder, remove_tree, tree_hashes, versions_in
from yarnstore import Store
from yarnstore.errors import YarnstoreError

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
_WEIGHTS = 60_000
QUICK_STATES = 6
DEEP_STATES = 1000


@dataclass(frozen=True)
class Scenario:
    """One command on a store: how the store comes to be, and the same command through the API."""

    prepare: Callable[[Store], object]
    words: tuple[str, ...]
    again: Callable[[Store], object]


def _install(*versions: str) -> Callable[[Store], None]:
    def prepare(store: Store) -> None:
        for version in versions:
            store.checkout(f"{MODEL}@{version}")

    return prepare


def _fetch_and_install(store: Store) -> None:
    for version in VERSIONS[:2]:
        store.fetch(f"{MODEL}@{version}")
        store.checkout(f"{MODEL}@{version}", wait=False)  # what is on the disk twice is left to gc


def _thin(store: Store) -> None:
    _install(*VERSIONS)(store)
    store.gc(keep=3, thin="*", grace_s=0)


def _thin_by_policy(*versions: str) -> Callable[[Store], None]:
    def prepare(store: Store) -> None:
        _install(*versions)(store)
        set_rollback(store.home, MODEL, "thin")

    return prepare


def _back_to_instant(store: Store) -> None:
    """Thinned by its policy, which is `instant` again."""
    _thin_by_policy(*VERSIONS)(store)
    with Store.open(store.home) as thin:
        thin.gc(keep=3, grace_s=0)
    set_rollback(store.home, MODEL, "instant")


def _move(store: Store) -> object:
    return store.move(store.home.parent / "disk")


SCENARIOS = {
    "install": Scenario(
        lambda _: None, ("checkout", f"{MODEL}@1.0.0"), lambda store: store.checkout(f"{MODEL}@1.0.0")
    ),
    "update": Scenario(
        _install("1.0.0", "1.1.0"), ("update", MODEL), lambda store: store.update_model(MODEL)
    ),
    "gc": Scenario(_fetch_and_install, ("gc", "--keep", "3"), lambda store: store.gc(keep=3)),
    "thin": Scenario(
        _install(*VERSIONS),
        ("gc", "--keep", "2", "--thin", "--grace", "0"),
        lambda store: store.gc(keep=2, thin="*", grace_s=0),
    ),
    "rollback": Scenario(_thin, ("rollback", MODEL), lambda store: store.checkout(f"{MODEL}@1.1.0")),
    "thin by name": Scenario(
        _install(*VERSIONS),
        ("gc", "--keep", "3", "--thin", MODEL, "--grace", "0"),
        lambda store: store.gc(keep=3, thin=MODEL, grace_s=0),
    ),
    "update, thin": Scenario(
        _thin_by_policy("1.0.0", "1.1.0"), ("update", MODEL), lambda store: store.update_model(MODEL)
    ),
    "back to instant": Scenario(
        _back_to_instant, ("rollback", MODEL), lambda store: store.checkout(f"{MODEL}@1.1.0")
    ),
    "move": Scenario(_install("1.0.0"), ("move", "@disk"), _move),
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Three versions, of which a file changes a little, one not, and one wholly."""
    root = tmp_path_factory.mktemp("published")
    site = Site(root, root / "registry", root / "home", (MODEL,), VERSIONS)
    publish_tuned(site, _WEIGHTS, _WEIGHTS // 2)
    return site


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder, in memory where possible."""
    root = memory_folder()
    yield root
    remove_tree(root)


@dataclass
class Campaign:
    """A traced command, with the store before it and what it made of the store."""

    scenario: Scenario
    site: Site
    before: Disk
    calls: list[Call]
    blobs: list[bytes]
    refs: dict[str, str]
    new_refs: dict[str, str]

    @property
    def work(self) -> Path:
        return self.site.home.parent

    def states(self, pick: random.Random) -> Iterator[tuple[Call, State, bool]]:
        return states(copy.deepcopy(self.before), self.calls, self.blobs, pick)

    def some_states(self, pick: random.Random, count: int) -> Iterator[tuple[Call, State, bool]]:
        return some_states(copy.deepcopy(self.before), self.calls, self.blobs, pick, count)

    def is_bad(self, call: Call, state: State, *, ended: bool) -> bool:
        """Whether `check` finds a fault."""
        try:
            self.check(call, state, ended=ended)
        except (AssertionError, YarnstoreError):
            return True
        return False

    def check(self, call: Call, state: State, *, ended: bool) -> None:
        """Open a state: what it says is there is there; and the same command again ends as ever.

        What the command printed counts as done, also while it frees disk space afterwards.
        """
        ended = ended or self.calls.index(call) > answer_of(self.calls)
        where = f"{call}, ended: {ended}"
        clear(self.work)
        put(state, self.work)
        home = self.site.home
        now = refs(home)
        acknowledged = self.new_refs if ended else {
            name: ref for name, ref in self.refs.items() if name in self.new_refs
        }  # fmt: skip
        for name in self.refs.keys() | self.new_refs.keys() | now.keys():
            old = () if ended else (self.refs.get(name),)
            assert now.get(name) in (*old, self.new_refs.get(name)), f"{where}: {name}"
        assert acknowledged.keys() <= now.keys(), where
        found = [(item.kind, item.where, item.what) for item in Store.open(home).fsck().problems]
        assert [item for item in found if not _settled_by_next(item)] == [], where
        registry = self.site.registry.rename(self.site.registry.with_name("away"))
        try:
            with Store.open(home) as store:
                for model, version in versions_in(home):
                    out = self.work / "out" / version
                    store.export(f"{model}@{version}", out)
                    assert tree_hashes(out) == self.site.contents(version, model), where
        finally:
            registry.rename(self.site.registry)
        with Store.open(home) as store:
            self.scenario.again(store)
        assert refs(home) == self.new_refs, where
        with Store.open(home) as store:
            assert store.fsck().problems == [], where
            for model, version in versions_in(home):
                assert tree_hashes(Path(store.path(f"{model}@{version}"))) == self.site.contents(
                    version, model
                ), where


def _settled_by_next(item: tuple[str, str, str]) -> bool:
    """Between the move of `installed` and what follows it, fsck names exactly these."""
    return (item[:2] == ("link", f"models/{MODEL}") and item[2] != "is not a link") or (
        item[:2] == ("state", "local-state.json") and item[2].startswith(f"has wrong values for {MODEL}: ")
    )


def refs(home: Path) -> dict[str, str]:
    root = home / "refs"
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_relative_to(root / "partial")
    }


def clear(root: Path) -> None:
    for path in list(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink()


def campaign(name: str, published: Site, place: Path, start: tuple[str, ...] = ()) -> Campaign:
    """Trace a scenario's command; with `start`, these words begin it in place of `python -m yarnstore`."""
    require_strace()
    scenario = SCENARIOS[name]
    work = place / "work"
    site = replace(published, home=work / "home")
    with Store.open(site.home) as store:
        store.add_registry("made", site.registry)
        scenario.prepare(store)
    words = [word.replace("@disk", str(work / "disk")) for word in scenario.words]
    before, old = Disk(work), refs(site.home)
    whole = command(site.home, *words)
    calls, blobs = record([*start, *whole[3:]] if start else whole, place / "trace")
    replayed = copy.deepcopy(before)
    assert list(replay(replayed, calls, blobs))
    assert replayed.now() == tree(work), "the model misses calls"
    return Campaign(scenario, site, before, calls, blobs, old, refs(site.home))


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_power_failure_loses_nothing(name: str, published: Site, place: Path) -> None:
    made = campaign(name, published, place)
    for call, state, ended in made.some_states(random.Random(name), QUICK_STATES):
        made.check(call, state, ended=ended)


@pytest.mark.deep
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_power_failure_loses_nothing_in_every_state(name: str, published: Site, place: Path) -> None:
    _check_all(name, campaign(name, published, place))


@pytest.mark.deep
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_power_failure_loses_nothing_in_every_state_without_hard_links(
    name: str, published: Site, place: Path
) -> None:
    with no_links.refused():
        _check_all(name, campaign(name, published, place, no_links.START))


def _check_all(name: str, made: Campaign) -> None:
    """Open every state, or of many some at random; `YSTORE_TEST_SEED` repeats a run's choice."""
    count = sum(1 for _ in made.states(random.Random(name)))
    seed = int(os.environ.get("YSTORE_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    chosen = set(random.Random(seed).sample(range(count), min(count, DEEP_STATES)))
    print(f"{name}: {len(chosen)} of {count} states, YSTORE_TEST_SEED={seed}", flush=True)
    for n, (call, state, ended) in enumerate(made.states(random.Random(name))):
        if n in chosen:
            made.check(call, state, ended=ended)


@pytest.mark.parametrize("name", ["install", "update", "thin", "rollback"])
def test_a_power_failure_loses_nothing_without_hard_links(name: str, published: Site, place: Path) -> None:
    with no_links.refused():
        made = campaign(name, published, place, no_links.START)
        assert not any(call.name in ("link", "linkat") for call in made.calls)
        for call, state, ended in made.some_states(random.Random(name), QUICK_STATES):
            made.check(call, state, ended=ended)


_WITHOUT = {
    "files": "import os, stat; real = os.fsync\n"
    "os.fsync = lambda fd: real(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None",
    "folders": "import os, stat; real = os.fsync\n"
    "os.fsync = lambda fd: None if stat.S_ISDIR(os.fstat(fd).st_mode) else real(fd)",
}


@pytest.mark.parametrize("kind", list(_WITHOUT))
def test_a_missing_sync_is_seen(kind: str, published: Site, place: Path) -> None:
    """The proof that these tests can fail."""
    script = f"{_WITHOUT[kind]}\nfrom yarnstore.cli import main\nmain()"
    made = campaign("install", published, place, (sys.executable, "-c", script))
    *_, last = replay(made.before, made.calls, made.blobs)
    assert any(made.is_bad(last, state, ended=True) for state in end_states(made.before, random.Random(kind)))
