"""Numeric encodings: exact for every input, and on hostile payloads only FormatError, soon."""

from __future__ import annotations

import contextlib
import struct
import time

import numpy as np
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.chunks import NAMES, bodies, successors
from yarnstore.core import limits
from yarnstore.core.encodings import (
    BLOCKS,
    ELEMENTS,
    decode_delta_planes,
    decode_delta_zstd,
    decode_planes,
    encode_delta_planes,
    encode_delta_zstd,
    encode_planes,
    guess_encoding,
)
from yarnstore.errors import FormatError

quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(bodies(), st.sampled_from([2, 4, 8]), st.integers(0, 7))
def test_planes_give_back_every_byte(data: bytes, width: int, phase: int) -> None:
    payload = encode_planes(data, width, phase % width)
    if payload is not None:
        assert len(payload) < len(data)
        assert decode_planes(payload, len(data)) == data


@quick
@given(successors(), NAMES, st.booleans())
def test_delta_planes_give_back_every_byte(pair: tuple[bytes, bytes], name: str, sort: bool) -> None:
    base, data = pair
    payload = encode_delta_planes(data, base, name, sort=sort)
    if payload is not None:
        assert len(payload) < len(data)
        assert decode_delta_planes(payload, base, len(data)) == data


@quick
@given(successors())
def test_delta_zstd_gives_back_every_byte(pair: tuple[bytes, bytes]) -> None:
    base, data = pair
    payload = encode_delta_zstd(data, base)
    if payload is not None:
        assert len(payload) < len(data)
        assert decode_delta_zstd(payload, base, len(data)) == data


@pytest.mark.parametrize("name", [*ELEMENTS, *BLOCKS])
@pytest.mark.parametrize("extra", [0, 1, 7])
def test_whole_chunks_with_a_tail_cross_tile_borders(name: str, extra: int) -> None:
    rng = np.random.default_rng(1)
    base = (rng.standard_normal(90_000) * 0.05).astype("<f4").tobytes()
    new = np.frombuffer(base, "<u2").copy()
    new += rng.integers(0, 2, new.size).astype("<u2")
    data = new.tobytes() + bytes(extra)
    for sort in (False, True):
        payload = encode_delta_planes(data, base, name, sort=sort)
        assert payload is not None
        assert len(payload) < 0.4 * len(data)
        assert decode_delta_planes(payload, base, len(data)) == data


@pytest.mark.parametrize("length", range(71))
def test_short_chunks(length: int) -> None:
    base = bytes(range(length))
    for name in (*ELEMENTS, *BLOCKS):
        payload = encode_delta_planes(base, base, name)
        assert payload is None or decode_delta_planes(payload, base, length) == base
    for width in (2, 4, 8):
        payload = encode_planes(bytes(length), width)
        assert payload is None or decode_planes(payload, length) == bytes(length)


@quick
@given(successors(), NAMES, st.data())
def test_mutated_payloads_give_other_bytes_or_a_format_error(
    pair: tuple[bytes, bytes], name: str, data: st.DataObject
) -> None:
    base, new = pair
    found = [
        (encode_planes(new, 2), decode_planes, (len(new),)),
        (encode_delta_planes(new, base, name), decode_delta_planes, (base, len(new))),
        (encode_delta_planes(new, base, "bf16"), decode_delta_planes, (base, len(new))),
        (encode_delta_zstd(new, base), decode_delta_zstd, (base, len(new))),
    ]
    for payload, decode, rest in found:
        if payload is None:
            continue
        broken = bytearray(payload)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(
                st.one_of(st.integers(0, min(40, len(broken) - 1)), st.integers(0, len(broken) - 1))
            )
            broken[at] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(broken)))
        for hostile in (bytes(broken), bytes(broken[:cut]), payload + b"x"):
            with contextlib.suppress(FormatError):
                assert len(decode(hostile, *rest)) == len(new)


