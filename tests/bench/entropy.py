"""The fewest bits that any coder needs for made weights: their entropy, with the weights before them known.

A fine-tune of `tests/support/reshaped` adds a normally distributed number to each weight and rounds to bf16,
so the probability of each result is known, and its entropy is a bound (Shannon 1948, theorem 9).
Quantised weights are known up to a range of bf16 numbers; both versions' scales count as known.
"""

from __future__ import annotations

from math import erf, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.support.reshaped import values

# Results further from the mean, in deviations, are left out: less than one in 10^9.
_FARTHEST: Final = 6.0
# Weights up to so many deviations from 0 are rounded to so many of them.
_CLOSE: Final = 4
_CLOSE_STEP: Final = 1 / 8
_BF16_BITS: Final = 16
# Quants that differ by more are left out: a fine-tune moves them by one or two.
_QUANTS_AWAY: Final = 4
_LARGEST_QUANT: Final = 127


def _edges() -> NDArray[np.float64]:
    """The numbers between which all are rounded to one bf16, ascending."""
    positive = values(np.arange(0x7F80, dtype=np.uint16)).astype(np.float64)
    middles = (positive[1:] + positive[:-1]) / 2
    return np.concatenate([-middles[::-1], middles])


_EDGES: Final = _edges()


def rounded_normal_bits(mean: float, deviation: float) -> float:
    """Return the entropy, in bits, of a normally distributed number that is rounded to bf16."""
    low, high = np.searchsorted(_EDGES, [mean + side * _FARTHEST * deviation for side in (-1, 1)])
    edges = (_EDGES[low:high] - mean) / (deviation * sqrt(2))
    below = [0.0, *((1 + erf(edge)) / 2 for edge in edges.tolist()), 1.0]
    shares = np.diff(below)
    shares = shares[shares > 0]
    return float(-(shares * np.log2(shares)).sum())


def fine_tuned_share(bits: NDArray[Any], share: float) -> float:
    """Return the entropy of bf16 weights that are moved by `share` of their usual size, with the weights
    before known, as a share of their bytes.
    """
    weights = np.abs(values(bits)).astype(np.float64)
    deviation = share * float(values(bits).std())
    # Close to 0 there are more bf16 than matter: 1 weight in 100, and entropies that change slowly.
    step = _CLOSE_STEP * deviation
    weights = np.where(weights < _CLOSE * deviation, np.rint(weights / step) * step, weights)
    means, counts = np.unique(weights, return_counts=True)
    each = np.array([rounded_normal_bits(mean, deviation) for mean in means.tolist()])
    return float(each @ counts) / bits.size / _BF16_BITS


def stepped_share(share: float) -> float:
    """Return the entropy of bf16 weights of which `share` moved by one step, up or down, as a share of their
    bytes.
    """
    each = np.array([1 - share, share / 2, share / 2])
    return float(-(each * np.log2(each)).sum()) / _BF16_BITS


def quants_bits(
    quants: NDArray[Any], before: NDArray[Any], after: NDArray[Any], deviation: float, moved: float
) -> float:
    """Return the mean entropy, in bits, of the new `quants` of bf16 weights that were moved by `moved`.

    `quants` are those before, -127 to 127, `before` and `after` the scales of each of them in both versions,
    `deviation` that of the weights.  The largest quants follow from the scales, and need nothing.
    """
    numbers, share = _numbers(deviation)
    bits = 0.0
    inner = np.abs(quants) < _LARGEST_QUANT
    for quant, old, new in zip(quants[inner].tolist(), before[inner], after[inner], strict=True):
        low, high = np.searchsorted(numbers, [(quant - 0.5) * old, (quant + 0.5) * old])
        near = np.arange(quant - _QUANTS_AWAY, quant + _QUANTS_AWAY + 2)
        near = np.unique(near.clip(-_LARGEST_QUANT, _LARGEST_QUANT + 1)) - 0.5
        # What is rounded to the numbers below an edge lies below the middle of two of them.
        edges = _EDGES[np.searchsorted(numbers, near * new) - 1]
        each = np.diff(_normal((edges - numbers[low:high, None]) / moved), axis=1)
        found = share[low:high] @ each
        found = found[found > 0] / found.sum()
        bits -= float((found * np.log2(found)).sum())
    return bits / quants.size


def _numbers(deviation: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """All bf16 numbers, ascending, each with its probability for a normal distribution around 0."""
    positive = values(np.arange(0x7F80, dtype=np.uint16)).astype(np.float64)
    numbers = np.concatenate([-positive[:0:-1], positive])
    near = np.abs(_EDGES) < _FARTHEST * deviation
    below = np.where(_EDGES > 0, 1.0, 0.0)
    below[near] = _normal(_EDGES[near] / deviation)
    return numbers, np.diff(np.concatenate([[0.0], below, [1.0]]))


def _normal(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability that a normally distributed number is below these, in deviations."""
    halves = np.fromiter(map(erf, (at / sqrt(2)).ravel().tolist()), np.float64, at.size)
    return (1 + halves.reshape(at.shape)) / 2


def fresh_share(bits: NDArray[Any]) -> float:
    """Return the entropy of normally distributed bf16 weights of which nothing is known, as a share of their
    bytes.
    """
    return rounded_normal_bits(0, float(values(bits).std())) / _BF16_BITS
