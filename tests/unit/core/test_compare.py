"""Comparing numbers: each type by its values, each byte by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from yarnstore.core.compare import Tally, compare_arrays, compare_values, measure_array, values_of
from yarnstore.core.layouts import element_type


@pytest.mark.parametrize("name", ["bf16", "f16", "f32", "f64", "i8", "u8", "i32", "i64", "f8_e4m3"])
def test_every_kind_of_number_is_compared(name: str) -> None:
    element = element_type(name)
    data = bytearray(np.arange(1, 97, dtype="u1").tobytes())
    old = bytes(data)
    data[3 * element.width + element.width - 1] ^= 0x11  # one element, in its highest byte
    tally = compare_arrays(old, bytes(data), element)
    before, after = values_of(old, element), values_of(bytes(data), element)
    assert before is not None
    assert after is not None
    wide, other = before.astype("f8"), after.astype("f8")
    assert (tally.units_changed, tally.bytes_changed) == (1, 1)
    assert tally.relative_max == pytest.approx(abs(other[3] - wide[3]) / abs(wide[3]), rel=1e-6)
    assert tally.compared == wide.size


def test_nan_infinity_and_zero_do_not_spoil_the_measures() -> None:
    element = element_type("f32")
    old = np.array([0, 1, np.nan, np.inf, 2, -0.0, 1e-40, 1e30], "f4")
    new = np.array([5, np.nan, 1, np.inf, 3, 0.0, 1, 1e30], "f4")
    tally = compare_arrays(old.tobytes(), new.tobytes(), element)
    assert tally.units_changed == 6
    assert tally.broken == 1
    assert tally.compared == 3  # 2, 1e-40 and 1e30
    assert tally.relative_max == pytest.approx(1 / float(old[6]), rel=1e-6)
    assert tally.distance is not None
    assert math.isfinite(tally.distance)
    same = measure_array(np.array([np.nan, np.inf, 0, 1e30, 3], "f4").tobytes(), element)
    assert (same.compared, same.units_changed) == (2, 0)
    assert same.square_old == pytest.approx(1e60)
    assert Tally().distance is None
    assert Tally().relative_mean is None


def test_the_values_of_small_floats_are_those_of_their_specification() -> None:
    codes = bytes([0x00, 0x38, 0x7E, 0x7F, 0xB8, 0x01])
    e4m3 = values_of(codes, element_type("f8_e4m3"))
    assert e4m3 is not None
    assert e4m3[[0, 1, 2, 4, 5]].tolist() == [0, 1, 448, -1, 2**-9]
    assert np.isnan(e4m3[3])
    e5m2 = values_of(bytes([0x3C, 0x7B, 0x7C, 0xFC, 0x7D, 0x01]), element_type("f8_e5m2"))
    assert e5m2 is not None
    assert e5m2[[0, 1, 2, 3, 5]].tolist() == [1, 57344, np.inf, -np.inf, 2**-16]
    assert np.isnan(e5m2[4])
    fnuz = values_of(bytes([0x40, 0x7F, 0x80]), element_type("f8_e4m3fnuz"))
    assert fnuz is not None
    assert fnuz[:2].tolist() == [1, 240]
    assert np.isnan(fnuz[2])
    powers = values_of(bytes([127, 0]), element_type("f8_e8m0"))
    assert powers is not None
    assert powers.tolist() == [1, 2**-127]


def test_quantised_blocks_count_by_block_and_are_measured_by_value() -> None:
    element = element_type("q8_0")
    scale = np.array([0.5], "f2").tobytes()
    old = (scale + bytes(range(1, 33))) * 4
    new = bytearray(old)
    new[34 + 2] = 3  # the first quant of the second block: 1 becomes 3
    tally = compare_arrays(old, bytes(new), element)
    assert (tally.units, tally.units_changed, tally.bytes_changed) == (4, 1, 1)
    assert tally.relative_max == 2.0
    q4 = values_of(np.array([2], "f2").tobytes() + bytes([0x90] + [0x88] * 15), element_type("q4_0"))
    assert q4 is not None
    assert (q4[0], q4[16], q4[1], q4.size) == (-16, 2, 0, 32)
    unknown = compare_arrays(bytes(144), bytes([1] * 144), element_type("q4_k"))
    assert (unknown.units_changed, unknown.relative_mean, unknown.distance) == (1, None, None)


def test_a_type_without_values_has_changed_whole() -> None:
    lost = compare_values(bytes(144), bytes(512), element_type("q4_k"), element_type("f16"))
    assert (lost.units, lost.units_changed, lost.distance) == (256, 256, None)
