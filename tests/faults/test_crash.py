"""T1, T3 and T4: commands killed at, and failing in, their system calls; and what is synced when."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.faults import no_links
from tests.faults.durability import names_below, violations
from tests.faults.forks import KILLED, Ended, run_command
from tests.faults.scenarios import SCENARIOS, Scenario, prepared_site
from tests.faults.tracing import (
    Call,
    fail_at,
    has_answered,
    in_parallel,
    kill_at,
    points,
    require_strace,
    spread,
    trace,
)
from tests.support.stores import (
    MODEL,
    Site,
    assert_whole,
    chunks_in_files,
    chunks_of,
    problems,
    refs_of,
    remove_tree,
    tree_hashes,
)
from yarnstore import Store
from yarnstore.store.layout import StoreLayout
from yarnstore.store.packs import iter_entries

QUICK_KILLS = 5
ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES")


@dataclass
class Campaign:
    """A scenario's store before, what the undisturbed command made of it, and where it can be hurt."""

    scenario: Scenario
    before: Site
    after: Site
    points: list[Call]
    all_calls: list[Call]
    root: Path
    links: bool = True

    def command(self, site: Site) -> list[str]:
        words = self.scenario.command(site)
        return words if self.links else no_links.unlinked(words)

    def fresh(self, name: str) -> Site:
        """A copy of the store before; it stands at another place, with paths of the same length."""
        return self.before.copy(self.root / name, registry=self.scenario.in_registry)


_LINKED = [
    pytest.param((name, True), marks=[pytest.mark.deep] if scenario.deep else [], id=name)
    for name, scenario in SCENARIOS.items()
]
_UNLINKED = [
    pytest.param((name, False), marks=[pytest.mark.deep], id=f"{name}-without-links")
    for name, scenario in SCENARIOS.items()
    if not scenario.in_registry
]


@pytest.fixture(scope="module", params=[*_LINKED, *_UNLINKED])
def campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    require_strace()
    name, links = request.param
    scenario = SCENARIOS[name]
    root = tmp_path_factory.mktemp(scenario.name)
    with contextlib.nullcontext() if links else no_links.refused():
        before = prepared_site(root / "site", scenario)
        after = before.copy(root / "after", registry=scenario.in_registry)
        made = Campaign(scenario, before, after, [], [], root, links)
        made.all_calls = trace(made.command(after), root / "trace")
        made.points = points(made.all_calls, after.home, *([after.registry] if scenario.in_registry else []))
        assert len(made.points) >= 3, "the command changed nothing: the campaign is broken"
        yield made


# --- T3: killed at a call ----------------------------------------------------------------------


def test_killed_at_calls_and_run_again(campaign: Campaign) -> None:
    in_parallel(lambda call: _kill(campaign, call), spread(campaign.points, QUICK_KILLS))


@pytest.mark.deep
def test_killed_at_every_call_and_run_again(campaign: Campaign) -> None:
    """Each in a forked process, which begins at once, until one ends before the call that it is killed at.

    A slow run writes more often than a fast one, so the number of calls is not the same in all.
    """

    def kill(at: int) -> Ended:
        site = campaign.fresh(f"fork-{at}")
        ended = run_command(campaign.scenario.command(site)[3:], at)
        assert ended.code in (KILLED, 0), (at, ended)
        done = bool(ended.printed) or ended.code == 0
        _check_and_run_again(campaign, site, f"killed at call {at}", done=done)
        remove_tree(site.home.parent)
        return ended

    killed = 0
    while kill(killed + 1).code == KILLED:
        killed += 1
    assert killed >= 3
    print(f"{campaign.scenario.name}, links {campaign.links}: killed at {killed} calls", flush=True)


@pytest.mark.deep
def test_killed_at_every_traced_call_and_run_again(campaign: Campaign) -> None:
    in_parallel(lambda call: _kill(campaign, call), campaign.points)
    print(f"{campaign.scenario.name}: killed at {len(campaign.points)} calls")


