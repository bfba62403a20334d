"""What `ystore stats` counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.stores import MODEL, make_site
from yarnstore import Store
from yarnstore.errors import NotFoundError, YarnstoreError
from yarnstore.results import ModelStatistics, Statistics


def _operations(found: Statistics) -> dict[str, tuple[int, int]]:
    return {item.operation: (item.count, item.failed) for item in found.operations}


def _model(found: Statistics) -> ModelStatistics:
    return next(item for item in found.models if item.model == MODEL)


def test_what_was_done_is_counted(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        first = store.checkout(f"{MODEL}@1.0.0")
        store.path(MODEL)
        store.path(MODEL)
        update = store.update_model(MODEL)
        store.update_model(MODEL)  # changes nothing
        store.update_model(MODEL, dry_run=True)
        store.rollback_model(MODEL)
        store.gc(dry_run=True)
        store.gc()
        store.fsck()
        with pytest.raises(NotFoundError):
            store.fetch(f"{MODEL}@9.9.9")
        with pytest.raises(YarnstoreError):
            store.fetch("not a spec@@")
        found = store.stats()
    assert _operations(found) == {
        "checkout": (1, 0),
        "update": (1, 0),
        "rollback": (1, 0),
        "gc": (1, 0),
        "fsck": (1, 0),
        "fetch": (1, 1),
    }
    assert [(item.operation, item.error, item.count) for item in found.failures] == [
        ("fetch", "not-found", 1)
    ]
    assert found.download_bytes == first.download_bytes + (update.download_bytes or 0)
    assert found.size_bytes > 1_500_000
    assert found.dedupe_bytes >= 100_000  # of the weights that both versions have
    assert (
        found.saved_bytes == found.size_bytes - found.download_bytes == found.dedupe_bytes + found.delta_bytes
    )
    model = _model(found)
    assert (model.uses, model.updates, model.rollbacks, model.failed) == (2, 1, 1, 1)
    assert model.last_used_ms > 0
    assert model.download_bytes == found.download_bytes


def test_updates_of_several_models_are_one_each(tmp_path: Path) -> None:
    site = make_site(tmp_path, models=("one", "two"))
    with site.store() as store:
        store.checkout("one@1.0.0")
        store.checkout("two@1.0.0")
        store.update_models()
        found = store.stats()
    assert _operations(found) == {"checkout": (2, 0), "update": (2, 0)}
    assert [item.updates for item in found.models] == [1, 1]
    assert all(item.download_bytes < item.size_bytes for item in found.models)


def test_a_time_leaves_out_what_was_before(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        assert _operations(store.stats(since_s=3600)) == {"checkout": (1, 0)}
        assert _operations(store.stats(since_s=0)) == {}


def test_a_download_by_path_is_a_fetch(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        store.path(f"{MODEL}@1.0.0")
        assert _operations(store.stats()) == {"fetch": (1, 0)}


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0,
    reason="root and Windows write in such a folder",
)
def test_a_store_that_cannot_be_written_counts_nothing(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        before = store.stats()
    log = site.home / "logs" / "statistics"
    log.chmod(0o444)
    site.home.joinpath("logs").chmod(0o555)
    try:
        with site.store() as store:
            assert store.fsck().problems == []
            assert store.stats() == before
    finally:
        site.home.joinpath("logs").chmod(0o755)


def test_no_store_is_made(tmp_path: Path) -> None:
    with Store.open(tmp_path / "none") as store:
        found = store.stats()
        store.fsck()
    assert (found.operations, found.models, found.saved_bytes) == ([], [], 0)
    assert not (tmp_path / "none").exists()
