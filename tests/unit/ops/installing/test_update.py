"""Updates, gates and pins against small registries on disk; the decisions themselves are in
tests/unit/registry/decisions.txt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blake3 import blake3

from tests.support.registries import mark, publish
from yarnstore import Progress, Store
from yarnstore.errors import ConfigError, IncompatibleError, NotFoundError, SpecError
from yarnstore.settings import load_settings


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    root = tmp_path / "registry"
    publish(root, "m@1.0.0", "m@1.1.0", "m@1.2.0", "m@2.0.0")
    return root


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, registry: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with m 1.0.0 installed, on a machine of 8 GB."""
    monkeypatch.setenv("YSTORE_RAM_GB", "8")

    def progress(event: Progress) -> None:
        if event.phase == "note":
            told.append(event.text)

    opened = Store.open(tmp_path / "home", progress=progress)
    opened.add_registry("made", registry)
    opened.checkout("m@1.0.0")
    told.clear()
    return opened


def version(store: Store, model: str = "m") -> str:
    return next(item.version for item in store.list_installed_models() if item.model == model)


# --- update ------------------------------------------------------------------------------------


def test_an_update_stays_within_the_major_and_tells_every_changelog(store: Store, told: list[str]) -> None:
    done = store.update_model("m")
    assert (done.status, done.previous, done.version, done.kind) == ("updated", "1.0.0", "1.2.0", "minor")
    assert told[0].splitlines() == [
        "m 1.0.0 → 1.2.0:",
        "1.2.0 (minor): changes of 1.2.0",
        "1.1.0 (minor): changes of 1.1.0",
    ]
    assert done.note == "2.0.0 is a new major version: ystore update --major m"
    again = store.update_model("m")
    assert (again.status, again.note) == ("current", done.note)


def test_a_new_major_is_asked_for_and_says_that_it_breaks(store: Store, told: list[str]) -> None:
    done = store.update_model("m", major=True)
    assert (done.version, done.kind, done.breaking) == ("2.0.0", "major", True)
    assert told[0].startswith("m 1.0.0 → 2.0.0, which may break existing uses:\n2.0.0 (major): ")
    assert [change.version for change in done.changes] == ["2.0.0", "1.2.0", "1.1.0"]


def test_a_range_is_stayed_in(store: Store) -> None:
    assert store.update_model("m", to="~1.1").version == "1.1.0"
    assert store.update_model("m", to="2.x").version == "2.0.0"
    assert store.update_model("m", to="1.x").status == "current"
    with pytest.raises(SpecError):
        store.update_model("m", to="one")


def test_a_dry_run_plans_and_changes_nothing(store: Store, registry: Path) -> None:
    planned = store.update_model("m", dry_run=True)
    assert (planned.status, planned.previous, planned.version) == ("planned", "1.0.0", "1.2.0")
    assert planned.download_bytes is not None
    assert 0 < planned.download_bytes < planned.size_bytes  # type: ignore[operator]
    assert version(store) == "1.0.0"
    assert len(list((store.home / "manifests").iterdir())) == 1


def test_what_does_not_fit_the_application_is_passed_over(store: Store, registry: Path) -> None:
    mark(registry, "m@1.2.0", compatibility=[">=2.0.0", "<3"])
    store.set_app_version("1.5.0")
    (row,) = store.check_for_updates()
    assert (row.wanted, row.newest, row.obstacle) == ("1.1.0", "2.0.0", "major")
    assert store.update_model("m").version == "1.1.0"
    with pytest.raises(IncompatibleError) as caught:
        store.update_model("m")
    assert caught.value.message == "m 1.2.0 needs application version >=2.0.0; yours is 1.5.0"
    assert caught.value.fields["newest_that_fits"] == "2.0.0"
    summary = store.update_models()
    assert [(result.status, result.error) for result in summary.results] == [("held", None)]
    store.set_app_version("2.5.0")
    assert store.update_model("m").version == "1.2.0"