@quick
@given(
    st.binary(max_size=80),
    st.binary(max_size=100),
    st.integers(-1, 2 * limits.CHUNK_LIMIT_BYTES),
    st.binary(max_size=6),
)
def test_made_up_payloads(payload: bytes, base: bytes, length: int, head: bytes) -> None:
    started = time.process_time()
    for start in (b"", b"\x01", b"\x01\x02\x00", b"\x01\x04\x70\x7f", b"\x01\xff\x12\x00\x00\x01", head):
        for decode in (
            lambda p: decode_planes(p, length),
            lambda p: decode_delta_planes(p, base, length),
            lambda p: decode_delta_zstd(p, base, length),
        ):
            with contextlib.suppress(FormatError):
                assert len(decode(start + payload)) == length
    assert time.process_time() - started < 5


@quick
@given(successors(), bodies())
def test_a_wrong_base_never_crashes(pair: tuple[bytes, bytes], other: bytes) -> None:
    base, data = pair
    for name in ("bf16", "f32", "q4_0"):
        payload = encode_delta_planes(data, base, name)
        if payload is not None:
            with contextlib.suppress(FormatError):
                assert len(decode_delta_planes(payload, other, len(data))) == len(data)
    payload = encode_delta_zstd(data, base)
    if payload is not None:
        with contextlib.suppress(FormatError):
            decode_delta_zstd(payload, other, len(data))


def _planes_of(frame: bytes) -> bytes:
    """A planes payload whose only plane-0 stream is `frame`; 2 MiB of elements declared."""
    raw = 1 << 20
    return bytes((1, 2, 0)) + struct.pack("<3I", 1 << 30 | len(frame), raw, 0) + frame + bytes(raw)


def test_a_frame_that_asks_for_gigabytes_is_refused_before_it_is_read() -> None:
    plain = bytes(1 << 20)
    good = zstandard.ZstdCompressor().compress(plain)
    assert decode_planes(_planes_of(good), 1 << 21) == bytes(1 << 21)
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=True)
    streamed = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    unsized = streamed.compress(plain) + streamed.flush()
    huge = bytes.fromhex("28b52ffd") + bytes((0xE0,)) + struct.pack("<Q", 1 << 40) + b"\x01\x00\x00"
    # Magic, descriptor (8-byte size, window byte), window of 128 MiB, content size, an empty last block.
    wide_frame = bytes.fromhex("28b52ffd") + bytes((0xC0, 17 << 3)) + struct.pack("<Q", 1 << 20) + b"\x01\0\0"
    skippable = bytes.fromhex("502a4d18") + struct.pack("<I", 1 << 20) + bytes(8)
    for frame, why in (
        (unsized, "instead of 1048576"),
        (huge, "of 1099511627776 bytes instead"),
        (wide_frame, "window of"),
        (skippable, "zstd frame"),
        (good + b"x", "corrupt zstd frame"),
        (good + good, "corrupt zstd frame"),
        (good[:-1], "corrupt zstd frame"),
        (b"", "corrupt zstd frame"),
    ):
        with pytest.raises(FormatError, match=why):
            decode_planes(_planes_of(frame), 1 << 21)


def _table(*streams: tuple[int, bytes]) -> bytes:
    table = struct.pack(f"<{len(streams)}I", *(kind << 30 | len(stored) for kind, stored in streams))
    return table + b"".join(stored for _, stored in streams)


