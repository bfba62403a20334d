"""The C kernels beside numpy's, in one run, on made 1 MiB chunks of bf16: whole, and the transform alone.

Whole is what an encoder does with a chunk, entropy coding by zstd included, which is the same in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.support.kernels import ALL, encodings_with
from yarnstore.core.encodings import (
    ELEMENTS,
    decode_delta_planes,
    decode_planes,
    encode_delta_planes,
    encode_planes,
)
from yarnstore.core.encodings.transforms import Kernels, Keys
from yarnstore.core.limits import MIB

_CHUNKS = 6
_ROUNDS = 12
_BF16 = ELEMENTS["bf16"]
# Keys as the encoder chooses them for such weights.
_KEYS = Keys(117, 122)


@dataclass(frozen=True)
class Speed:
    """One task: bytes per second of CPU time of one thread, by the kernels' names; the goal is a ratio."""

    name: str
    rates: dict[str, float]
    goal: float | None = None

    @property
    def ratio(self) -> float:
        """C over numpy; 1 where C was not built."""
        return self.rates.get("c", self.rates["numpy"]) / self.rates["numpy"]


def measure() -> list[Speed]:
    """The best of several rounds, the kernels in turn, so that a busy neighbour disturbs both."""
    pairs = [_made_pair(seed) for seed in range(_CHUNKS)]
    planes = [encode_planes(new, 2) or b"" for new, _ in pairs]
    deltas = [encode_delta_planes(new, old, "bf16") or b"" for new, old in pairs]
    split = [[*map(bytes, ALL[0].planes_split(new, 2, 0)), b""] for new, _ in pairs]
    steps = [[*map(bytes, ALL[0].delta_split(new, old, _BF16, _KEYS)[0]), b""] for new, old in pairs]
    everything = range(_CHUNKS)
    tasks: list[tuple[str, float | None, Callable[[Kernels, int], object]]] = [
        ("delta encode", 2.5, lambda _, n: encode_delta_planes(*pairs[n], "bf16")),
        ("delta decode", 2.5, lambda _, n: decode_delta_planes(deltas[n], pairs[n][1], MIB)),
        ("planes encode", None, lambda _, n: encode_planes(pairs[n][0], 2)),
        ("planes decode", None, lambda _, n: decode_planes(planes[n], MIB)),
        ("delta encode, transform", None, lambda k, n: k.delta_split(*pairs[n], _BF16, _KEYS)),
        (
            "delta decode, transform",
            None,
            lambda k, n: k.delta_join(steps[n], pairs[n][1], MIB, _BF16, _KEYS),
        ),
        ("planes encode, transform", 2.0, lambda k, n: k.planes_split(pairs[n][0], 2, 0)),
        ("planes decode, transform", 2.0, lambda k, n: k.planes_join(split[n], MIB, 2, 0)),
    ]
    return [Speed(name, _rates(task, everything), goal) for name, goal, task in tasks]


def _rates(task: Callable[[Kernels, int], object], chunks: Sequence[int]) -> dict[str, float]:
    best: dict[str, float] = {}
    for _ in range(_ROUNDS):
        for kernels in ALL:
            with encodings_with(kernels):
                started = time.thread_time()
                for n in chunks:
                    task(kernels, n)
                took = time.thread_time() - started
            best[kernels.NAME] = max(best.get(kernels.NAME, 0.0), len(chunks) * MIB / took)
    return best


def _made_pair(seed: int) -> tuple[bytes, bytes]:
    """(a chunk after a fine-tune, the same before)."""
    rng = np.random.default_rng(seed)
    before = (rng.standard_normal(MIB // 2) * 0.02).astype("<f4")
    after = before + (rng.standard_normal(MIB // 2) * 2e-4).astype("<f4")
    new, old = ((values.view("<u4") >> 16).astype("<u2").tobytes() for values in (after, before))
    return new, old