def test_checkout_of_what_does_not_fit_names_what_does(store: Store, registry: Path, told: list[str]) -> None:
    mark(registry, "m@2.0.0", compatibility=[">=2.0.0"])
    store.set_app_version("v1.5.0")
    with pytest.raises(IncompatibleError) as caught:
        store.checkout("m@2.0.0", force=True)
    assert caught.value.message == "m 2.0.0 needs application version >=2.0.0; yours is 1.5.0"
    assert caught.value.hint == "newest that fits: 1.2.0       ystore checkout m@1.2.0"
    assert version(store) == "1.0.0"
    told.clear()
    store.fetch("m@2.0.0")
    assert "warning: m 2.0.0 needs application version >=2.0.0; yours is 1.5.0" in told
    with pytest.raises(IncompatibleError):  # in the store, all the same
        store.checkout("m@2.0.0")
    with pytest.raises(IncompatibleError):
        store.checkout("m")


def test_too_little_memory_is_refused_warned_of_or_forced(
    store: Store, registry: Path, told: list[str]
) -> None:
    mark(registry, "m@1.1.0", recommended_ram_gb=16)
    mark(registry, "m@1.2.0", minimum_ram_gb=16, recommended_ram_gb=32)
    store.refresh_registries()
    store.checkout("m@1.1.0")
    assert told[0] == "warning: m 1.1.0 (default) runs best with 16 GB of memory; this machine has 8 GB"
    with pytest.raises(IncompatibleError) as caught:
        store.checkout("m@1.2.0")
    assert caught.value.message == "m 1.2.0 needs 16 GB of memory; this machine has 8 GB"
    assert caught.value.hint.splitlines() == [
        "newest that fits: 2.0.0       ystore checkout m@2.0.0",
        "--force installs it anyway",
    ]
    assert store.update_models().results[0].status == "held"
    assert store.update_model("m", force=True).version == "1.2.0"


def test_the_variant_that_fits_is_named(store: Store, registry: Path, tmp_path: Path) -> None:
    publish(registry, "v:gpu-fp16@1.0.0", "v:cpu-int4@1.0.0")
    mark(registry, "v:gpu-fp16@1.0.0", minimum_ram_gb=24)
    with pytest.raises(IncompatibleError) as caught:
        store.checkout("v")
    assert caught.value.message == "v (gpu-fp16) 1.0.0 needs 24 GB of memory; this machine has 8 GB"
    assert caught.value.hint.splitlines()[0] == "cpu-int4 fits:       ystore checkout v:cpu-int4@1.0.0"


def test_yanked_is_had_by_number_and_force_alone(store: Store, registry: Path, told: list[str]) -> None:
    mark(registry, "m@1.2.0", yanked=True, deprecated_reason="wrong tokenizer")
    for call in (store.fetch, store.checkout):
        with pytest.raises(
            IncompatibleError, match=r"m 1\.2\.0: withdrawn by its publisher: wrong tokenizer"
        ):
            call("m@1.2.0")
    with pytest.raises(IncompatibleError):
        store.path("m@1.2.0")
    assert store.update_model("m").version == "1.1.0"
    assert store.checkout("m@^1").version == "1.1.0"
    assert store.checkout("m@1.2.0", force=True).version == "1.2.0"
    assert "warning: m 1.2.0: withdrawn by its publisher: wrong tokenizer" in told


def test_what_became_deprecated_or_yanked_shows(store: Store, registry: Path, told: list[str]) -> None:
    mark(registry, "m@1.0.0", deprecated=True, deprecated_reason="it repeats itself", replaced_by="1.1.0")
    (row,) = store.check_for_updates()
    said = "deprecated: it repeats itself; use 1.1.0"
    assert row.note is not None
    assert row.note.startswith(f"1.0.0 is {said}; ")
    (item,) = store.list_installed_models()
    assert item.standing is not None
    assert str(item.standing) == said
    assert store.status().notices == (f"m 1.0.0: {said}",)
    mark(registry, "m@1.0.0", yanked=True)
    store.refresh_registries()
    assert store.list_installed_models()[0].standing.yanked  # type: ignore[union-attr]
    mark(registry, "m@1.1.0", deprecated=True, replaced_by="1.2.0")
    store.refresh_registries()
    told.clear()
    store.checkout("m@1.1.0")
    assert told[0] == "warning: m 1.1.0: deprecated; use 1.2.0"


