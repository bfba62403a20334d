"""Updates to transposed weights: as small as those of weights that lie as before, and never wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.registries import amend
from tests.support.reshaped import (
    EMBEDDING,
    Weights,
    as_type,
    fine_tuned,
    made,
    safetensors,
    transposed,
)
from tests.support.samples import field, onnx_file, onnx_tensor
from yarnstore import Store
from yarnstore.core.codec import NOT_STORED, Encoding
from yarnstore.core.digest import PackId
from yarnstore.store.packs import iter_entries

KEY = "transposed_deltas"
BASE = made(layers=1, width=320, vocabulary=2001)
TUNED = fine_tuned(BASE)


def onnx(weights: Weights) -> bytes:
    """An ONNX model as exporters write it: matrices transposed, under generated names."""
    kinds = {"uint16": 16, "float32": 1}
    return onnx_file(
        *(
            onnx_tensor(
                f"onnx::MatMul_{n}", kinds[bits.dtype.name], list(bits.shape), field(9, bits.tobytes())
            )
            for n, bits in enumerate(transposed(weights).values())
        )
    )


def publish(root: Path, **files: bytes) -> Path:
    """Publish files, named `model.safetensors` or `model.onnx`, as 1.0.0, 1.1.0 and so on."""
    for n, (kind, content) in enumerate(files.items()):
        folder = root / str(n)
        folder.mkdir()
        (folder / f"model.{kind.partition('_')[0]}").write_bytes(content)
        Store.publish(folder, f"m@1.{n}.0", registry=root / "registry")
    return root / "registry"


def updated(registry: Path, home: Path, wanted: bytes, first: str = "1.0.0", second: str = "1.1.0") -> int:
    """What the update downloads; its file is right, before and after `gc` and a way back."""
    with Store.open(home) as store:
        store.add_registry("here", registry)
        old = content(store, first)
        came = store.checkout(f"m@{second}").download_bytes
        assert content(store, second) == wanted
        assert store.fsck().problems == []
        store.rollback_model("m")
        assert content(store, first) == old
        store.checkout(f"m@{second}")
        store.gc(keep=1)
        assert store.fsck().problems == []
        assert content(store, second) == wanted
    stored = (home / "packs").glob("*.pack")
    assert not any(entry.encoding in NOT_STORED for pack in stored for _, entry in iter_entries(pack))
    return came


def content(store: Store, version: str) -> bytes:
    store.checkout(f"m@{version}")
    path = Path(store.path("m"))
    (file,) = [path] if path.is_file() else path.iterdir()
    return file.read_bytes()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, and fine-tuned ones with rows and columns exchanged."""
    root = tmp_path_factory.mktemp("transposed")
    return publish(root, safetensors=safetensors(BASE), safetensors_2=safetensors(transposed(TUNED)))


def listed(registry: Path, version: str = "1.1.0") -> list[dict[str, Any]]:
    raw = json.loads((registry / "registry.json").read_text())
    found: list[dict[str, Any]] = raw["models"]["m"]["versions"][version].get(KEY, [])
    return found


def packs(registry: Path, *, transposes: bool) -> list[Path]:
    items = [item for item in listed(registry) if item.get("transposes", False) is transposes]
    return [registry / "deltas" / f"{PackId.parse(item['pack']).hex}.pack" for item in items]


def test_the_same_weights_transposed_are_not_downloaded(tmp_path: Path) -> None:
    new = safetensors(transposed(BASE))
    registry = publish(tmp_path, safetensors=safetensors(BASE), safetensors_2=new)
    assert updated(registry, tmp_path / "home", new) < 0.005 * len(new)


def test_a_fine_tune_transposed_is_as_small_as_one_that_is_not(registry: Path, tmp_path: Path) -> None:
    new = safetensors(TUNED)
    straight = publish(tmp_path, safetensors=safetensors(BASE), safetensors_2=new)
    wanted = updated(straight, tmp_path / "straight", new)
    came = updated(registry, tmp_path / "home", safetensors(transposed(TUNED)))
    assert came < wanted + 0.005 * len(new)


