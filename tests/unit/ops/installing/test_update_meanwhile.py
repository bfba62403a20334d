"""Updates that find another version than they were decided from."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from yarnstore import Store
from yarnstore.errors import ConflictError
from yarnstore.ops.installing import update_plan


def versions(store: Store) -> dict[str, str]:
    return {item.model: item.version for item in store.list_installed_models()}


def _meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have something happen between an update's decision and its move."""
    prepare = update_plan.prepare

    def late(*arguments: object, **named: object) -> object:
        monkeypatch.setattr(update_plan, "prepare", prepare)
        act()
        return prepare(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(update_plan, "prepare", late)


def test_an_update_does_not_undo_what_was_installed_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(monkeypatch, lambda: Store.open(store.home).checkout("m@2.0.0"))
    with pytest.raises(
        ConflictError, match=r"m 2\.0\.0 is installed now, but the update started from 1\.0\.0"
    ):
        store.update_model("m")
    assert versions(store)["m"] == "2.0.0"
    assert [move.new for move in store.get_version_history("m").moves] == ["1.0.0", "2.0.0"]
    assert store.fsck().problems == []


def test_an_update_does_not_bring_back_what_was_removed_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(monkeypatch, lambda: Store.open(store.home).remove("m", whole_model=True))
    with pytest.raises(ConflictError, match="m is no longer installed"):
        store.update_model("m")
    assert versions(store) == {"other": "1.0.0"}


def test_of_two_equal_updates_one_is_told_that_it_came_late(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    _meanwhile(monkeypatch, lambda: Store.open(store.home).update_model("m"))
    late = store.update_model("m")
    assert (late.status, late.previous, late.version) == ("current", None, "1.1.0")
