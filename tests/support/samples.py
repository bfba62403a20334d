"""Small files of every format, made by hand, and a checker that shares nothing with the readers."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yarnstore.core.layouts import BYTES, BytesSource, Layout, Segment, Tensor, element_type, read_layout
from yarnstore.core.layouts.model import make_layout

ROOT = Path(__file__).parents[2]


def model_file(relative: str) -> Path:
    """A real model, or a skip that says which is missing."""
    folder = Path(os.environ.get("YSTORE_TEST_MODELS", ROOT / "../shared/models"))
    path = folder / relative
    if not path.is_file():
        pytest.skip(f"no {path}; set YSTORE_TEST_MODELS to the folder of real models")
    return path


class FileSource:
    """A source over a file that counts what is asked of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.asked_bytes = 0

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= self.size
        assert length >= 0
        self.asked_bytes += length
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def read(data: bytes, name: str = "") -> Layout | None:
    return read_layout(BytesSource(data), name=name)


def check_layout(layout: Layout, size: int) -> None:
    """Every promise a layout makes, byte by byte where that is feasible."""
    assert layout.tensors
    names = [tensor.name for tensor in layout.tensors]
    assert len(set(names)) == len(names)
    previous_end = 0
    for tensor in layout.tensors:
        assert tensor.name
        assert tensor.name.encode().decode() == tensor.name
        assert not any(ord(char) < 32 for char in tensor.name)
        assert all(type(extent) is int and extent >= 0 for extent in tensor.shape)
        blocks = math.ceil(math.prod(tensor.shape) / tensor.dtype.block_elements)
        assert tensor.length == blocks * tensor.dtype.block_bytes
        assert previous_end <= tensor.offset
        previous_end = tensor.offset + tensor.length
    assert previous_end <= size


def check_segments(segments: list[Segment], size: int, most_bytes: int = 1 << 20) -> None:
    at = 0
    for offset, length, dtype in segments:
        assert offset == at
        assert length > 0
        assert length % dtype.block_bytes == 0
        assert dtype is BYTES or length <= most_bytes
        at += length
    assert at == size


def safetensors_file(header: object, data_bytes: int = 0, pad: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += pad
    return struct.pack("<Q", len(text)) + text + bytes(range(256)) * (data_bytes // 256 + 1)


def safetensors_sample() -> bytes:
    header = {
        "__metadata__": {"format": "pt", "shape": "a word", "dtype": "another"},
        "b.weight": {"dtype": "BF16", "shape": [4, 6], "data_offsets": [12, 60]},
        "a.bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "count": {"dtype": "I64", "shape": [], "data_offsets": [60, 68]},
        "none": {"dtype": "U8", "shape": [0, 5], "data_offsets": [68, 68]},
    }
    return safetensors_file(header, 68)[: 8 + len(json.dumps(header)) + 68]


def gguf_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_file(
    tensors: list[tuple[str, list[int], int, int]],
    data_bytes: int,
    *,
    version: int = 3,
    metadata: bytes = b"",
    keys: int = 0,
    alignment: int = 32,
) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), keys) + metadata
    for name, extents, kind, offset in tensors:
        head += gguf_string(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, kind, offset)
    return head + bytes(-len(head) % alignment) + bytes(i % 251 for i in range(data_bytes))


def gguf_sample() -> bytes:
    words = struct.pack("<IQ", 8, 3) + gguf_string("a") + gguf_string("bc") + gguf_string("")
    scores = struct.pack("<IQ", 6, 3) + struct.pack("<3f", 1, 2, 3)
    nested = struct.pack("<IQ", 9, 2) + 2 * (struct.pack("<IQ", 0, 3) + b"xyz")
    metadata = b"".join(
        (
            gguf_string("general.name") + struct.pack("<I", 8) + gguf_string("sample"),
            gguf_string("general.alignment") + struct.pack("<II", 4, 64),
            gguf_string("tokens") + struct.pack("<I", 9) + words,
            gguf_string("scores") + struct.pack("<I", 9) + scores,
            gguf_string("nested") + struct.pack("<I", 9) + nested,
            gguf_string("flag") + struct.pack("<IB", 7, 1),
        )
    )
    tensors = [("token_embd.weight", [64, 3], 2, 0), ("norm", [5], 0, 128), ("v", [256], 12, 192)]
    return gguf_file(tensors, 192 + 144, metadata=metadata, keys=6, alignment=64)


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_tensor(name: str, kind: int, dims: list[int], *rest: bytes, packed: bool = True) -> bytes:
    if packed:
        shape = field(1, b"".join(map(varint, dims))) if dims else b""
    else:
        shape = b"".join(field(1, extent) for extent in dims)
    return shape + field(2, kind) + field(8, name.encode()) + b"".join(rest)


