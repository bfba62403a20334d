"""What each reader finds in files made by hand, and what it refuses."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest

from tests.support.samples import (
    SAMPLES,
    check_layout,
    field,
    gguf_file,
    gguf_string,
    npy_bytes,
    onnx_external,
    onnx_file,
    onnx_tensor,
    read,
    safetensors_file,
    torch_file,
    torch_tensor,
)
from yarnstore.core.layouts import ELEMENT_TYPES, BytesSource, external_layouts, parse_layout
from yarnstore.errors import FormatError


def found(data: bytes, name: str = "") -> dict[str, tuple[str, tuple[int, ...]]]:
    layout = read(data, name)
    assert layout is not None
    check_layout(layout, len(data))
    return {tensor.name: (tensor.dtype.name, tensor.shape) for tensor in layout.tensors}


def bytes_of(data: bytes, name: str) -> bytes:
    layout = read(data)
    assert layout is not None
    (tensor,) = [each for each in layout.tensors if each.name == name]
    return data[tensor.offset : tensor.end]


def test_every_scale_range_lies_in_its_block() -> None:
    for element in ELEMENT_TYPES.values():
        ranges = [0, *(edge for pair in element.scales for edge in pair), element.block_bytes]
        assert ranges == sorted(ranges), element
        assert all(start < stop for start, stop in element.scales)
        assert (element.kind == "block") == bool(element.scales), element
        assert element.kind in ("block", "bytes") or element.block_bytes in (element.width, 2 * element.width)


def test_safetensors() -> None:
    assert found(SAMPLES["safetensors"]()) == {
        "a.bias": ("f32", (3,)),
        "b.weight": ("bf16", (4, 6)),
        "count": ("i64", ()),
        "none": ("u8", (0, 5)),
    }


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_of_less_than_a_byte_an_element() -> None:
    header = {
        "q": entry(0, 6, [3, 4], "F4"),
        "r": entry(6, 9, [4], "F6_E2M3"),
        "s": entry(9, 10, [1], "F8_E8M0"),
    }
    assert found(safetensors_file(header))["q"] == ("f4_e2m1", (3, 4))


def test_tied_tensors_keep_the_first_name() -> None:
    header = {"z": entry(0, 8, [2]), "a": entry(0, 8, [2])}
    assert list(found(safetensors_file(header))) == ["z"]


@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, id="overlap"),
        pytest.param({"a": entry(0, 8, [2]), "b": entry(0, 4, [1])}, id="overlap from the same start"),
        pytest.param({"a": entry(4, 12, [2]), "b": entry(8, 8, [0])}, id="empty inside another"),
        pytest.param({"a": entry(0, 8, [3])}, id="shape of more bytes"),
        pytest.param({"a": entry(8, 0, [2])}, id="backwards"),
        pytest.param({"a": entry(-8, 0, [2])}, id="negative offset"),
        pytest.param({"a": entry(0, 8, [-1, -2])}, id="negative shape"),
        pytest.param({"a": entry(0, 1 << 40, [1 << 38])}, id="out of the file"),
        pytest.param({"a": entry(0, 0, [1 << 62, 1 << 62, 0])}, id="overflow"),
        pytest.param({"a": entry(0, 1 << 70, [1 << 68])}, id="beyond 64 bits"),
        pytest.param({"a": entry(0, 0, [1] * 65 + [0])}, id="rank"),
        pytest.param({"a": entry(0, 8, [2], "F33")}, id="unknown type"),
        pytest.param({"": entry(0, 8, [2])}, id="no name"),
        pytest.param({"a\x1b[2J": entry(0, 8, [2])}, id="escape in a name"),
        pytest.param({"a\ud800": entry(0, 8, [2])}, id="surrogate in a name"),
        pytest.param({"n" * 1025: entry(0, 8, [2])}, id="long name"),
        pytest.param({"a": {"dtype": "F32", "shape": [2]}}, id="no offsets"),
        pytest.param({"a": 5}, id="not an object"),
        pytest.param([1], id="not a map"),
        pytest.param({}, id="no tensors"),
        pytest.param(b'{"a":' * 20000 + b"1" + b"}" * 20000, id="deep objects"),
        pytest.param(b'{"a":{"x":' + b"[" * 100000 + b"]" * 100000 + b"}}", id="deep lists"),
        pytest.param(
            b'{"a":{"dtype":"F32","shape":[' + b"9" * 9999 + b'],"data_offsets":[0,4]}}', id="digits"
        ),
        pytest.param(b'{"a":{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}}', id="float"),
        pytest.param(b'{"a\xff":{}}', id="not UTF-8"),
    ],
)
def test_safetensors_refused(header: object) -> None:
    assert read(safetensors_file(header, 64)) is None


def test_gguf() -> None:
    data = SAMPLES["gguf"]()
    assert found(data) == {
        "token_embd.weight": ("q4_0", (3, 64)),
        "norm": ("f32", (5,)),
        "v": ("q4_k", (256,)),
    }
    assert bytes_of(data, "norm") == bytes(i % 251 for i in range(128, 148))
    assert found(data.replace(b"GGUF\3", b"GGUF\2")) == found(data)


def aligned_by(alignment: int) -> dict[str, object]:
    return {"metadata": gguf_string("general.alignment") + struct.pack("<II", 4, alignment), "keys": 1}


@pytest.mark.parametrize(
    ("tensors", "options"),
    [
        pytest.param([("a", [2], 0, 0)], {"version": 1}, id="version 1"),
        pytest.param([("a", [2], 0, 0)], {"version": 3 << 24}, id="big-endian"),
        pytest.param([("a", [2], 0, 0)], {"version": 4}, id="version 4"),
        pytest.param([("a", [2], 31, 0)], {}, id="withdrawn type"),
        pytest.param([("a", [16], 2, 0)], {}, id="half a block"),
        pytest.param([("a", [16, 2], 2, 0)], {}, id="rows of half a block"),
        pytest.param([("a", [2], 0, 8)], {}, id="not aligned"),
        pytest.param([("a", [2], 0, 0), ("a", [2], 0, 32)], {}, id="one name twice"),
        pytest.param([("a", [16], 0, 0), ("b", [2], 0, 32)], {}, id="overlap"),
        pytest.param([("a", [2], 0, 1 << 63)], {}, id="far offset"),
        pytest.param([("a", [1 << 62, 1 << 62], 0, 0)], {}, id="overflow"),
        pytest.param([("a", [1] * 9, 0, 0)], {}, id="rank"),
        pytest.param([("a", [2], 0, 0)], {"keys": 1 << 60}, id="more keys than bytes"),
        pytest.param([("a", [2], 0, 0)], aligned_by(0), id="alignment 0"),
        pytest.param([("a", [2], 0, 0)], aligned_by(24), id="alignment 24"),
        pytest.param(
            [("a", [2], 0, 0)], {"metadata": gguf_string("k") + struct.pack("<I", 13), "keys": 1}, id="type"
        ),
        pytest.param(
            [("a", [2], 0, 0)],
            {"metadata": gguf_string("k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 50, "keys": 1},
            id="deep arrays",
        ),
        pytest.param(
            [("a", [2], 0, 0)],
            {"metadata": gguf_string("k") + struct.pack("<IIQ", 9, 8, 1 << 50), "keys": 1},
            id="endless array",
        ),
    ],
)
def test_gguf_refused(tensors: list[tuple[str, list[int], int, int]], options: dict[str, object]) -> None:
    assert read(gguf_file(tensors, 256, **options)) is None  # type: ignore[arg-type]


def test_onnx() -> None:
    data = SAMPLES["onnx"]()
    assert found(data) == {
        "raw": ("f32", (2, 3)),
        "unpacked dims": ("f64", (2,)),
        "floats": ("f32", (3,)),
        "nibbles": ("i4", (5,)),
        "if_1/then_branch/w": ("f32", (1100,)),
        "const_out/value": ("f16", (2100,)),
        "s": ("f32", (2,)),
        "s.indices": ("i64", (2,)),
    }
    assert found(data[2:] + data[:2], "model.onnx") == found(data)  # fields come in any order
    assert read(data[2:] + data[:2]) is None  # and without a name nothing says that this is ONNX


def test_onnx_external_data() -> None:
    tensors = [
        onnx_tensor("a", 1, [4], onnx_external("w/weights.bin", 64, 16)),
        onnx_tensor("b", 1, [4], onnx_external("./w/weights.bin")),
        onnx_tensor("tied", 1, [4], onnx_external("w/weights.bin", 0)),
        onnx_tensor("c", 3, [7], onnx_external("../outside", 1)),
        onnx_tensor("d", 3, [7], onnx_external("other", 1)),
    ]
    source = BytesSource(onnx_file(*tensors))
    layouts = external_layouts(source, {"w/weights.bin": 80, "other": 8, "unrelated": 9})
    assert {path: [(t.name, t.offset) for t in each.tensors] for path, each in layouts.items()} == {
        "w/weights.bin": [("b", 0), ("a", 64)],
        "other": [("d", 1)],
    }
    assert external_layouts(source, {"w/weights.bin": 79}) == {}  # the file is too short
    assert read(source.data) is None  # nothing in the model itself


@pytest.mark.parametrize(
    "external",
    [
        pytest.param(onnx_external("f", 0, 15), id="another length"),
        pytest.param(onnx_external("f", -1), id="negative offset"),
        pytest.param(onnx_external("f", 1 << 62), id="far offset"),
    ],
)
def test_onnx_external_data_refused(external: bytes) -> None:
    assert external_layouts(BytesSource(onnx_file(onnx_tensor("a", 1, [4], external))), {"f": 1000}) == {}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(onnx_file(onnx_tensor("a", 1, [2], field(9, bytes(9)))), id="another length"),
        pytest.param(onnx_file(onnx_tensor("a", 1, [(1 << 64) - 1], field(9, bytes(8)))), id="negative"),
        pytest.param(onnx_file(onnx_tensor("a", 1, [1 << 40] * 3, field(9, bytes(8)))), id="overflow"),
        pytest.param(onnx_file(*[onnx_tensor("a", 1, [2], field(9, bytes(8)))] * 2), id="one name twice"),
        pytest.param(onnx_file(onnx_tensor("a", 1, [2], field(9, bytes(8)))) + b"\x0b", id="group"),
        pytest.param(onnx_file(onnx_tensor("a", 1, [2], field(9, bytes(8)))) * 2, id="two graphs"),
        pytest.param(b"\x08" + b"\xff" * 11, id="endless number"),
    ],
)
def test_onnx_refused(data: bytes) -> None:
    assert read(data, "m.onnx") is None


def test_torch() -> None:
    data = SAMPLES["torch"]()
    assert found(data) == {
        "w": ("f32", (2, 3)),
        "model.b": ("f16", (4,)),
        "halves.0": ("i64", (2,)),
        "halves.1": ("i64", (1, 2)),
        "turned": ("u8", (6,)),
    }


def test_torch_never_runs_what_it_reads() -> None:
    bomb = b"cos\nsystem\n(X\x05\x00\x00\x00falsetR."
    assert found(torch_file(None, {"0": bytes(24)}, pickled=b"\x80\x02" + bomb[:-1] + b"\x8c\x01.")) == {
        "archive/data/0": ("bytes", (24,))
    }
    assert read(torch_file(None, {"0": bytes(24)}, pickled=b"\x80\x02" + bomb)) is None  # nothing to find


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b"\x80\x02.",
        b"\x80\x02q\x00.",
        b"\x80\x02t.",
        b"(",
        b"(0.",
        b"\x80\x02h\x07.",
        b"c" + b"a" * 2000 + b"\n.",
    ],
)
def test_torch_whose_pickle_is_odd(pickled: bytes) -> None:
    assert found(torch_file(None, {"7": bytes(24)}, pickled=pickled)) == {"archive/data/7": ("bytes", (24,))}


def test_torch_pickle_that_grows_exponentially() -> None:
    # Each list holds the one before twice: 2⁶⁰ paths to one tensor, walked once each.
    state: object = [torch_tensor("FloatStorage", "0", 6, (6,))]
    for _ in range(28):
        state = [state, state]
    assert found(torch_file(state, {"0": bytes(24)})).popitem()[1] == ("f32", (6,))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            torch_file({"a": torch_tensor("FloatStorage", "0", 6, (6,), start=3)}, {"0": bytes(24)}),
            id="beyond",
        ),
        pytest.param(
            torch_file({"a": torch_tensor("LongStorage", "0", 6, (2,))}, {"0": bytes(23)}), id="odd size"
        ),
        pytest.param(
            torch_file({"a": torch_tensor("LongStorage", "0", 3, (3,))}, {"0": bytes(24)}, order=b"big"),
            id="big-endian",
        ),
    ],
)
def test_torch_refused(data: bytes) -> None:
    assert read(data) is None


@pytest.mark.parametrize(
    "dtype", ["<f2", "<f4", "<f8", "|i1", "<i2", "<i4", "<i8", "|u1", "<u8", "|b1", "<c8", "<c16"]
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (0, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(dtype: str, shape: tuple[int, ...], order: str) -> None:
    array = np.ones(shape, dtype, order=order)  # type: ignore[call-overload]
    data = npy_bytes(array)
    (name, (element, read_shape)) = found(data).popitem()
    assert (name, read_shape) == ("array", shape)
    assert ELEMENT_TYPES[element].block_bytes == array.itemsize
    assert bytes_of(data, "array") == array.tobytes("A")


@pytest.mark.parametrize(
    "array",
    [np.array(["text"]), np.zeros(2, ">f4"), np.zeros(2, [("a", "<f4")]), np.array([{}], object)],
    ids=["text", "big-endian", "records", "objects"],
)
def test_npy_refused(array: np.ndarray) -> None:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    assert read(out.getvalue()) is None


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        "{'descr': '<f4', 'fortran_order': 1, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,), }",
        "(" * 3000,
    ],
)
def test_npy_header_refused(text: str) -> None:
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    assert read(head + bytes(8)) is None


def test_npz() -> None:
    data = SAMPLES["npz"]()
    assert found(data) == {"floats": ("f32", (2, 3)), "deep": ("i16", (3, 4))}
    assert bytes_of(data, "floats") == np.arange(6, dtype="<f4").tobytes()


def test_npz_compressed_has_no_layout() -> None:
    out = io.BytesIO()
    np.savez_compressed(out, a=np.zeros(1000))
    assert read(out.getvalue()) is None


def test_zip64() -> None:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy_bytes(np.arange(4, dtype=np.int32)))
    data = bytearray(out.getvalue())
    assert found(bytes(data)) == {"a": ("i32", (4,))}
    # The same archive with a directory that only zip64 describes.
    end = data.rfind(b"PK\x05\x06")
    count, size, at = struct.unpack_from("<HLL", data, end + 10)
    extra = struct.pack("<HHQQQ", 1, 24, *struct.unpack_from("<LL", data, at + 20)[::-1], 0)
    directory = data[at:end]
    directory[20:28] = b"\xff" * 8
    directory[42:46] = b"\xff" * 4
    directory[30:32] = struct.pack("<H", len(extra))
    directory = directory[: 46 + 5] + extra
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), at)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, at + len(directory), 1)
    narrow = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert size
    assert found(bytes(data[:at] + directory + wide + locator + narrow)) == {"a": ("i32", (4,))}
    assert read(bytes(data[:at] + directory[: 46 + 5] + data[end:])) is None  # without the sizes


def test_two_members_of_one_name_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", npy_bytes(np.zeros(3)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", npy_bytes(np.zeros(3)))
    assert read(out.getvalue()) is None


@pytest.mark.parametrize(
    "data", [b"", b"\x08", b"GGUF", b"PK\x03\x04", b"hello " * 99, bytes(100), b"\x93NUMPY"]
)
def test_other_files_are_unknown(data: bytes) -> None:
    assert read(data) is None
    assert read(data, "model.onnx") is None


@pytest.mark.parametrize("format_name", SAMPLES)
def test_no_truncation_raises(format_name: str) -> None:
    data = SAMPLES[format_name]()
    assert found(data)
    whole = read(data)
    for length in range(len(data)):
        layout = read(data[:length], "model.onnx")
        if layout is not None:  # what is missing held no tensor
            check_layout(layout, length)
            assert whole is not None
            assert set(layout.tensors) <= set(whole.tensors)


def test_a_source_that_is_shorter_than_it_says() -> None:
    class Short(BytesSource):
        @property
        def size(self) -> int:
            return len(self.data) + 1000

    for make in SAMPLES.values():
        layout_or_not = None
        try:
            layout_or_not = parse_layout(Short(make()[:60]))
        except FormatError:
            continue
        assert layout_or_not is None


def test_the_reason_is_told() -> None:
    header = json.dumps({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}).encode()
    with pytest.raises(FormatError, match="overlapping tensors at byte"):
        parse_layout(BytesSource(safetensors_file(header, 64)))
