"""Comparison of two arrays of tensor bytes: how many elements changed, and by how much.

An element changed if its bytes differ, so 0.0 and -0.0 differ and a NaN equals itself; the size of a change
is that of its values.  Arrays are compared piece by piece, and the tallies of the pieces are added.  Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.digest import Buffer
from yarnstore.core.layouts import ElementType

Unit: TypeAlias = Literal["elements", "blocks", "bytes"]
Floats: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

# Exponent bits, mantissa bits, bias, and how infinity and NaN are written: the OCP 8-bit floats
# (arXiv:2209.05433) and those of arXiv:2206.02915, without infinities and negative zero.
_F8: Final = {
    "f8_e4m3": (4, 3, 7, "nan"),
    "f8_e5m2": (5, 2, 15, "ieee"),
    "f8_e4m3fnuz": (4, 3, 8, "unsigned"),
    "f8_e5m2fnuz": (5, 2, 16, "unsigned"),
}


@dataclass(slots=True)
class Tally:
    """The counts of a comparison of two arrays.

    `units` are elements, blocks or bytes (see `unit_of`).  Relative changes are |new - old| / |old|
    over the `compared` elements whose old value is neither zero nor infinite nor NaN, and whose new value
    is finite.  `broken` counts elements that were finite and no longer are.
    """

    units: int = 0
    units_changed: int = 0
    bytes_changed: int = 0
    compared: int = 0
    relative_sum: float = 0.0
    relative_max: float = 0.0
    square_old: float = 0.0
    square_change: float = 0.0
    broken: int = 0

    def add(self, other: Tally) -> None:
        """Add the counts of another piece of the same array."""
        self.units += other.units
        self.units_changed += other.units_changed
        self.bytes_changed += other.bytes_changed
        self.compared += other.compared
        self.relative_sum += other.relative_sum
        self.relative_max = max(self.relative_max, other.relative_max)
        self.square_old += other.square_old
        self.square_change += other.square_change
        self.broken += other.broken

    @property
    def relative_mean(self) -> float | None:
        """The mean relative change; None if no element could be compared."""
        return self.relative_sum / self.compared if self.compared else None

    @property
    def distance(self) -> float | None:
        """|new - old| / |old| of the arrays as vectors (Euclidean norm); None if |old| is 0."""
        if not self.square_old or not math.isfinite(self.square_old + self.square_change):
            return None
        return math.sqrt(self.square_change / self.square_old)


def unit_of(element: ElementType) -> Unit:
    """Return the unit in which a type is counted: elements, quantised blocks or bytes."""
    if element.kind == "block":
        return "blocks"
    return "bytes" if element.kind == "bytes" else "elements"


def compare_arrays(old: Buffer, new: Buffer, element: ElementType) -> Tally:
    """Compare two runs of whole elements (or blocks) of one type and of one length."""
    one, other = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
    changed = one != other
    count = int(np.count_nonzero(changed))
    if not count:
        return measure_array(old, element)
    width = element.block_bytes
    tally = Tally(units=one.size // width, bytes_changed=count)
    if width == 1:
        tally.units_changed = count
    elif width in (2, 4, 8):
        words = f"<u{width}"
        tally.units_changed = int(np.count_nonzero(one.view(words) != other.view(words)))
    else:
        tally.units_changed = int(np.count_nonzero(changed.reshape(-1, width).any(axis=1)))
    before, after = values_of(old, element), values_of(new, element)
    if before is not None and after is not None:
        _measure(before, after, tally)
    return tally


def measure_array(data: Buffer, element: ElementType) -> Tally:
    """Return the tally of an unchanged array, which the means of a whole model include."""
    tally = Tally(units=len(data) // element.block_bytes)
    values = values_of(data, element)
    if values is None:
        return tally
    with np.errstate(all="ignore"):
        square = float(np.dot(values, values))
        if not math.isfinite(square):
            wide = values.astype(np.float64)
            values = wide[np.isfinite(wide)]
            square = float(np.dot(values, values))
    tally.compared = int(np.count_nonzero(values))
    tally.square_old = square
    return tally


def compare_values(old: Buffer, new: Buffer, old_element: ElementType, new_element: ElementType) -> Tally:
    """Compare two arrays of equal length and of any types by value.

    All elements of a type without values count as changed.
    """
    before, after = values_of(old, old_element), values_of(new, new_element)
    units = len(new) // new_element.block_bytes
    tally = Tally(units=units, units_changed=units, bytes_changed=len(new))
    if before is not None and after is not None and before.size == after.size:
        wide, other = before.astype(np.float64), after.astype(np.float64)
        same = (wide == other) | (np.isnan(wide) & np.isnan(other))
        changed = ~same if same.size == units else ~same.reshape(units, -1).all(axis=1)
        tally.units_changed = int(np.count_nonzero(changed))
        _measure(wide, other, tally)
    return tally


def _measure(old: Floats, new: Floats, tally: Tally) -> None:
    """Add the size of the change to `tally`."""
    with np.errstate(all="ignore"):
        change = new - old
        np.abs(change, out=change)
        size = np.abs(old)
        square_change, square_old = float(np.dot(change, change)), float(np.dot(size, size))
        if math.isfinite(square_change + square_old):
            zeros = size == 0
            zero_count = int(np.count_nonzero(zeros))
            if zero_count:
                size[zeros] = np.inf
            change /= size
            largest = float(change.max(initial=0.0))
            if math.isfinite(largest):
                tally.compared += old.size - zero_count
                tally.relative_sum += float(change.sum(dtype=np.float64))
                tally.relative_max = max(tally.relative_max, largest)
                tally.square_old += square_old
                tally.square_change += square_change
                return
    _measure_carefully(old.astype(np.float64), new.astype(np.float64), tally)


def _measure_carefully(old: NDArray[np.float64], new: NDArray[np.float64], tally: Tally) -> None:
    """As `_measure`, for arrays with infinities, NaN, or values whose squares overflow single precision."""
    was, stays = np.isfinite(old), np.isfinite(new)
    tally.broken += int(np.count_nonzero(was & ~stays))
    both = was & stays
    old, new = old[both], new[both]
    with np.errstate(all="ignore"):
        change = np.abs(new - old)
        tally.square_old += float(np.dot(old, old))
        tally.square_change += float(np.dot(change, change))
        nonzero = old != 0
        relative = np.minimum(change[nonzero] / np.abs(old[nonzero]), np.finfo(np.float64).max)
        tally.compared += relative.size
        tally.relative_sum += float(relative.sum())
        tally.relative_max = max(tally.relative_max, float(relative.max(initial=0.0)))


def values_of(data: Buffer, element: ElementType) -> Floats | None:
    """Return the values of whole elements as float32, or as float64 if float32 cannot represent them; None if
    this release does not know the type's values.

    A complex number has two values; a block of ggml's q4_0 or q8_0 has 32, in ggml's order.
    """
    name, width = element.name, element.width
    if name == "bf16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if name in _F8 or name == "f8_e8m0":
        return _f8_table(name).take(np.frombuffer(data, np.uint8))
    if element.kind in ("float", "int", "uint"):
        numbers: NDArray[Any] = np.frombuffer(data, f"<{element.kind[0]}{width}")
        # 32-bit integers do not fit the 24-bit significand of a float32.
        if width == 8 or (width == 4 and element.kind != "float"):
            return numbers.astype(np.float64, copy=False)
        return numbers.astype(np.float32, copy=False)
    if name in ("q4_0", "q8_0"):
        return _block_values(np.frombuffer(data, np.uint8).reshape(-1, element.block_bytes), name)
    return None


def _block_values(blocks: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """ggml's `dequantize_row_q4_0` and `dequantize_row_q8_0` (ggml-quants.c)."""
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    quants: NDArray[Any] = blocks[:, 2:]
    if name == "q4_0":
        halves = np.concatenate([quants & 15, quants >> 4], axis=1)
        values = halves.astype(np.float32)
        values -= 8
    else:
        values = quants.view(np.int8).astype(np.float32)
    values *= scales
    return values.reshape(-1)


@cache
def _f8_table(name: str) -> NDArray[np.float32]:
    """The value of each of the 256 codes."""
    codes = np.arange(256)
    if name == "f8_e8m0":
        powers = 2.0 ** (codes.astype(np.float64) - 127)
        powers[255] = np.nan
        return powers.astype(np.float32)
    exponent_bits, mantissa_bits, bias, special = _F8[name]
    exponent = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1)
    part = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent == 0, part * 2.0 ** (1 - bias), (1 + part) * 2.0 ** (exponent - bias))
    values[codes >= 128] *= -1
    if special == "nan":
        values[(codes & 127) == 127] = np.nan
    elif special == "unsigned":
        values[128] = np.nan
    else:
        top = exponent == exponent.max()
        values[top] = np.where(part[top] == 0, np.sign(values[top]) * np.inf, np.nan)
    return values.astype(np.float32)
