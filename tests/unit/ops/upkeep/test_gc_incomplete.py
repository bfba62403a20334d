"""Incomplete downloads: they stay for the next try, unless the disk is too full."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files
from tests.support.stores import MODEL, Site, make_site, make_version, ystore
from yarnstore import Progress, Store
from yarnstore.core.sizes import Reserve
from yarnstore.errors import BackendError, DiskFullError, IntegrityError
from yarnstore.registry.policies import Retention
from yarnstore.store.drafts import incomplete_bytes
from yarnstore.store.kernel import wait_lock
from yarnstore.store.layout import StoreLayout
from yarnstore.web.work import KINDS

_FULL = Reserve.parse("100%")
_BEGUN = f"{MODEL}@1.1.0, {MODEL}@1.2.0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.0.0 is installed; a checkout of 1.1.0 and a fetch of 1.2.0 broke in the middle."""
    site = make_site(tmp_path_factory.mktemp("made"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.remove_registry("made")
    tree = {
        path.relative_to(site.registry).as_posix(): path.read_bytes()
        for path in site.registry.rglob("*")
        if path.is_file()
    }
    serve, asked = files(tree), set[str]()

    def answer(seen: Seen) -> Reply:
        """Each pack comes in part, and then not at all; no delta comes."""
        if "deltas" in seen.path or seen.path in asked:
            return Reply(status=404)
        reply = serve(seen)
        if seen.path.endswith(".pack"):
            asked.add(seen.path)
            assert isinstance(reply.body, bytes)
            return replace(reply, cut_at=len(reply.body) * 2 // 3)
        return reply

    with ScriptedServer(answer) as server, site.store() as store:
        store.add_registry("made", server.url)
        for begin, version in ((store.checkout, "1.1.0"), (store.fetch, "1.2.0")):
            with pytest.raises((BackendError, IntegrityError)):
                begin(f"{MODEL}@{version}")
        store.remove_registry("made")
        store.add_registry("made", site.registry)
    assert list((site.home / "tmp").glob("*.draft")), "nothing came: the tests say nothing"
    assert list((site.home / "refs" / "partial").rglob("1.2.0"))
    return site


@pytest.fixture
def site(made: Site, tmp_path: Path) -> Site:
    return made.copy(tmp_path)


def reserve(store: Store, what: Reserve) -> None:
    store.settings = msgspec.structs.replace(store.settings, reserve=what)


def test_they_stay_and_are_counted(site: Site) -> None:
    drafts = sum(path.stat().st_blocks * 512 for path in (site.home / "tmp").iterdir())
    with site.store() as store:
        reserve(store, Reserve.parse("0"))
        told = store.gc(dry_run=True)
        done = store.gc()
        (item,) = [item for item in store.plan_gc().kept if item.kind == "download"]
        assert told.incomplete_bytes == done.incomplete_bytes == item.bytes == drafts > 300_000
        whole = sum(path.stat().st_size for path in site.source("1.1.0").rglob("*"))
        assert store.checkout(f"{MODEL}@1.1.0").download_bytes < whole - 200_000
    out = ystore(site.home, "gc").stdout
    assert "of incomplete downloads" not in out or "continues" in out


def test_they_go_if_the_disk_has_less_than_its_reserve(site: Site) -> None:
    with site.store() as store:
        reserve(store, _FULL)
        would: list[str] = []
        told = store.gc(dry_run=True, progress=lambda event: would.append(event.text))
        assert [text for text in would if text.startswith("would delete") and f"({_BEGUN})" in text]
        assert list((site.home / "tmp").glob("*.draft"))
        there: list[bool] = []

        def said(event: Progress) -> None:
            if event.text.startswith("deleting") and f"({_BEGUN})" in event.text:
                there.append(bool(list((site.home / "tmp").glob("*.draft"))))

        done = store.gc(progress=said)
        assert there == [True], "what goes is said once, before it goes"
        assert done.incomplete_bytes == 0
        assert done.freed_bytes >= told.freed_bytes - 20_000 > 300_000
        assert not list((site.home / "tmp").iterdir())
        assert not list((site.home / "refs" / "partial").rglob("1.*"))
        reserve(store, Reserve.parse("0"))
        assert store.gc().freed_bytes == 0, "what came of the fetch stayed in packs"
        store.checkout(f"{MODEL}@1.1.0")
        assert store.fsck().problems == []


def test_what_runs_by_itself_leaves_them(site: Site, tmp_path: Path) -> None:
    """Neither retention after an update nor the service's own gc deletes what another command continues."""
    registry = tmp_path / "other"
    with site.store() as store:
        reserve(store, Reserve.parse("0"))
        for version in ("1.0.0", "1.1.0"):
            Store.publish(make_version(tmp_path / version, version), f"other@{version}", registry=registry)
        store.add_registry("other", registry)
        store.checkout("other@1.0.0")
        store.path("other@1.1.0")  # so that the update needs no space
        before = incomplete_bytes(StoreLayout(site.home))
        store.settings = msgspec.structs.replace(store.settings, reserve=_FULL, retention=Retention(keep=0))
        done = store.update_model("other")
        assert (done.version, done.deleted_versions) == ("1.1.0", ())
        KINDS["gc"].run(store, {"scheduled": True}, lambda _: None)
        assert incomplete_bytes(StoreLayout(site.home)) == before > 300_000
        assert list((site.home / "refs" / "partial").rglob("1.2.0"))


def test_a_plan_that_was_shown_deletes_no_more(site: Site) -> None:
    with site.store() as store:
        reserve(store, _FULL)
        plan = store.plan_gc()
        assert store.gc(expected=plan.fingerprint).incomplete_bytes > 300_000


def test_one_that_is_running_stays(site: Site) -> None:
    draft = max((site.home / "tmp").glob("*.draft"), key=lambda path: path.stat().st_size)
    fd = os.open(draft, os.O_RDWR)
    try:
        wait_lock(fd)
        with site.store() as store:
            reserve(store, _FULL)
            store.gc()
    finally:
        os.close(fd)
    assert draft.exists()


def test_an_error_for_a_full_disk_says_how_to_free_them(site: Site) -> None:
    with site.store() as store:
        reserve(store, _FULL)
        with pytest.raises(DiskFullError) as caught:
            store.checkout(f"{MODEL}@1.1.0")
        assert "of incomplete downloads" in caught.value.hint
        reserve(store, Reserve.parse("0"))
        store.checkout(f"{MODEL}@1.1.0")
        store.gc()
        for path in (site.home / "tmp").iterdir():
            path.unlink()
        reserve(store, _FULL)
        with pytest.raises(DiskFullError) as caught:
            store.fetch(f"{MODEL}@1.2.0")
        assert caught.value.hint == "`ystore gc --dry-run` shows what can be deleted"