EIGHT = (0, bytes(8))
REST = (0, b"")
ZEROS = (1, zstandard.compress(bytes(8)))


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\x02\x02\x00" + _table(EIGHT, EIGHT, REST), "planes header"),
        (b"\x01\x03\x00" + _table(EIGHT, EIGHT, REST), "planes header"),
        (b"\x01\x02\x02" + _table(EIGHT, EIGHT, REST), "planes header"),
        (b"\x01\x02", "planes header"),
        (b"\x01\x02\x00" + bytes(11), "inside its stream table"),
        (b"\x01\x02\x00" + _table(EIGHT, EIGHT, (0, b"x")), "raw stream of 1 bytes"),
        (b"\x01\x02\x00" + _table(EIGHT, EIGHT, REST) + b"x", "1 bytes after"),
        (b"\x01\x02\x00" + _table(EIGHT, EIGHT, REST)[:-1], "inside a stream"),
        (b"\x01\x02\x00" + _table(EIGHT, (3, bytes(8)), REST), "unknown kind 3"),
        (b"\x01\x02\x00" + _table(EIGHT, (2, bytes(7)), REST), "stream table"),
        (b"\x01\x02\x00" + _table(EIGHT, (2, _table((2, b"\0"), REST)), REST), "nests"),
        (b"\x01\x02\x00" + _table(EIGHT, (2, _table((0, b"\0"), REST) + b"x"), REST), "do not add up"),
        (b"\x01\x02\x00" + _table(EIGHT, (2, _table((0, b"\1"), REST)), REST), "raw stream of 0 bytes"),
        (b"\x01\x02\x00" + _table(EIGHT, (1, zstandard.compress(bytes(9))), REST), "frame of 9 bytes"),
    ],
)
def test_every_fault_of_a_planes_payload_is_named(payload: bytes, why: str) -> None:
    for good in (EIGHT, ZEROS, (2, _table((0, b"\0"), REST))):
        assert decode_planes(b"\x01\x02\x00" + _table(EIGHT, good, REST), 16) == bytes(16)
    with pytest.raises(FormatError, match=why):
        decode_planes(payload, 16)


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b"\x02\x04\x00\x00", "delta-planes header"),
        (b"\x01\x08\x00\x00", "delta-planes header"),
        (b"\x01\x04\x00", "delta-planes header"),
        (b"\x01\x04\x09\x02", "sort keys"),
        (b"\x01\x01\x01\x02", "sort keys"),
        (b"\x01\xff\x12\x00\x00", "inside its header"),
        (b"\x02\xff\x12\x00\x00\x01", "block header"),
        (b"\x01\xff\x01\x00\x00\x01", "block header"),
        (b"\x01\xff\x12\x08\x00\x01", "block header"),
        (b"\x01\xff\x12\x00\x00\x00", "block header"),
        (b"\x01\xff\x12\x00\x00\x09", "block header"),
        (b"\x01\xff\x12\x00\x11\x01", "scales outside"),
        (b"\x01", "inside its header"),
    ],
)
def test_every_fault_of_a_delta_planes_header_is_named(head: bytes, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        decode_delta_planes(head, bytes(16), 16)


@pytest.mark.parametrize("length", [-1, limits.CHUNK_LIMIT_BYTES + 1])
def test_a_chunk_longer_than_the_limit_is_refused(length: int) -> None:
    for decode in (
        lambda: decode_planes(b"\x01\x02\x00", length),
        lambda: decode_delta_planes(b"\x01\x04\x00\x00", b"", length),
        lambda: decode_delta_planes(b"\x01\xff\x12\x00\x00\x01", b"", length),
        lambda: decode_delta_zstd(b"\x01", b"base", length),
    ):
        with pytest.raises(FormatError, match="is the limit"):
            decode()


def test_the_greatest_exponent_is_a_sort_key_too() -> None:
    base = np.array([0x7F80, 0x3F80, 0x7FC1, 0xFF80] * 20_000, "<u2")
    new = base + np.arange(base.size, dtype="<u2") % 3
    payload = encode_delta_planes(new.tobytes(), base.tobytes(), "bf16")
    assert payload is not None
    assert payload[2:4] == b"\x7f\xff"
    assert decode_delta_planes(payload, base.tobytes(), 2 * base.size) == new.tobytes()


def test_a_guess_finds_width_and_phase_without_a_header() -> None:
    rng = np.random.default_rng(2)
    weights = (rng.standard_normal(400_000) * 0.03).astype("<f4")
    bf16 = weights.view("<u2")[1::2].tobytes()
    assert guess_encoding(bf16) == ("planes", 2, 0)
    assert guess_encoding(b"?" + bf16) == ("planes", 2, 1)
    for phase in range(4):
        assert guess_encoding(b"????"[:phase] + weights.tobytes()) == ("planes", 4, phase)
    assert guess_encoding(rng.standard_normal(100_000).tobytes()) == ("planes", 8, 0)
    assert guess_encoding(rng.bytes(1 << 20)).kind == "raw"
    words = [b"model", b"update", b"rollback", b"chunk", b"registry", b"pack", b"index"]
    text = b" ".join(words[i] for i in rng.integers(0, len(words), 50_000))
    assert guess_encoding(text).kind == "zstd"
    assert guess_encoding(b"").kind == "raw"


@quick
@given(bodies())
def test_a_guess_is_always_one_that_the_encoder_takes(data: bytes) -> None:
    guess = guess_encoding(data)
    if guess.kind == "planes":
        encode_planes(data, guess.width, guess.phase)
