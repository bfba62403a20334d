"""Retention in `config.toml`: applied after updates, and the defaults of gc."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.registries import publish
from yarnstore import Progress, Store
from yarnstore.errors import ConfigError
from yarnstore.settings import load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store that has m in four versions and `other` in two; m 1.3.0 was installed before 1.0.0."""
    registry = tmp_path / "registry"
    publish(registry, *(f"m@1.{n}.0" for n in range(5)), "other@1.0.0", "other@1.1.0")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("made", registry)
        for n in range(4):
            store.fetch(f"m@1.{n}.0")
        store.checkout("m@1.3.0")
        store.checkout("other@1.0.0")
    return tmp_path / "home"


def configured(home: Path, text: str) -> Store:
    (home / "config.toml").write_text(f"{text}\n")
    return Store.open(home)


def versions(store: Store, model: str = "m") -> list[str]:
    return [item.version for item in store.list_versions(model)]


def test_nothing_is_deleted_where_none_is_set(home: Path) -> None:
    with Store.open(home) as store:
        done = store.update_model("m")
        assert (done.status, done.freed_bytes) == ("updated", 0)
        store.update_models()
        assert versions(store) == ["1.4.0", "1.3.0", "1.2.0", "1.1.0", "1.0.0"]


@pytest.mark.parametrize("how", ["one", "all", "named", "auto"])
def test_an_update_deletes_what_is_not_kept(home: Path, how: str) -> None:
    notes: list[str] = []

    def listen(event: Progress) -> None:
        notes.append(event.text)

    with configured(home, "keep = 1") as store:
        if how == "one":
            freed = store.update_model("m", progress=listen).freed_bytes
        elif how == "auto":
            store.set_auto_update(enabled=True, policy="minor")
            freed = store.run_auto_update(now=True, progress=listen).freed_bytes
        else:
            names = ("m", "other") if how == "named" else ()
            freed = store.update_models(*names, progress=listen).freed_bytes
        # 1.3.0 is what a rollback leads to.
        assert versions(store) == ["1.4.0", "1.3.0"]
        assert freed > 0
        assert any("deleted m@1.0.0, m@1.1.0, m@1.2.0" in note for note in notes)
        assert store.rollback_model("m").version == "1.3.0"
        assert store.fsck().problems == []


def test_what_is_pinned_leased_or_recent_stays(home: Path) -> None:
    with configured(home, "keep = 0") as store:
        store.pin("m@1.0.0")
        with Store.open(home) as other:
            other.path("m@1.1.0")
            store.update_model("m")
            assert versions(store) == ["1.4.0", "1.3.0", "1.1.0", "1.0.0"]


def test_what_came_within_the_time_stays(home: Path) -> None:
    with configured(home, 'keep = 0\nkeep_within = "30d"') as store:
        store.update_model("m")
        assert len(versions(store)) == 5


def test_nothing_is_deleted_where_nothing_was_updated(home: Path) -> None:
    with configured(home, "keep = 0") as store:
        store.update_model("m", dry_run=True)
        store.update_models(dry_run=True)
        assert store.update_model("m", to="~1.3").status == "current"
        assert len(versions(store)) == 4


@pytest.mark.parametrize("config", ["keep = 0", "keep = 1", "keep = 2", 'keep = 0\nkeep_within = "30d"'])
@pytest.mark.parametrize("how", ["one", "to", "all"])
def test_a_dry_run_names_the_versions_that_the_update_deletes(home: Path, config: str, how: str) -> None:
    notes: list[str] = []
    with configured(home, config) as store:
        before = versions(store)

        def run(*, dry_run: bool) -> tuple[str, ...]:
            told = (lambda event: notes.append(event.text)) if dry_run else None
            if how == "all":
                return store.update_models(dry_run=dry_run, progress=told).deleted_versions
            spec = "m@1.2.0" if how == "to" else "m"
            return store.update_model(spec, dry_run=dry_run, progress=told).deleted_versions

        named = run(dry_run=True)
        assert versions(store) == before
        assert run(dry_run=False) == named
        kept = [version for version in before if f"m@{version}" not in named]
        assert [version for version in versions(store) if version in before] == kept
        said = [note for note in notes if "would then delete" in note]
        assert [", ".join(named) in note for note in said] == ([True] if named else [])


def test_a_dry_run_deletes_nothing_where_nothing_is_planned(home: Path) -> None:
    with configured(home, "keep = 0") as store:
        assert store.update_model("m", to="~1.3", dry_run=True).deleted_versions == ()


def test_a_dry_run_says_why_it_does_not_know(home: Path) -> None:
    notes: list[str] = []
    with configured(home, "keep = 0") as store:
        log = next((home / "logs" / "installed").glob("other*"))
        log.write_bytes(b"damaged\n" + log.read_bytes())
        done = store.update_model("m", dry_run=True, progress=lambda event: notes.append(event.text))
        assert (done.status, done.deleted_versions) == ("planned", ())
    assert any("would be deleted after the update is unknown: the log of other" in note for note in notes)


def test_gc_goes_by_it_and_options_win(home: Path) -> None:
    with configured(home, 'keep = 1\nkeep_within = "1w"') as store:
        assert store.gc(dry_run=True).versions == []
        assert len(store.gc(keep_within_s=0, dry_run=True).versions) == 3
        assert len(store.gc(keep=2, keep_within_s=0, dry_run=True).versions) == 2
        assert len(versions(store)) == 4
    with Store.open(home) as store:
        assert store.gc(keep=9, keep_within_s=0).versions == []


def test_an_update_does_not_wait_for_others_to_free_space(home: Path) -> None:
    notes: list[str] = []
    with configured(home, "keep = 0") as store, store._session() as session:
        release = threading.Event()
        ready = threading.Event()

        def use() -> None:
            with session.layout.shared():
                ready.set()
                release.wait(30)

        user = threading.Thread(target=use)
        user.start()
        ready.wait(30)
        try:
            done = store.update_model("m", progress=lambda event: notes.append(event.text))
        finally:
            release.set()
            user.join()
        assert (done.version, done.freed_bytes) == ("1.4.0", 0)
        assert len(versions(store)) == 5
        assert any("were not deleted" in note for note in notes)


@pytest.mark.parametrize(
    "config", ["keep = -1", 'keep = "3"', "keep = true", "keep_within = 30", 'keep_within = "30 years"']
)
def test_a_retention_that_cannot_be_read(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.toml").write_text(config)
    with pytest.raises(ConfigError, match="keep"):
        load_settings(tmp_path, {})
