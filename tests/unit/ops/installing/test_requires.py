"""Versions that need other models: an adapter and its base."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from yarnstore import Store
from yarnstore.errors import ConflictError, IncompatibleError, SpecError, UsageError
from yarnstore.progress import Progress
from yarnstore.store.refs import Refs


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A base, and an adapter for each of its majors."""
    root = tmp_path / "registry"
    publish(root, "base@1.0.0", "base@2.0.0")
    publish(root, "adapter@1.0.0", requires="base@^1.0")
    publish(root, "adapter@2.0.0", requires="base@^2.0")
    return root


def publish(registry: Path, *specs: str, requires: str = "") -> None:
    """Publish versions that need the same, from files beside the registry."""
    for spec in specs:
        source = registry.with_name(f"{spec}.bin")
        source.write_bytes(spec.encode() * 2000)
        Store.publish(source, spec, registry=registry, requires=(requires,) if requires else ())


@pytest.fixture
def store(registry: Path, tmp_path: Path) -> Store:
    store = Store.open(tmp_path / "home")
    store.add_registry("made", registry)
    return store


def test_a_version_is_installed_after_what_it_needs(store: Store) -> None:
    with pytest.raises(
        IncompatibleError, match=r"adapter 1\.0\.0 needs base@\^1\.0; it is not installed"
    ) as told:
        store.checkout("adapter@1.0.0")
    assert told.value.hint == "`ystore checkout base@^1.0` first"
    assert store.list_versions() == []  # nothing was downloaded
    store.fetch("adapter@1.0.0")  # … unless only that was wanted
    store.checkout("base@2.0.0")
    with pytest.raises(IncompatibleError, match=r"2\.0\.0 is installed"):
        store.checkout("adapter@1.0.0")
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")


def test_both_are_updated_and_rolled_back_base_first(store: Store) -> None:
    notes: list[str] = []

    def hear(event: Progress) -> None:
        notes.append(event.text)

    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    with pytest.raises(IncompatibleError, match=r"base@\^2\.0"):
        store.update_model("adapter", major=True)
    store.update_model("base", major=True, progress=hear)
    warning = "warning: adapter 1.0.0 needs base@^1.0; 2.0.0 is installed now"
    assert warning in notes
    # A version of the base that fits the adapter stays.
    assert store.gc(keep=0, grace_s=0).versions == []
    assert store.update_model("adapter", major=True).version == "2.0.0"
    with pytest.raises(IncompatibleError, match=r"adapter 1\.0\.0 needs base@\^1\.0"):
        store.rollback_model("adapter")
    store.rollback_model("base")
    assert store.rollback_model("adapter").version == "1.0.0"


def test_no_update_breaks_another_model_unless_it_is_named(store: Store, registry: Path) -> None:
    """The base stays for the adapter, and the adapter for the base, whatever the policy allows."""
    publish(registry, "base@1.1.0", "base@1.2.0")
    publish(registry, "adapter@1.1.0", requires="base@~1.0")
    publish(registry, "adapter@1.2.0", requires="base@^1.2")
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.1.0")
    base, adapter = sorted(store.check_for_updates(), key=lambda item: item.model, reverse=True)
    assert (base.wanted, base.obstacle) == ("1.0.0", "requires")
    assert base.note == "2.0.0 is held back: adapter 1.1.0 needs base@~1.0"
    assert (adapter.wanted, adapter.obstacle) == ("1.1.0", "requires")
    assert adapter.note == "2.0.0 is held back: it needs base@^2.0, and 1.0.0 is installed"
    for major in (False, True):
        done = {item.model: item for item in store.update_models(major=major).results}
        assert {item.status for item in done.values()} == {"held"}, done
        assert {item.version for item in done.values()} == {"1.0.0", "1.1.0"}
    store.set_auto_update(enabled=True, policy="minor")
    assert {item.status for item in store.run_auto_update(now=True).models} == {"held"}
    assert not store.update_model("base", dry_run=True).changed
    assert store.update_model("base").version == "1.2.0"  # named: it warns
    assert store.update_models().results[0].version == "1.2.0"  # and now the adapter fits


def test_a_requirement_that_is_broken_already_holds_nothing_back(store: Store) -> None:
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    store.checkout("base@2.0.0")
    assert {item.status for item in store.update_models().results} == {"current"}
    assert store.update_models(major=True).results[0].version == "2.0.0"


@pytest.mark.parametrize("how", ["another version", "removed"])
def test_a_base_that_another_process_changes_just_before_the_move_is_seen(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    store.checkout("base@1.0.0")
    store.fetch("adapter@1.0.0")
    moving = Refs.moving

    @contextlib.contextmanager
    def moving_late(refs: Refs) -> Iterator[None]:
        monkeypatch.setattr(Refs, "moving", moving)
        other = Store.open(tmp_path / "home")
        if how == "removed":
            other.remove("base", whole_model=True)
        else:
            other.checkout("base@2.0.0")
        with moving(refs):
            yield

    monkeypatch.setattr(Refs, "moving", moving_late)
    with pytest.raises(IncompatibleError, match=r"adapter 1\.0\.0 needs base@\^1\.0"):
        store.checkout("adapter@1.0.0")
    assert Refs.moving is moving  # the base was changed
    assert "adapter" not in {row.model for row in store.list_versions() if row.installed}


def test_gc_keeps_what_a_kept_version_requires(store: Store) -> None:
    for spec in ("base@1.0.0", "base@2.0.0", "adapter@1.0.0"):
        store.fetch(spec)
    store.pin("adapter@1.0.0")
    assert store.gc(keep=0, grace_s=0).versions == ["base@2.0.0"]
    kept = {(row.model, row.version) for row in store.list_versions()}
    assert kept == {("base", "1.0.0"), ("adapter", "1.0.0")}


def test_a_base_in_use_is_not_removed(store: Store) -> None:
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    with pytest.raises(ConflictError, match=r"base is required by adapter 1\.0\.0"):
        store.remove("base", whole_model=True)
    store.remove("adapter", whole_model=True)
    store.remove("base", whole_model=True)


def test_what_publishers_say(store: Store, registry: Path, tmp_path: Path) -> None:
    assert store.show("adapter@1.0.0").requires == ("base@^1.0",)
    source = tmp_path / "adapter@1.0.0.bin"
    assert not Store.publish(source, "adapter@1.0.0", registry=registry, requires=("base@^1.0",)).changed
    with pytest.raises(ConflictError, match="other requirements"):
        Store.publish(source, "adapter@1.0.0", registry=registry, requires=("base@^3",))
    with pytest.raises(SpecError):
        Store.publish(source, "x@1.0.0", registry=registry, requires=("base@@",))
    with pytest.raises(UsageError, match="names the model itself"):
        Store.publish(source, "x@1.0.0", registry=registry, requires=("x@^1",))