def onnx_external(location: str, offset: int | None = None, length: int | None = None) -> bytes:
    pairs = [("location", location), ("offset", offset), ("length", length)]
    return field(14, 1) + b"".join(
        field(13, field(1, key.encode()) + field(2, str(value).encode()))
        for key, value in pairs
        if value is not None
    )


def onnx_file(*initializers: bytes, graph: bytes = b"") -> bytes:
    graph += field(2, b"main") + b"".join(field(5, each) for each in initializers)
    return field(1, 8) + field(2, b"test") + field(7, graph) + field(8, field(2, 17))


def onnx_sample() -> bytes:
    inner = field(2, b"then") + field(5, onnx_tensor("w", 1, [1100], field(9, bytes(4400))))
    attribute = field(1, b"then_branch") + field(6, inner) + field(20, 5)
    big_if = field(2, b"out") + field(3, b"if_1") + field(4, b"If") + field(5, attribute)
    constant = field(5, field(1, b"value") + field(5, onnx_tensor("", 10, [2100], field(9, bytes(4200)))))
    sparse = field(1, onnx_tensor("s", 1, [2], field(9, bytes(8)))) + field(
        2, onnx_tensor("", 7, [2], field(9, bytes(16)))
    )
    graph = (
        field(1, field(1, b"in") + field(4, b"Relu"))
        + field(1, big_if)
        + field(1, field(2, b"const_out") + field(4, b"Constant") + constant)
        + field(15, sparse)
    )
    return onnx_file(
        onnx_tensor("raw", 1, [2, 3], field(9, bytes(24))),
        onnx_tensor("unpacked dims", 11, [2], field(10, bytes(16)), packed=False),
        onnx_tensor("floats", 1, [3], field(4, bytes(12))),
        onnx_tensor("varints", 7, [3], field(7, b"\1\2\3")),
        onnx_tensor("nibbles", 22, [5], field(9, bytes(3))),
        onnx_tensor("text", 8, [1], field(6, b"hello")),
        onnx_tensor("far", 16, [4], onnx_external("weights.bin", 64, 8)),
        graph=graph,
    )


class Reference:
    """Pickled as the persistent id of a storage or a class, as `torch.save` does."""

    def __init__(self, *reference: object) -> None:
        self.reference = reference


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


class _Call:
    def __init__(self, name: str, *arguments: object) -> None:
        self.name = name
        self.arguments = arguments


class _TorchPickler(pickle._Pickler):
    """The standard pickler with PyTorch's globals and calls, which need not be importable; texts as those
    of Python 2 where `has_strings`."""

    has_strings = False

    def save(self, obj: object, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Reference):
            self.save(obj.reference)
            self.write(pickle.BINPERSID)
        elif isinstance(obj, Named):
            self.write(b"c" + obj.name.replace(" ", "\n").encode() + b"\n")
        elif isinstance(obj, _Call):
            self.save(Named(obj.name))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(obj, str) and self.has_strings:
            text = obj.encode()
            self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text)
        else:
            super().save(obj, save_persistent_id)


def torch_tensor(
    kind: str,
    key: str,
    count: int,
    shape: tuple[int, ...],
    start: int = 0,
    strides: tuple[int, ...] = (),
    view: tuple[object, ...] = (),
) -> _Call:
    strides = strides or tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    hooks = _Call("collections OrderedDict")
    return _Call(
        "torch._utils _rebuild_tensor_v2",
        Reference("storage", Named(f"torch {kind}"), key, "cpu", count, *view),
        start,
        shape,
        strides,
        False,
        hooks,
    )


