"""The plan of `gc`, item by item, and `gc` that does what was shown or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, make_site
from yarnstore.errors import ConflictError


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """1.2.0 is installed; 1.1.0 is what a rollback leads to, 1.0.0 only stored."""
    made = make_site(tmp_path)
    with made.store() as store:
        store.fetch(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0", wait=False)
        store.checkout(f"{MODEL}@1.2.0", wait=False)
    return made


def test_the_items_add_up_to_what_is_freed(site: Site) -> None:
    with site.store() as store:
        plan = store.plan_gc(keep=0, grace_s=0)
        assert [item.what for item in plan.items if item.kind == "version"] == [f"{MODEL}@1.0.0"]
        stays = sum(item.bytes for item in plan.kept if item.kind == "data")
        assert sum(item.bytes for item in plan.items) - stays == plan.freed_bytes
        assert {item.what: item.why for item in plan.kept if item.kind == "version"} == {
            f"{MODEL}@1.1.0": "`rollback` or `checkout` can return to it",
            f"{MODEL}@1.2.0": "it is installed",
        }
        done = store.gc(keep=0, grace_s=0, expected=plan.fingerprint)
        assert (done.versions, done.freed_bytes) == ([f"{MODEL}@1.0.0"], plan.freed_bytes)
        after = store.plan_gc(keep=0, grace_s=0)
        assert [item.kind for item in after.items] in ([], ["data"])


def test_a_plan_deletes_nothing_and_is_the_same_again(site: Site) -> None:
    with site.store() as store:
        before = [row.version for row in store.list_versions()]
        assert store.plan_gc(keep=0) == store.plan_gc(keep=0)
        assert [row.version for row in store.list_versions()] == before


@pytest.mark.parametrize("change", ["pin", "rollback", "remove"])
def test_a_plan_of_a_store_that_changed_is_refused(site: Site, change: str) -> None:
    with site.store() as store:
        plan = store.plan_gc(keep=0)
        if change == "pin":
            store.pin(f"{MODEL}@1.0.0")
        elif change == "rollback":
            store.rollback_model(MODEL, "1.0.0")
        else:
            store.remove(f"{MODEL}@1.0.0")
        left = [row.version for row in store.list_versions()]
        with pytest.raises(ConflictError, match="nothing was deleted"):
            store.gc(keep=0, expected=plan.fingerprint)
        assert [row.version for row in store.list_versions()] == left


def test_a_plan_for_other_limits_is_refused(site: Site) -> None:
    with site.store() as store, pytest.raises(ConflictError):
        store.gc(keep=0, expected=store.plan_gc(keep=3).fingerprint)
