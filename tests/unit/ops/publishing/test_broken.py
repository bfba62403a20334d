"""Files that are no whole model are refused by name, unless they are forced; others never are."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from yarnstore import Store
from yarnstore.errors import FormatError

_HEADER = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
SAFETENSORS = len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(16)
GGUF = (struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + struct.pack("<Q1sIQIQ", 1, b"w", 1, 8, 0, 0)).ljust(
    64, b"\0"
) + bytes(32)


def _message(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def onnx(location: bytes, *, length: int) -> bytes:
    """A model with one tensor of bytes, kept in a file beside it from byte 4 on."""
    pairs = {b"location": location, b"offset": b"4"}
    entries = b"".join(_message(13, _message(1, key) + _message(2, value)) for key, value in pairs.items())
    tensor = bytes([1 << 3, length, 2 << 3, 2]) + _message(8, b"w") + entries + bytes([14 << 3, 1])
    return bytes([1 << 3, 7]) + _message(7, _message(5, tensor))


ONNX = onnx(b"w.data", length=16)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
INDEX = json.dumps({"weight_map": {"w": "gone.safetensors"}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("m.safetensors", SAFETENSORS[:-1], "m.safetensors is truncated"),
        ("m.safetensors", SAFETENSORS[:30], "m.safetensors is truncated"),
        ("m.safetensors", b"", "m.safetensors is empty"),
        ("m.gguf", GGUF[:-1], "m.gguf is truncated"),
        ("m.gguf", GGUF[:40], "m.gguf is truncated"),
        ("m.onnx", b"\x08\x07\x3a\x7fab", "m.onnx is truncated"),
        ("m.onnx", b"\x08\x07\x3a\xff", "m.onnx is truncated"),
        ("m.onnx", ONNX[:-1], "m.onnx is truncated"),
        ("m.onnx", ONNX, "w.data is missing, but m.onnx lists it"),
        ("w.bin", POINTER, "w.bin is a Git LFS pointer"),
        ("w.bin", b"\n<!DOCTYPE html><p>", "w.bin is a web page"),
        ("m-00001-of-00002.gguf", b"x", "m-00002-of-00002.gguf is missing"),
        ("a.index.json", INDEX, "gone.safetensors is missing, but a.index.json lists it"),
    ],
)
def test_broken_files_are_refused_and_forced(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / name).write_bytes(data)
    with pytest.raises(FormatError, match=said):
        Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg")
    assert not (tmp_path / "reg").exists()
    assert Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg", force=True).changed
    assert not Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg").changed


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes(20), ""),
        (bytes(19), "sub/w.data is truncated: sub/m.onnx needs 20 bytes"),
        (POINTER[:9], "is truncated"),
    ],
)
def test_files_of_tensors_are_looked_at_beside_the_onnx_model(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "s" / "sub").mkdir(parents=True)
    (tmp_path / "s" / "sub" / "m.onnx").write_bytes(onnx(b"./w.data", length=16))
    (tmp_path / "s" / "sub" / "w.data").write_bytes(data)
    if not said:
        assert Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg").changed
        return
    with pytest.raises(FormatError, match=said):
        Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        # A field of a message within that is longer than the message, in a file that is whole.
        ("m.onnx", bytes([8, 7]) + _message(7, bytes([5 << 3 | 2, 9, 1, 2])) + _message(8, bytes(60))),
        # A number of eleven bytes.
        ("m.onnx", bytes([8, 7, 0x38]) + b"\xff" * 11 + bytes(40)),
        ("m.safetensors", (9).to_bytes(8, "little") + b'{"w": {}}'),
        ("m.gguf", b"GGUF\x09\0\0\0"),
    ],
)
def test_files_that_are_odd_but_not_cut_are_published(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    assert Store.publish(tmp_path / name, "m@1.0.0", registry=tmp_path / "reg").changed


def test_import_warns_and_takes_them(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "m.safetensors").write_bytes(SAFETENSORS[:-1])
    (tmp_path / "s" / "w.bin").write_bytes(POINTER)
    (tmp_path / "s" / "m-00001-of-00002.gguf").write_bytes(GGUF)
    (tmp_path / "s" / "p.bin").write_bytes(b"<html> not found")
    notes: list[str] = []
    store = Store.open(tmp_path / "home")
    done = store.import_model(tmp_path / "s", "m@1.0.0", progress=lambda told: notes.append(told.text))
    assert [fault.split(" is ")[0] for fault in done.broken] == [
        "m.safetensors",
        "p.bin",
        "w.bin",
        "m-00002-of-00002.gguf",
    ]
    assert any(note.startswith("warning: m.safetensors is truncated") for note in notes)
    assert store.checkout("m@1.0.0").version == "1.0.0"
    (tmp_path / "m.safetensors").write_bytes(SAFETENSORS)
    assert store.import_model(tmp_path / "m.safetensors", "n@1.0.0").broken == []


def test_lint_with_decode_warns_of_what_was_forced(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "m.onnx").write_bytes(ONNX)
    (tmp_path / "s" / "m.gguf").write_bytes(GGUF[:-1])
    notes: list[str] = []
    registry = tmp_path / "reg"
    Store.publish(
        tmp_path / "s",
        "m@1.0.0",
        registry=registry,
        changelog="Forced",
        force=True,
        progress=lambda told: notes.append(told.text),
    )
    assert any(note.startswith("warning: m.gguf is truncated") for note in notes)
    found = Store.open(tmp_path / "home").lint_registry(registry, decode=True).findings
    said = [item.message for item in found if item.severity == "warning" and "manifests/" in item.path]
    assert [text.partition(":")[0] for text in said] == [
        "m.gguf is truncated",
        "w.data is missing, but m.onnx lists it",
    ]
    assert not [item for item in found if item.severity == "error"]
    deep = Store.open(tmp_path / "home").lint_registry(registry, deep=True).findings
    assert not [item for item in deep if "manifests/" in item.path]


def test_whole_and_unknown_files_are_published(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for name, data in {
        "m.safetensors": SAFETENSORS,
        "m.gguf": GGUF,
        "odd.safetensors": b"weights, or so",
        "odd.onnx": b"weights",
        "page.html": b"<html>",
        "README.md": b"<html>",
        "a-00000-of-00001": b"",
        "other.index.json": b"[]",
    }.items():
        (tmp_path / "s" / name).write_bytes(data)
    assert Store.publish(tmp_path / "s", "m@1.0.0", registry=tmp_path / "reg").changed


def test_an_index_left_over_from_another_format_is_only_noted(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "m.safetensors").write_bytes(SAFETENSORS)
    index = json.dumps({"weight_map": {"w": "pytorch_model.bin"}})
    (tmp_path / "s" / "pytorch_model.bin.index.json").write_text(index)
    notes: list[str] = []
    Store.publish(
        tmp_path / "s",
        "m@1.0.0",
        registry=tmp_path / "reg",
        progress=lambda told: notes.append(told.text),
    )
    assert any(note.startswith("pytorch_model.bin.index.json lists files") for note in notes)
    (tmp_path / "s" / "pytorch_model.bin").write_bytes(SAFETENSORS)
    index = json.dumps({"weight_map": {"w": "pytorch_model.bin", "v": "other.bin"}})
    (tmp_path / "s" / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(FormatError, match="is missing, but pytorch"):
        Store.publish(tmp_path / "s", "m@2.0.0", registry=tmp_path / "reg")