def _kill(campaign: Campaign, call: Call) -> None:
    site = campaign.fresh(f"kill-{call.name}-{call.number}")
    status = kill_at(campaign.command(site), call, site.home.parent / "trace")
    while status == 0 and call.name == "pwrite64" and call.number > 1:
        # The threads of a run divide the writes among themselves, and in this one the main thread made fewer.
        remove_tree(site.home.parent)
        site = campaign.fresh(site.home.parent.name)
        call = replace(call, number=call.number - 1)
        status = kill_at(campaign.command(site), call, site.home.parent / "trace")
    # A run may look into a folder less than the traced one, and end before its last call.
    ended = status == 0 and call.name == "openat"
    assert ended or status in (-9, 137), f"was not killed at {call}: {status}"
    _check_and_run_again(campaign, site, str(call), done=has_answered(site.home.parent / "trace"))
    remove_tree(site.home.parent)


def _check_and_run_again(campaign: Campaign, site: Site, where: str, *, done: bool = False) -> None:
    """With `done`, the command had printed its result."""
    scenario = campaign.scenario
    _assert_old_or_new(campaign, site, where, done=done)
    if scenario.name != "repair":
        found = [item for item in problems(site.home) if not _stale_link(item)]
        assert found == [], where
    else:
        assert chunks_of(campaign.before.home / "packs") <= _all_chunks(site.home), where
    arrived = chunks_of(site.home / "packs", site.home / "tmp") | chunks_in_files(site.home)
    with StoreLayout(site.home, 1.0).exclusive(damaged=True):
        pass  # the lock is free
    brought = scenario.again(site)
    if scenario.downloads:
        wanted = chunks_of(campaign.after.home / "packs") | chunks_in_files(campaign.after.home)
        weight = _stored(site.registry, wanted - arrived)
        assert getattr(brought, "download_bytes") <= weight, f"{where}: downloaded what had arrived"  # noqa: B009
    if scenario.in_registry:
        _assert_registry_whole(site)
    else:
        assert refs_of(site.home) == refs_of(campaign.after.home), where
        assert_whole(site.home, site)


def _stale_link(item: tuple[str, str, str]) -> bool:
    """Between the move of `installed` and those of its link and of what other programs are told, fsck
    names exactly these."""
    return (item[:2] == ("link", f"models/{MODEL}") and item[2] != "is not a link") or (
        item[:2] == ("state", "local-state.json")
        and item[2].startswith(f"has wrong values for {MODEL}: version")
    )


def _all_chunks(home: Path) -> set[bytes]:
    return chunks_of(home / "packs", home / "tmp", home / "trash")


def _stored(registry: Path, chunk_ids: set[bytes]) -> int:
    sizes = {
        entry.chunk_id: entry.stored_bytes
        for pack in (registry / "packs").glob("*.pack")
        for _, entry in iter_entries(pack)
    }
    return sum(sizes[chunk_id] for chunk_id in chunk_ids)


def _assert_old_or_new(campaign: Campaign, site: Site, where: str, *, done: bool) -> None:
    if campaign.scenario.in_registry:
        listed = (site.registry / "registry.json").read_bytes()
        before = (campaign.before.registry / "registry.json").read_bytes()
        assert (listed == before and not done) or b'"2.0.0"' in listed, where
        json.loads(listed)
        return
    old_refs, new_refs, now = refs_of(campaign.before.home), refs_of(campaign.after.home), refs_of(site.home)
    for name in old_refs.keys() | new_refs.keys() | now.keys():
        old = () if done else (old_refs.get(name),)
        assert now.get(name) in (*old, new_refs.get(name)), f"{where}: {name}"


def _assert_registry_whole(site: Site) -> None:
    """A new store can fetch every version from it, with the right bytes."""
    store = Store.open(site.home.parent / "reader")
    store.add_registry("made", site.registry)
    for version in (*site.versions, "2.0.0"):
        source = site.root / "sources" / ("new" if version == "2.0.0" else f"{MODEL}/{version}")
        assert tree_hashes(Path(store.path(f"{MODEL}@{version}"))) == tree_hashes(source)
    assert store.fsck().problems == []


# --- T4: a call fails --------------------------------------------------------------------------


def test_errors_in_calls_are_typed_and_harmless(campaign: Campaign) -> None:
    # Another error at each, and other calls than those at which it is killed.
    calls = spread(_failing(campaign)[1:], len(ERRORS))
    cases = list(zip(calls, ERRORS, strict=False))
    in_parallel(lambda case: _fail(campaign, *case), cases)


