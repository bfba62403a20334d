"""`inspect`: what is in a file or a version, and how a store keeps it."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import model_path
from yarnstore import Store
from yarnstore.errors import NotFoundError, SpecError


@pytest.fixture
def store(tmp_home: Path) -> Store:
    return Store.open()


def test_a_file_is_told_from_its_header(store: Store, made_models: Path) -> None:
    path = made_models / "phi-3-mini" / "1.0.0" / "model.safetensors"
    found = store.inspect(str(path))
    (file,) = found.files
    assert (file.format, file.size_bytes, file.why) == ("safetensors", path.stat().st_size, None)
    assert found.parameters == sum(tensor.parameters for tensor in file.tensors)
    assert [(item.dtype, item.parameters) for item in found.types] == [("bf16", found.parameters)]
    assert sum(tensor.size_bytes for tensor in file.tensors) + file.other_bytes == file.size_bytes
    assert (found.storage, found.chunks, found.in_store, found.manifest) == (None, None, False, None)
    assert not store.home.exists()  # a path needs no store


def test_headers_alone_are_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "large.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 34, 16)}
        )
        file.truncate(file.tell() + (1 << 40))  # a terabyte that is not there
    found = store.inspect(str(path))
    assert found.parameters == 1 << 38
    assert found.files[0].format == "npy"


def test_a_version_says_how_it_is_stored(store: Store, made_models: Path) -> None:
    folder = made_models / "phi-3-mini"
    store.import_model(folder / "1.0.0", "phi-3-mini@1.0.0")
    found = store.inspect("phi-3-mini@1.0.0")
    assert found.in_store
    assert found.storage is not None
    assert sum(item.chunks for item in found.storage) == found.chunks
    assert sum(item.size_bytes for item in found.storage) == found.size_bytes
    by_name = {item.encoding: item for item in found.storage}
    assert by_name["planes"].stored_bytes < 0.8 * by_name["planes"].size_bytes
    assert set(by_name) <= {"raw", "zstd", "planes"}
    weights = next(file for file in found.files if file.path == "model.safetensors")
    assert (weights.format, weights.materialised) == ("safetensors", False)
    assert weights.sha256
    plain = store.inspect(str(folder / "1.0.0"))
    assert plain.types == found.types
    assert [file.tensors for file in plain.files] == [file.tensors for file in found.files]
    store.checkout("phi-3-mini@1.0.0")
    installed = store.inspect("phi-3-mini")
    assert installed.label == "phi-3-mini 1.0.0"
    assert all(file.materialised for file in installed.files)


def test_deltas_are_told_from_whole_chunks(store: Store, made_models: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    for version in ("1.0.0", "1.1.0"):
        Store.publish(made_models / "phi-3-mini" / version, f"phi-3-mini@{version}", registry=registry)
    store.add_registry("made", registry)
    before = store.inspect("phi-3-mini@1.1.0")
    assert (before.in_store, before.storage, before.parameters > 0) == (False, None, True)
    assert store.status().versions == 0  # its manifest came, and nothing else
    store.fetch("phi-3-mini@1.0.0")
    store.fetch("phi-3-mini@1.1.0")
    after = store.inspect("phi-3-mini@1.1.0")
    assert after.storage is not None
    assert "delta-planes" in {item.encoding for item in after.storage}
    assert after.types == before.types


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"", "empty"),
        ("words, and \u00fcml\u00e4uts \u2013 ".encode() * 9000, "text"),
        (random.Random(1).randbytes(300_000), "noise: compressed or encrypted"),
        (np.random.default_rng(2).normal(0, 0.05, 60_000).astype("<f4").tobytes(), "numbers of 4 bytes"),
        (bytes(range(200, 256)) * 4000, "bytes that compress"),
    ],
    ids=["empty", "text", "noise", "numbers", "bytes"],
)
def test_an_unknown_format_is_said_to_be_one(store: Store, tmp_path: Path, data: bytes, looks: str) -> None:
    path = tmp_path / "thing.dat"
    path.write_bytes(data)
    (file,) = store.inspect(str(path)).files
    assert (file.format, file.looks, file.tensors) == (None, looks, [])
    assert file.why == "it has an unknown format"


def test_a_damaged_header_says_what_is_odd(store: Store, tmp_path: Path, made_models: Path) -> None:
    whole = (made_models / "phi-3-mini" / "1.0.0" / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole[:100_000])
    (file,) = store.inspect(str(path)).files
    assert file.format is None
    assert file.why
    assert file.why.startswith("safetensors ")


def test_what_is_not_there_is_said(store: Store) -> None:
    with pytest.raises(NotFoundError):
        store.inspect("./nothing.gguf")
    with pytest.raises(NotFoundError):
        store.inspect("nothing@1.0.0")
    with pytest.raises(SpecError):
        store.inspect("no:thing:at@all@all")


@pytest.mark.models
def test_real_formats(store: Store) -> None:
    quantised = store.inspect(str(model_path("minilm-q4_0", "1.0.0")))
    assert (quantised.files[0].format, quantised.types[0].dtype) == ("gguf", "q4_0")
    assert 22_000_000 < quantised.parameters < 23_000_000
    (onnx,) = store.inspect(str(model_path("magika-onnx", "3.3.0"))).files
    assert onnx.format == "onnx"
