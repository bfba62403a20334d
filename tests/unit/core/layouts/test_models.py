"""Real models, and what the formats' own libraries say of the same files, where they are installed."""

from __future__ import annotations

import io
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.samples import FileSource, check_layout, check_segments, model_file, read
from yarnstore.core.layouts import (
    BYTES,
    ELEMENT_TYPES,
    BytesSource,
    Layout,
    cut_segments,
    external_layouts,
    layout_from_json,
    layout_to_json,
    parse_layout,
)
from yarnstore.core.layouts.gguf import _TYPES
from yarnstore.core.layouts.model import count_elements
from yarnstore.errors import FormatError

REAL = {
    "minilm-bf16/1.0.0/model.safetensors": ("safetensors", 104, 0.99),
    "minilm-q4_0/1.0.0/minilm-q4_0.gguf": ("gguf", 103, 0.95),
    "magika-onnx/3.0.0/model.onnx": ("onnx", 36, 0.98),
}


def parse_file(path: Path) -> Layout:
    return parse_layout(FileSource(path), name=path.name)


@pytest.mark.parametrize("relative", REAL)
def test_a_real_model(relative: str) -> None:
    source = FileSource(model_file(relative))
    layout = parse_layout(source)
    check_layout(layout, source.size)
    name, count, share = REAL[relative]
    assert (layout.format, len(layout.tensors)) == (name, count)
    assert source.asked_bytes < 1 << 20  # headers only
    segments = cut_segments(layout, source.size)
    check_segments(segments, source.size)
    assert sum(s.length for s in segments if s.dtype is not BYTES) > share * source.size
    assert layout_from_json(layout_to_json(layout), source.size) == layout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("minilm-bf16/1.1.0/model.safetensors", "minilm-bf16/1.2.0/model.safetensors"),
        ("minilm-q4_0/1.0.0/minilm-q4_0.gguf", "minilm-q4_0/1.1.0/minilm-q4_0.gguf"),
    ],
)
def test_versions_of_a_model_have_one_layout(old: str, new: str) -> None:
    assert parse_file(model_file(old)) == parse_file(model_file(new))


def test_segments_of_untouched_layers_dedupe() -> None:
    old, new = (model_file(f"minilm-bf16/1.{minor}.0/model.safetensors") for minor in (1, 2))
    chunks = []
    for path in (old, new):
        data = path.read_bytes()
        segments = cut_segments(parse_file(path), len(data))
        chunks.append({data[s.offset : s.offset + s.length] for s in segments})
    # The last two of six layers were trained: 7.1 MB of 45.4.
    assert sum(map(len, chunks[1] - chunks[0])) < 7.2e6


def test_safetensors_agrees_with_its_library() -> None:
    library = pytest.importorskip("safetensors")
    path = model_file("minilm-bf16/1.0.0/model.safetensors")
    layout = parse_file(path)
    with library.safe_open(path, "numpy") as opened:
        theirs = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    assert {tensor.name: tensor.shape for tensor in layout.tensors} == theirs


def test_gguf_agrees_with_its_library() -> None:
    gguf = pytest.importorskip("gguf")
    path = model_file("minilm-q4_0/1.0.0/minilm-q4_0.gguf")
    theirs = {
        t.name: (t.tensor_type.name.lower(), tuple(map(int, t.shape[::-1])), t.data_offset, t.n_bytes)
        for t in gguf.GGUFReader(path).tensors
    }
    assert {t.name: (t.dtype.name, t.shape, t.offset, t.length) for t in parse_file(path).tensors} == theirs


def test_ggml_types_agree_with_its_library() -> None:
    gguf = pytest.importorskip("gguf")
    for kind, sizes in gguf.GGML_QUANT_SIZES.items():
        ours = _TYPES[int(kind)]
        assert ours.name == kind.name.lower()
        if kind.name != "Q8_1":  # theirs still has the scales of 4 bytes it had in 2023
            assert (ours.block_elements, ours.block_bytes) == sizes
    assert len(_TYPES) >= len(gguf.GGML_QUANT_SIZES)


def test_onnx_agrees_with_its_library(tmp_path: Path) -> None:
    onnx: Any = pytest.importorskip("onnx")
    path = model_file("magika-onnx/3.0.0/model.onnx")
    model = onnx.load(path)
    data = path.read_bytes()
    for tensor in parse_file(path).tensors:
        (theirs,) = [each for each in model.graph.initializer if each.name == tensor.name]
        assert tuple(theirs.dims) == tensor.shape
        assert theirs.raw_data == data[tensor.offset : tensor.end]
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    weights = (tmp_path / "m.data").read_bytes()
    layouts = external_layouts(FileSource(tmp_path / "m.onnx"), {"m.data": len(weights)})
    stored = {each.name: each.raw_data for each in onnx.load(path).graph.initializer}
    assert len(layouts["m.data"].tensors) == len([each for each in stored.values() if each])
    for tensor in layouts["m.data"].tensors:
        assert stored[tensor.name] == weights[tensor.offset : tensor.end]


