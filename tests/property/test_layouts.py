"""Whatever the bytes: no exception, no layout that breaks a promise, no long wait."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.samples import SAMPLES, check_layout, check_segments, read
from yarnstore.core.layouts import (
    ELEMENT_TYPES,
    BytesSource,
    Tensor,
    cut_segments,
    external_layouts,
    layout_from_json,
    layout_to_json,
)
from yarnstore.core.layouts.model import make_layout
from yarnstore.errors import FormatError

FILES = {name: make() for name, make in SAMPLES.items()}
MAGICS = (b"", b"GGUF\x03\0\0\0", b"\x93NUMPY\x01\0", b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{", b"\x08\x08")


def judge(data: bytes) -> None:
    started = time.process_time()
    for name in ("", "model.onnx"):
        layout = read(data, name)
        if layout is None:
            continue
        check_layout(layout, len(data))
        check_segments(cut_segments(layout, len(data)), len(data))
        value = json.loads(json.dumps(layout_to_json(layout)))
        assert layout_from_json(value, len(data)) == layout
    for layout in external_layouts(BytesSource(data), {"weights.bin": 80}).values():
        check_layout(layout, 80)
    assert time.process_time() - started < 5


@given(st.sampled_from(MAGICS), st.binary(max_size=2000))
def test_random_bytes(magic: bytes, rest: bytes) -> None:
    judge(magic + rest)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A sample with a few bytes changed, put in, taken out or copied from elsewhere in it."""
    data = bytearray(draw(st.sampled_from(sorted(FILES.values()))))
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(("flip", "set", "number", "insert", "delete", "copy", "cut")))
        if how == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set":
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        elif how == "number":
            width = draw(st.sampled_from((2, 4, 8)))
            edge = st.sampled_from((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**62, len(data)))
            data[at : at + width] = (draw(edge) % (1 << 8 * width)).to_bytes(width, "little")
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=40))
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "copy":
            source = draw(st.integers(0, len(data) - 1))
            piece = data[source : source + draw(st.integers(1, 60))]
            data[at : at + len(piece)] = piece
        else:
            del data[at + 1 :]
    return bytes(data)


@given(mutated())
def test_mutated_files(data: bytes) -> None:
    judge(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROW = st.tuples(
    st.text(max_size=3) | JSON,
    st.sampled_from(sorted(ELEMENT_TYPES)) | JSON,
    st.lists(st.integers(-1, 40) | st.integers() | st.booleans(), max_size=3) | JSON,
    st.integers(-1, 600) | JSON,
).map(list)


@given(
    JSON | st.fixed_dictionaries({"format": st.just("gguf") | JSON, "tensors": st.lists(ROW | JSON) | JSON})
)
def test_a_manifest_may_hold_anything(value: Any) -> None:
    try:
        layout = layout_from_json(value, 500)
    except FormatError:
        return
    assert value["tensors"] == layout_to_json(layout)["tensors"]
    if layout.tensors:
        check_layout(layout, 500)
    check_segments(cut_segments(layout, 500), 500)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(ELEMENT_TYPES)),
            st.integers(0, 3_000_000) | st.integers(0, 5000),
            st.integers(0, 600) | st.just(0),
        ),
        max_size=40,
    )
)
def test_segments_cover_any_layout(items: list[tuple[str, int, int]]) -> None:
    at = 0
    tensors = []
    for number, (name, wanted, gap) in enumerate(items):
        dtype = ELEMENT_TYPES[name]
        at += gap
        length = wanted // dtype.block_bytes * dtype.block_bytes
        count = length // dtype.block_bytes * dtype.block_elements
        tensors.append(Tensor(f"t{number}", dtype, (count,), at, length))
        at += length
    layout = make_layout("npz", tensors, at + 9)
    segments = cut_segments(layout, at + 9)
    check_segments(segments, at + 9)
    starts = {segment.offset for segment in segments}
    assert all(t.offset in starts for t in layout.tensors if t.length >= 64 * 1024)
