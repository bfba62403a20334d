"""Encoding 5: exact for every input and mapping, and on hostile payloads only FormatError, soon."""

from __future__ import annotations

import contextlib
import struct
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.chunks import NAMES, bodies, successors
from tests.support.reshaped import bf16
from yarnstore.core import limits
from yarnstore.core.encodings import encode_delta_planes
from yarnstore.core.encodings.mapped import (
    MAPPED_FLOATS,
    Mapping,
    decode_mapped,
    encode_mapped,
    find_mapping,
    may_pay,
)
from yarnstore.errors import FormatError

quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FLOATS = st.sampled_from(list(MAPPED_FLOATS))
RANDOM = np.random.default_rng(7)
HEAD = b"\x01" + bytes(5)
WEIGHTS = (RANDOM.standard_normal(60_000) * 0.05).astype("<f4")
AS = {"bf16": bf16(WEIGHTS).tobytes(), "f16": WEIGHTS.astype("<f2").tobytes(), "f32": WEIGHTS.tobytes()}


@quick
@given(successors(), NAMES)
def test_a_difference_that_converts_nothing_gives_back_every_byte(
    pair: tuple[bytes, bytes], name: str
) -> None:
    base, data = pair
    payload = encode_mapped(data, base, name, None)
    if payload is not None:
        assert len(payload) < len(data)
        assert decode_mapped(payload, base, len(data)) == data


