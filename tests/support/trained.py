"""Versions of a made bf16 model, each some small training steps after the one before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Adam's, with noise as the gradient: weights walk, as they do in a fine-tune that has converged.
_RATE = 8.8e-6
_MOMENTUM, _SQUARES = 0.9, 0.999


def trained(versions: int, *, weights: int, steps: int = 8, seed: int = 0) -> Iterator[bytes]:
    """Yield the first version and those after it, each `steps` training steps later, as bf16 bytes."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 0.05, weights).astype(np.float32)
    mean, square = np.zeros_like(values), np.zeros_like(values)
    count = 0
    yield _bf16(values)
    for _ in range(versions - 1):
        for _ in range(steps):
            count += 1
            gradient = random.normal(0, 1, weights).astype(np.float32)
            mean = _MOMENTUM * mean + (1 - _MOMENTUM) * gradient
            square = _SQUARES * square + (1 - _SQUARES) * gradient * gradient
            scale = np.sqrt(square / (1 - _SQUARES**count)) + 1e-8
            values = values - _RATE * (mean / (1 - _MOMENTUM**count)) / scale
        yield _bf16(values.astype(np.float32))


def _bf16(values: np.ndarray) -> bytes:
    """Round to the nearest bf16, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
