"""Numbers of an earlier version are found by content, and the deltas between the versions are small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.reshaped import (
    EMBEDDING,
    Files,
    Weights,
    adapter,
    as_type,
    fine_tuned,
    fused,
    made,
    one_file,
    pruned,
    renamed,
    sharded,
    stacked,
    values,
    with_layer,
    with_prefix,
    with_rows,
    without_rows,
)
from yarnstore import Store
from yarnstore.core.codec import NOT_STORED, Encoding
from yarnstore.core.digest import PackId
from yarnstore.results import PublishResult
from yarnstore.store.packs import iter_entries

OLD = made(layers=3, width=320, vocabulary=3000)
TUNED = fine_tuned(OLD)
SIZE = sum(bits.nbytes for bits in OLD.values())


def publish(root: Path, version: str, files: Files) -> PublishResult:
    source = root / version
    source.mkdir()
    for name, content in files.items():
        (source / name).write_bytes(content)
    return Store.publish(source, f"m@{version}", registry=root / "registry")


def installed(store: Store, files: Files) -> Files:
    path = Path(store.path("m"))
    return {name: (path if path.is_file() else path / name).read_bytes() for name in files}


def delta_share(root: Path, old: Files, new: Files) -> float:
    """The bytes that an update downloads, as a share of the new files; what it installs is compared."""
    publish(root, "1.0.0", old)
    publish(root, "1.1.0", new)
    with Store.open(root / "home") as store:
        store.add_registry("here", root / "registry")
        store.checkout("m@1.0.0")
        came = store.checkout("m@1.1.0").download_bytes
        assert installed(store, new) == new
    return came / sum(map(len, new.values()))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> float:
    """The share of an update with the same names, which the others are measured by."""
    return delta_share(tmp_path_factory.mktemp("plain"), one_file(OLD), one_file(TUNED))


FRESH_LAYER = 0.8 * 10 * 320 * 320 * 2 / SIZE


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        (lambda: one_file(OLD), lambda: one_file(renamed(TUNED)), 0.01),
        (lambda: sharded(OLD, 3), lambda: sharded(TUNED, 2), 0.01),
        (lambda: one_file(OLD), lambda: sharded(TUNED, 3), 0.01),
        (lambda: one_file(OLD), lambda: one_file(with_layer(TUNED, 1)), FRESH_LAYER),
        (lambda: one_file(OLD), lambda: one_file(with_rows(TUNED, 9)), 0.01),
        (lambda: one_file(OLD), lambda: one_file(fused(TUNED)), 0.01),
        (lambda: one_file(OLD), lambda: one_file(renamed(fused(with_rows(TUNED, 9)))), 0.01),
    ],
    ids=["renamed", "resharded", "split-into-shards", "layer-inserted", "rows-in-front", "fused", "all"],
)
def test_an_update_is_about_as_small_as_with_the_same_names(
    old: Callable[[], Files], new: Callable[[], Files], more: float, plain: float, tmp_path: Path
) -> None:
    assert delta_share(tmp_path, old(), new()) < plain + more


ADAPTER = adapter(layers=12, width=768)


def test_small_tensors_that_are_renamed_cost_what_they_cost_with_the_same_names(tmp_path: Path) -> None:
    tuned = fine_tuned(ADAPTER)
    folders = [tmp_path / name for name in ("same", "renamed", "grown")]
    for folder in folders:
        folder.mkdir()
    same = delta_share(folders[0], one_file(ADAPTER), one_file(tuned))
    assert delta_share(folders[1], one_file(ADAPTER), one_file(with_prefix(tuned))) < same + 0.005
    # An adapter with tensors in front of and between the others too.
    more = {"embed.lora_A.weight": OLD[EMBEDDING][:30], **tuned, "z.lora_A.weight": OLD[EMBEDDING][:30]}
    assert delta_share(folders[2], one_file(ADAPTER), one_file(with_prefix(more))) < same + 0.05


def in_another_order(weights: Weights) -> Weights:
    """The same names and weights in another order."""
    return {name: weights[name] for name in sorted(weights, key=lambda name: name[::-1])}


def with_adapted_layer(weights: Weights) -> Weights:
    """An adapter with a new layer before its fifth; the later ones are renumbered."""
    found: Weights = {}
    for name, bits in weights.items():
        layer, _, rest = name.removeprefix("layers.").partition(".")
        found[f"layers.{int(layer) + (int(layer) >= 4)}.{rest}"] = bits
    fresh = adapter(layers=1, width=768, seed=77)
    return found | {name.replace("layers.0", "layers.4"): bits for name, bits in fresh.items()}


@pytest.mark.parametrize("change", [renamed, in_another_order], ids=["renamed", "same-names"])
def test_small_tensors_in_another_order_cost_little_more_than_in_the_same(
    change: Callable[[Weights], Weights], tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("same", "tuned", "moved")]
    for folder in folders:
        folder.mkdir()
    tuned = fine_tuned(ADAPTER)
    same = delta_share(folders[0], one_file(ADAPTER), one_file(tuned))
    # 216 bytes for each tensor of 12 KiB or so, and a Huffman table of its own.
    assert delta_share(folders[1], one_file(ADAPTER), one_file(change(tuned))) < same + 0.06
    assert delta_share(folders[2], one_file(ADAPTER), one_file(change(ADAPTER))) < 0.02


def test_small_tensors_of_layers_that_were_renumbered_are_deltas_against_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("same", "inserted")]
    for folder in folders:
        folder.mkdir()
    tuned = fine_tuned(ADAPTER)
    same = delta_share(folders[0], one_file(ADAPTER), one_file(tuned))
    new = with_adapted_layer(tuned)
    assert delta_share(folders[1], one_file(ADAPTER), one_file(dict(sorted(new.items())))) < same + 0.07


def test_updates_after_another_order_of_small_tensors_and_the_way_back_are_right(tmp_path: Path) -> None:
    files = [
        one_file(weights)
        for weights in (ADAPTER, renamed(fine_tuned(ADAPTER)), renamed(fine_tuned(ADAPTER, 5)))
    ]
    for n, content in enumerate(files):
        publish(tmp_path, f"1.{n}.0", content)
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", tmp_path / "registry")
        assert store.lint_registry(tmp_path / "registry", deep=True, decode=True).errors == 0
        shares = []
        for n in (0, 1, 2, 1, 0):
            came = store.checkout(f"m@1.{n}.0").download_bytes
            assert installed(store, files[n]) == files[n]
            shares.append(came / sum(map(len, files[n].values())))
        assert max(shares[1:3]) < 0.24  # of 17.1 % in chunks that are not of one tensor each
        store.gc(keep=1)
        assert store.fsck().problems == []
        assert installed(store, files[0]) == files[0]
    stored = (tmp_path / "home" / "packs").glob("*.pack")
    assert not any(entry.encoding in NOT_STORED for pack in stored for _, entry in iter_entries(pack))


def test_an_update_after_the_one_that_renamed_small_tensors_is_small_too(tmp_path: Path) -> None:
    publish(tmp_path, "1.0.0", one_file(ADAPTER))
    renamed_files = one_file(with_prefix(fine_tuned(ADAPTER)))
    publish(tmp_path, "1.0.1", renamed_files)
    again = publish(tmp_path, "1.0.2", {**renamed_files, "notes.txt": b"the same weights"})
    assert again.chunks_new == 1
    later = one_file(with_prefix(fine_tuned(ADAPTER, 5)))
    publish(tmp_path, "1.0.3", later)
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", tmp_path / "registry")
        store.checkout("m@1.0.2")
        came = store.checkout("m@1.0.3").download_bytes
        assert installed(store, later) == later
    assert came < 0.25 * sum(map(len, later.values()))


def test_the_same_numbers_in_other_tensors_are_not_downloaded_again(tmp_path: Path) -> None:
    share = delta_share(tmp_path, one_file(OLD), one_file(renamed(fused(with_rows(OLD, 1)))))
    assert share < 0.005


@pytest.mark.parametrize(
    ("old", "new", "most"),
    [
        (lambda: OLD, lambda: as_type(OLD, "<f2"), 0.01),
        (lambda: OLD, lambda: as_type(OLD, "<f4"), 0.01),
        (lambda: as_type(OLD, "<f4"), lambda: OLD, 0.01),
        (lambda: OLD, lambda: pruned(OLD), 0.06),
    ],
    ids=["bf16-to-f16", "bf16-to-f32", "f32-to-bf16", "pruned"],
)
def test_a_mapped_base_leaves_a_small_difference(
    old: Callable[[], Weights], new: Callable[[], Weights], most: float, tmp_path: Path
) -> None:
    assert delta_share(tmp_path, one_file(old()), one_file(new())) < most
    raw = json.loads((tmp_path / "registry" / "registry.json").read_text())
    listed = raw["models"]["m"]["versions"]
    assert listed["1.1.0"]["mapped_deltas"]
    assert ("mapped_deltas" in listed["1.0.0"]) == (most == 0.01)  # back; what was pruned is gone
    for entry in listed.values():
        for delta in entry.get("deltas", ()):
            pack = tmp_path / "registry" / "deltas" / f"{PackId.parse(delta['pack']).hex}.pack"
            assert all(entry.encoding != Encoding.DELTA_MAPPED for _, entry in iter_entries(pack))


def test_a_version_that_was_cut_like_an_older_one_stays_so(tmp_path: Path) -> None:
    old, grown = one_file(OLD), one_file(with_rows(OLD, 9))
    publish(tmp_path, "1.0.0", old)
    publish(tmp_path, "1.1.0", grown)
    again = publish(tmp_path, "1.2.0", {**grown, "notes.txt": b"the same weights"})
    assert again.chunks_new == 1
    packs = sorted((tmp_path / "registry" / "packs").iterdir())
    assert not Store.publish(tmp_path / "1.1.0", "m@1.1.0", registry=tmp_path / "registry").changed
    assert sorted((tmp_path / "registry" / "packs").iterdir()) == packs


def test_lost_packs_are_written_again_as_they_were_cut(tmp_path: Path) -> None:
    publish(tmp_path, "1.0.0", one_file(OLD))
    publish(tmp_path, "1.1.0", one_file(with_rows(TUNED, 9)))
    for path in (tmp_path / "registry" / "packs").iterdir():
        path.unlink()
    publish(tmp_path, "0.9.0", {"notes.txt": b"so that packs exist"})
    assert Store.publish(tmp_path / "1.1.0", "m@1.1.0", registry=tmp_path / "registry").changed
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", tmp_path / "registry")
        store.checkout("m@1.1.0")
        expected = one_file(with_rows(TUNED, 9))
        assert installed(store, expected) == expected


@pytest.mark.parametrize("is_back", [False, True], ids=["stacked", "split"])
def test_matrices_that_are_stacked_or_split_cost_what_they_cost_as_before(
    is_back: bool, plain: float, tmp_path: Path
) -> None:
    sides = [one_file(OLD), one_file(stacked(TUNED))]
    if is_back:
        sides = [one_file(stacked(OLD)), one_file(TUNED)]
    assert delta_share(tmp_path, *sides) < plain + 0.01


def test_heads_in_another_order_are_found(plain: float, tmp_path: Path) -> None:
    """In each matrix of queries: five heads of 64 rows, 40 KiB each."""
    old = {f"layers.{n}.q.weight": OLD[f"layers.{n}.q.weight"] for n in range(3)}
    tuned = {
        name: bits.reshape(5, 64, 320)[[3, 0, 4, 2, 1]].reshape(320, 320)
        for name, bits in fine_tuned(old).items()
    }
    assert delta_share(tmp_path, one_file(old), one_file(tuned)) < plain + 0.03


def test_a_vocabulary_with_rows_removed_in_many_places_is_mostly_deltas(tmp_path: Path) -> None:
    old, new = ({EMBEDDING: weights[EMBEDDING]} for weights in (OLD, TUNED))  # runs of 24 rows, 15 KiB
    assert delta_share(tmp_path, one_file(old), one_file(without_rows(new, 25))) < 0.25


def test_numbers_of_one_sign_are_found_under_another_name(tmp_path: Path) -> None:
    """Indexes, of which a few change."""
    random = np.random.default_rng(21)
    old: Weights = {f"t{n}": random.integers(0, 1 << 40, (100, 160)) for n in range(6)}
    new: Weights = {f"new{n}": old[f"t{(5 * n + 2) % 6}"].copy() for n in range(6)}
    for bits in new.values():
        bits[random.integers(0, 100, 9), 5] = 7
    assert delta_share(tmp_path, one_file(old), one_file(new)) < 0.01


def test_unrelated_weights_have_no_deltas(tmp_path: Path) -> None:
    publish(tmp_path, "1.0.0", one_file(OLD))
    other = made(layers=3, width=320, vocabulary=3000, seed=99)
    assert sum(publish(tmp_path, "1.1.0", one_file(renamed(other))).deltas.values()) < SIZE // 100


def test_rows_of_one_sign_are_not_confused(tmp_path: Path) -> None:
    """A tensor of ones has no sketch: it stays with its name."""
    ones = dict(OLD)
    ones[EMBEDDING] = OLD[EMBEDDING] & 0x7FFF
    assert (values(ones[EMBEDDING]) >= 0).all()
    tuned = dict(TUNED)
    tuned[EMBEDDING] = fine_tuned({EMBEDDING: ones[EMBEDDING]})[EMBEDDING] & 0x7FFF
    assert delta_share(tmp_path, one_file(ones), one_file(tuned)) < 0.3
