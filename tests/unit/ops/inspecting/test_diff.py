"""`diff`: what it says of tensors that changed, moved, grew, came and went, and what it reads for that."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.models import model_path
from yarnstore import Store
from yarnstore.errors import NotFoundError, UsageError
from yarnstore.ops.inspecting.changed_bytes import count_changed
from yarnstore.ops.inspecting.diff import DiffResult, StatusCounts
from yarnstore.ops.inspecting.tensors import TensorDiff

_TYPES = {"f4": "F32", "f8": "F64", "f2": "F16", "i4": "I32", "u2": "BF16", "u1": "U8"}
Arrays = Mapping[str, NDArray]


def write_safetensors(path: Path, tensors: Arrays, note: str = "") -> Path:
    """A safetensors file of `tensors`; those of uint16 are bf16."""
    header: dict[str, object] = {"__metadata__": {"note": note}} if note else {}
    at = 0
    for name, array in tensors.items():
        end = at + array.nbytes
        kind = _TYPES[array.dtype.str[1:]]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in tensors.values()))
    return path


def weights(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.05, shape).astype(np.float32)


@pytest.fixture
def store(tmp_home: Path) -> Store:
    return Store.open()


def compare(store: Store, folder: Path, old: Arrays, new: Arrays) -> tuple[DiffResult, dict[str, TensorDiff]]:
    """The diff of two files of tensors, and its tensors by name."""
    before = write_safetensors(folder / "old" / "model.safetensors", old)
    after = write_safetensors(folder / "new" / "model.safetensors", new)
    found = store.diff(str(before), str(after))
    return found, {tensor.name: tensor for tensor in found.tensors}


# --- numbers ----------------------------------------------------------------------------------


def test_changes_are_measured_as_numpy_measures_them(store: Store, tmp_path: Path) -> None:
    old = weights(1, 700, 600)  # two chunks, so that the measures of pieces are put together
    new = old.copy()
    new[:100] *= np.float32(1.01)
    old[650, :5] = 0
    new[650, :5] = 1
    found, tensors = compare(store, tmp_path, {"a": old, "b": old}, {"a": new, "b": old})
    change = np.abs(new.astype("f8") - old)
    nonzero = old != 0
    relative = change[nonzero] / np.abs(old[nonzero])
    a = tensors["a"]
    assert (a.status, a.unit, a.units) == ("changed", "elements", old.size)
    assert a.units_changed == np.count_nonzero(old != new)
    assert a.bytes_changed == np.count_nonzero(old.view("u1") != new.view("u1"))
    assert a.relative_mean == pytest.approx(relative.mean(), rel=1e-4)
    assert a.relative_max == pytest.approx(relative.max(), rel=1e-4)
    assert a.distance == pytest.approx(np.linalg.norm(change) / np.linalg.norm(old), rel=1e-4)
    assert tensors["b"].status == "same"
    assert tensors["b"].relative_mean is None
    assert found.totals.parameters == 2 * old.size
    assert found.totals.parameters_changed == a.units_changed
    assert found.totals.bytes_changed == a.bytes_changed
    assert [(file.status, file.bytes_changed) for file in found.files] == [("changed", a.bytes_changed)]


def test_what_equal_chunks_prove_is_not_read(store: Store, tmp_path: Path) -> None:
    old = {f"layer.{n}.weight": weights(n, 512, 512) for n in range(6)}
    new = dict(old)
    new["layer.3.weight"] = old["layer.3.weight"] * np.float32(1.5)
    found, tensors = compare(store, tmp_path, old, new)
    assert found.compared_bytes == 2 * old["layer.3.weight"].nbytes
    assert tensors["layer.3.weight"].distance == pytest.approx(0.5, rel=1e-5)
    again, _ = compare(store, tmp_path, old, old)
    assert again.compared_bytes == 0
    assert again.totals.tensors == StatusCounts(same=6)
    assert again.files[0].status == "same"


def test_another_type_is_compared_by_value(store: Store, tmp_path: Path) -> None:
    old = weights(5, 40, 50)
    _, tensors = compare(store, tmp_path, {"a": old}, {"a": old.astype("f8")})
    a = tensors["a"]
    assert (a.status, a.dtype, a.old_dtype, a.units_changed) == ("changed", "f64", "f32", 0)
    half = (old.view("u4") >> 16).astype("u2").reshape(old.shape)
    _, tensors = compare(store, tmp_path, {"a": old}, {"a": half})
    assert tensors["a"].units_changed > 1900
    assert tensors["a"].relative_max == pytest.approx(2**-7, rel=0.1)


# --- which is which ---------------------------------------------------------------------------


def test_added_removed_and_renamed_tensors(store: Store, tmp_path: Path) -> None:
    large, small, other = weights(1, 300, 300), weights(2, 40), weights(3, 40)
    old = {"old.large": large, "old.small": small, "gone": weights(4, 70)}
    new = {"come": other, "new.large": large, "new.small": small}
    found, tensors = compare(store, tmp_path, old, new)
    assert {name: tensor.status for name, tensor in tensors.items()} == {
        "come": "added",
        "new.large": "moved",
        "new.small": "moved",
        "gone": "removed",
    }
    assert tensors["new.small"].old_name == "old.small"
    assert found.totals.tensors == StatusCounts(added=1, removed=1, moved=2)
    assert found.totals.parameters == 300 * 300 + 80


def test_the_same_at_another_offset_is_the_same(store: Store, tmp_path: Path) -> None:
    a, b = weights(1, 300, 300), weights(2, 50)
    found, tensors = compare(store, tmp_path, {"a": a, "b": b}, {"aa": weights(3, 9), "a": a, "b": b})
    assert tensors["a"].status == tensors["b"].status == "same"
    assert found.totals.shifted == 2


def test_a_tensor_that_grew_by_rows_is_compared_over_the_others(store: Store, tmp_path: Path) -> None:
    old = weights(1, 1000, 300)
    new = np.concatenate([old, weights(2, 10, 300)])
    _, tensors = compare(store, tmp_path, {"vocabulary": old}, {"vocabulary": new})
    grown = tensors["vocabulary"]
    assert (grown.units_changed, grown.bytes_changed) == (3000, 12000)
    assert grown.distance is None
    new[5] += 1
    _, tensors = compare(store, tmp_path, {"vocabulary": old}, {"vocabulary": new})
    assert tensors["vocabulary"].units_changed == 3300
    assert tensors["vocabulary"].distance is not None
    _, tensors = compare(store, tmp_path, {"a": old}, {"a": old.reshape(300, 1000)})
    assert (tensors["a"].status, tensors["a"].units_changed) == ("changed", 0)
    _, tensors = compare(store, tmp_path, {"a": old}, {"a": old[:, :299].copy()})
    assert tensors["a"].units_changed == 299_000


def test_tensors_that_went_to_another_shard_moved(store: Store, tmp_path: Path) -> None:
    a, b, c = (weights(n, 200, 200) for n in range(3))
    for side, first, second in (
        ("old", {"a": a, "b": b}, {"c": c}),
        ("new", {"a": a}, {"b": b, "c": c + np.float32(1)}),
    ):
        write_safetensors(tmp_path / side / "model-1.safetensors", first)
        write_safetensors(tmp_path / side / "model-2.safetensors", second)
    found = store.diff(str(tmp_path / "old"), str(tmp_path / "new"))
    assert {t.name: (t.status, t.file) for t in found.tensors} == {
        "a": ("same", "model-1.safetensors"),
        "b": ("moved", "model-2.safetensors"),
        "c": ("changed", "model-2.safetensors"),
    }


def test_files_meet_by_path_by_content_and_by_their_endings(store: Store, tmp_path: Path) -> None:
    for side, files in {
        "old": {"a.txt": "one\ntwo\n", "b.bin": "content", "c.json": '{"x": 1}', "d.md": "gone"},
        "new": {"a.txt": "one\n2\ntwo\n", "e.bin": "content", "f.json": '{"x": 2}', "g": "come"},
    }.items():
        for name, text in files.items():
            path = tmp_path / side / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    found = store.diff(str(tmp_path / "old"), str(tmp_path / "new"))
    rows = {(f.path, f.old_path): (f.status, f.bytes_changed) for f in found.files}
    assert rows == {
        ("a.txt", "a.txt"): ("changed", 2),
        ("e.bin", "b.bin"): ("moved", 0),
        ("f.json", "c.json"): ("changed", 1),
        ("g", None): ("added", 4),
        ("d.md", "d.md"): ("removed", 4),
    }
    assert found.totals.bytes_changed == 7


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        (b"", b"", 0),
        (b"", b"abc", 3),
        (b"abcdef", b"abXdef", 1),
        (b"abc\ndef\n", b"abc\nnew line\ndef\n", 9),
        (b"a\nb\nc\nd\n", b"d\nb\nc\na\n", 2),
        (b"start" + bytes(100) + b"end", b"start" + bytes(90) + b"end", 10),
        (b"xay" * 1000, b"xby" * 1000, 1000),
    ],
)
def test_changed_bytes_are_the_least_that_can_be_shown(old: bytes, new: bytes, changed: int) -> None:
    assert count_changed(old, new) == changed
    assert count_changed(new, old) == changed


def test_a_changed_header_is_no_changed_tensor(store: Store, tmp_path: Path) -> None:
    a = weights(1, 100)
    before = write_safetensors(tmp_path / "a.safetensors", {"a": a}, note="one")
    after = write_safetensors(tmp_path / "b.safetensors", {"a": a}, note="six")
    found = store.diff(str(before), str(after))
    (file,) = found.files
    assert (file.status, file.bytes_changed, file.other_bytes_changed) == ("changed", 3, 3)
    assert found.totals.tensors == StatusCounts(same=1)


# --- versions ---------------------------------------------------------------------------------


def test_versions_of_a_store_and_paths_agree(store: Store, made_models: Path) -> None:
    folder = made_models / "phi-3-mini"
    for version in ("1.0.0", "1.1.0"):
        store.import_model(folder / version, f"phi-3-mini@{version}")
    found = store.diff("phi-3-mini@1.0.0", "@1.1.0")
    assert (found.old.label, found.new.version) == ("phi-3-mini 1.0.0", "1.1.0")
    changed = {tensor.name for tensor in found.tensors if tensor.status != "same"}
    assert changed
    assert all(re.search(r"layers\.[45]\.", name) for name in changed)  # the last two of six were tuned
    assert found.totals.tensors.changed + found.totals.tensors.same == len(found.tensors)
    for old, new in (
        (str(folder / "1.0.0"), "phi-3-mini@1.1.0"),
        (str(folder / "1.0.0"), str(folder / "1.1.0")),
    ):
        other = store.diff(old, new)
        assert other.tensors == found.tensors
        assert other.files == found.files
    assert store.diff("phi-3-mini@1.1.0", str(folder / "1.1.0")).totals.bytes_changed == 0


def test_a_version_that_is_not_here_is_fetched(store: Store, made_models: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for version in ("1.0.0", "1.1.0"):
        Store.publish(made_models / "phi-3-mini" / version, f"phi-3-mini@{version}", registry=registry)
    store.add_registry("made", registry)
    store.checkout("phi-3-mini@1.0.0")
    found = store.diff("phi-3-mini", "phi-3-mini@1.1.0")
    assert found.old.version == "1.0.0"
    assert found.totals.tensors.changed
    assert [version.in_store for version in store.get_version_history("phi-3-mini").versions] == [True, True]


def test_what_is_not_there_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.diff("./nothing", "./either")
    with pytest.raises(NotFoundError):
        store.diff("a/b/c.gguf", "a/b/d.gguf")
    with pytest.raises(UsageError):
        store.diff("./somewhere", "@1.0.0")
    file = tmp_path / "a.txt"
    file.write_text("x")
    with pytest.raises(UsageError):
        store.diff(str(file), str(file), html=tmp_path)
    assert not store.home.exists()  # two paths need no store


@pytest.mark.models
def test_a_real_update_of_the_last_two_layers(store: Store) -> None:
    found = store.diff(str(model_path("minilm-bf16", "1.1.0")), str(model_path("minilm-bf16", "1.2.0")))
    changed = [tensor for tensor in found.tensors if tensor.status == "changed"]
    assert len(changed) == 32
    assert all(".layer.4." in tensor.name or ".layer.5." in tensor.name for tensor in changed)
    assert all(tensor.distance and tensor.distance < 0.1 for tensor in changed)
    assert found.compared_bytes < 0.35 * found.new.size_bytes


@pytest.mark.models
def test_a_real_quantised_update(store: Store) -> None:
    found = store.diff(str(model_path("minilm-q4_0", "1.0.0")), str(model_path("minilm-q4_0", "1.1.0")))
    blocks = [tensor for tensor in found.tensors if tensor.dtype == "q4_0" and tensor.status == "changed"]
    assert blocks
    assert all(tensor.unit == "blocks" and tensor.distance for tensor in blocks)
    assert 0.03 < found.totals.bytes_changed / found.totals.bytes < 0.07