@quick
@given(successors(), FLOATS, FLOATS)
def test_a_mapping_gives_back_every_byte(pair: tuple[bytes, bytes], element: str, base_element: str) -> None:
    base, data = pair
    data = data[: len(data) // 4 * 4]
    mapping = find_mapping(data, element, base_element)
    payload = encode_mapped(data, base, element, mapping) if mapping is not None else None
    if payload is not None:
        assert decode_mapped(payload, base, len(data)) == data


@quick
@given(st.binary(max_size=400), FLOATS, st.integers(0, 2**32))
def test_a_chunk_of_a_wider_type_gives_back_every_byte(words: bytes, work: str, seed: int) -> None:
    """Special values too: NaN with payloads, infinities, denormals."""
    values = np.frombuffer(words, "<u2", len(words) // 2)
    wide = values.astype("<u4") << 16 if work == "bf16" else values.view("<f2").astype("<f4").view("<u4")
    data = wide.astype("<u4").tobytes() * 3
    base = np.random.default_rng(seed).bytes(len(data))
    mapping = find_mapping(data, "f32", "f32")
    payload = encode_mapped(data, base, "f32", mapping)
    if payload is not None:
        assert decode_mapped(payload, base, len(data)) == data


@pytest.mark.parametrize("target", ["bf16", "f16", "f32"])
@pytest.mark.parametrize("source", ["bf16", "f16", "f32"])
def test_an_exact_conversion_costs_next_to_nothing(source: str, target: str) -> None:
    if source == target:
        return
    values = {
        "bf16": (np.frombuffer(AS["bf16"], "<u2").astype("<u4") << 16).view("<f4"),
        "f16": np.frombuffer(AS["f16"], "<f2").astype("<f4"),
        "f32": WEIGHTS,
    }[source]
    data = {"bf16": bf16(values).tobytes(), "f16": values.astype("<f2").tobytes(), "f32": values.tobytes()}[
        target
    ]
    mapping = find_mapping(data, target, source)
    assert mapping is not None
    payload = encode_mapped(data, AS[source], target, mapping)
    assert payload is not None
    assert len(payload) < 0.001 * len(data)
    assert decode_mapped(payload, AS[source], len(data)) == data


def test_a_wide_file_of_narrow_values_costs_what_the_narrow_one_costs() -> None:
    old = np.frombuffer(AS["bf16"], "<u2")
    new = old + RANDOM.integers(-2, 3, old.size).astype("<u2")
    narrow = encode_mapped(new.tobytes(), old.tobytes(), "bf16", None)
    wide, wide_base = ((words.astype("<u4") << 16).tobytes() for words in (new, old))
    assert find_mapping(wide, "f32", "f32") == Mapping("f32", "f32", "bf16")
    payload = encode_mapped(wide, wide_base, "f32", find_mapping(wide, "f32", "f32"))
    assert narrow is not None
    assert payload is not None
    assert len(payload) == len(narrow)


def test_new_zeros_cost_a_mask() -> None:
    old = np.frombuffer(AS["bf16"], "<u2").reshape(-1, 4)
    new = old.copy()
    smallest = np.argsort(old & 0x7FFF, axis=1)[:, :2]
    np.put_along_axis(new, smallest, 0, axis=1)
    payload = encode_mapped(new.tobytes(), old.tobytes(), "bf16", None)
    assert payload is not None
    assert len(payload) < 0.05 * new.nbytes
    assert decode_mapped(payload, old.tobytes(), new.nbytes) == new.tobytes()


def test_single_steps_cost_about_what_they_say() -> None:
    """A tenth of all weights, up or down: 0.57 bits of 16."""
    old = np.frombuffer(AS["bf16"], "<u2")
    moved = (RANDOM.random(old.size) < 0.1) * RANDOM.choice([-1, 1], old.size)
    new = old + moved.astype("<u2")
    payload = encode_mapped(new.tobytes(), old.tobytes(), "bf16", None)
    assert payload is not None
    assert len(payload) < 0.042 * new.nbytes


@pytest.mark.parametrize("shift", [1, 4, 5])
def test_low_bits_that_are_never_used_cost_nothing(shift: int) -> None:
    """8-bit floats in a bf16 file, for instance: the base may use these bits."""
    old = np.frombuffer(AS["bf16"], "<u2")
    new = (old >> shift << shift) + (RANDOM.integers(-1, 2, old.size) << shift).astype("<u2")
    narrow, narrow_base = new >> shift, old >> shift
    payload = encode_mapped(new.tobytes() + b"x", old.tobytes() + b"y", "bf16", None)
    assert payload is not None
    assert decode_mapped(payload, old.tobytes() + b"y", new.nbytes + 1) == new.tobytes() + b"x"
    assert payload[5] == shift
    plain = encode_mapped(narrow.tobytes(), narrow_base.tobytes(), "i16", None)
    assert plain is not None
    assert len(payload) <= len(plain) + 200


def test_zeros_may_keep_their_sign() -> None:
    """What a product with a mask leaves of negative numbers is -0."""
    old = np.frombuffer(AS["bf16"], "<u2")
    new = np.where(RANDOM.random(old.size) < 0.5, old & 0x8000, old)
    payload = encode_mapped(new.tobytes(), old.tobytes(), "bf16", None)
    assert payload is not None
    assert len(payload) < 0.064 * new.nbytes
    assert decode_mapped(payload, old.tobytes(), new.nbytes) == new.tobytes()


@pytest.mark.parametrize(("share", "most"), [(0.01, 1.9), (0.03, 1.4), (0.1, 1.09), (0.3, 1.05), (0.6, 1.05)])
def test_small_steps_cost_about_their_entropy(share: float, most: float) -> None:
    old = np.frombuffer(AS["bf16"], "<u2")
    moved = (RANDOM.random(old.size) < share) * RANDOM.choice([-1, 1], old.size)
    new = old + moved.astype("<u2")
    payload = encode_mapped(new.tobytes(), old.tobytes(), "bf16", None)
    assert payload is not None
    assert decode_mapped(payload, old.tobytes(), new.nbytes) == new.tobytes()
    entropy = -share * np.log2(share / 2) - (1 - share) * np.log2(1 - share)
    assert len(payload) < most * old.size * entropy / 8 + 250


@quick
@given(successors(), NAMES, st.data())
def test_mutated_payloads_give_other_bytes_or_a_format_error(
    pair: tuple[bytes, bytes], name: str, data: st.DataObject
) -> None:
    base, new = pair
    mapping = data.draw(
        st.sampled_from([None, Mapping("f32", "f32", "bf16"), Mapping("f16", "bf16", "bf16")])
    )
    if mapping is not None:
        new = (np.frombuffer(new, "<u2", len(new) // 2).astype("<u4") << 16).tobytes()
        name = mapping.chunk
    payload = encode_mapped(new, base, name, mapping)
    if payload is None:
        return
    broken = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.one_of(st.integers(0, min(40, len(broken) - 1)), st.integers(0, len(broken) - 1)))
        broken[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    for hostile in (bytes(broken), bytes(broken[:cut]), payload + b"x"):
        for other in (base, base[: len(base) // 2], b""):
            with contextlib.suppress(FormatError):
                assert len(decode_mapped(hostile, other, len(new))) == len(new)


@quick
@given(
    st.binary(max_size=80),
    bodies(),
    st.integers(-1, 2 * limits.CHUNK_LIMIT_BYTES),
    st.sampled_from(
        [
            b"",
            HEAD,
            b"\x01\x04\x06\x04\0\0",
            b"\x01\0\0\0\x01\0\x08\0\0\0",
            b"\x01\x05\x04\x04\x01\0",
            b"\x01\0\0\0\0\x07",
        ]
    ),
)
def test_made_up_payloads(payload: bytes, base: bytes, length: int, head: bytes) -> None:
    started = time.process_time()
    for middle in (b"", b"\x01\x04\x00\x00", b"\x01\x04\x70\x7f", b"\x01\xff\x12\x00\x00\x01"):
        with contextlib.suppress(FormatError):
            assert len(decode_mapped(head + middle + payload, base, length)) == length
    assert time.process_time() - started < 5


INNER = b"\x01\x04\0\0" + struct.pack("<3I", 8, 8, 0) + bytes(16)


def segments(*parts: tuple[int, int]) -> bytes:
    words = [code << 24 | length for code, length in parts]
    return struct.pack(f"<B{len(words)}I", len(words), *words)


def two(first: bytes, second: bytes, kind: int = 0) -> bytes:
    return struct.pack("<2I", len(first), kind << 30 | len(second)) + first + second


def packed(stream: bytes) -> bytes:
    """A difference of eight bf16 numbers whose first plane is packed."""
    inner = b"\x01\x04\0\0" + struct.pack("<3I", 3 << 30 | len(stream), 8, 0) + stream + bytes(8)
    return HEAD + inner


MASKED = b"\x01\0\0\0\x01\0"
GOOD = packed(segments((4, 8)) + two(b"\0\0", b""))
NESTED = segments((4, 1)) + two(b"\3", b"\0")


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\x01\0\0\0\0", "inside its header"),
        (b"\x02\0\0\0\0\0" + INNER, "delta-mapped header"),
        (b"\x01\0\0\0\x02\0" + INNER, "delta-mapped header"),
        (b"\x01\0\0\0\x04\0" + INNER, "delta-mapped header"),
        (b"\x01\0\0\0\0\x08" + INNER, "more than they have"),
        (b"\x01\0\0\0\0\x01\x01\xff\x12\0\0\x01" + bytes(16), "shifts what is no number"),
        (b"\x01\x04\x06\x01\0\0" + INNER, "no float"),
        (b"\x01\x00\x04\x04\0\0" + INNER, "no float"),
        (b"\x01\x04\x04\x06\0\0" + INNER, "does not fit"),
        (HEAD + b"\x01", "inside its header"),
        (MASKED + b"\0\0", "inside its header"),
        (MASKED + b"\xff\0\0\0" + INNER, "inside its mask"),
        (MASKED + b"\x05\0\0\0" + struct.pack("<I", 1) + b"\0" + b"\x01\x00\0\0", "no floats"),
        (MASKED + b"\x06\0\0\0" + struct.pack("<I", 2) + b"\0\0" + INNER, "raw stream of 2 bytes"),
        (packed(b""), "inside the segments"),
        (packed(b"\2" + bytes(7)), "inside the segments"),
        (packed(segments((4, 7)) + two(b"\0\0", b"")), "do not add up"),
        (packed(segments((0, 8)) + two(b"\0\0", b"")), "unknown way"),
        (packed(segments((6, 8)) + two(b"\0\0", b"")), "unknown way"),
        (packed(segments((0x11, 8)) + two(bytes(8), b"")), "unknown way"),
        (packed(segments((0x24, 8)) + two(b"\0\0", b"")), "unknown way"),
        (packed(segments((4, 8)) + two(b"\0", b"")), "raw stream of 1 bytes"),
        (packed(segments((4, 8)) + two(b"\3\0", b"")), "raw stream of 0 bytes"),
        (packed(segments((4, 8)) + two(b"\0\0", b"\0")), "raw stream of 1 bytes"),
        (packed(segments((4, 8)) + two(b"\3\0", b"\0", kind=2)), "nests"),
        (packed(segments((4, 8)) + two(b"\3\0", segments((4, 1)) + two(b"\3", NESTED, 3), 3)), "nests"),
        (GOOD[:-1], "inside a stream"),
    ],
)
def test_every_fault_is_named(payload: bytes, why: str) -> None:
    base = bytes(16)
    mask = struct.pack("<I", 1) + b"\0"
    for good in (HEAD + INNER, MASKED + b"\x05\0\0\0" + mask + INNER, GOOD):
        assert decode_mapped(good, base, 16) == bytes(16)
    with pytest.raises(FormatError, match=why):
        decode_mapped(payload, base, 16)


def test_escaped_symbols_may_be_packed_once() -> None:
    payload = packed(segments((4, 8)) + two(b"\3\0", NESTED, 3))
    assert decode_mapped(payload, bytes(16), 16) == b"\3" + bytes(15)


def test_a_packed_stream_is_refused_in_other_encodings() -> None:
    from yarnstore.core.encodings import decode_delta_planes

    with pytest.raises(FormatError, match="unknown kind 3"):
        decode_delta_planes(GOOD[len(HEAD) :], bytes(16), 16)


@pytest.mark.parametrize("share", [0.0, 1e-4, 1e-2, 1.0])
def test_a_difference_that_is_not_tried_would_save_less_than_5_percent(share: float) -> None:
    base = AS["bf16"]
    steps = np.random.default_rng(1).standard_normal(len(WEIGHTS)) * 0.05 * share
    data = bf16((WEIGHTS + steps).astype("<f4")).tobytes()
    plain = len(encode_delta_planes(data, base, "bf16") or data)
    if not may_pay(data, base, "bf16", plain):
        assert len(encode_mapped(data, base, "bf16", None) or data) > 0.95 * plain
    assert may_pay(data, base, "bf16", plain) == (share < 1e-2)


def test_a_difference_of_which_only_some_rows_moved_is_tried() -> None:
    """Sorted, its zeros are among the others; in their order, they take next to nothing."""
    base = AS["bf16"]
    old = np.frombuffer(base, "<u2").reshape(-1, 200)
    new = old.copy()
    new[::2] += np.random.default_rng(2).integers(0, 1 << 12, new[::2].shape, np.uint16)
    plain = len(encode_delta_planes(new.tobytes(), base, "bf16") or base)
    assert 16 * plain / len(base) > 4
    assert len(encode_mapped(new.tobytes(), base, "bf16", None) or base) < 0.95 * plain
    assert may_pay(new.tobytes(), base, "bf16", plain)


def test_new_zeros_and_unused_bits_are_always_tried() -> None:
    base = AS["f32"]
    words = np.frombuffer(base, "<u4")
    pruned = words.copy()
    pruned[::2] = 0
    assert may_pay(pruned.tobytes(), base, "f32", len(base))
    assert may_pay((words & ~np.uint32(0xFF)).tobytes(), base, "f32", len(base))
    assert not may_pay(base, base[::-1], "f32", len(base))
