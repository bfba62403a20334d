"""Sketches tell versions of the same numbers from unrelated ones, and find moved rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.support.reshaped import bf16
from yarnstore.core.layouts import element_type
from yarnstore.core.sketch import (
    RowRun,
    are_alike,
    head_sketch,
    match_rows,
    most_alike,
    row_head_bytes,
    row_runs,
    row_words,
)

BF16, F32, I8 = element_type("bf16"), element_type("f32"), element_type("i8")
RANDOM = np.random.default_rng(5)


@pytest.mark.parametrize("kind", ["bf16", "f16", "f32", "f64", "i8"])
def test_a_fine_tune_is_alike_and_other_weights_are_not(kind: str) -> None:
    element = element_type(kind)

    def encode(values: np.ndarray) -> bytes:
        if kind == "bf16":
            return bf16(values).tobytes()
        stored = {"f16": "<f2", "f32": "<f4", "f64": "<f8", "i8": "i1"}[kind]
        return (values * 40 if kind == "i8" else values).astype(stored).tobytes()

    old = [RANDOM.normal(0, 1, 600) for _ in range(50)]
    new = [values + RANDOM.normal(0, 0.05, 600) for values in old]
    ours, theirs = ([head_sketch(encode(values), element) for values in side] for side in (new, old))
    assert all(one is not None and other is not None for one, other in zip(ours, theirs, strict=True))
    kept = [one for one in ours if one is not None], [one for one in theirs if one is not None]
    assert most_alike(*kept) == list(range(50))
    assert not any(are_alike(kept[0][n], kept[1][n - 1]) for n in range(50))
    assert most_alike(kept[0][:3], kept[1][3:]) == [-1] * 3
    assert most_alike(kept[0][:2], []) == [-1] * 2


@pytest.mark.parametrize("stored", ["<f4", "<f2", "<i8", "<u8", "<u4", "u1"])
def test_numbers_of_one_sign_are_compared_with_their_median(stored: str) -> None:
    element = element_type(f"{stored[-2]}{8 * int(stored[-1])}")
    high = 120 if stored == "u1" else 30_000
    old = [RANDOM.uniform(0.1 * high, high, 600) for _ in range(50)]
    new = [values + RANDOM.uniform(-0.02 * high, 0.02 * high, 600) for values in old]

    def sketches(side: list[np.ndarray]) -> list[np.ndarray]:
        found = [head_sketch(values.astype(stored).tobytes(), element) for values in side]
        return [sketch for sketch in found if sketch is not None]

    ours, theirs = sketches(new), sketches(old)
    assert most_alike(ours, theirs) == list(range(50))
    assert not any(are_alike(ours[n], theirs[n - 1]) for n in range(50))


def test_equal_numbers_have_no_sketch() -> None:
    assert head_sketch(np.ones(600, "<f4").tobytes(), F32) is None
    assert head_sketch(b"", F32) is None
    assert head_sketch(b"\x80\x7f", F32) is None


def words(rows: np.ndarray) -> np.ndarray:
    head = row_head_bytes(rows.shape[1] * 4, F32)
    data = np.frombuffer(rows.astype("<f4").tobytes(), np.uint8).reshape(len(rows), -1)
    return row_words(data[:, :head], F32)


def test_rows_are_found_wherever_they_went() -> None:
    old = RANDOM.normal(0, 1, (400, 300))
    moved = np.concatenate([RANDOM.normal(0, 1, (7, 300)), old[100:250], old[300:], old[:40]])
    moved += RANDOM.normal(0, 0.01, moved.shape)
    matched = match_rows(words(moved), words(old))
    assert (matched[:7] == -1).all()
    # Two tensors: runs end at their edge, and rows before a run are its own as far as its tensor goes.
    owners = np.repeat([0, 1], [200, 200])
    assert list(row_runs(matched, owners, 20)) == [
        RowRun(0, 107, 93),
        RowRun(107, 157, 200),
        RowRun(157, 257, 300),
        RowRun(257, 297, 0),
    ]
    assert next(row_runs(matched, owners, 60)) == RowRun(0, 107, 93)
    assert list(row_runs(np.full(9, -1), owners, 1)) == []


def test_rows_that_say_nothing_belong_to_the_run_around_them() -> None:
    old = RANDOM.normal(0, 1, (100, 64))
    old[0] = 0
    old[50:53] = 0
    new = np.concatenate([RANDOM.normal(0, 1, (5, 64)), old])
    matched = match_rows(words(new), words(old))
    assert matched[5] == -1
    assert list(row_runs(matched, np.zeros(100, np.int64), 10)) == [RowRun(5, 105, 0)]


def test_runs_never_overlap_and_stay_in_their_tensor() -> None:
    for seed in range(200):
        random = np.random.default_rng(seed)
        owners = np.repeat(np.arange(3), random.integers(1, 40, 3))
        pieces = []
        for _ in range(random.integers(1, 8)):
            start = int(random.integers(0, len(owners)))
            pieces.append(np.arange(start, min(len(owners), start + int(random.integers(1, 30)))))
            pieces.append(np.full(random.integers(0, 6), -1))
        matched = np.concatenate(pieces)
        matched[random.random(len(matched)) < 0.1] = -1
        runs = list(row_runs(matched, owners, 4))
        assert all(one.stop <= other.start for one, other in pairwise(runs))
        for start, stop, base in runs:
            assert 0 <= start < stop <= len(matched)
            assert 0 <= base <= base + stop - start <= len(owners)
            assert owners[base] == owners[base + stop - start - 1]


def test_short_rows_are_not_compared() -> None:
    assert row_head_bytes(31 * 2, BF16) == 0
    assert row_head_bytes(33 * 2, BF16) == 32 * 2
    assert row_head_bytes(5000, I8) == 256
