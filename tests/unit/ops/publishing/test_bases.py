"""`publish --base`: a fine-tune under another id is a small download for a client that has its base."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import model_path
from tests.support.registries import amend
from tests.support.reshaped import Weights, fine_tuned, made, renamed, safetensors, with_rows
from tests.support.servers import ScriptedServer, files
from yarnstore import Store
from yarnstore.core.digest import PackId
from yarnstore.errors import NotFoundError, SpecError, UsageError
from yarnstore.progress import Progress

BASED = "based_deltas"
ROOT = made(layers=2, width=192, vocabulary=1600)
SIZE = len(safetensors(ROOT))
# What a full fine-tune takes as a delta, with the small tensors of so small a model.
SMALL = 0.18 * SIZE


def publish(registry: Path, spec: str, weights: Weights, **options: Any) -> Any:
    """Publish weights as one file, which stays beside the registry; returns the result and `notes`."""
    folder = source(registry, spec)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    notes: list[str] = []

    def note(event: Progress) -> None:
        if event.phase == "note":
            notes.append(event.text)

    return Store.publish(folder, spec, registry=registry, progress=note, **options), notes


def source(registry: Path, spec: str) -> Path:
    return registry.parent / "sources" / spec.replace("/", "~")


def entry(registry: Path, model: str, version: str) -> dict[str, Any]:
    raw = json.loads((registry / "registry.json").read_text())
    found: dict[str, Any] = raw["models"][model]["versions"][version]
    return found


def pack_paths(registry: Path, deltas: list[dict[str, Any]]) -> list[Path]:
    return [registry / "deltas" / f"{PackId.parse(delta['pack']).hex}.pack" for delta in deltas]


def check(store: Store, registry: Path, spec: str) -> None:
    """The files of a version are as they were published."""
    path = Path(store.path(spec))
    found = path if path.is_file() else path / "model.safetensors"
    assert found.read_bytes() == (source(registry, spec) / "model.safetensors").read_bytes()
    assert store.fsck().problems == []


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model a in two versions, x of the same shapes, and b, a fine-tune of a 1.0.0."""
    registry = tmp_path_factory.mktemp("bases") / "registry"
    publish(registry, "a@1.0.0", ROOT)
    publish(registry, "a@1.1.0", fine_tuned(ROOT, 7))
    publish(registry, "x@1.0.0", made(layers=2, width=192, vocabulary=1600, seed=9))
    publish(registry, "b@1.0.0", fine_tuned(ROOT, 8), base="a@1.0.0")
    return registry


@pytest.fixture
def registry(published: Path, tmp_path: Path) -> Path:
    """The same, in a folder of its own."""
    shutil.copytree(published.parent, tmp_path / "made")
    return tmp_path / "made" / "registry"