def torch_file(
    state: object, storages: dict[str, bytes], *, pickled: bytes | None = None, order: bytes = b"little"
) -> bytes:
    if pickled is None:
        text = io.BytesIO()
        _TorchPickler(text, protocol=2).dump(state)
        pickled = text.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def torch_pickle_file(
    state: object,
    storages: dict[str, tuple[int, bytes]],
    *,
    protocol: int = 2,
    little_endian: bool = True,
    has_strings: bool = False,
    keys: list[str] | None = None,
) -> bytes:
    """A checkpoint from before PyTorch 1.6; `storages` have counts and bytes by key, in the file's order."""
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4}}
    out = io.BytesIO()
    chosen = list(storages) if keys is None else keys
    for value in (0x1950A86A20F9469CFC6C, 1001, system, state, chosen):
        pickler = _TorchPickler(out, protocol=protocol)
        pickler.has_strings = has_strings
        pickler.dump(value)
    for count, data in storages.values():
        out.write(struct.pack("<q", count) + data)
    return out.getvalue()


def torch_pickle_sample(**options: Any) -> bytes:
    storages = {"9": (6, bytes(12)), "10": (4, bytes(32)), "11": (6, bytes(24)), "12": (3, bytes(3))}
    state = {
        "w": torch_tensor("FloatStorage", "11", 6, (2, 3)),
        "tied": torch_tensor("FloatStorage", "11", 6, (2, 3)),
        "model": {
            "b": _Call("torch._utils _rebuild_parameter", torch_tensor("HalfStorage", "9", 6, (6,)), True, {})
        },
        "halves": [
            torch_tensor("LongStorage", "10", 4, (2,)),
            torch_tensor("LongStorage", "10", 4, (1, 2), start=2),
        ],
        "bytes": torch_tensor("ByteStorage", "12", 3, (3,)),
        "step": 7,
    }
    return torch_pickle_file(state, storages, **options)


def torch_sample() -> bytes:
    state = {
        "w": torch_tensor("FloatStorage", "0", 6, (2, 3)),
        "tied": torch_tensor("FloatStorage", "0", 6, (2, 3)),
        "model": {
            "b": _Call("torch._utils _rebuild_parameter", torch_tensor("HalfStorage", "1", 4, (4,)), True, {})
        },
        "halves": [
            torch_tensor("LongStorage", "2", 4, (2,)),
            torch_tensor("LongStorage", "2", 4, (1, 2), start=2),
        ],
        "turned": torch_tensor("ByteStorage", "3", 6, (3, 2), strides=(1, 3)),
        "lr": 0.5,
        "step": 1 << 40,
    }
    return torch_file(state, {"0": bytes(24), "1": bytes(8), "2": bytes(32), "3": bytes(6), "4": bytes(5)})


def npy_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz_sample() -> bytes:
    out = io.BytesIO()
    np.savez(
        out,
        floats=np.arange(6, dtype=np.float32).reshape(2, 3),
        text=np.array(["a", "b"]),
        deep=np.asfortranarray(np.ones((3, 4), np.int16)),
    )
    return out.getvalue()


SAMPLES = {
    "safetensors": safetensors_sample,
    "gguf": gguf_sample,
    "onnx": onnx_sample,
    "torch": torch_sample,
    "torch pickle": torch_pickle_sample,
    "npy": lambda: npy_bytes(np.arange(10, dtype="<f8").reshape(5, 2)),
    "npz": npz_sample,
}


def lay(*sizes_and_types: tuple[int, str] | int, at: int = 100) -> tuple[Layout, int]:
    """Tensors one after another from `at` on; a bare number is a gap."""
    tensors = []
    for number, item in enumerate(sizes_and_types):
        if isinstance(item, int):
            at += item
            continue
        dtype = element_type(item[1])
        count = item[0] // dtype.block_bytes * dtype.block_elements
        tensors.append(Tensor(f"t{number}", dtype, (count,), at, item[0]))
        at += item[0]
    return make_layout("safetensors", tensors, at), at
