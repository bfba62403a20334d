"""Settings that programs list and change."""

from __future__ import annotations

from pathlib import Path

import pytest

from yarnstore import Store
from yarnstore.errors import ConfigError, ConflictError, NotFoundError


def values(store: Store) -> dict[str, tuple[object, str, bool]]:
    return {item.name: (item.value, item.source, item.editable) for item in store.list_settings()}


def test_a_change_counts_at_once_and_is_taken_back(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        assert values(store)["keep"] == (None, "default", True)
        store.change_settings({"keep": 2, "limit_rate": "5M", "offline": True, "connections": 7})
        assert values(store)["keep"] == (2, "managed.toml", True)
        assert store.settings.retention.keep == 2
        assert store.settings.network.limit_rate == 5_000_000
        assert (store.settings.network.offline, store.settings.connections) == (True, 7)
        assert store.settings.notifications
        store.change_settings({"notifications": False})
        assert not store.settings.notifications
        with pytest.raises(ConfigError, match="notifications"):
            store.change_settings({"notifications": "no"})
        store.change_settings({"notifications": None})
        store.change_settings({"keep": None, "offline": None, "limit_rate": None, "connections": None})
        assert {source for _, source, _ in values(store).values()} == {"default"}


def test_what_rollbacks_and_second_copies_take_is_chosen_from_words(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        found = {item.name: item for item in store.list_settings()}
        assert (found["rollback"].value, found["rollback"].choices) == ("instant", ("instant", "thin"))
        assert (found["keep_copy"].value, found["keep_copy"].choices) == (
            "imports",
            ("imports", "always", "never"),
        )
        assert found["keep"].choices == ()
        store.change_settings({"rollback": "thin", "keep_copy": "always"})
        assert (store.settings.retention.rollback, store.settings.retention.keep_copy) == ("thin", "always")
        store.change_settings({"rollback": None, "keep_copy": None})
        assert {source for _, source, _ in values(store).values()} == {"default"}


def test_what_a_person_set_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").write_text("# mine\nkeep = 5\n")
    monkeypatch.setenv("YSTORE_LIMIT_RATE", "1M")
    with Store.open(tmp_path) as store:
        found = {item.name: item for item in store.list_settings()}
        assert (found["keep"].value, found["keep"].where) == (5, f"{tmp_path / 'config.toml'}, line 2")
        assert (found["limit_rate"].value, found["limit_rate"].where) == ("1M", "YSTORE_LIMIT_RATE")
        for change in ({"keep": 1}, {"limit_rate": "2M"}, {"keep": None}):
            with pytest.raises(ConflictError, match="is set by"):
                store.change_settings(change)
        with pytest.raises(ConflictError):
            store.change_settings({"offline": True, "keep": 1})
        assert store.settings.network.offline is False
    assert not (tmp_path / "managed.toml").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"keep": -1}, {"keep": "x"}, {"keep": True}, {"keep_within": "soon"}, {"path_grace": 3},
        {"limit_rate": "fast"}, {"limit_rate": True}, {"connections": 0}, {"connections": 1000},
        {"offline": "yes"}, {"app_version": "one"}, {"rollback": "slow"}, {"keep_copy": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_bad_value_changes_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    with Store.open(tmp_path) as store:
        with pytest.raises(ConfigError):
            store.change_settings({"keep_within": "30d", **change})  # type: ignore[dict-item]
        assert {source for _, source, _ in values(store).values()} == {"default"}
        Store.open(tmp_path).close()


def test_an_unknown_setting_is_not_found(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, pytest.raises(NotFoundError, match="verify"):
        store.change_settings({"verify_command": "rm"})
