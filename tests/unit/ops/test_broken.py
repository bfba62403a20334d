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
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
INDEX = json.dumps({"weight_map": {"w": "gone.safetensors"}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("m.safetensors", SAFETENSORS[:-1], "m.safetensors is cut"),
        ("m.safetensors", SAFETENSORS[:30], "m.safetensors is cut"),
        ("m.safetensors", b"", "m.safetensors is empty"),
        ("m.gguf", GGUF[:-1], "m.gguf is cut"),
        ("m.gguf", GGUF[:40], "m.gguf is cut"),
        ("m.onnx", b"\x08\x07\x3a\x7fab", "m.onnx is cut"),
        ("w.bin", POINTER, "w.bin is a Git LFS pointer"),
        ("w.bin", b"\n<!DOCTYPE html><p>", "w.bin is a web page"),
        ("m-00001-of-00002.gguf", b"x", "m-00002-of-00002.gguf is missing"),
        ("a.index.json", INDEX, "gone.safetensors is missing, which a.index.json names"),
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
    assert any(note.startswith("pytorch_model.bin.index.json names files") for note in notes)
    (tmp_path / "s" / "pytorch_model.bin").write_bytes(SAFETENSORS)
    index = json.dumps({"weight_map": {"w": "pytorch_model.bin", "v": "other.bin"}})
    (tmp_path / "s" / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(FormatError, match="is missing, which pytorch"):
        Store.publish(tmp_path / "s", "m@2.0.0", registry=tmp_path / "reg")
