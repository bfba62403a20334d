"""PyTorch checkpoints from before 1.6: what the reader finds in files made by hand, and in PyTorch's own."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest

from tests.support.samples import (
    Named,
    Reference,
    check_layout,
    check_segments,
    read,
    torch_pickle_file,
    torch_pickle_sample,
    torch_tensor,
)
from yarnstore.core.layouts import BytesSource, cut_segments, layout_from_json, layout_to_json, parse_layout
from yarnstore.errors import FormatError


def found(data: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    layout = read(data)
    assert layout is not None
    check_layout(layout, len(data))
    assert layout.format == "torch"
    assert layout_from_json(layout_to_json(layout), len(data)) == layout
    return {tensor.name: (tensor.dtype.name, tensor.shape) for tensor in layout.tensors}


SAMPLE = {
    "model.b": ("f16", (6,)),
    "halves.0": ("i64", (2,)),
    "halves.1": ("i64", (1, 2)),
    "w": ("f32", (2, 3)),
    "bytes": ("u8", (3,)),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_are_found_in_the_order_of_the_file(protocol: int) -> None:
    assert list(found(torch_pickle_sample(protocol=protocol)).items()) == list(SAMPLE.items())


def test_texts_of_python_2_are_names_and_keys() -> None:
    assert found(torch_pickle_sample(has_strings=True)) == SAMPLE


def test_bytes_written_without_a_pickler_are_read() -> None:
    numbers = np.arange(5, dtype="<f4")
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((U\7storagectorch\nFloatStorage\nU\1kU\3cpuK\5Ntq\1Q"
        b"K\0K\5\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    data = (
        b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
        b"\x80\2M\xe9\3."
        b"\x80\2}U\rlittle_endian\x88s."
        b"\x80\2}X\1\0\0\0w" + tensor + b"s."
        b"\x80\2]U\1ka."
    ) + struct.pack("<q", 5)
    layout = read(data + numbers.tobytes())
    assert layout is not None
    (tensor_found,) = layout.tensors
    assert tensor_found[0] == "w"
    assert tensor_found.offset == len(data)
    assert tensor_found.shape == (5,)
    assert tensor_found.dtype.name == "f32"


def test_numbers_at_odd_offsets_are_cut_at_their_borders() -> None:
    count = 700_001
    for shift in range(4):
        state = {"x" * (1 + shift): torch_tensor("FloatStorage", "1", count, (count,))}
        data = torch_pickle_file(state, {"1": (count, bytes(4 * count))})
        layout = read(data)
        assert layout is not None
        (tensor,) = layout.tensors
        segments = cut_segments(layout, len(data))
        check_segments(segments, len(data))
        inside = [each for each in segments if each.offset >= tensor.offset]
        assert [each.length for each in inside] == [1 << 20, 1 << 20, 4 * count - (2 << 20)]
        assert all((each.offset - tensor.offset) % 4 == 0 for each in inside)


def test_a_class_may_be_saved_with_its_source() -> None:
    net = Reference("module", Named("__main__ Net"), "net.py", "class Net: pass")
    state = {"kind": net, "w": torch_tensor("FloatStorage", "1", 2, (2,))}
    assert found(torch_pickle_file(state, {"1": (2, bytes(8))})) == {"w": ("f32", (2,))}


def _one(kind: str = "FloatStorage", count: int = 6, *, stated: int = 6, **options: Any) -> bytes:
    state = {"a": torch_tensor(kind, "0", stated, (6,), view=options.pop("view", ()))}
    return torch_pickle_file(state, {"0": (count, bytes(24))}, **options)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_one(little_endian=False), id="big-endian"),
        pytest.param(_one(keys=["1"]), id="storage without a reference"),
        pytest.param(_one(keys=["0", "0"]), id="storage twice"),
        pytest.param(_one(keys=[]), id="no storages"),
        pytest.param(_one(count=5), id="another count"),
        pytest.param(_one(count=-1, stated=-1), id="negative count"),
        pytest.param(_one(count=1 << 62, stated=1 << 62), id="huge count"),
        pytest.param(_one("QUInt4x2Storage"), id="unknown type"),
        pytest.param(_one(view=(("0", 0, 6),)), id="part of another storage"),
        pytest.param(_one()[:-1], id="cut storage"),
        pytest.param(_one()[:150], id="cut pickle"),
        pytest.param(_one().replace(b"M\xe9\x03.", b"M\xe8\x03.", 1), id="another version"),
        pytest.param(_one()[:14], id="magic number alone"),
    ],
)
def test_files_with_faults_have_no_layout(data: bytes) -> None:
    layout = read(data)
    assert layout is None or not layout.tensors


def test_a_storage_that_ends_early_is_named_as_cut() -> None:
    with pytest.raises(FormatError) as caught:
        parse_layout(BytesSource(_one()[:-1]))
    assert caught.value.is_cut


def test_a_long_pickle_is_read_in_growing_blocks() -> None:
    names = [f"layers.{n}.{'long' * 20}" for n in range(12_000)]
    state = {name: torch_tensor("HalfStorage", str(n), 1, (1,)) for n, name in enumerate(names)}
    data = torch_pickle_file(state, {str(n): (1, b"ab") for n in range(len(names))})
    assert len(data) > 2 << 20
    assert list(found(data)) == names


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_files_of_pytorch_are_read(dtype: str) -> None:
    torch: Any = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    base = torch.randn(40, 30).to(kind)
    shared = torch.arange(24.0).to(kind)
    state = {
        "first": torch.randn(300, 70).to(kind),
        "model": torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.BatchNorm1d(5)).to(kind).state_dict(),
        "tied": base,
        "also": base,
        "head": shared[:10],
        "rest": shared[10:].reshape(2, 7),
        "inner": torch.ones(4, 6).to(kind)[1:3],
        "turned": torch.ones(4, 6).to(kind).t(),
        "empty": torch.zeros(0, 3).to(kind),
        "narrow": torch.zeros(5).to(torch.float8_e4m3fn),
    }
    out = io.BytesIO()
    torch.save(state, out, _use_new_zipfile_serialization=False)
    data = out.getvalue()
    layout = read(data)
    assert layout is not None
    check_layout(layout, len(data))
    ours = {tensor.name: tensor for tensor in layout.tensors}
    wanted = {name: tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
    wanted |= {f"model.{name}": tensor for name, tensor in state["model"].items()}
    assert set(wanted) - set(ours) == {"also"} | ({"empty"} - set(ours))
    for name in {"first", "tied", "head", "rest", "narrow"} | {each for each in ours if "model." in each}:
        tensor = ours[name]
        assert tensor.shape == tuple(wanted[name].shape)
        stored = wanted[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert data[tensor.offset : tensor.end] == stored, name
    assert ours["inner"].shape == ours["turned"].shape == (24,)
    out = io.BytesIO()
    torch.save(torch.nn.Linear(7, 5), out, _use_new_zipfile_serialization=False)
    assert {"_parameters.weight", "_parameters.bias"} <= set(found(out.getvalue()))
