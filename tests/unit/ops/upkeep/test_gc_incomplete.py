"""Incomplete downloads: they stay for the next try, unless the disk is too full."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files
from tests.support.stores import MODEL, Site, make_site, ystore
from yarnstore import Store
from yarnstore.core.sizes import Reserve
from yarnstore.errors import BackendError, DiskFullError, IntegrityError

_FULL = Reserve.parse("100%")


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
        told = store.gc(dry_run=True)
        assert list((site.home / "tmp").glob("*.draft"))
        said: list[str] = []
        done = store.gc(progress=lambda event: said.append(event.text))
        assert done.incomplete_bytes == 0
        assert done.freed_bytes >= told.freed_bytes - 20_000 > 300_000
        assert [text for text in said if "of incomplete downloads" in text]
        assert not list((site.home / "tmp").iterdir())
        assert not list((site.home / "refs" / "partial").rglob("1.*"))
        reserve(store, Reserve.parse("0"))
        assert store.gc().freed_bytes == 0, "what came of the fetch stayed in packs"
        store.checkout(f"{MODEL}@1.1.0")
        assert store.fsck().problems == []


def test_a_plan_that_was_shown_deletes_no_more(site: Site) -> None:
    with site.store() as store:
        reserve(store, _FULL)
        plan = store.plan_gc()
        assert store.gc(expected=plan.fingerprint).incomplete_bytes > 300_000


def test_one_that_is_running_stays(site: Site) -> None:
    draft = max((site.home / "tmp").glob("*.draft"), key=lambda path: path.stat().st_size)
    fd = os.open(draft, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
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