# --- variants ----------------------------------------------------------------------------------


def test_variants_by_spec_by_preference_by_what_is_installed(
    store: Store, registry: Path, tmp_path: Path
) -> None:
    for number in ("1.0.0", "1.1.0"):
        publish(registry, *(f"v:{variant}@{number}" for variant in ("gpu-fp16", "cpu-int4", "cpu-fp32")))
    assert store.fetch("v").variant == "gpu-fp16"  # the registry's first
    config = tmp_path / "home" / "config.toml"
    config.write_text('variants = ["npu", "cpu-int4"]\n')
    with Store.open(tmp_path / "home") as preferring:
        assert preferring.fetch("v@1.0.0").variant in ("cpu-int4", "gpu-fp16")
        assert preferring.checkout("v:cpu-fp32@1.0.0").variant == "cpu-fp32"
        done = preferring.update_model("v")
        assert (done.version, done.variant) == ("1.1.0", "cpu-fp32")  # sticks
        preferring.pin("v:cpu-int4")
        done = preferring.update_model("v")
        assert (done.status, done.version, done.variant) == ("updated", "1.1.0", "cpu-int4")
        publish(registry, "w:a@1.0.0", "w:cpu-int4@1.0.0")
        assert preferring.checkout("w").variant == "cpu-int4"


# --- pins --------------------------------------------------------------------------------------


def test_a_pinned_range_bounds_updates_and_keeps_nothing(store: Store, tmp_path: Path) -> None:
    done = store.pin("m@~1.1")
    assert (done.version, done.range, done.pinned, done.what) == (None, "~1.1", True, "m@~1.1")
    assert store.check_for_updates()[0].pin == "@~1.1"
    assert store.update_model("m", major=True).version == "1.1.0"
    stayed = store.update_model("m")
    assert (stayed.status, stayed.note) == ("pinned", "pinned to @~1.1; 2.0.0 is newer")
    assert store.status().pinned == 1
    store.fetch("m@1.2.0")
    store.checkout("m@2.0.0")
    freed = store.gc(keep=1)
    assert freed.versions == ["m@1.0.0", "m@1.2.0"]  # 1.1.0 is what a rollback leads to
    assert store.fsck().problems == []
    assert store.unpin("m").pinned is False
    assert store.list_installed_models()[0].pin is None
    with pytest.raises(NotFoundError):
        store.unpin("m")


def test_pins_of_range_and_variant_add_up_and_go_one_by_one(store: Store) -> None:
    store.pin("m@^1.1")
    both = store.pin("m:default")
    assert (both.range, both.variant, both.what) == ("^1.1", "default", "m:default@^1.1")
    assert store.list_installed_models()[0].pin == ":default@^1.1"
    for other in ("m@^2", "m:other@^1.1", "m:other"):
        with pytest.raises(NotFoundError, match="no pin"):
            store.unpin(other)
    gone = store.unpin("m@*")
    assert (gone.range, gone.variant) == ("^1.1", None), "the variant stays"
    assert store.list_installed_models()[0].pin == ":default"
    store.unpin("m:default")
    assert store.list_installed_models()[0].pin is None
    with pytest.raises(NotFoundError):
        store.unpin("m@^1.1")
    with pytest.raises(SpecError, match="an alias cannot be pinned"):
        store.pin("m@latest")
    with pytest.raises(NotFoundError):
        store.pin("nothing@^1")


