"""Taking files in: what is cut, named and described is the one file that was opened."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from tests.support.samples import onnx_external, onnx_file, onnx_tensor
from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.core.layouts import Layout
from yarnstore.core.manifest import ManifestFile
from yarnstore.core.pairing import file_layout
from yarnstore.ops.publishing.publish import publish
from yarnstore.registry.spec import Spec
from yarnstore.store import ingest
from yarnstore.store.layout import StoreLayout


def npy(path: Path, shape: tuple[int, ...]) -> bytes:
    np.save(path, np.arange(np.prod(shape), dtype="<f4").reshape(shape))
    return path.read_bytes()


def only_file(store: Store, model: str) -> ManifestFile:
    layout = StoreLayout(store.home)
    manifests = [layout.read_manifest(digest) for digest in layout.manifest_ids()]
    (file,) = next(item for item in manifests if item.model == model).files
    return file


def test_a_file_replaced_when_its_layout_was_read_is_taken_in_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = npy(tmp_path / "w.npy", (40, 20))
    npy(tmp_path / "other.npy", (20, 40))
    store = Store.open(tmp_path / "home")
    store.import_model(tmp_path / "w.npy", "good@1.0.0")
    read = ingest.read_layout

    def then_replace(source: ingest._FileSource, *, name: str) -> Layout | None:
        layout = read(source, name=name)
        os.replace(tmp_path / "other.npy", tmp_path / "w.npy")
        return layout

    monkeypatch.setattr(ingest, "read_layout", then_replace)
    store.import_model(tmp_path / "w.npy", "swapped@1.0.0")
    assert only_file(store, "swapped") == only_file(store, "good")
    assert only_file(store, "swapped").sha256 == Sha256.of(body)


def test_the_data_of_an_onnx_model_has_the_layout_that_the_model_tells(tmp_path: Path) -> None:
    """Also where it comes before the model by name; the files keep their order."""
    source = tmp_path / "source"
    source.mkdir()
    tensor = onnx_tensor("w", 1, [1000], onnx_external("a.data", 64, 4000))
    (source / "model.onnx").write_bytes(onnx_file(tensor))
    (source / "a.data").write_bytes(bytes(64) + np.arange(1000, dtype="<f4").tobytes())
    store = Store.open(tmp_path / "home")
    store.import_model(source, "m@1.0.0")
    layout = StoreLayout(store.home)
    manifest = layout.read_manifest(layout.manifest_ids()[0])
    assert [file.path for file in manifest.files] == ["a.data", "model.onnx"]
    found = file_layout(manifest.files[0])
    assert found is not None
    assert [tensor.name for tensor in found.tensors] == ["w"]


def test_many_small_files_cost_little_processor_time(tmp_path: Path) -> None:
    # A thread started for each file took more than a millisecond of it; the bound is for a slow machine.
    source = tmp_path / "model"
    source.mkdir()
    rng = random.Random(1)
    for n in range(2000):
        (source / f"{n}.json").write_bytes(rng.randbytes(200))
    before_s = time.process_time()
    done = publish(tmp_path / "registry", source, Spec.parse("many@1.0.0"))
    assert time.process_time() - before_s < 2.0
    assert done.chunks_total == 2000
