"""Versions that need other models: an adapter and its base."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from yarnstore import Store
from yarnstore.errors import CancelledError, ConflictError, IncompatibleError, SpecError, UsageError
from yarnstore.ops.session.activity import Activity
from yarnstore.progress import Progress
from yarnstore.store.native import quoted
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
    assert told.value.hint == f"`ystore checkout {quoted('base@^1.0')}` first"
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
    publish(registry, "adapter@1.2.0", requires="base@~1.3")
    publish(registry, "adapter@3.0.0", requires="base@^3.0")
    yank(registry, "adapter", "2.0.0")
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.1.0")
    base, adapter = sorted(store.check_for_updates(), key=lambda item: item.model, reverse=True)
    assert (base.wanted, base.obstacle, base.across) == ("1.0.0", "requires", None)
    assert base.note == "2.0.0 is held back: adapter 1.1.0 needs base@~1.0"
    assert (adapter.wanted, adapter.obstacle) == ("1.1.0", "requires")
    assert adapter.note == "3.0.0 is held back: it needs base@^3.0, and 1.0.0 is installed"
    for major in (False, True):
        done = {item.model: item for item in store.update_models(major=major).results}
        assert {item.status for item in done.values()} == {"held"}, done
        assert {item.version for item in done.values()} == {"1.0.0", "1.1.0"}
    store.set_auto_update(enabled=True, policy="minor")
    assert {item.status for item in store.run_auto_update(now=True).models} == {"held"}
    assert not store.update_model("base", dry_run=True).changed
    assert store.update_model("base").version == "1.2.0"  # named: it warns


def rewrite(registry: Path, model: str, old: str, new: str) -> None:
    """Change what the only version of a model needs, as if it had been published so."""
    index = registry / "registry.json"
    models = json.loads(index.read_text(encoding="utf-8"))
    entry = models["models"][model]["versions"]["1.0.0"]
    named = entry["manifest"].removeprefix("sha256:")
    folder = registry / "manifests"
    (folder / f"{named}.json.zst").unlink(missing_ok=True)
    made = (folder / f"{named}.json").read_bytes().replace(old.encode(), new.encode())
    (folder / f"{named}.json").unlink()
    digest = hashlib.sha256(made).hexdigest()
    (folder / f"{digest}.json").write_bytes(made)
    entry["manifest"], entry["requires"] = f"sha256:{digest}", [new]
    index.write_text(json.dumps(models), encoding="utf-8")


def yank(registry: Path, model: str, version: str) -> None:
    path = registry / "registry.json"
    raw = json.loads(path.read_text())
    raw["models"][model]["versions"][version]["yanked"] = True
    path.write_text(json.dumps(raw))


def installed(store: Store) -> dict[str, str]:
    return {row.model: row.version for row in store.list_versions() if row.installed}


def test_an_adapter_and_its_base_move_to_new_majors_together(store: Store) -> None:
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    for item in store.check_for_updates():
        assert (item.wanted, item.obstacle, item.across) == ("1.0.0", "major", "2.0.0")
        assert item.note == "2.0.0 is a new major version: ystore update --major"
    assert {item.status for item in store.update_models().results} == {"current"}
    planned = store.update_models(major=True, dry_run=True).results
    assert {(item.model, item.version, item.status) for item in planned} == {
        ("adapter", "2.0.0", "planned"),
        ("base", "2.0.0", "planned"),
    }
    done = store.update_models(major=True).results
    assert [(item.model, item.status, item.previous) for item in done] == [
        ("adapter", "updated", "1.0.0"),
        ("base", "updated", "1.0.0"),
    ]
    assert all(item.download_bytes for item in done)
    assert installed(store) == {"base": "2.0.0", "adapter": "2.0.0"}


def test_auto_update_moves_both_if_its_policies_allow_both(store: Store, registry: Path) -> None:
    publish(registry, "base@1.2.0")
    publish(registry, "adapter@1.1.0", requires="base@~1.0")
    publish(registry, "adapter@1.2.0", requires="base@~1.2")
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.1.0")
    assert {item.wanted for item in store.check_for_updates()} == {"1.2.0"}
    store.set_auto_update(enabled=True, policy="minor")
    store.set_auto_update("base", enabled=True, policy="notify")
    found = {item.model: item.status for item in store.run_auto_update(now=True).models}
    assert found == {"base": "available", "adapter": "held"}
    store.set_auto_update("base", enabled=False)
    assert [item.status for item in store.run_auto_update(now=True).models] == ["held"]
    store.set_auto_update("base", enabled=True, policy="minor")
    assert {item.status for item in store.run_auto_update(now=True).models} == {"updated"}
    assert installed(store) == {"base": "1.2.0", "adapter": "1.2.0"}


def test_two_updates_that_fit_what_is_installed_and_not_each_other_are_not_both_made(
    store: Store, registry: Path
) -> None:
    publish(registry, "base@1.2.0")
    publish(registry, "adapter@1.1.0", requires="base@~1.0")
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    store.update_models()
    assert installed(store) in ({"base": "1.0.0", "adapter": "1.1.0"}, {"base": "1.2.0", "adapter": "1.0.0"})


def test_outdated_says_of_one_model_what_update_does_though_nothing_installed_needs_anything(
    registry: Path, tmp_path: Path
) -> None:
    publish(registry, "plain@1.0.0", "lora@1.0.0", "holder@1.0.0", "held@1.0.0", "held@1.1.0")
    publish(registry, "plain@1.1.0")
    publish(registry, "lora@1.1.0", requires="plain@^1.1")
    publish(registry, "holder@1.1.0", requires="held@~1.0")
    with Store.open(tmp_path / "other") as store:
        store.add_registry("made", registry)
        for model in ("plain", "lora", "holder", "held"):
            store.checkout(f"{model}@1.0.0")
        said = {model: store.check_for_updates(model)[0].wanted for model in installed(store)}
        assert said == {row.model: row.wanted for row in store.check_for_updates()}
        store.update_models()
        assert installed(store) == said
        assert said["lora"] == "1.1.0"


def test_neither_moves_if_one_cannot_be_downloaded(store: Store, registry: Path) -> None:
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    entry = json.loads((registry / "registry.json").read_text())["models"]["adapter"]["versions"]["2.0.0"]
    for path in (registry / "manifests").glob(f"{entry['manifest'].removeprefix('sha256:')}*"):
        path.unlink()
    done = {item.model: item for item in store.update_models(major=True).results}
    assert (done["adapter"].status, done["base"].status) == ("failed", "held")
    assert installed(store) == {"base": "1.0.0", "adapter": "1.0.0"}


def failing(store: Store, model: str) -> Store:
    """The store, in which the self-check of a model fails."""
    words = json.dumps([sys.executable, "-c", "raise SystemExit(1)"])
    with (Path(store.home) / "config.toml").open("a", encoding="utf-8") as file:
        file.write(f"[models.{model}]\nverify_command = {words}\n")
    return Store.open(store.home)


@pytest.mark.parametrize("failed", ["base", "adapter", "head"])
def test_a_chain_of_three_goes_back_if_any_of_them_fails_its_self_check(
    store: Store, registry: Path, failed: str
) -> None:
    publish(registry, "head@1.0.0", requires="adapter@^1.0")
    publish(registry, "head@2.0.0", requires="adapter@^2.0")
    for model in ("base", "adapter", "head"):
        store.checkout(f"{model}@1.0.0")
    done = {item.model: item for item in failing(store, failed).update_models(major=True).results}
    assert done[failed].status == "failed"
    assert "updated" not in {item.status for item in done.values()}
    assert installed(store) == dict.fromkeys(("base", "adapter", "head"), "1.0.0")
    if failed == "head":
        assert done["adapter"].note == "2.0.0 was rolled back: head 1.0.0 needs adapter@^1.0"
        assert done["base"].note == "2.0.0 was rolled back: adapter 1.0.0 needs base@^1.0"


def test_the_base_goes_back_if_the_adapter_fails_its_self_check(store: Store) -> None:
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    done = {item.model: item for item in failing(store, "adapter").update_models(major=True).results}
    assert (done["adapter"].status, done["base"].status) == ("failed", "held")
    assert done["base"].note == "2.0.0 was rolled back: adapter 1.0.0 needs base@^1.0"
    assert installed(store) == {"base": "1.0.0", "adapter": "1.0.0"}


def test_what_moved_with_a_base_goes_back_with_it(store: Store, registry: Path) -> None:
    publish(registry, "other@1.0.0", requires="base@^1.0")
    publish(registry, "other@2.0.0", requires="base@^2.0")
    publish(registry, "loose@1.0.0", requires="base@>=1.0")
    publish(registry, "loose@2.0.0", requires="base@>=1.0")
    for model in ("base", "adapter", "other", "loose"):
        store.checkout(f"{model}@1.0.0")
    done = {item.model: item for item in failing(store, "adapter").update_models(major=True).results}
    assert {model: item.status for model, item in done.items()} == {
        "adapter": "failed",
        "base": "held",
        "other": "held",
        "loose": "updated",
    }
    assert installed(store) == {"base": "1.0.0", "adapter": "1.0.0", "other": "1.0.0", "loose": "2.0.0"}


@pytest.mark.parametrize("moves", [0, 1])
def test_a_joint_move_that_was_killed_in_between_is_named_and_finished(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    """As after a kill before the first or the second move of a ref."""
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    move, made = Refs.move, list[str]()

    class Killed(BaseException):
        pass

    def killed(refs: Refs, model: str, *args: Any, **more: Any) -> None:
        if len(made) == moves:
            raise Killed
        made.append(model)
        move(refs, model, *args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(Refs, "move", killed)
        with pytest.raises(Killed):
            store.update_models(major=True)
    store = Store.open(tmp_path / "home")
    assert installed(store) == {"base": "2.0.0" if moves else "1.0.0", "adapter": "1.0.0"}
    found = {item.model: item for item in store.check_for_updates()}
    checks = [check for check in store.examine().checks if check.name == "requirements"]
    if moves:
        assert "adapter 1.0.0 needs base@^1.0; 2.0.0 is installed" in (found["adapter"].note or "")
        assert [check.status for check in checks] == ["wrong"]
        assert "adapter 1.0.0 needs base@^1.0; 2.0.0 is installed" in checks[0].what
    store.update_models(major=True)
    assert installed(store) == {"base": "2.0.0", "adapter": "2.0.0"}
    assert [c.status for c in store.examine().checks if c.name == "requirements"] != ["wrong"]


def interrupt_at(patched: pytest.MonkeyPatch, moves: int, *, after: bool = False) -> None:
    """Press Ctrl-C before the next move of a ref after so many, or right after it."""
    move, end, made = Refs.move, Activity.end, list[str]()
    ended = threading.Event()

    def ending(activity: Activity) -> None:
        end(activity)
        ended.set()

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        if threading.current_thread() is not threading.main_thread():
            assert ended.wait(10)

    def moving(refs: Refs, model: str, *args: Any, **more: Any) -> None:
        count = len(made)
        made.append(model)
        if count == moves and not after:
            press()
        move(refs, model, *args, **more)
        if count == moves and after:
            press()

    patched.setattr(Activity, "end", ending)
    patched.setattr(Refs, "move", moving)


def update_jointly(store: Store, how: str) -> None:
    if how == "auto-update":
        store.run_auto_update(now=True)
    else:
        store.update_models(major=True)


@pytest.fixture
def close(registry: Path, store: Store) -> Store:
    """The store with a base and an adapter that auto-update may move together, too."""
    publish(registry, "base@1.2.0")
    publish(registry, "adapter@1.1.0", requires="base@~1.0")
    publish(registry, "adapter@1.2.0", requires="base@~1.2")
    yank(registry, "base", "2.0.0")
    yank(registry, "adapter", "2.0.0")
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.1.0")
    store.set_auto_update(enabled=True, policy="minor")
    return store


OLD = {"base": "1.0.0", "adapter": "1.1.0"}
NEW = {"base": "1.2.0", "adapter": "1.2.0"}


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl-C")
@pytest.mark.parametrize("how", ["update", "auto-update"])
@pytest.mark.parametrize(("moves", "after"), [(0, False), (0, True), (1, False), (1, True)])
def test_an_interrupt_between_joint_moves_completes_them(
    close: Store, monkeypatch: pytest.MonkeyPatch, how: str, moves: int, after: bool
) -> None:
    with monkeypatch.context() as patched:
        interrupt_at(patched, moves, after=after)
        with pytest.raises(KeyboardInterrupt):
            update_jointly(close, how)
    begun = how == "update" or moves or after
    assert installed(close) == (NEW if begun else OLD)
    assert "wrong" not in {c.status for c in close.examine().checks if c.name == "requirements"}
    update_jointly(close, how)
    assert installed(close) == NEW


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send itself Ctrl-C")
@pytest.mark.parametrize("how", ["update", "auto-update"])
@pytest.mark.parametrize("checked", ["base", "adapter"])
def test_an_interrupt_that_would_wait_for_a_self_check_takes_joint_moves_back(
    close: Store, monkeypatch: pytest.MonkeyPatch, how: str, checked: str
) -> None:
    words = json.dumps([sys.executable, "-c", "pass"])
    with (Path(close.home) / "config.toml").open("a", encoding="utf-8") as file:
        file.write(f"[models.{checked}]\nverify_command = {words}\n")
    store = Store.open(close.home)
    with monkeypatch.context() as patched:
        interrupt_at(patched, 0, after=True)
        with pytest.raises(KeyboardInterrupt):
            update_jointly(store, how)
    assert installed(store) == OLD
    store.update_models()
    assert installed(store) == NEW


def test_a_joint_move_that_is_cancelled_in_between_is_completed(store: Store) -> None:
    """As by a job of the service."""
    store.checkout("base@1.0.0")
    store.checkout("adapter@1.0.0")
    cancelled = list[str]()

    def hear(event: Progress) -> None:
        if cancelled or event.text.startswith("warning: adapter 1.0.0 needs base"):
            cancelled.append(event.text)
            raise CancelledError("stopped")

    with pytest.raises(CancelledError):
        store.update_models(major=True, progress=hear)
    assert "interrupted: first the updates of base, adapter end, which belong together" in cancelled
    assert installed(store) == {"base": "2.0.0", "adapter": "2.0.0"}


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


def test_an_alias_is_refused_as_a_requirement_since_any_version_would_fit_it(
    store: Store, registry: Path, tmp_path: Path
) -> None:
    source = tmp_path / "adapter@1.0.0.bin"
    for text in ("base@stable", "base@latest", "base:cpu@stable"):
        with pytest.raises(UsageError, match="alias") as told:
            Store.publish(source, "x@1.0.0", registry=registry, requires=(text,))
        assert "base@^1.0" in told.value.hint or "base:cpu@^1.0" in told.value.hint
    Store.publish(source, "x@1.0.0", registry=registry, requires=("base",))
    store.refresh_registries()
    assert store.show("x@1.0.0").requires == ("base",)


def test_an_alias_in_a_registry_that_has_one_is_met_by_any_version(store: Store, registry: Path) -> None:
    publish(registry, "x@1.0.0", requires="base@^1.0")
    rewrite(registry, "x", "base@^1.0", "base@stable")
    source = registry.with_name("x@1.0.0.bin")
    assert not Store.publish(source, "x@1.0.0", registry=registry, requires=("base@stable",)).changed
    store.refresh_registries()
    with pytest.raises(IncompatibleError, match="needs base@stable; it is not installed"):
        store.checkout("x@1.0.0")
    store.checkout("base@2.0.0")
    store.checkout("x@1.0.0")
    assert installed(store) == {"base": "2.0.0", "x": "1.0.0"}
    (found,) = [item for item in store.lint_registry(registry).findings if "requires" in item.path]
    assert (found.severity, found.message) == (
        "warning",
        "is an alias, which any version meets; name a range, such as base@^1.0",
    )
