"""The cutting plan, and the layout's form in a manifest."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.samples import SAMPLES, check_layout, check_segments, lay, read
from yarnstore.core.layouts import (
    BYTES,
    Segment,
    Tensor,
    cut_segments,
    element_type,
    layout_from_json,
    layout_to_json,
)
from yarnstore.core.layouts.model import make_layout
from yarnstore.errors import FormatError

KIB, MIB = 1024, 1024 * 1024
F32, BF16, Q4_0 = element_type("f32"), element_type("bf16"), element_type("q4_0")


def test_a_file_without_a_layout_is_bytes() -> None:
    assert cut_segments(None, 5) == [Segment(0, 5, BYTES)]
    assert cut_segments(None, 0) == []


def test_a_tensor_is_cut_every_mebibyte_on_an_element() -> None:
    layout, size = lay((2 * MIB + 512 * KIB, "bf16"), (18 * 70000, "q4_0"), 7)
    whole = MIB // 18 * 18
    assert cut_segments(layout, size) == [
        Segment(0, 100, BYTES),
        Segment(100, MIB, BF16),
        Segment(100 + MIB, MIB, BF16),
        Segment(100 + 2 * MIB, 512 * KIB, BF16),
        Segment(100 + 2 * MIB + 512 * KIB, whole, Q4_0),
        Segment(100 + 2 * MIB + 512 * KIB + whole, 18 * 70000 - whole, Q4_0),
        Segment(size - 7, 7, BYTES),
    ]


def test_a_tensor_is_also_cut_where_the_caller_says() -> None:
    layout, size = lay((2 * MIB, "bf16"), (18 * 70000, "q4_0"), 7)
    second = 100 + 2 * MIB
    cuts = [50, 100, 100 + 512, 101 + 768 * KIB, second, second + 18 * 10, second + 18 * 11 + 1, size - 3]
    segments = cut_segments(layout, size, cuts)
    check_segments(segments, size)
    assert [segment.offset for segment in segments] == [
        *(0, 100, 100 + 512, 100 + 512 + MIB),
        *(second, second + 180, second + 180 + MIB // 18 * 18),
        size - 7,
    ]
    assert cut_segments(layout, size, [100 + MIB]) == cut_segments(layout, size)
    layout, size = lay((3 * MIB, "f32"))
    wide = cut_segments(layout, size, [100 + MIB])
    check_segments(wide, size, 2 * MIB)
    assert [segment.length for segment in wide] == [100, MIB, 2 * MIB]


def test_a_group_that_begins_at_a_cut_of_the_caller_ends_at_the_next_one() -> None:
    layout, size = lay(*[(20 * KIB, "bf16")] * 60)
    starts = [tensor.offset for tensor in layout.tensors]
    cuts = [starts[5], starts[30], starts[31] + 2, starts[50]]
    segments = cut_segments(layout, size, cuts)
    check_segments(segments, size)
    found = [segment.offset for segment in segments]
    assert [at for at in found if starts[5] <= at <= starts[50]] == [starts[5], starts[30], starts[50]]
    whole = cut_segments(layout, size)
    assert whole == cut_segments(layout, size, [starts[5] + 1])
    assert len([at for at in (segment.offset for segment in whole) if starts[5] < at < starts[30]]) > 0


def test_small_tensors_share_a_segment_where_they_are_in_step() -> None:
    layout, size = lay(
        (8 * KIB, "f32"), (4 * KIB, "f32"), 64, (2 * KIB, "f32"), (8 * KIB, "bf16"), 1, (8 * KIB, "bf16")
    )
    assert cut_segments(layout, size) == [
        Segment(0, 100, BYTES),
        Segment(100, 14 * KIB + 64, F32),
        Segment(164 + 14 * KIB, 8 * KIB, BF16),
        Segment(164 + 22 * KIB, 1, BYTES),
        Segment(165 + 22 * KIB, 8 * KIB, BF16),
    ]


def test_tiny_tensors_are_left_to_the_bytes_around_them() -> None:
    layout, size = lay((16, "i64"), 40, (16, "f32"), 40, (64 * KIB, "f32"), 40, (4, "f32"))
    assert cut_segments(layout, size) == [
        Segment(0, 212, BYTES),
        Segment(212, 64 * KIB, F32),
        Segment(212 + 64 * KIB, 44, BYTES),
    ]


def test_a_new_small_tensor_changes_few_groups() -> None:
    def groups(names: list[str]) -> set[tuple[str, ...]]:
        tensors = [Tensor(name, F32, (2048,), 8192 * i, 8192) for i, name in enumerate(names)]
        layout = make_layout("npz", tensors, 8192 * len(names))
        by_offset = {tensor.offset: tensor.name for tensor in tensors}
        return {
            tuple(by_offset[at] for at in range(s.offset, s.offset + s.length, 8192))
            for s in cut_segments(layout, 8192 * len(names))
        }

    names = [f"layer.{i}.lora_a" for i in range(4000)]
    before, after = groups(names), groups([*names[:5], "inserted", *names[5:]])
    assert len(before) > 60
    assert len(before - after) <= 3


def test_a_layout_of_a_longer_file_is_refused() -> None:
    layout, size = lay((64 * KIB, "f32"))
    with pytest.raises(FormatError, match="beyond"):
        cut_segments(layout, size - 1)


def test_a_hundred_thousand_tensors_are_cut() -> None:
    layout, size = lay(*((96 * KIB, "bf16"), (512, "bf16")) * 50_000)
    check_segments(cut_segments(layout, size), size)


@pytest.mark.parametrize("format_name", SAMPLES)
def test_a_layout_survives_its_json(format_name: str) -> None:
    data = SAMPLES[format_name]()
    layout = read(data)
    assert layout is not None
    value = json.loads(json.dumps(layout_to_json(layout)))
    assert layout_from_json(value, len(data)) == layout
    assert layout_from_json({**value, "later": 1}, len(data)) == layout
    check_segments(cut_segments(layout, len(data)), len(data))
    with pytest.raises(FormatError):
        layout_from_json(value, layout.tensors[-1].end - 1)


def rows(*rows: Any, name: Any = "gguf") -> dict[str, Any]:
    return {"format": name, "tensors": list(rows)}


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        rows(name=3),
        rows(name="Has Spaces"),
        rows(name="f" * 33),
        {"format": "gguf", "tensors": {}},
        rows(7),
        rows(["a", "f32", [2]]),
        rows(["a", "f32", [2], 0, 8]),
        rows([1, "f32", [2], 0]),
        rows(["a", "f33", [2], 0]),
        rows(["a", ["f32"], [2], 0]),
        rows(["a", "f32", 2, 0]),
        rows(["a", "f32", [True], 0]),
        rows(["a", "f32", [2.0], 0]),
        rows(["a", "f32", ["2"], 0]),
        rows(["a", "f32", [2], True]),
        rows(["a", "f32", [2], 0.5]),
        rows(["a", "f32", [2], -1]),
        rows(["a", "f32", [-2], 0]),
        rows(["a", "f32", [-2, -1], 0]),
        rows(["a", "f32", [1 << 62, 1 << 62], 0]),
        rows(["a", "f32", [1 << 80], 0]),
        rows(["a", "f32", [2], 1 << 80]),
        rows(["a", "f32", [25], 1]),
        rows(["a", "f32", [1] * 65, 0]),
        rows(["", "f32", [2], 0]),
        rows(["a\n", "f32", [2], 0]),
        rows(["a", "f32", [2], 0], ["a", "f32", [2], 8]),
        rows(["a", "f32", [2], 0], ["b", "f32", [2], 4]),
        rows(["a", "f32", [2], 0], ["b", "f32", [2], 0]),
        rows(["a", "f32", [2], 8], ["b", "f32", [2], 0]),
    ],
)
def test_a_hostile_manifest_gets_no_layout(value: Any) -> None:
    with pytest.raises(FormatError):
        layout_from_json(value, 100)


def test_a_layout_may_fill_its_file() -> None:
    layout = layout_from_json(rows(["a", "f32", [25], 0]), 100)
    check_layout(layout, 100)
