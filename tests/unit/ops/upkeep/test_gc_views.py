"""What a live process has open stays, whatever became of its version."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, assert_whole, flip, make_site, tree_hashes, ystore
from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.ops.installing import checkout
from yarnstore.ops.querying import paths
from yarnstore.ops.querying.keeping import GcPolicy
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc import gc
from yarnstore.ops.upkeep.gc_plan import plan_gc
from yarnstore.store.disk import disk_bytes
from yarnstore.store.layout import StoreLayout


def test_a_removed_version_stays_while_a_process_has_it_open(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as keeper:
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            keeper.checkout(f"{MODEL}@{version}")
        path = Path(keeper.path(f"{MODEL}@1.0.0"))
        before = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}
        with Store.open(site.home) as other:
            other.remove(f"{MODEL}@1.0.0")
            other.gc(keep=0)
        assert {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    with Store.open(site.home) as other:
        other.gc(keep=0, grace_s=0)
    assert not path.exists()


def test_a_view_that_gc_deletes_and_another_process_makes_again_stays_while_a_process_has_it_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both come between the look for the view and the lease on it."""
    site = make_site(tmp_path)
    with site.store() as store:
        for version in ("1.0.0", "1.1.0"):
            store.checkout(f"{MODEL}@{version}", wait=False)
    real, views = paths.lease, site.home / "views"
    coming = [site.store()]

    def overtaken(layout: StoreLayout, digest: Sha256) -> int | None:
        if not coming:
            return real(layout, digest)
        (views / digest.hex).rename(tmp_path / "deleted")
        found = real(layout, digest)
        with coming.pop() as other:
            other.path(f"{MODEL}@1.0.0")
        return found

    monkeypatch.setattr(paths, "lease", overtaken)
    with site.store() as keeper:
        path = Path(keeper.path(f"{MODEL}@1.0.0"))
        with site.store() as other:
            other.gc(keep=0, thin="*", grace_s=0)
        assert tree_hashes(path) == site.contents("1.0.0")
    assert not coming


# --- given out by `path` -------------------------------------------------------------------------


