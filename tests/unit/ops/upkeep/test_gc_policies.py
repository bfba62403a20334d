"""Limits for the size of the store and for the time without use, and the reserve of the disk."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from tests.support.stores import MODEL, Site, make_site
from yarnstore.core.sizes import Reserve
from yarnstore.errors import DiskFullError
from yarnstore.progress import Progress
from yarnstore.store.disk import disk_bytes

_DAY_S = 86_400


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.1.0 of `phi-3-mini` is installed, a rollback leads to 1.0.0; versions of `other` are only stored."""
    site = make_site(tmp_path_factory.mktemp("made"), models=(MODEL, "other"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0")
        for version in site.versions:
            store.fetch(f"other@{version}")
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def used_days_ago(site: Site, days: dict[str, float]) -> None:
    """Let versions have been stored, and used last, so many days ago."""
    with site.store() as store:
        now = store.list_versions()[0].stored_ms / 1000
    for spec, ago in days.items():
        model, _, version = spec.partition("@")
        os.utime(site.home / "refs" / "versions" / model / "default" / version, (now, now - ago * _DAY_S))


def test_versions_go_that_were_not_used(site: Site) -> None:
    used_days_ago(site, {"other@1.0.0": 100, "other@1.1.0": 80, "other@1.2.0": 100, f"{MODEL}@1.0.0": 100})
    with site.store() as store:
        store.pin("other@1.2.0")
        plan = store.gc(unused_s=90 * _DAY_S, dry_run=True)
        assert plan.removed == {"other@1.0.0": "it was not used for 90 days"}
        assert plan.stays == {
            "other@1.1.0": "it is among the newest versions of its model",
            "other@1.2.0": "it is pinned",
            f"{MODEL}@1.0.0": "`rollback` or `checkout` can return to it",
            f"{MODEL}@1.1.0": "it is installed",
        }
        done = store.gc(unused_s=90 * _DAY_S)
        assert (done.versions, done.removed, done.stays) == (plan.versions, plan.removed, plan.stays)
        assert len(store.list_versions()) == 4


def test_the_least_recently_used_go_until_the_store_is_small_enough(site: Site) -> None:
    used_days_ago(site, {"other@1.0.0": 2, "other@1.1.0": 9, "other@1.2.0": 5})
    told: list[Progress] = []
    with site.store() as store:
        store.gc()
        limit = store.storage().total_bytes - 1
        plan = store.gc(max_size_bytes=limit, dry_run=True)
        # One alone may free nothing: its pack is rewritten once enough of it is garbage.
        assert set(plan.removed) in ({"other@1.1.0"}, {"other@1.1.0", "other@1.2.0"})
        assert "used least recently" in plan.removed["other@1.1.0"]
        assert "other@1.1.0" in {item.what for item in store.plan_gc(max_size_bytes=limit).items}
        done = store.gc(max_size_bytes=limit, progress=told.append)
        assert (done.versions, done.disk_bytes) == (list(plan.removed), disk_bytes(site.home))
        assert disk_bytes(site.home) <= limit
    said = [item.text for item in told if item.phase == "note"]
    assert said[0].startswith("deleting other@1.1.0: it was used least recently")
    assert f"keeping {MODEL}@1.1.0: it is installed" in said


def test_what_is_installed_pinned_or_behind_a_rollback_stays_above_the_limit(site: Site) -> None:
    with site.store() as store:
        store.pin("other@1.0.0")
        done = store.gc(max_size_bytes=0, keep_within_s=_DAY_S)
        assert sorted(done.versions) == ["other@1.1.0", "other@1.2.0"]
        assert sorted(done.stays) == ["other@1.0.0", f"{MODEL}@1.0.0", f"{MODEL}@1.1.0"]
        assert done.disk_bytes is not None
        assert done.disk_bytes > 0
        assert store.fsck().problems == []


def test_garbage_goes_before_versions(site: Site) -> None:
    with site.store() as store:
        store.gc()
        limit = store.storage().total_bytes + 1_000_000
        (site.home / "tmp" / "dead.file").write_bytes(os.urandom(3_000_000))
        assert store.gc(max_size_bytes=limit).versions == []


def test_downloads_leave_the_reserve_of_the_settings_free(site: Site) -> None:
    site.home.joinpath("config.toml").write_text('reserve = "100%"\n')
    with site.store() as store:
        assert store.settings.reserve == Reserve.parse("100%")
        status = store.status()
        assert status.reserve_bytes > status.free_bytes
        with pytest.raises(DiskFullError, match="kept in reserve"):
            store.checkout(f"{MODEL}@1.2.0")
        assert "1.2.0" not in {row.version for row in store.list_versions(MODEL)}
        (space,) = [check for check in store.examine().checks if check.name == "space"]
        assert space.status == "wrong"
        store.set_auto_update(enabled=True, policy="minor")
        (outcome,) = store.run_auto_update(now=True).models
        assert (outcome.status, (outcome.error or {})["code"]) == ("failed", "disk-full")
        store.settings = msgspec.structs.replace(store.settings, reserve=Reserve.parse("1M"))
        assert store.checkout(f"{MODEL}@1.2.0").changed