@pytest.mark.parametrize("kind", ["<u2", "<f4"])
def test_an_onnx_export_of_a_version_is_a_fraction_of_it(kind: str, tmp_path: Path) -> None:
    new = onnx(BASE if kind == "<u2" else as_type(BASE, kind))
    registry = publish(tmp_path, safetensors=safetensors(BASE), onnx=new)
    assert updated(registry, tmp_path / "home", new) < 0.005 * len(new)


def kernels(weights: Weights) -> Weights:
    """The matrices as other libraries hold them: (width, heads, size), (1, 1, in, out) or (out, heads, size).

    The last is not transposed and has only another shape.
    """
    found: Weights = {}
    for n, (name, bits) in enumerate(weights.items()):
        rows = bits.shape[0]
        if bits.ndim != 2 or rows % 5:
            found[name] = bits
        elif n % 3 == 2:
            found[name] = bits.reshape(rows, 5, -1)
        else:
            turned = np.ascontiguousarray(bits.T)
            shape = (-1, 5, rows // 5) if n % 3 else (1, 1, -1, rows)
            found[f"kernels.{name}"] = turned.reshape(shape)
    return found


def test_matrices_that_become_kernels_of_more_dimensions_are_as_small(tmp_path: Path) -> None:
    new, tuned = safetensors(kernels(BASE)), safetensors(kernels(TUNED))
    registry = publish(tmp_path, safetensors=safetensors(BASE), safetensors_2=new, safetensors_3=tuned)
    assert updated(registry, tmp_path / "same", new) < 0.005 * len(new)
    assert updated(registry, tmp_path / "tuned", tuned, "1.0.0", "1.2.0") < 0.2 * len(tuned)
    assert updated(registry, tmp_path / "back", safetensors(BASE), "1.1.0", "1.0.0") < 0.01 * len(new)


def test_kernels_whose_dimensions_are_reversed_are_downloaded(tmp_path: Path) -> None:
    old = BASE[EMBEDDING].ravel()[: 128 * 96 * 9].reshape(128, 96, 3, 3)
    new = safetensors({"k": np.ascontiguousarray(old.transpose(2, 3, 1, 0))})
    registry = publish(tmp_path, safetensors=safetensors({"k": old}), safetensors_2=new)
    assert updated(registry, tmp_path / "home", new) > 0.5 * len(new)


def test_the_way_back_is_as_small(registry: Path, tmp_path: Path) -> None:
    old = safetensors(BASE)
    assert updated(registry, tmp_path / "home", old, "1.1.0", "1.0.0") < 0.2 * len(old)


def test_a_way_over_several_versions_begins_with_transposed_weights(tmp_path: Path) -> None:
    last = safetensors(fine_tuned(transposed(TUNED), 2))
    files = {"safetensors": safetensors(BASE), "safetensors_2": safetensors(transposed(TUNED))}
    registry = publish(tmp_path, **files, safetensors_3=last)

    def forget(models: dict[str, Any]) -> None:
        for key in (KEY, "deltas", "mapped_deltas"):
            entry = models["m"]["versions"]["1.2.0"]
            entry[key] = [item for item in entry.get(key, []) if item["base"] == "1.1.0"]

    amend(registry, forget)
    assert updated(registry, tmp_path / "home", last, "1.0.0", "1.2.0") < 0.4 * len(last)


def test_fetch_leaves_a_store_without_parts_of_other_versions(registry: Path, tmp_path: Path) -> None:
    new = safetensors(transposed(TUNED))
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", registry)
        store.fetch("m@1.0.0")
        assert store.fetch("m@1.1.0").download_bytes < 0.2 * len(new)
        store.remove("m@1.0.0")
        store.gc()
        assert store.fsck().problems == []
        assert content(store, "1.1.0") == new
    stored = (tmp_path / "home" / "packs").glob("*.pack")
    assert not any(entry.encoding in NOT_STORED for pack in stored for _, entry in iter_entries(pack))


def test_a_client_that_does_not_know_these_deltas_goes_on_with_full_packs(tmp_path: Path) -> None:
    new = safetensors(transposed(BASE))
    registry = publish(tmp_path, safetensors=safetensors(BASE), safetensors_2=new)

    def forget(models: dict[str, Any]) -> None:
        for entry in models["m"]["versions"].values():
            entry.pop(KEY, None)

    amend(registry, forget)
    assert updated(registry, tmp_path / "home", new) > 0.5 * len(new)


@pytest.mark.parametrize(("damage", "transposes"), [("flipped", True), ("flipped", False), ("removed", True)])
def test_without_a_pack_that_can_be_read_full_packs_serve(
    tmp_path: Path, damage: str, transposes: bool
) -> None:
    new = safetensors(transposed(TUNED))
    registry = publish(tmp_path, safetensors=safetensors(BASE), safetensors_2=new)
    for pack in packs(registry, transposes=transposes):
        data = bytearray(pack.read_bytes())
        data[200::100] = bytes(byte ^ 0xFF for byte in data[200::100])
        pack.chmod(0o644)
        pack.write_bytes(data)
        if damage == "removed":
            pack.unlink()
    assert updated(registry, tmp_path / "home", new) > 0.5 * len(new)


def test_a_damaged_base_is_not_transposed(registry: Path, tmp_path: Path) -> None:
    new = safetensors(transposed(TUNED))
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", registry)
        store.checkout("m@1.0.0")
        path = Path(store.path("m"))
        file = path if path.is_file() else next(path.iterdir())
        file.chmod(0o644)
        with open(file, "r+b") as opened:
            opened.seek(100_000)
            opened.write(bytes(200_000))
        store.checkout("m@1.1.0")
        assert content(store, "1.1.0") == new


def test_lint_reads_them(registry: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        assert store.lint_registry(registry, deep=True, decode=True).errors == 0


def test_lint_reports_a_pack_that_is_missing(tmp_path: Path) -> None:
    files = {"safetensors": safetensors(BASE), "safetensors_2": safetensors(transposed(TUNED))}
    registry = publish(tmp_path, **files)
    packs(registry, transposes=True)[0].unlink()
    with Store.open(tmp_path / "home") as store:
        found = store.lint_registry(registry, deep=True).findings
    assert any(KEY in finding.path for finding in found if finding.severity == "error")


def test_optimize_keeps_them_and_publishing_again_changes_nothing(registry: Path, tmp_path: Path) -> None:
    before = listed(registry)
    assert {item.get("transposes", False) for item in before} == {True, False}
    Store.optimize_registry(registry)
    assert listed(registry) == before
    assert all(pack.exists() for flag in (True, False) for pack in packs(registry, transposes=flag))


def test_unlike_matrices_of_reversed_shape_are_not_listed(tmp_path: Path) -> None:
    other = safetensors(transposed(made(layers=1, width=320, vocabulary=2001, seed=9)))
    registry = publish(tmp_path, safetensors=safetensors(BASE), safetensors_2=other)
    assert listed(registry) == []


def test_parts_are_in_packs_of_their_own(registry: Path) -> None:
    for flag in (True, False):
        for pack in packs(registry, transposes=flag):
            kinds = {entry.encoding == Encoding.TRANSPOSED for _, entry in iter_entries(pack)}
            assert kinds == {flag}


def test_matrices_of_few_rows_or_columns_are_transposed_too(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    old = {
        name: random.normal(0, 1, shape).astype("<f4")
        for name, shape in {"few": (7, 300_001), "two": (40_000, 2), "many": (300_000, 5)}.items()
    }
    new = safetensors(transposed(old))
    registry = publish(tmp_path, safetensors=safetensors(old), safetensors_2=new)
    assert updated(registry, tmp_path / "home", new) < 0.005 * len(new)