def test_a_view_that_another_process_made_meanwhile_is_neither_made_again_nor_called_modified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the records of its files are lost, so that they must be hashed."""
    site = make_site(tmp_path)
    with site.store() as store:
        for version in ("1.0.0", "1.1.0"):
            store.checkout(f"{MODEL}@{version}", wait=False)
    view = view_of(site)
    view.rename(tmp_path / "deleted")
    real, made = checkout.is_whole, list[int]()

    def overtaken(session: Session, manifest: Manifest) -> bool:
        found = real(session, manifest)
        if not made:
            made.append(0)
            with Store.open(site.home) as other:
                other.path(f"{MODEL}@1.0.0")
            made.append(view.stat().st_ino)
            shutil.rmtree(site.home / "logs" / "hashed")
        return found

    monkeypatch.setattr(checkout, "is_whole", overtaken)
    said: list[str] = []
    with Store.open(site.home) as store:
        store.path(f"{MODEL}@1.0.0", progress=lambda event: said.append(event.text))
    assert made == [0, view.stat().st_ino]
    assert [text for text in said if "modified" in text] == []
    assert_whole(site.home, site)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """1.0.0 was given out by `path` when it was installed; then came 1.1.0 and 1.2.0, which was not."""
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.path(MODEL)
        for version in ("1.1.0", "1.2.0"):
            store.checkout(f"{MODEL}@{version}", wait=False)
    return site


def view_of(site: Site, version: str = "1.0.0") -> Path:
    return site.home / "views" / digest_of(site, version)


def digest_of(site: Site, version: str = "1.0.0") -> str:
    with site.store() as store:
        found = [item for item in store.list_versions(MODEL) if item.version == version]
    return found[0].manifest.removeprefix("sha256:")


def age(path: Path, hours: float) -> None:
    when = time.time() - hours * 3600
    os.utime(path, (when, when))


def test_what_path_gave_out_stays_for_a_day_and_is_named(site: Site) -> None:
    view, contents = view_of(site), site.contents("1.0.0")
    with site.store() as store:
        planned = store.gc(keep=1, dry_run=True)
        done = store.gc(keep=1)
        assert done.versions == planned.versions == [f"{MODEL}@1.0.0"]
        assert done.freed_bytes == planned.freed_bytes > 0
        assert planned.kept_views == done.kept_views
        (kept,) = done.kept_views
        assert (kept.model, kept.version, kept.path) == (MODEL, "1.0.0", str(view))
        own = sum(file.stat().st_size for file in view.rglob("*") if file.is_file())
        assert kept.size_bytes == done.grace_bytes == own
        assert kept.until_ms is not None
        assert 23.9 < (kept.until_ms / 1000 - time.time()) / 3600 <= 24
        assert tree_hashes(view) == contents
        assert store.fsck().problems == []
        # Its version is no longer in the store; another run changes nothing.
        assert [item.version for item in store.list_versions(MODEL)] == ["1.2.0", "1.1.0"]
        again = store.gc(keep=1)
        assert (again.freed_bytes, again.kept_views) == (0, done.kept_views)
        store.checkout(f"{MODEL}@1.0.0")
        assert store.fsck().problems == []
    assert_whole(site.home, site)


def test_grace_0_frees_it(site: Site) -> None:
    view = view_of(site)
    with site.store() as store:
        before = store.gc(keep=1)
        planned = store.gc(keep=1, grace_s=0, dry_run=True)
        done = store.gc(keep=1, grace_s=0)
        assert not view.exists()
        assert done.kept_views == []
        assert done.freed_bytes == planned.freed_bytes > before.grace_bytes
        assert os.listdir(site.home / "logs" / "used") == []
        assert store.fsck().problems == []


@pytest.mark.parametrize("installed", ["1.0.0", "1.1.0"])
def test_only_what_path_gave_out_has_a_grace_period(tmp_path: Path, installed: str) -> None:
    """What a checkout or an update printed has none."""
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@{installed}")
        store.update_model(MODEL, wait=False)
        store.fetch(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0", wait=False)
        store.checkout(f"{MODEL}@1.2.0", wait=False)
        views = set(os.listdir(site.home / "views"))
        done = store.gc(keep=0)
    assert done.kept_views == []
    assert len(views - set(os.listdir(site.home / "views"))) == (1 if installed == "1.0.0" else 0)


def test_the_day_begins_when_it_stops_being_installed(site: Site) -> None:
    """Given out long ago, and installed until a moment ago: who uses it has not gone."""
    mark = site.home / "logs" / "used" / digest_of(site)
    age(mark, 300)
    with site.store() as store:
        assert len(store.gc(keep=1).kept_views) == 1
        later = time.time() + 25 * 3600
        with store._session() as session:
            session.activity.clock = lambda: later
            assert gc(session, GcPolicy(keep=1)).kept_views == []


def test_the_day_begins_again_when_it_is_given_out_again(site: Site) -> None:
    mark = site.home / "logs" / "used" / digest_of(site)
    with site.store() as store, store._session() as session:
        session.activity.clock = lambda: time.time() + 25 * 3600
        os.utime(mark, (session.clock() - 60,) * 2)
        assert len(gc(session, GcPolicy(keep=1)).kept_views) == 1


def test_a_clock_that_was_set_back_keeps_it(site: Site) -> None:
    age(site.home / "logs" / "used" / digest_of(site), -1000 * 24)
    with site.store() as store:
        (kept,) = store.gc(keep=1).kept_views
        assert kept.until_ms is not None
        assert kept.until_ms / 1000 <= time.time() + 24 * 3600


def test_the_settings_and_the_command_say_how_long(site: Site) -> None:
    config = site.home / "config.toml"
    config.write_text('path_grace = "2w"\n')
    view = view_of(site)
    done = ystore(site.home, "gc", "--keep", "1", "--json")
    (kept,) = json.loads(done.stdout)["kept_views"]
    assert (kept["until_ms"] / 1000 - time.time()) / 86400 > 13.9
    assert ystore(site.home, "gc", "--keep", "1", "--grace", "2h", "--json").returncode == 0
    assert view.exists()
    assert ystore(site.home, "gc", "--keep", "1", "--grace", "soon").returncode == 2
    assert ystore(site.home, "gc", "--keep", "1", "--grace", "0").returncode == 0
    assert not view.exists()


def test_a_view_that_is_asked_for_between_plan_and_removal_stays(site: Site) -> None:
    digest = Sha256.parse(digest_of(site))
    age(site.home / "logs" / "used" / digest.hex, 300)
    with site.store() as store, store._session() as session:
        session.activity.clock = lambda: time.time() + 25 * 3600
        with session.layout.exclusive():
            plan = plan_gc(session, GcPolicy(keep=1))
            with site.store() as other:
                path = Path(other.path(f"{MODEL}@1.0.0"))
            plan.apply()
        assert tree_hashes(path) == site.contents("1.0.0")
        assert store.fsck().problems == []


def test_a_view_whose_version_is_removed_while_it_is_open_leaves_a_sound_store(site: Site) -> None:
    with site.store() as keeper, site.store() as store:
        keeper.path(f"{MODEL}@1.0.0")
        store.remove(f"{MODEL}@1.0.0")
        (kept,) = store.gc(keep=0, grace_s=0).kept_views
        assert (kept.version, kept.until_ms) == ("1.0.0", None)
        store.checkout(f"{MODEL}@1.0.0")
        assert store.fsck().problems == []


def test_a_view_whose_manifest_is_gone_stays_for_its_day_too(site: Site) -> None:
    """As older releases left it for a process that had it open."""
    view = view_of(site)
    with site.store() as store:
        store.remove(f"{MODEL}@1.0.0")
        os.remove(site.home / "manifests" / f"{view.name}.json")
        (kept,) = store.gc(keep=0).kept_views
        assert (kept.model, kept.path) == ("", str(view))
        assert view.exists()
        store.gc(keep=0, grace_s=0)
        assert not view.exists()


def test_retention_after_an_update_keeps_it(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    config = site.home / "config.toml"
    config.write_text("keep = 0\n")
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        path = Path(store.path(f"{MODEL}@1.0.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        store.update_model(MODEL)
        assert [item.version for item in store.list_versions(MODEL)] == ["1.2.0", "1.1.0"]
    assert tree_hashes(path) == site.contents("1.0.0")


# --- made twice at the same time -----------------------------------------------------------------


@pytest.fixture
def twice(tmp_path: Path) -> tuple[Site, Path, Path]:
    """Two processes made a file at the same time: a view has one, `files/` and another view the other."""
    site = make_site(tmp_path, versions=("1.0.0",))
    folder = site.root / "sources" / "other"
    folder.mkdir()
    shutil.copy(site.source("1.0.0") / "model.bin", folder)
    Store.publish(folder, "other@1.0.0", registry=site.registry)
    with site.store() as store:
        store.refresh_registries()
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout("other@1.0.0")
    shared = view_of(site) / "model.bin"
    there = next(path for path in (site.home / "files").iterdir() if path.samefile(shared))
    os.chmod(shared.parent, 0o755)
    shutil.copy(there, shared.with_name("second"))
    os.replace(shared.with_name("second"), shared)
    os.chmod(shared.parent, 0o555)
    assert not there.samefile(shared)
    return site, shared, there


def test_a_file_that_two_processes_made_at_once_is_left_once(twice: tuple[Site, Path, Path]) -> None:
    site, shared, there = twice
    before = disk_bytes(site.home)
    with site.store() as store:
        told = store.gc(dry_run=True).freed_bytes
        assert store.gc().freed_bytes == told > 600_000
    assert there.samefile(shared)
    assert before - disk_bytes(site.home) == pytest.approx(told, rel=0.05)
    assert_whole(site.home, site)
    with site.store() as store:
        assert store.gc().freed_bytes == 0


@pytest.mark.parametrize("damaged", ["view", "files"])
def test_a_damaged_one_of_two_copies_is_never_the_one_that_stays(
    damaged: str, twice: tuple[Site, Path, Path]
) -> None:
    site, shared, there = twice
    data = shared.read_bytes()
    flip(shared if damaged == "view" else there, 5000)
    with site.store() as store:
        store.gc()
        assert data in (shared.read_bytes(), there.read_bytes())
        store.remove_registry("made")
        assert store.fsck(repair=True).remaining == []
    assert shared.read_bytes() == data