def test_a_pinned_version_is_kept_from_gc_and_update(store: Store) -> None:
    store.pin("m")
    store.pin("m@^1")
    assert store.update_model("m", major=True).status == "pinned"
    assert store.list_installed_models()[0].pin == "1.0.0"
    for number in ("1.1.0", "1.2.0", "2.0.0"):
        store.checkout(f"m@{number}")
    assert store.gc(keep=1).versions == ["m@1.1.0"]
    store.remove("m", whole_model=True)
    assert not list((store.home / "refs").glob("holds/*"))


def test_fsck_finds_a_damaged_pin_and_repair_sets_it_aside(store: Store) -> None:
    store.pin("m@~1.1")
    path = store.home / "refs" / "holds" / "m"
    path.write_bytes(path.read_bytes().replace(b"1.1", b"1.2"))
    (problem,) = store.fsck().problems
    assert (problem.kind, problem.where) == ("ref", "refs/holds/m")
    with pytest.raises(Exception, match=r"pin refs/holds/m does not match its checksum"):
        store.update_model("m")
    mended = store.fsck(repair=True)
    assert not path.exists()
    assert store.fsck().problems == []
    assert any("pin it again" in line for line in mended.repaired)
    path.write_bytes(b"torn")
    assert store.unpin("m").changed


# --- many at once ------------------------------------------------------------------------------


def test_of_ten_models_one_is_broken_and_nine_are_updated(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    names = [f"model-{n}" for n in range(10)]
    publish(registry, *(f"{name}@1.0.0" for name in names))
    store = Store.open(tmp_path / "home")
    store.add_registry("made", registry)
    for name in names:
        store.checkout(name)
    publish(registry, *(f"{name}@1.1.0" for name in names))
    raw = json.loads((registry / "registry.json").read_text())
    pack = raw["models"]["model-4"]["versions"]["1.1.0"]["packs"][0].removeprefix("blake3:")
    damaged = registry / "packs" / f"{pack}.pack"
    damaged.chmod(0o644)
    damaged.write_bytes(bytes(len(damaged.read_bytes())))
    seen: list[str] = []
    summary = store.update_models(on_result=lambda done: seen.append(done.model))
    assert [result.model for result in summary.results] == names == sorted(seen)
    assert (summary.updated, summary.failed) == (9, 1)
    failed = summary.results[4]
    assert (failed.status, failed.version, failed.error and failed.error["code"]) == (
        "failed",
        "1.0.0",
        "integrity",
    )
    assert {item.model: item.version for item in store.list_installed_models()} == {
        name: "1.0.0" if name == "model-4" else "1.1.0" for name in names
    }
    assert Path(store.path("model-4")).read_bytes().startswith(b"the weights of model-4@1.0.0")
    assert store.fsck().problems == []


def test_one_that_is_not_installed_stops_no_other(store: Store) -> None:
    summary = store.update_models("nothing", "m", "m")
    assert [(result.model, result.status) for result in summary.results] == [
        ("nothing", "failed"),
        ("m", "updated"),
    ]


def test_what_was_imported_is_no_failure(store: Store, tmp_path: Path) -> None:
    (tmp_path / "own.bin").write_bytes(b"of my own")
    store.import_model(tmp_path / "own.bin", "own@1.0.0")
    store.checkout("own@1.0.0")
    summary = store.update_models()
    assert [(result.model, result.status) for result in summary.results] == [
        ("m", "updated"),
        ("own", "unlisted"),
    ]
    assert summary.failed == 0
    assert store.update_models("own").failed == 1


def test_stopping_a_batch_stops_it(store: Store, registry: Path) -> None:
    def stop(event: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.update_models(progress=stop)
    assert version(store) == "1.0.0"
    assert store.update_models().updated == 1


# --- the rest ----------------------------------------------------------------------------------


def test_the_table_of_what_fits(store: Store, registry: Path) -> None:
    mark(registry, "m@1.1.0", compatibility=["^1.0.0"])
    mark(registry, "m@1.2.0", minimum_ram_gb=12)
    mark(registry, "m@2.0.0", compatibility=[">=2.0.0"])
    store.set_app_version("1.5.0")
    table = store.compatibility("m")
    assert [(row.version, row.compatible, row.fits_memory, row.usable) for row in table.rows] == [
        ("2.0.0", False, True, False),
        ("1.2.0", True, False, False),
        ("1.1.0", True, True, True),
        ("1.0.0", True, True, True),
    ]
    assert (table.newest_that_fits, table.latest, table.ram_gb) == ("1.1.0", "2.0.0", 8.0)
    assert [row.version for row in store.compatibility("m@^1.1").rows] == ["1.2.0", "1.1.0"]


def test_the_log_says_from_where(store: Store, tmp_path: Path) -> None:
    store.update_model("m")
    store.rollback_model("m")
    (tmp_path / "own.bin").write_bytes(b"of my own")
    store.import_model(tmp_path / "own.bin", "m@9.0.0")
    store.checkout("m@9.0.0")
    moves = store.get_version_history("m").moves
    assert [(move.operation, move.new, move.registry) for move in moves] == [
        ("checkout", "1.0.0", "made"),
        ("update", "1.2.0", "made"),
        ("rollback", "1.0.0", "made"),
        ("checkout", "9.0.0", None),
    ]


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        ('app_version = "one"', {}),
        ("", {"YSTORE_APP_VERSION": "1.5"}),
        ("", {"YSTORE_RAM_GB": "much"}),
        ("", {"YSTORE_RAM_GB": "nan"}),
        ('variants = "cpu"', {}),
        ('variants = ["../x"]', {}),
    ],
)
def test_settings_that_cannot_be_read(tmp_path: Path, config: str, environ: dict[str, str]) -> None:
    (tmp_path / "config.toml").write_text(config)
    with pytest.raises(ConfigError):
        load_settings(tmp_path, environ)


