"""Changing what is said of versions: keys that nobody knows survive, and nothing else moves."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from yarnstore.errors import NotFoundError, UsageError
from yarnstore.registry import edit as rules
from yarnstore.registry.edit import Edit, add_version, amend
from yarnstore.registry.schema import check_raw_model
from yarnstore.registry.select import latest_version

NOW = "2024-05-01T00:00:00Z"
SHA = "sha256:" + "ab" * 32


def made() -> dict[str, Any]:
    versions = {
        number: {"checksum": SHA, "download_url": "a", "x-own": [number]}
        for number in ("1.0.0", "1.1.0", "1.2.0", "2.0.0-rc.1")
    }
    versions["1.1.0"] |= {"variant": "cpu", "variants": {"gpu": {"checksum": SHA, "x": 1}}}
    model = {"x-first": 1, "current_version": "1.2.0", "aliases": {"stable": "1.1.0"}, "versions": versions}
    return {"x-top": True, "models": {"phi": model, "other": {"versions": {}}}, "last": None}


def apply(raw: dict[str, Any], change: Edit) -> rules.Amended:
    return amend(raw, "phi", change, now=NOW)


def test_only_what_was_asked_for_changes() -> None:
    raw, before = made(), made()
    assert apply(raw, rules.deprecate("1.0.0", reason="old", replaced_by="1.1.0")).changed
    entry = raw["models"]["phi"]["versions"]["1.0.0"]
    assert {key: entry.pop(key) for key in ("deprecated", "deprecated_reason", "replaced_by")} == {
        "deprecated": True,
        "deprecated_reason": "old",
        "replaced_by": "1.1.0",
    }
    assert raw.pop("last_updated") == NOW
    assert raw == before
    assert list(raw) == list(before)


def test_saying_it_twice_changes_nothing() -> None:
    raw = made()
    assert apply(raw, rules.yank("1.0.0")).changed
    before = copy.deepcopy(raw)
    assert not amend(raw, "phi", rules.yank("1.0.0"), now="2030-01-01T00:00:00Z").changed
    assert raw == before


@pytest.mark.parametrize(
    ("change", "undo"),
    [
        (rules.yank("1.0.0"), rules.unyank("1.0.0")),
        (rules.yank("1.1.0", "gpu"), rules.unyank("1.1.0", "gpu")),
        (rules.set_alias("beta", "2.0.0-rc.1"), rules.remove_alias("beta")),
    ],
)
def test_what_is_undone_is_as_it_was(change: Edit, undo: Edit) -> None:
    raw = made()
    apply(raw, change)
    apply(raw, undo)
    del raw["last_updated"]
    assert raw == made()


def test_undoing_a_deprecation_takes_its_reason_too() -> None:
    raw = made()
    apply(raw, rules.deprecate("1.0.0", reason="old", replaced_by="1.1.0"))
    apply(raw, rules.undeprecate("1.0.0"))
    assert raw["models"]["phi"]["versions"]["1.0.0"] == {
        **made()["models"]["phi"]["versions"]["1.0.0"],
        "deprecated": False,
    }


def test_the_current_version_moves_off_what_is_yanked() -> None:
    raw = made()
    done = apply(raw, rules.yank("1.2.0"))
    assert done.current_version == "1.1.0"
    assert done.notes == ["current_version is now 1.1.0"]
    done = apply(raw, rules.yank("1.1.0"))
    assert done.current_version == "1.0.0"
    assert "stable points to 1.1.0, which is now withdrawn" in done.notes
    done = apply(raw, rules.yank("1.0.0"))
    assert done.notes == ["1.0.0 was the current version, and no other version is usable"]
    assert latest_version(check_raw_model(raw["models"]["phi"], "phi")) is None


def test_the_current_version_moves_to_what_replaces_it() -> None:
    raw = made()
    still = apply(raw, rules.deprecate("1.2.0"))
    assert still.current_version == "1.2.0"
    assert "is still the current version" in still.notes[0]
    assert apply(raw, rules.deprecate("1.2.0", replaced_by="1.1.0")).current_version == "1.1.0"


def test_one_variant_alone() -> None:
    raw = made()
    assert apply(raw, rules.yank("1.1.0", "gpu")).notes == []
    version = raw["models"]["phi"]["versions"]["1.1.0"]
    assert version["variants"]["gpu"] == {"checksum": SHA, "x": 1, "yanked": True}
    assert "yanked" not in version
    with pytest.raises(UsageError, match="would also withdraw gpu"):
        apply(raw, rules.yank("1.1.0", "cpu"))
    with pytest.raises(NotFoundError, match='no variant "tpu"'):
        apply(raw, rules.yank("1.1.0", "tpu"))


@pytest.mark.parametrize(
    "change",
    [
        rules.yank("9.9.9"),
        rules.deprecate("9.9.9"),
        rules.deprecate("1.0.0", replaced_by="9.9.9"),
        rules.set_alias("beta", "9.9.9"),
        rules.set_current("9.9.9"),
        rules.remove_alias("beta"),
    ],
)
def test_what_is_not_there_is_not_found_and_nothing_changes(change: Edit) -> None:
    raw = made()
    with pytest.raises(NotFoundError):
        apply(raw, change)
    assert raw == made()


def test_an_unknown_model_has_near_ones() -> None:
    with pytest.raises(NotFoundError, match="Did you mean phi"):
        amend(made(), "phj", rules.yank("1.0.0"), now=NOW)


def test_the_current_version_is_to_be_usable() -> None:
    raw = made()
    apply(raw, rules.yank("1.0.0"))
    with pytest.raises(UsageError, match="is withdrawn"):
        apply(raw, rules.set_current("1.0.0"))
    apply(raw, rules.deprecate("1.1.0"))
    with pytest.raises(UsageError, match="is deprecated"):
        apply(raw, rules.set_current("1.1.0"))
    assert apply(raw, rules.set_current("2.0.0-rc.1")).current_version == "2.0.0-rc.1"


def test_nothing_replaces_itself_or_is_replaced_by_what_is_withdrawn() -> None:
    raw = made()
    apply(raw, rules.yank("1.1.0"))
    with pytest.raises(UsageError):
        apply(raw, rules.deprecate("1.0.0", replaced_by="1.0.0"))
    with pytest.raises(UsageError):
        apply(raw, rules.deprecate("1.0.0", replaced_by="1.1.0"))


@pytest.mark.parametrize("name", ["latest", "v2", "1.x", "x", "", "a b", "-a"])
def test_what_can_be_no_alias(name: str) -> None:
    with pytest.raises(UsageError):
        rules.set_alias(name, "1.0.0")


def test_a_backport_goes_to_its_place() -> None:
    raw = made()
    add_version(raw, model="phi", version="1.0.1", entry={"checksum": SHA}, now=NOW)
    versions = raw["models"]["phi"]["versions"]
    assert list(versions) == ["1.0.0", "1.0.1", "1.1.0", "1.2.0", "2.0.0-rc.1"]
    assert raw["models"]["phi"]["current_version"] == "1.2.0"
