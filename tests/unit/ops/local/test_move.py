"""The store moves to another folder, and its old folder becomes a link."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults import no_links
from tests.faults.forks import KILLED, run_command
from tests.faults.tracing import (
    Call,
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
    command,
    flip,
    install_packed,
    make_site,
    problems,
    refs_of,
    remove_tree,
    ystore,
)
from yarnstore import Store
from yarnstore.errors import ConflictError, DiskFullError, FormatError, LockTimeoutError, UsageError
from yarnstore.progress import Progress
from yarnstore.store import moving
from yarnstore.store.disk import disk_bytes
from yarnstore.store.filepath import Path as StorePath
from yarnstore.store.kernel import try_lock
from yarnstore.store.layout import StoreLayout
from yarnstore.store.moved import LEADS_ON, MOVED_FROM, MOVED_TO, find_store, old_folder
from yarnstore.store.moving import StoreCopy

KILLS = 5
# The store before and its new disk: whether each has hard links, whether the store's path is a link already,
# and whether the system can exchange two names.
SHAPES = {
    "links": (True, True, False, True),
    "no links": (False, False, False, True),
    "to a disk without links": (True, False, False, True),
    "to a disk with links": (False, True, False, True),
    "moved before": (True, True, True, True),
    "no exchange of names": (True, False, False, False),
    "no symlinks": (True, True, False, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make_site(tmp_path_factory.mktemp("made"))
    with site.store() as store:
        install_packed(store, "1.0.0", "1.1.0")
        store.path(f"{MODEL}@1.0.0")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path / "copy")


def assert_moved(site: Site, target: Path) -> None:
    """All is at the new place, by the old path too, and nothing is left at the old one."""
    if site.home.is_symlink():
        assert os.readlink(site.home) == str(target)
        assert_whole(site.home, site)
    else:  # the file system has no symlinks
        assert (site.home / "format").read_bytes() == LEADS_ON
        assert set(os.listdir(site.home)) == {"format", MOVED_TO}
        assert find_store(StorePath(site.home)) == target
    assert not os.path.lexists(old_folder(site.home))
    assert not {MOVED_TO, MOVED_FROM} & set(os.listdir(target))
    assert_whole(target, site)


def test_everything_moves_and_all_paths_stay_valid(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "disk" / "models"
    with site.store() as store:
        opened = Path(store.path(MODEL))
        store.close()
        before = (store.list_versions(), refs_of(site.home), store.storage().total_bytes)
        done = store.move(target)
        assert (done.moved, done.path, done.root) == (True, str(target), str(site.home))
        assert done.written_bytes > 1_000_000
        after = store.list_versions()
        assert (after, refs_of(site.home)) == before[:2]  # times of storing and use, too
        assert abs(disk_bytes(target) - before[2]) < 100_000  # hard links stay hard links
        assert opened.exists()
        assert store.move(target).moved is False
        assert store.checkout(f"{MODEL}@1.2.0").changed
        again = tmp_path / "third"
        assert store.move(again).moved
    assert not target.exists()
    assert_moved(site, again)


def test_a_move_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "models"
    first = site.copy(tmp_path / "first")
    with first.store() as store:
        whole = store.move(tmp_path / "whole").written_bytes
    # As a run leaves it that was killed after most files: some are missing, one is damaged, one is surplus.
    shutil.copytree(site.home, target, symlinks=True)
    (target / "format").write_bytes(b"yarnstore-store/moving " + os.fsencode(site.home) + b"\n")
    for folder in ("files", "packs"):
        flip(max((target / folder).iterdir(), key=lambda path: path.stat().st_size), 1000)
    (target / "surplus").write_text("of an earlier state")
    with site.store() as store, Store.open(target) as half:
        with pytest.raises(FormatError, match="is not the format file"):
            half.fetch(MODEL)
        assert 0 < store.move(target).written_bytes < whole
    assert not (target / "surplus").exists()
    assert_moved(site, target)


def test_temporary_files_of_a_killed_move_are_not_in_the_way(site: Site, tmp_path: Path) -> None:
    """Killed as it began, and between the last file and the exchange of the folders."""
    begun, whole, users = tmp_path / "begun", tmp_path / "whole", tmp_path / "users"
    for folder, name in ((begun, f"{'0a' * 12}.tmp"), (users, "notes.tmp")):
        (folder / "tmp").mkdir(parents=True)
        (folder / "tmp" / name).touch()
    with site.store() as store:
        with pytest.raises(ConflictError, match="already exists"):
            store.move(users)
        assert store.move(begun).moved
    shutil.copytree(begun, whole, symlinks=True)
    (begun / MOVED_TO).write_bytes(os.fsencode(whole))
    (whole / MOVED_FROM).write_bytes(os.fsencode(begun))
    (whole / "tmp" / f"{'0b' * 12}.tmp").touch()
    with site.store() as store:
        assert store.move(whole).moved
    assert_moved(site, whole)
    assert [path.name for path in (users / "tmp").iterdir()] == ["notes.tmp"]


def test_what_is_in_the_way_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "file").touch()
    inside = site.home / "views" / "inside"
    before = refs_of(site.home)
    with site.store(lock_timeout_s=0.1) as store:
        for target in (tmp_path / "full", tmp_path / "file"):
            with pytest.raises(ConflictError, match="already exists"):
                store.move(target)
        with pytest.raises(UsageError):
            store.move(inside)
        with Store.open(tmp_path / "other") as other:
            other.import_model(site.source("1.0.0"), "mine@1.0.0")
        with pytest.raises(ConflictError, match="already exists"):
            store.move(tmp_path / "other")
        store.path(MODEL)
        with pytest.raises(ConflictError, match="open"):
            store.move(tmp_path / "new")
        store.close()
        for name in ("jobs.lock", "auto-update.lock"):  # a service, an auto-update between two models
            fd = os.open(site.home / name, os.O_RDWR | os.O_CREAT)
            try:
                assert try_lock(fd, exclusive=True)
                with pytest.raises(LockTimeoutError):
                    store.move(tmp_path / "new")
            finally:
                os.close(fd)
    (site.home / "config.toml").write_text('reserve = "100%"\n')
    with site.store() as store, pytest.raises(DiskFullError):
        store.move(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert not site.home.is_symlink()
    assert (refs_of(site.home), problems(site.home)) == (before, [])


def test_a_store_between_two_renames_is_found(site: Site, tmp_path: Path) -> None:
    """Where the system cannot exchange two names, a kill may come between moving one away and the link."""
    target = tmp_path / "models"
    shutil.copytree(site.home, target, symlinks=True)
    (site.home / MOVED_TO).write_bytes(os.fsencode(target))
    (target / MOVED_FROM).write_bytes(os.fsencode(old_folder(site.home)))
    site.home.rename(old_folder(site.home))
    with site.store() as store:
        assert len(store.list_versions()) == 2
        assert "moved store" in {check.name for check in store.examine().checks}
        assert store.move(target).moved is False
    assert_moved(site, target)
    assert find_store(StorePath(tmp_path / "nothing")) == tmp_path / "nothing"


@pytest.fixture
def no_symlinks() -> Iterator[None]:
    with no_links.refused("symlink"):
        yield


@pytest.mark.usefixtures("no_symlinks")
def test_without_symlinks_the_old_folder_leads_on(site: Site, tmp_path: Path) -> None:
    """Its path stays that of the store, for those who open it, and for those who have it open."""
    first, second = tmp_path / "first", tmp_path / "second"
    with site.store() as store, site.store() as other:
        before = refs_of(site.home)
        done = store.move(first)
        assert (done.moved, done.path, done.root) == (True, str(first), str(site.home))
        assert_moved(site, first)
        for each in (store, other, site.store()):
            assert len(each.list_versions()) == 2
            assert each.home == first
        assert refs_of(first) == before
        assert Path(store.path(MODEL)).is_relative_to(first)
        store.close()
        assert store.move(first).moved is False
        assert other.checkout(f"{MODEL}@1.2.0").changed
        assert store.move(second).moved
        for each in (store, other, site.store()):
            assert {item.version for item in each.list_versions()} == {"1.0.0", "1.1.0", "1.2.0"}
            assert each.home == second
    assert_moved(site, second)
    words = ystore(site.home, "move", second, "--json")
    assert (words.returncode, json.loads(words.stdout)["moved"]) == (0, False)


@pytest.mark.usefixtures("no_symlinks")
def test_a_folder_that_leads_to_a_missing_disk_is_refused_and_never_filled(
    site: Site, tmp_path: Path
) -> None:
    target = tmp_path / "disk"
    with site.store() as store:
        store.move(target)
        target.rename(tmp_path / "unplugged")
        for act in (store.list_versions, lambda: store.fetch(MODEL), lambda: store.fsck(repair=True)):
            with pytest.raises(ConflictError, match="was moved to"):
                act()
        with pytest.raises(ConflictError, match="was moved to"):
            site.store()
        told = ystore(site.home, "status", "--json")
        assert (told.returncode, json.loads(told.stdout)["error"]["code"]) == (1, "conflict")
        assert set(os.listdir(site.home)) == {"format", MOVED_TO}
        assert not target.exists()
        (tmp_path / "unplugged").rename(target)
        assert len(store.list_versions()) == 2


@pytest.mark.usefixtures("no_symlinks")
def test_a_command_that_waited_for_a_move_uses_no_folder_that_leads_on(site: Site, tmp_path: Path) -> None:
    target, waits = tmp_path / "disk", threading.Event()

    def told(progress: Progress) -> None:
        if "waiting" in progress.text:
            waits.set()

    with site.store() as mover, Store.open(site.home, progress=told) as waiter, ThreadPoolExecutor(1) as pool:
        layout = StoreLayout(StorePath(site.home))
        with layout.exclusive():
            waiting = pool.submit(waiter.fetch, f"{MODEL}@1.2.0")
            assert waits.wait(20)
            copy = StoreCopy(StorePath(site.home), StorePath(target), lambda _: None)
            copy.run()
            copy.switch(StorePath(site.home))
        with pytest.raises(ConflictError, match="was moved to"):
            waiting.result(20)
        assert waiter.fetch(f"{MODEL}@1.2.0").version == "1.2.0"
        assert "moved store" in {check.name for check in mover.examine().checks}
        mover.move(target)
    assert_moved(site, target)


@pytest.mark.usefixtures("no_symlinks")
def test_an_alternate_that_was_moved_is_still_read(site: Site, tmp_path: Path) -> None:
    with site.store() as store:
        store.move(tmp_path / "disk")
    shutil.rmtree(site.registry / "packs")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.toml").write_text(f"alternates = [{json.dumps(str(site.home))}]\n")
    with Store.open(other) as store:
        store.add_registry("made", site.registry)
        assert store.checkout(f"{MODEL}@1.1.0").changed
        checks = {check.name: check for check in store.examine().checks}
        assert checks[f"alternate {site.home}"].status == "ok"


def test_killed_at_calls_and_run_again(made: Site, tmp_path: Path) -> None:
    # The last ones are those that exchange the folders and remove the old one.
    _kill_moves(made, tmp_path, lambda found: [*spread(found[:-40], KILLS), *spread(found[-40:], KILLS)])


@pytest.mark.deep
def test_killed_at_every_call_and_run_again(made: Site, tmp_path: Path) -> None:
    _kill_moves(made, tmp_path, lambda found: found)


@pytest.mark.deep
def test_killed_at_every_call_without_hard_links_and_run_again(made: Site, tmp_path: Path) -> None:
    with no_links.refused():
        _kill_moves(made, tmp_path, lambda found: found, links=False)


def _kill_moves(
    made: Site, tmp_path: Path, choose: Callable[[list[Call]], list[Call]], *, links: bool = True
) -> None:
    require_strace()

    def words(site: Site) -> list[str]:
        whole = command(site.home, "move", site.home.parent / "disk")
        return whole if links else no_links.unlinked(whole)

    traced = made.copy(tmp_path / "t")
    calls = trace(words(traced), tmp_path / "trace")
    chosen = choose(points(calls, traced.home.parent))

    def kill(call: Call) -> None:
        site = made.copy(tmp_path / f"{call.name}-{call.number}")
        status = kill_at(words(site), call, site.home.parent / "trace")
        # A run may open a folder less than the traced one, and end before its last call.
        assert status in (-9, 137) or (status == 0 and call.name == "openat"), call
        with site.store() as store:
            assert len(store.list_versions()) == 2, call
        assert problems(site.home) == [], call
        if has_answered(site.home.parent / "trace"):
            assert_moved(site, site.home.parent / "disk")
        with site.store() as store:
            store.move(site.home.parent / "disk")
        assert_moved(site, site.home.parent / "disk")
        remove_tree(site.home.parent)

    in_parallel(kill, chosen)
    print(f"move: killed at {len(chosen)} calls")


@pytest.mark.parametrize("shape", ["no links", "no exchange of names", "no symlinks"])
def test_killed_at_some_changing_calls(shape: str, tmp_path: Path) -> None:
    _kill_in_forks(shape, tmp_path, lambda at: at + 37)


@pytest.mark.deep
@pytest.mark.parametrize("shape", list(SHAPES))
def test_killed_at_every_changing_call(shape: str, tmp_path: Path) -> None:
    _kill_in_forks(shape, tmp_path, lambda at: at + 1)


def _kill_in_forks(shape: str, tmp_path: Path, following: Callable[[int], int]) -> None:
    """Kill moves in forked processes, until one ends before the call at which it is killed."""
    old_links, new_links, moved, exchanges = SHAPES[shape]
    with _disk(links=old_links):
        made = make_site(tmp_path / "made")
        with made.store() as store:
            install_packed(store, "1.0.0", "1.1.0")
    ended, at, killed = KILLED, 1, 0
    with _disk(links=new_links), pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        if shape == "no symlinks":
            stack.enter_context(no_links.refused("symlink"))
        if not exchanges:
            patch.setattr(moving, "exchange", lambda *_: False)
        while ended == KILLED:
            site = made.copy(tmp_path / f"kill-{at}")
            if moved:
                site.home.rename(site.home.with_name("elsewhere"))
                site.home.symlink_to(site.home.with_name("elsewhere"))
            ended = _killed_move(site, at)
            killed += ended == KILLED
            at = following(at)
            remove_tree(site.home.parent)
    assert killed >= 3
    print(f"move, {shape}: killed at {killed} calls", flush=True)


def _disk(*, links: bool) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if links else no_links.refused()


def _killed_move(site: Site, at: int) -> int:
    """Kill a move, look at the store, and run the same again; its exit code."""
    target = site.home.parent / "disk"
    code, printed = run_command(command(site.home, "move", target)[3:], at)
    assert code in (KILLED, 0), (at, code, printed)
    with site.store() as store:
        assert len(store.list_versions()) == 2, at
    assert problems(site.home) == [], at
    if printed or code == 0:
        assert_moved(site, target)
    with site.store() as store:
        store.move(target)
    assert_moved(site, target)
    assert not site.home.with_name("elsewhere").exists(), at
    return code