def test_settings_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('app_version = "1.5.0"\nvariants = ["a", "b"]')
    machine = load_settings(tmp_path, {"YSTORE_RAM_GB": "7.5"}).machine
    assert (machine.app_version, machine.ram_gb, machine.variants) == ("1.5.0", 7.5, ("a", "b"))
    measured = load_settings(tmp_path, {"YSTORE_APP_VERSION": "v2.0.0"}).machine
    assert measured.app_version == "2.0.0"
    assert measured.ram_gb is None or measured.ram_gb > 0.1


def test_what_an_earlier_release_stored_with_doubled_marks_still_works(store: Store) -> None:
    """Earlier releases read `vv1` as 1, and kept a pin, a queued download and a lock as they were typed."""
    store.lock("m@^1.0", file=store.home / "ystore.lock")
    text = (store.home / "ystore.lock").read_text()
    (store.home / "ystore.lock").write_text(text.replace("m@^1.0", "m@^vv1.0"))
    holds = store.home / "refs" / "holds"
    holds.mkdir(parents=True, exist_ok=True)
    (holds / "m").write_bytes(b"-\t^vv1\t" + blake3(b"-\t^vv1").hexdigest()[:16].encode() + b"\n")
    (store.home / "queue.json").write_text('{"items":[{"spec":"m@^vv1","added_ms":1}],"format":1}')
    assert store.update_model("m", major=True, dry_run=True).version == "1.2.0"
    assert not store.lock(file=store.home / "ystore.lock").changed
    assert store.lock("m@^1.1", file=store.home / "ystore.lock").changed
    assert [run.status for run in store.run_queue()] == ["fetched"]
    (store.home / "queue.json").write_text('{"items":[{"spec":"m@^vv1","added_ms":1}],"format":1}')
    assert len(store.dequeue("m@^vv1")) == 1
    assert store.fsck().problems == []
    assert store.unpin("m@^1").changed