def test_torch_agrees_with_its_library() -> None:
    torch: Any = pytest.importorskip("torch")
    dtypes = ("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 "
              "float8_e4m3fn float8_e5m2 uint16 uint32 uint64")  # fmt: skip
    state = {name: torch.zeros(3, 5).to(getattr(torch, name)) for name in dtypes.split()}
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.BatchNorm1d(5))
    base = torch.arange(24.0).reshape(4, 6)
    state |= {"model": model.state_dict(), "whole": base, "rows": base[1:3], "turned": torch.ones(4, 6).t()}
    out = io.BytesIO()
    torch.save(state, out)
    data = out.getvalue()
    layout = read(data)
    assert layout is not None
    check_layout(layout, len(data))
    ours = {tensor.name: tensor for tensor in layout.tensors}
    for name in dtypes.split():
        assert ours[name].shape == (3, 5)
        assert ours[name].dtype.block_bytes == state[name].element_size()
    assert ours["whole"].shape == (24,)  # `rows` is a view of it
    assert ours["turned"].shape == (24,)
    for name, tensor in model.state_dict().items():
        stored = data[ours[f"model.{name}"].offset : ours[f"model.{name}"].end]
        assert ours[f"model.{name}"].shape == tuple(tensor.shape)
        assert stored == tensor.numpy().tobytes()
    out = io.BytesIO()
    torch.save(model, out)  # a whole module, class and all
    named = {tensor.name for tensor in (read(out.getvalue()) or Layout("", ())).tensors}
    assert "_modules.0._parameters.weight" in named


def test_element_names_are_numpys() -> None:
    for letter, name in (("f", "float"), ("i", "int"), ("u", "uint")):
        for width in (2, 4, 8):
            assert ELEMENT_TYPES[f"{letter}{8 * width}"].width == np.dtype(f"{name}{8 * width}").itemsize


def hostile() -> dict[str, bytes]:
    """Files that ask for as much work as the limits allow."""
    from tests.support.samples import (
        Named,
        Reference,
        field,
        gguf_file,
        gguf_string,
        onnx_file,
        safetensors_file,
        torch_file,
        torch_pickle_file,
    )

    many = ",".join(
        f'"{i}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{i + 1}]}}' for i in range(200_000)
    )
    emoji = '"' + "😀" + "a" * (31 << 20) + '":{}'
    words = gguf_string("t") + struct.pack("<IIQ", 9, 8, 1_900_000) + struct.pack("<QB", 1, 65) * 1_900_000
    nested = gguf_string("t") + struct.pack("<IIQ", 9, 9, 60_000) + struct.pack("<IQB", 0, 1, 0) * 60_000
    infos = [(str(i), [1], 24, 32 * i) for i in range(200_000)]
    return {
        "safetensors of 200 000 tensors": safetensors_file(f"{{{many}}}".encode(), 200_000),
        "safetensors of one name": safetensors_file(f"{{{emoji}}}".encode()),
        "safetensors of numbers": safetensors_file(b'{"a":{"shape":[' + b"1000," * 3_000_000 + b"1]}}"),
        "safetensors of blanks": safetensors_file(b"{" + b" " * (30 << 20) + b"}"),
        "gguf of strings": gguf_file([("a", [1], 24, 0)], 32, metadata=words, keys=1),
        "gguf of arrays": gguf_file([("a", [1], 24, 0)], 32, metadata=nested, keys=1),
        "gguf of 200 000 tensors": gguf_file(infos, 32 * 200_000),
        "onnx of fields": onnx_file(graph=field(2, b"") * 600_000),
        "onnx of tensors": onnx_file(
            *[field(8, b"%d" % i) + field(2, 1) + field(9, b"1234") for i in range(120_000)]
        ),
        "pickle of marks": torch_file(None, {"0": b"1"}, pickled=b"(" * 2_100_000),
        "pickle of lists": torch_file(None, {"0": b"1"}, pickled=b"]" + b"]a" * 1_000_000 + b"."),
        "pickle of doubling": torch_file(
            None, {"0": b"1"}, pickled=b"]q\0" + b"h\0h\0\x86q\0" * 380_000 + b"."
        ),
        "old torch of marks": torch_pickle_file(None, {}).partition(b"N.")[0] + b"(" * 17_000_000,
        "old torch of storages": torch_pickle_file(
            [Reference("storage", Named("torch ByteStorage"), str(n), "cpu", 1) for n in range(70_000)],
            {str(n): (1, b"1") for n in range(70_000)},
        ),
    }


@pytest.mark.deep
def test_the_worst_files_are_bounded() -> None:
    import tracemalloc

    for name, data in hostile().items():
        source = BytesSource(data)
        started = time.process_time()
        read(data, "m.onnx")
        took = time.process_time() - started
        tracemalloc.start()
        read(source.data, "m.onnx")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{name}: {took:.2f} s, {peak >> 20} MiB")
        assert took < 3, name  # 1 s on the machine this was written on
        assert peak < 256 << 20, name


@pytest.mark.parametrize(("extent", "good"), [(2**53 - 1, True), (2**53, False), (2**60, False)])
def test_every_extent_can_be_written_in_a_manifest(extent: int, good: bool) -> None:
    if good:
        assert count_elements([0, extent], "x") == 0
    else:
        with pytest.raises(FormatError, match="dimension"):
            count_elements([0, extent], "x")
