"""What `outdated` says beyond the decision itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.registries import amend, mark, publish
from yarnstore import Store
from yarnstore.errors import NotFoundError, SpecError

# --- what cannot be asked after ----------------------------------------------------------------


def test_a_registry_that_nobody_can_ask_is_no_sign_of_being_up_to_date(store: Store, registry: Path) -> None:
    shutil.rmtree(store.home / "registries")
    registry.rename(registry.with_name("gone"))
    for row in store.check_for_updates():
        assert row.error is not None
        assert row.error["code"] == "network"
        assert (row.installed, row.latest, row.available) == ("1.0.0", "", False)


def test_cached_registries_are_not_asked_without_refresh(store: Store, registry: Path) -> None:
    asked = [row.wanted for row in store.check_for_updates()]
    checked = store.auto_update_status().last_check
    registry.rename(registry.with_name("gone"))
    state = (store.home / "local-state.json").stat().st_mtime_ns
    rows = store.check_for_updates(refresh=False)
    assert [row.wanted for row in rows] == asked
    assert [row.error for row in rows] == [None] * len(rows)
    assert (store.home / "local-state.json").stat().st_mtime_ns == state
    assert store.auto_update_status().last_check == checked


def test_a_model_that_no_registry_has_is_no_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mine.bin").write_bytes(b"mine")
    store.import_model(tmp_path / "mine.bin", "mine@1.0.0")
    store.checkout("mine@1.0.0")
    row = next(row for row in store.check_for_updates() if row.model == "mine")
    assert (row.error, row.latest) == (None, "")
    assert row.note == 'no model "mine" in made'
    with pytest.raises(NotFoundError):
        store.check_for_updates("none-such")


def _damage_ref(store: Store) -> None:
    (store.home / "refs" / "installed" / "m").write_bytes(b"?")


def _damage_pin(store: Store) -> None:
    store.pin("m@^1.0")
    (store.home / "refs" / "holds" / "m").write_bytes(b"?")


@pytest.mark.parametrize("damage", [_damage_ref, _damage_pin])
def test_one_that_is_damaged_hides_no_other(store: Store, damage: Callable[[Store], None]) -> None:
    damage(store)
    bad, good = store.check_for_updates()
    assert bad.error is not None
    assert bad.error["code"] == "bad-format"
    assert (good.model, good.wanted, good.error) == ("other", "1.1.0", None)


def test_a_file_of_a_split_registry_that_is_none_hides_no_other(tmp_path: Path) -> None:
    registry = tmp_path / "split"
    for spec in ("m@1.0.0", "m@1.1.0", "other@1.0.0", "other@1.1.0"):
        source = tmp_path / f"{spec}.bin"
        source.write_bytes(spec.encode() * 99)
        Store.publish(source, spec, registry=registry, split=True)
    with Store.open(tmp_path / "home") as store:
        store.add_registry("split", registry)
        store.checkout("m@1.0.0")
        store.checkout("other@1.0.0")
    (registry / "models" / "m.json").write_text("<html>")
    with Store.open(tmp_path / "home") as store:
        bad, good = store.check_for_updates()
    assert bad.error is not None
    assert "is not JSON" in str(bad.error["message"])
    assert good.wanted == "1.1.0"


# --- what is said ------------------------------------------------------------------------------


def test_what_was_published_with_another_content_is_said_to_be(store: Store, registry: Path) -> None:
    assert store.check_for_updates("m")[0].note == "2.0.0 is a new major version: ystore update --major m"
    raw = json.loads((registry / "registry.json").read_text())
    other = raw["models"]["other"]["versions"]["1.0.0"]
    mark(
        registry, "m@1.0.0", **{key: other[key] for key in ("manifest", "checksum", "files") if key in other}
    )
    row = store.check_for_updates("m")[0]
    assert row.standing is not None
    assert row.standing.replaced
    assert str(row.note).startswith("1.0.0 is now published with different content; ")
    assert store.status().notices == ("m 1.0.0: now published with different content",)


def test_the_plain_schema_tells_of_another_content_too(store: Store, registry: Path) -> None:
    raw = json.loads((registry / "registry.json").read_text())
    entry = raw["models"]["m"]["versions"]["1.0.0"]
    del entry["manifest"]
    entry.pop("files", None)
    entry["download_url"] = "https://models.example.org/m.bin"
    (registry / "registry.json").write_text(json.dumps(raw))
    assert str(store.check_for_updates("m")[0].note).startswith("2.0.0 is a new major")
    mark(registry, "m@1.0.0", checksum=f"sha256:{'7' * 64}")
    assert "different content" in str(store.check_for_updates("m")[0].note)


def test_a_major_below_one_that_does_not_fit_is_told_of(store: Store, registry: Path) -> None:
    publish(registry, "m@3.0.0")
    mark(registry, "m@3.0.0", compatibility=[">=9"])
    mark(registry, "m@1.1.0", yanked=True)
    store.set_app_version("1.0.0")
    row = store.check_for_updates("m")[0]
    assert (row.wanted, row.obstacle, row.across, row.available) == ("1.0.0", "application", "2.0.0", True)
    assert row.note == (
        "3.0.0 needs application version >=9; yours is 1.0.0; 2.0.0 is a new major version: ystore "
        "update --major m"
    )
    assert store.update_model("m", major=True).version == "2.0.0"


def test_a_deprecated_version_that_is_wanted_is_warned_of(store: Store, registry: Path) -> None:
    mark(registry, "other@1.1.0", deprecated=True, deprecated_reason="it repeats itself")
    assert store.check_for_updates("other")[0].note == "1.1.0 is deprecated: it repeats itself"
    told: list[str] = []
    planned = store.update_model("other", dry_run=True, progress=lambda event: told.append(event.text))
    assert "warning: other 1.1.0: deprecated: it repeats itself" in told
    assert planned.note == "1.1.0 is deprecated: it repeats itself"


def test_a_range_that_nothing_newer_is_in_is_named(store: Store) -> None:
    stayed = store.update_model("m", to="<=1.0.0")
    assert (stayed.status, stayed.note) == ("current", "no newer version is in <=1.0.0")
    with pytest.raises(NotFoundError, match=r'no version "5\.x" in m'):
        store.update_model("m", to="5.x")
    for empty in ("", " "):
        with pytest.raises(SpecError, match="it is empty"):
            store.update_model("m", to=empty)


def test_nothing_is_latest_where_there_are_only_prereleases(tmp_path: Path, registry: Path) -> None:
    publish(registry, "pre@1.0.0-rc.2", "pre@1.0.0-rc.10")
    amend(registry, lambda models: models["pre"].pop("current_version"))
    with Store.open(tmp_path / "home") as store:
        store.add_registry("made", registry)
        store.checkout("pre@1.0.0-rc.2")
        (row,) = store.check_for_updates()
        assert (row.latest, row.wanted) == ("", "1.0.0-rc.10")


# --- variants ----------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path, registry: Path) -> Store:
    """A store with v:cpu 1.0.0; 1.0.0 and 1.1.0 are there as cpu and gpu."""
    publish(registry, "v:cpu@1.0.0", "v:gpu@1.0.0", "v:cpu@1.1.0", "v:gpu@1.1.0")
    opened = Store.open(tmp_path / "built")
    opened.add_registry("made", registry)
    opened.checkout("v:cpu@1.0.0")
    return opened


def test_another_variant_of_the_same_version_is_an_update(built: Store, registry: Path) -> None:
    built.update_model("v")
    built.pin("v:gpu")
    (row,) = built.check_for_updates()
    assert (row.installed, row.wanted, row.variant, row.wanted_variant) == ("1.1.0", "1.1.0", "cpu", "gpu")
    assert row.available
    assert row.note == "gpu instead of cpu, because of a pin"
    assert built.update_model("v").variant == "gpu"
    (row,) = built.check_for_updates()
    assert (row.available, row.wanted_variant) == (False, None)


def test_the_changelog_is_that_of_the_variant(built: Store, registry: Path) -> None:
    mark(registry, "v:gpu@1.1.0", changelog="faster on the card")
    assert [change.changelog for change in built.check_for_updates()[0].changes] == ["changes of 1.1.0"]
    built.checkout("v:gpu@1.0.0")
    (row,) = built.check_for_updates()
    assert [change.changelog for change in row.changes] == [row.changelog] == ["faster on the card"]


def test_a_variant_that_was_withdrawn_is_not_said_to_be_there(built: Store, registry: Path) -> None:
    mark(registry, "v:gpu@1.1.0", yanked=True)
    built.checkout("v:gpu@1.0.0")
    assert built.check_for_updates()[0].note == "the variant gpu of 1.1.0 is withdrawn; others: cpu"
