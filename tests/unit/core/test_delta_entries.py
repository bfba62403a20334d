"""The entries of one chunk against another: which encoding is used for which clients."""

from __future__ import annotations

import pytest
from blake3 import blake3

from tests.support.reshaped import Weights, as_type, fine_tuned, made
from yarnstore.core.codec import Encoding, decode_entry, encode_difference
from yarnstore.core.delta_entries import encode_pair, make_smallest_delta
from yarnstore.core.layouts import ELEMENT_TYPES
from yarnstore.core.pairing import Pair, PlacedChunk

OLD = made(layers=1, width=192, vocabulary=2048)
TUNED = fine_tuned(OLD)


def of(weights: Weights, kind: str = "<u2") -> bytes:
    return b"".join(
        bits.tobytes() for bits in (weights if kind == "<u2" else as_type(weights, kind)).values()
    )


def pair(new: bytes, base: bytes, name: str, base_name: str) -> Pair:
    chunk = PlacedChunk(0, len(new), blake3(new).digest(), ELEMENT_TYPES[name])
    return Pair(chunk, blake3(base).digest(), ELEMENT_TYPES[base_name])


def test_the_smallest_delta_of_a_fine_tune_is_mapped_where_two_entries_would_not_pay() -> None:
    base, new = of(OLD), of(TUNED)
    both = pair(new, base, "bf16", "bf16")
    entries, _ = encode_pair(both, new, base, len(new))
    smallest = make_smallest_delta(both, new, base)
    assert smallest is not None
    assert [entry.encoding for entry in entries] == [Encoding.DELTA_PLANES]
    assert smallest.encoding == Encoding.DELTA_MAPPED
    assert 0.95 * entries[0].stored_bytes < smallest.stored_bytes < 0.98 * entries[0].stored_bytes
    assert decode_entry(smallest, base) == new


@pytest.mark.parametrize(("name", "kind"), [("f16", "<f2"), ("f32", "<f4")])
def test_the_smallest_delta_converts_what_has_another_type(name: str, kind: str) -> None:
    base, new = of(OLD), of(OLD, kind)
    smallest = make_smallest_delta(pair(new, base, name, "bf16"), new, base)
    assert smallest is not None
    assert smallest.stored_bytes < 0.01 * len(new)
    assert decode_entry(smallest, base) == new


def test_bytes_of_unknown_types_get_the_smaller_of_both_encodings() -> None:
    base, new = of(OLD), of(TUNED)
    encoding, payload = encode_difference(new, base)
    smallest = make_smallest_delta(pair(new, base, "bf16", "bf16"), new, base)
    assert smallest is not None
    assert encoding == Encoding.DELTA_MAPPED
    # The type is known from a sample only.
    assert len(payload) < 1.01 * smallest.stored_bytes


def test_unrelated_numbers_have_no_smallest_delta() -> None:
    other = of(made(layers=1, width=192, vocabulary=2048, seed=9))
    found = make_smallest_delta(pair(other, of(OLD), "bf16", "bf16"), other, of(OLD))
    assert found is None or found.stored_bytes > 0.6 * len(other)
