"""Chunks of numbers, noise and text, and their successors, for the properties of encodings."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from yarnstore.core.encodings import BLOCKS, ELEMENTS

NAMES = st.sampled_from([*ELEMENTS, *BLOCKS])
DTYPES = {"f16": "<f2", "f32": "<f4", "f64": "<f8"}


@st.composite
def bodies(draw: st.DrawFn, max_elements: int = 3000) -> bytes:
    """Bytes that some encoder takes up: weights, special values, noise, runs, text; any length."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.one_of(st.integers(0, 70), st.integers(71, max_elements)))
    kind = draw(st.sampled_from(["bf16", "f16", "f32", "f64", "noise", "zeros", "special", "text"]))
    weights = rng.standard_normal(count) * 10.0 ** draw(st.integers(-6, 3))
    if kind == "bf16":
        body = weights.astype("<f4").view("<u2")[1::2].tobytes()
    elif kind in DTYPES:
        with np.errstate(over="ignore"):
            body = weights.astype(DTYPES[kind]).tobytes()
    elif kind == "noise":
        body = rng.bytes(count)
    elif kind == "zeros":
        body = bytes(count)
    elif kind == "special":  # NaN with payloads, infinities, both zeros, denormals
        few = [0x7FC1, 0xFFC1, 0x7F80, 0xFF80, 0x8000, 0, 1, 0x8001, 0x7F81, 0x3F80]
        body = rng.choice(np.array(few, "<u2"), count).tobytes()
    else:
        body = (b"the quick brown fox " * (count // 20 + 1))[:count]
    return draw(st.binary(max_size=9)) + body + draw(st.binary(max_size=9))


@st.composite
def successors(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A base and what may follow it: little changed, or nothing in common; lengths may differ."""
    base = draw(bodies())
    if draw(st.booleans()):
        return base, draw(bodies())
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    new = np.frombuffer(base, np.uint8).copy()
    if new.size:
        where = rng.integers(0, new.size, draw(st.integers(0, new.size)))
        new[where] += rng.integers(0, 3, where.size).astype(np.uint8)
    return base, new[: new.size - draw(st.integers(0, 5))].tobytes() + draw(st.binary(max_size=5))