@pytest.mark.deep
def test_every_error_in_every_call_is_typed_and_harmless(campaign: Campaign) -> None:
    cases = [(call, error) for error in ERRORS for call in _failing(campaign)]
    in_parallel(lambda case: _fail(campaign, *case), cases)


def _failing(campaign: Campaign) -> list[Call]:
    """The calls that change something, and those that open what is to be read."""
    roots = [str(campaign.after.home), str(campaign.after.registry)]
    changing = set(campaign.points)
    main = campaign.all_calls[0].pid
    return [
        call
        for call in campaign.all_calls
        if call in changing
        or (
            call.pid == main
            and call.name == "openat"
            and call.result >= 0
            and any(path.startswith(root) for path in call.paths for root in roots)
        )
    ]


def _fail(campaign: Campaign, call: Call, error: str) -> None:
    site = campaign.fresh(f"fail-{call.name}-{call.number}-{error}")
    done = fail_at(campaign.command(site), call, error, site.home.parent / "trace")
    where = f"{error} in {call}:\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr, where
    right = {0, 7}
    if campaign.scenario.name == "repair":
        right |= {4}  # mended in part
    if any(path.startswith(str(site.registry)) for path in call.paths):
        right |= {5}  # the registry could not be read
    assert done.returncode in right, where
    _check_and_run_again(campaign, site, where)
    remove_tree(site.home.parent)


# --- T1: what is synced, and when --------------------------------------------------------------


def test_everything_is_synced_before_it_counts(campaign: Campaign) -> None:
    scenario = campaign.scenario
    root = campaign.after.registry if scenario.in_registry else campaign.after.home
    before = campaign.before.registry if scenario.in_registry else campaign.before.home
    assert violations(campaign.all_calls, root, names_below(before)) == []


_WEAKENED = {
    "files": "import os; real = os.fsync; import stat\n"
    "os.fsync = lambda fd: real(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else None",
    "folders": "import os; real = os.fsync; import stat\n"
    "os.fsync = lambda fd: None if stat.S_ISDIR(os.fstat(fd).st_mode) else real(fd)",
    "late": "import yarnstore.store.native as f, os; real = os.replace; sync = os.fsync\n"
    "f.os = type('o', (), {**{k: staticmethod(v) if callable(v) and not isinstance(v, type) else v "
    "for k, v in vars(os).items()}})\n"
    "f.os.fsync = staticmethod(lambda fd: None)",
}


@pytest.mark.parametrize("weakness", list(_WEAKENED))
def test_the_durability_check_sees_a_missing_sync(weakness: str, tmp_path: Path) -> None:
    require_strace()
    site = prepared_site(tmp_path, SCENARIOS["checkout"])
    script = f"{_WEAKENED[weakness]}\nfrom yarnstore.cli import main\nmain()"
    words = [sys.executable, "-c", script, *SCENARIOS["checkout"].command(site)[3:]]
    before = names_below(site.home)
    assert violations(trace(words, tmp_path / "trace"), site.home, before) != []


def test_the_campaign_sees_a_ref_that_is_written_too_early(tmp_path: Path) -> None:
    """The proof that T3 can fail: with the ref set before the chunks, a kill leaves a lie."""
    require_strace()
    site = prepared_site(tmp_path, SCENARIOS["fetch"])
    script = (
        "import yarnstore.ops.fetching.fetch as f\n"
        "real = f.ensure_chunks\n"
        "def early(session, source, manifest, *rest, **more):\n"
        "    from yarnstore.store.refs import VersionName\n"
        "    name = VersionName(manifest.model, manifest.variant, manifest.version)\n"
        "    session.refs.set_version(name, manifest.digest)\n"
        "    return real(session, source, manifest, *rest, **more)\n"
        "f.ensure_chunks = early\n"
        "from yarnstore.cli import main\nmain()"
    )
    words = [sys.executable, "-c", script, *SCENARIOS["fetch"].command(site)[3:]]
    rehearsal = site.copy(tmp_path / "a")
    words_there = [word.replace(str(site.home), str(rehearsal.home)) for word in words]
    found = points(trace(words_there, tmp_path / "trace"), rehearsal.home)
    pack = next(call for call in found if call.name == "openat" and ".pack" in call.text)
    assert kill_at(words, pack, tmp_path / "trace2") in (-9, 137)
    assert problems(site.home) != []