@pytest.fixture
def store(registry: Path, tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", registry)
        yield store


def test_who_has_the_base_downloads_a_delta(store: Store, registry: Path) -> None:
    store.checkout("a@1.0.0")
    done = store.checkout("b@1.0.0")
    assert done.download_bytes <= SMALL
    check(store, registry, "b@1.0.0")


def test_the_base_is_named_with_its_model(store: Store, registry: Path) -> None:
    store.fetch("a@1.0.0")
    done = store.fetch("b@1.0.0")
    assert (done.delta_from, done.download_bytes <= SMALL) == ("a@1.0.0", True)
    check(store, registry, "b@1.0.0")


@pytest.mark.parametrize("before", [[], ["x@1.0.0"], ["a@1.1.0"]])
def test_who_lacks_the_base_downloads_full_packs_and_reads_no_delta(
    store: Store, registry: Path, before: list[str]
) -> None:
    store.remove_registry("here")
    tree = {p.relative_to(registry).as_posix(): p.read_bytes() for p in registry.rglob("*") if p.is_file()}
    with ScriptedServer(files(tree)) as server:
        store.add_registry("here", server.url)
        for spec in before:
            store.fetch(spec)
        seen = len(server.seen)
        done = store.fetch("b@1.0.0")
        asked = [item.path for item in server.seen[seen:]]
    assert done.delta_from is None
    assert done.download_bytes > 0.5 * SIZE
    assert not any(path.startswith("/deltas/") for path in asked)
    check(store, registry, "b@1.0.0")


def test_a_client_that_does_not_know_the_list_downloads_full_packs(store: Store, registry: Path) -> None:
    amend(registry, lambda models: models["b"]["versions"]["1.0.0"].pop(BASED))
    store.checkout("a@1.0.0")
    done = store.fetch("b@1.0.0")
    assert (done.delta_from, done.download_bytes > 0.5 * SIZE) == (None, True)
    check(store, registry, "b@1.0.0")


def test_lists_that_older_clients_read_name_versions_of_their_own_model_only(registry: Path) -> None:
    found = entry(registry, "b", "1.0.0")
    assert not {"deltas", "mapped_deltas"} & found.keys()
    assert {(delta["base_model"], delta["base"]) for delta in found[BASED]} == {("a", "1.0.0")}
    assert {delta["base_manifest"] for delta in found[BASED]} == {entry(registry, "a", "1.0.0")["manifest"]}


@pytest.mark.parametrize("damage", ["missing pack", "missing index", "altered pack", "altered index"])
def test_a_bad_delta_is_replaced_by_full_packs(store: Store, registry: Path, damage: str) -> None:
    what, kind = damage.split()
    for path in pack_paths(registry, entry(registry, "b", "1.0.0")[BASED]):
        path = path if kind == "pack" else path.with_suffix(".idx")
        if what == "missing":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
    store.checkout("a@1.0.0")
    done = store.fetch("b@1.0.0")
    assert done.delta_from is None
    check(store, registry, "b@1.0.0")


def test_a_way_leads_from_the_base_over_the_first_version(store: Store, registry: Path) -> None:
    publish(registry, "b@1.1.0", fine_tuned(fine_tuned(ROOT, 8), 12))
    store.checkout("a@1.0.0")
    done = store.checkout("b@1.1.0")
    assert done.download_bytes <= 2 * SMALL
    check(store, registry, "b@1.1.0")
    planned = store.update_model("b", dry_run=True)
    assert planned.status == "current"


def test_what_hangs_on_the_base_stays_when_it_goes(store: Store, registry: Path) -> None:
    store.fetch("a@1.0.0")
    store.fetch("b@1.0.0")
    store.remove("a@1.0.0")
    store.gc(keep=0)
    assert store.fsck().problems == []
    store.checkout("b@1.0.0")
    check(store, registry, "b@1.0.0")
    done = store.fetch("a@1.0.0")
    assert done.chunks_fetched > 0
    check(store, registry, "a@1.0.0")


def test_offline_and_from_an_alternate_it_works_as_any_version(
    store: Store, registry: Path, tmp_path: Path
) -> None:
    store.checkout("a@1.0.0")
    store.checkout("b@1.0.0")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.toml").write_text(f'alternates = ["{store.home.as_posix()}"]\n')
    with Store.open(tmp_path / "other") as other:
        other.add_registry("here", registry)
        done = other.fetch("b@1.0.0")
        assert (done.download_bytes, done.alternate_bytes > 0) == (0, True)
        check(other, registry, "b@1.0.0")
    shutil.rmtree(registry)
    assert store.checkout("b@1.0.0").download_bytes == 0


def test_a_split_registry_has_them_in_the_models_file(store: Store, registry: Path) -> None:
    publish(registry, "c@1.0.0", fine_tuned(ROOT, 13), base="a@1.0.0", split=True)
    own = json.loads((registry / "models" / "c.json").read_text())
    assert own["versions"]["1.0.0"][BASED]
    store.fetch("a@1.0.0")
    assert store.fetch("c@1.0.0").delta_from == "a@1.0.0"
    assert Store.optimize_registry(registry).dropped_bytes == 0
    assert publish(registry, "d@1.0.0", fine_tuned(ROOT, 14), base="auto")[0].base == "a@1.0.0"


# --- the choice ----------------------------------------------------------------------------------


def test_auto_finds_the_nearest_version_among_all_models_and_says_why(registry: Path) -> None:
    done, notes = publish(registry, "c@1.0.0", fine_tuned(fine_tuned(ROOT, 7), 10), base="auto")
    assert done.base == "a@1.1.0"
    assert 0 < done.base_bytes <= SMALL
    (note,) = notes
    assert note.startswith("--base auto: a@1.1.0, about ")
    assert " instead of " in note


def test_auto_finds_a_base_whose_tensors_have_other_names(store: Store, registry: Path) -> None:
    done, _ = publish(registry, "c@1.0.0", renamed(fine_tuned(ROOT, 10)), base="auto")
    assert done.base == "a@1.0.0"
    store.fetch("a@1.0.0")
    assert store.fetch("c@1.0.0").download_bytes <= SMALL


def test_auto_without_any_base_says_so_and_writes_no_delta(registry: Path) -> None:
    done, notes = publish(
        registry, "c@1.0.0", made(layers=2, width=192, vocabulary=1600, seed=20), base="auto"
    )
    assert (done.base, done.base_bytes, done.deltas) == (None, 0, {})
    assert [note for note in notes if "saves bytes" in note]
    alone, notes = publish(registry.parent / "empty", "c@1.0.0", ROOT, base="auto")
    assert (alone.base, notes) == (None, ["--base auto: no version is similar, none saves bytes"])


@pytest.mark.parametrize("base", ["a@1.0.0", "auto"])
def test_a_base_with_the_same_content_needs_no_delta_and_publish_says_so(registry: Path, base: str) -> None:
    done, notes = publish(registry, "same@1.0.0", ROOT, base=base)
    assert (done.base, done.base_bytes, done.new_bytes) == ("a@1.0.0", 0, 0)
    assert notes[-1] == "--base a@1.0.0: it has all chunks of this version, so no delta is needed"


def test_a_base_against_which_nothing_is_smaller_is_reported(registry: Path) -> None:
    done, notes = publish(
        registry, "far@1.0.0", made(layers=2, width=192, vocabulary=1600, seed=77), base="a@1.0.0"
    )
    assert done.base_bytes == 0
    assert notes == ["--base a@1.0.0: no chunk is smaller as a delta against it"]


def test_auto_takes_an_own_version_unless_another_saves_clearly_more(registry: Path) -> None:
    done, _ = publish(registry, "b@1.1.0", fine_tuned(fine_tuned(ROOT, 8), 21), base="auto")
    assert done.base == "b@1.0.0"
    assert done.base_bytes == done.deltas["1.0.0"]
    assert BASED not in entry(registry, "b", "1.1.0")
    done, _ = publish(registry, "b@2.0.0", fine_tuned(ROOT, 22), base="auto")
    first = done.base
    done, _ = publish(registry, "x@2.0.0", fine_tuned(ROOT, 23), base="auto")
    assert done.base in ("a@1.0.0", first)
    assert entry(registry, "x", "2.0.0")[BASED]


def test_auto_finds_the_base_of_files_without_numbers(registry: Path) -> None:
    text = "".join(f"line {n} of a long list of words\n" for n in range(40_000))
    for spec, content, base in (
        ("t@1.0.0", text, None),
        ("u@1.0.0", text.replace("line 77 ", "line of another kind "), "auto"),
    ):
        folder = source(registry, spec)
        folder.mkdir(parents=True)
        (folder / "words.txt").write_text(content)
        done = Store.publish(folder, spec, registry=registry, base=base)
    assert done.base == "t@1.0.0"


def test_auto_says_which_versions_it_cannot_read(registry: Path) -> None:
    others = entry(registry, "a", "1.0.0")["packs"]
    for pack in set(entry(registry, "x", "1.0.0")["packs"]) - set(others):
        (registry / "packs" / f"{PackId.parse(pack).hex}.pack").unlink()
    done, notes = publish(registry, "c@1.0.0", fine_tuned(ROOT, 10), base="auto")
    assert done.base == "a@1.0.0"
    assert [note for note in notes if "x 1.0.0" in note and "not compared" in note]


def test_a_new_version_is_cut_like_its_base(store: Store, registry: Path) -> None:
    """Rows in front of the largest tensor: without the base's cuts, no chunk of it would fit."""
    done, _ = publish(registry, "c@1.0.0", with_rows(fine_tuned(ROOT, 10), 37), base="a@1.0.0")
    assert done.base == "a@1.0.0"
    store.fetch("a@1.0.0")
    assert store.fetch("c@1.0.0").download_bytes <= SMALL + 0.05 * SIZE


def test_a_base_of_the_same_model_is_listed_as_any_other(registry: Path) -> None:
    for n in range(2, 6):
        publish(registry, f"a@1.{n}.0", fine_tuned(ROOT, 30 + n), deltas=0)
    done, _ = publish(registry, "a@1.6.0", fine_tuned(ROOT, 40), deltas=1, base="a@1.0.0")
    assert done.deltas["1.0.0"] == done.base_bytes > 0
    assert "1.0.0" in {delta["base"] for delta in entry(registry, "a", "1.6.0")["deltas"]}
    assert BASED not in entry(registry, "a", "1.6.0")


def test_the_base_counts_without_other_deltas(registry: Path) -> None:
    done, _ = publish(registry, "c@1.0.0", fine_tuned(ROOT, 10), deltas=0, base="a")
    assert (done.base, done.deltas) == ("a@1.1.0", {})
    assert entry(registry, "c", "1.0.0")[BASED]


@pytest.mark.parametrize(
    ("base", "error"),
    [
        ("nothing@1.0.0", NotFoundError),
        ("a@9.0.0", NotFoundError),
        ("a@", SpecError),
        ("c@1.0.0", NotFoundError),
        ("b@1.0.0", UsageError),
    ],
)
def test_a_base_that_cannot_be_one_is_refused_before_anything_is_listed(
    registry: Path, base: str, error: type[Exception]
) -> None:
    text = (registry / "registry.json").read_bytes()
    spec = "b@1.0.0" if error is UsageError else "c@1.0.0"
    with pytest.raises(error):
        publish(registry, spec, fine_tuned(ROOT, 8), base=base)
    assert (registry / "registry.json").read_bytes() == text


def test_a_base_without_its_packs_in_the_folder_is_refused(registry: Path) -> None:
    for path in (registry / "packs").iterdir():
        path.unlink()
    with pytest.raises(NotFoundError, match="content of"):
        publish(registry, "c@1.0.0", fine_tuned(ROOT, 10), base="a@1.0.0")


# --- publishers ----------------------------------------------------------------------------------


def test_publishing_again_keeps_the_list_and_adds_to_it(registry: Path) -> None:
    before = (registry / "registry.json").read_bytes()
    for base in (None, "a@1.0.0", "auto"):
        done, _ = publish(registry, "b@1.0.0", fine_tuned(ROOT, 8), base=base)
        assert (done.changed, done.updated) == (False, [])
    assert (registry / "registry.json").read_bytes() == before
    listed = entry(registry, "b", "1.0.0")[BASED]
    done, _ = publish(registry, "b@1.0.0", fine_tuned(ROOT, 8), base="a@1.1.0")
    assert (done.changed, done.updated) == (True, [BASED])
    assert entry(registry, "b", "1.0.0")[BASED][: len(listed)] == listed
    assert {delta["base"] for delta in entry(registry, "b", "1.0.0")[BASED]} == {"1.0.0", "1.1.0"}
    done, _ = publish(registry, "b@1.0.0", fine_tuned(ROOT, 8), changelog="More")
    assert done.updated == ["changelog"]


def lint(store: Store, registry: Path) -> list[str]:
    done = store.lint_registry(registry, deep=True, decode=True)
    return [f"{found.path}: {found.message}" for found in done.findings if found.severity == "error"]


def wrong_model(delta: dict[str, Any]) -> None:
    delta["base_model"] = "x"


def own_model(delta: dict[str, Any]) -> None:
    delta["base_model"] = "b"


def wrong_name(delta: dict[str, Any]) -> None:
    delta["base_model"] = "../a"


def wrong_size(delta: dict[str, Any]) -> None:
    delta["size_bytes"] += 1


def wrong_pack(delta: dict[str, Any]) -> None:
    delta["pack"] = "blake3:" + 64 * "0"


def test_lint_accepts_what_publish_writes(store: Store, registry: Path) -> None:
    assert lint(store, registry) == []


@pytest.mark.parametrize("change", [wrong_model, own_model, wrong_name, wrong_size, wrong_pack])
def test_lint_finds_what_is_wrong_in_the_list(
    store: Store, registry: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    amend(registry, lambda models: change(models["b"]["versions"]["1.0.0"][BASED][0]))
    assert [found for found in lint(store, registry) if BASED in found]


@pytest.fixture
def shared(registry: Path) -> list[Path]:
    """Packs of deltas from a 1.0.0 that both a 1.6.0 and c 1.0.0, of equal content, list."""
    for n in range(2, 6):
        publish(registry, f"a@1.{n}.0", fine_tuned(ROOT, 30 + n), deltas=0)
    for spec in ("a@1.6.0", "c@1.0.0"):
        publish(registry, spec, fine_tuned(ROOT, 40), deltas=0, base="a@1.0.0")
    both = [{item["pack"] for item in listed} for listed in shared_lists(registry)]
    assert both[0] & both[1]
    return pack_paths(registry, [{"pack": pack} for pack in both[0] & both[1]])


def shared_lists(registry: Path) -> list[list[dict[str, Any]]]:
    return [entry(registry, "a", "1.6.0").get("deltas", []), entry(registry, "c", "1.0.0").get(BASED, [])]


def test_optimize_keeps_packs_that_another_model_lists(
    store: Store, registry: Path, shared: list[Path]
) -> None:
    done = Store.optimize_registry(registry, versions=">=1.5.0")
    assert ("1.0.0", "1.6.0") in {(item.base, item.version) for item in done.deltas if item.action == "drop"}
    assert all(path.exists() for path in shared)
    assert lint(store, registry) == []
    store.fetch("a@1.0.0")
    assert store.fetch("c@1.0.0").download_bytes <= SMALL


def test_optimize_keeps_a_pack_that_the_same_version_lists_from_another_model(registry: Path) -> None:
    """Model c began with the content of a 1.0.0, so both deltas into its last version are one pack."""
    publish(registry, "c@1.0.0", ROOT)
    for n in range(1, 5):
        publish(registry, f"c@1.{n}.0", fine_tuned(ROOT, 50 + n), deltas=0)
    for base in ("c@1.0.0", "a@1.0.0"):
        publish(registry, "c@1.5.0", fine_tuned(ROOT, 60), deltas=0, base=base)
    found = entry(registry, "c", "1.5.0")
    assert {delta["pack"] for delta in found["deltas"]} & {delta["pack"] for delta in found[BASED]}
    done = Store.optimize_registry(registry, models=("c",), versions=">=1.4.0")
    assert ("1.0.0", "1.5.0") in {(item.base, item.version) for item in done.deltas if item.action == "drop"}
    assert entry(registry, "c", "1.5.0")[BASED] == found[BASED]
    assert all(path.exists() for path in pack_paths(registry, found[BASED]))


def test_packs_that_an_older_release_deleted_are_replaced_by_full_packs(
    store: Store, registry: Path, shared: list[Path]
) -> None:
    """It does not know the list, and deletes a pack that no other list names."""
    for path in shared:
        path.unlink()
        path.with_suffix(".idx").unlink()
    store.checkout("a@1.0.0")
    done = store.fetch("c@1.0.0")
    assert done.download_bytes > 0.5 * SIZE
    check(store, registry, "c@1.0.0")


def test_an_older_release_that_edits_the_registry_keeps_the_list(registry: Path) -> None:
    """Editors keep keys that they do not know."""
    listed = entry(registry, "b", "1.0.0")[BASED]
    Store.deprecate("b@1.0.0", registry=registry)
    publish(registry, "b@1.1.0", fine_tuned(fine_tuned(ROOT, 8), 12))
    Store.optimize_registry(registry)
    assert entry(registry, "b", "1.0.0")[BASED] == listed


@pytest.mark.models
@pytest.mark.parametrize("base", ["auto", "minilm@1.0.0"])
def test_a_real_fine_tune_under_another_id_costs_what_changed(tmp_path: Path, base: str) -> None:
    registry = tmp_path / "registry"
    Store.publish(model_path("minilm-bf16", "1.0.0"), "minilm@1.0.0", registry=registry)
    done = Store.publish(model_path("minilm-bf16", "1.1.0"), "tuned@1.0.0", registry=registry, base=base)
    assert done.base == "minilm@1.0.0"
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", registry)
        store.checkout("minilm@1.0.0")
        assert store.checkout("tuned@1.0.0").download_bytes <= 0.12 * done.size_bytes
