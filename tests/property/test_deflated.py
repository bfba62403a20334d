"""Encoding 6: exact for every stream that zlib makes, and on hostile payloads only FormatError, soon."""

from __future__ import annotations

import contextlib
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.deflated import floats, gzipped, hdf5, moved, npz, zipped
from yarnstore.core import limits
from yarnstore.core.codec import encode_difference, pack_zstd
from yarnstore.core.deflate import BlockEnds, deflate, find_bits, inflate
from yarnstore.core.deflated import (
    FORMAT,
    HEADER,
    PLAIN_LIMIT_BYTES,
    ZLIB,
    ChunkStreams,
    Packed,
    PairedStreams,
    decode_deflated,
)
from yarnstore.core.deflated_encoder import encode_deflated
from yarnstore.core.layouts import BytesSource
from yarnstore.core.layouts.deflated import DeflateStream, find_streams
from yarnstore.core.stream_cuts import STRETCH_BYTES, cut_streams, walk_stream
from yarnstore.errors import FormatError

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.builds(bytes.__mul__, st.binary(min_size=1, max_size=9), st.integers(1, 400)),
    ),
    min_size=1,
    max_size=6,
).map(b"".join)


def chunk_of(plains: list[bytes], level: int, gaps: list[bytes]) -> tuple[bytes, ChunkStreams]:
    """A chunk of raw streams with other bytes between them."""
    data, packed = b"", []
    for plain, gap in zip(plains, gaps, strict=True):
        stream = deflate(plain, level)
        data += gap
        packed.append(Packed(len(data), len(stream), len(plain)))
        data += stream
    return data + b"end", ChunkStreams(tuple(packed))


def numbers(data: np.ndarray) -> list[bytes]:
    return [part.tobytes() for part in np.array_split(data, 3)]


BASE, BASE_STREAMS = chunk_of(numbers(floats(20_000)), 6, [b"a", b"bb", b""])
CHUNK, STREAMS = chunk_of(numbers(moved(floats(20_000))), 6, [b"a", b"bc", b""])
PAYLOAD = encode_deflated(CHUNK, BASE, PairedStreams(STREAMS, BASE_STREAMS, (0, 1, 2))) or b""


def test_a_difference_of_numbers_is_a_fraction_of_the_chunk() -> None:
    assert 0 < len(PAYLOAD) < len(CHUNK) / 3
    assert decode_deflated(PAYLOAD, BASE, len(CHUNK)) == CHUNK


@quick
@given(st.data())
def test_every_chunk_of_streams_is_given_back(data: st.DataObject) -> None:
    def draw() -> tuple[bytes, ChunkStreams]:
        plains = data.draw(st.lists(PLAIN, min_size=1, max_size=4))
        gaps = data.draw(st.lists(st.binary(max_size=40), min_size=len(plains), max_size=len(plains)))
        return chunk_of(plains, data.draw(st.integers(1, 9)), gaps)

    (chunk, ours), (base, theirs) = draw(), draw()
    partners = tuple(data.draw(st.integers(-1, len(theirs.packed) - 1)) for _ in ours.packed)
    payload = encode_deflated(chunk, base, PairedStreams(ours, theirs, partners))
    if payload is not None:
        assert len(payload) < len(chunk)
        assert decode_deflated(payload, base, len(chunk)) == chunk


def test_a_stream_that_zlib_does_not_make_is_kept_as_it_is() -> None:
    stored = zlib.compressobj(0, zlib.DEFLATED, -15)
    plain = bytes(range(256)) * 8
    other = stored.compress(plain) + stored.flush()
    chunk = CHUNK + other
    ours = ChunkStreams((*STREAMS.packed, Packed(len(CHUNK), len(other), len(plain))))
    payload = encode_deflated(chunk, BASE, PairedStreams(ours, BASE_STREAMS, (0, 1, 2, -1))) or b""
    assert len(payload) < len(chunk) / 3
    assert decode_deflated(payload, BASE, len(chunk)) == chunk
    alone = ChunkStreams((Packed(0, len(other), len(plain)),))
    assert encode_deflated(other, BASE, PairedStreams(alone, BASE_STREAMS, (0,))) is None


@pytest.mark.parametrize("level", [1, 4, 6, 9])
def test_a_stream_goes_on_from_the_end_of_a_block_as_if_all_were_compressed(level: int) -> None:
    values = np.random.default_rng(1).normal(size=400_000).astype("<f4")
    plain = values.tobytes()
    whole = deflate(plain, level)
    ends = BlockEnds(level)
    at = sum(len(packed) for size, packed in ends.feed(plain) if size < 900_000)
    start = len(inflate(whole[: at + 2], len(plain)))
    window = plain[start - 32_768 : start]
    bits = find_bits(whole[at:], plain[start : start + 50_000], window)
    assert bits is not None
    low = whole[at] & ((1 << bits) - 1)
    again = deflate(plain[start:], level, bits=bits, low=low, window=window)
    assert again[: len(whole) - at] == whole[at:]
    assert inflate(whole[at:], len(plain), bits=bits, window=window) == plain[start:]


def test_a_block_that_does_not_begin_there_is_not_found() -> None:
    plain = floats(100_000).tobytes()
    whole = deflate(plain, 6)
    assert find_bits(whole[1000:], plain[900:20_000], plain[:900]) is None


@pytest.mark.parametrize("make", [lambda data: zipped({"w": data}, 6), lambda data: gzipped(data, 9)])
def test_a_long_stream_is_cut_by_its_plain_bytes(make) -> None:  # type: ignore[no-untyped-def]
    plain = floats(3 * STRETCH_BYTES // 4 + 50_000).tobytes()
    source = BytesSource(make(plain))
    (stream,) = find_streams(source)
    parts = cut_streams(source, [stream])
    assert parts[0][0] == stream.offset
    assert parts[-1][1] == stream.end
    assert len(parts) == 4
    assert all(0 < end - start <= limits.CHUNK_LIMIT_BYTES for start, end in parts)
    walked = list(walk_stream(source, stream, [start for start, _ in parts[1:]]))
    assert all(part is not None for part in walked)
    for n, part in enumerate(walked):
        assert part is not None
        found = inflate(source.data[part.offset : stream.end], len(plain), bits=part.bits, window=part.window)
        start = part.position + len(part.window)
        assert plain[start:] == found
        assert n * STRETCH_BYTES <= start + 8192
        assert start <= n * STRETCH_BYTES + 64 * 1024
        assert plain[part.position : start] == part.window


def test_streams_of_every_container_are_found_whole() -> None:
    plain = floats(60_000).tobytes()
    found = {
        "npz": npz({"a": floats(60_000), "b": floats(30_000, 5)}),
        "zip": zipped({"a": plain, "b": plain[:100_000], "short": b"x"}, 1),
        "gzip": gzipped(plain, 6),
        "hdf5": hdf5(plain),
    }
    for name, data in found.items():
        streams = find_streams(BytesSource(data))
        assert len(streams) == {"npz": 2, "zip": 2, "gzip": 1, "hdf5": 4}[name]
        for stream in streams:
            assert len(inflate(data[stream.offset : stream.end], 1 << 24)) == stream.size


def test_a_gzip_file_that_ends_within_its_header_has_no_streams() -> None:
    content = gzipped(floats(3000).tobytes(), 6)
    assert all(find_streams(BytesSource(content[:length])) == [] for length in range(20))


@quick
@given(st.sampled_from(["npz", "gzip", "hdf5"]), st.data())
def test_a_damaged_container_has_streams_within_it_or_none(name: str, data: st.DataObject) -> None:
    plain = floats(3000).tobytes()
    made = {"npz": npz({"a": floats(3000)}), "gzip": gzipped(plain, 6), "hdf5": hdf5(plain, chunk_bytes=4000)}
    content = bytearray(made[name])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    source = BytesSource(bytes(content[: data.draw(st.integers(0, len(content)))]))
    streams = find_streams(source)
    end = 0
    for stream in streams:
        assert end <= stream.offset <= stream.end <= source.size
        end = stream.end
    for start, stop in cut_streams(source, streams):
        assert 0 <= start < stop <= source.size


def test_a_stream_that_claims_too_little_is_not_cut() -> None:
    data = deflate(bytes(20 << 20), 6)
    stream = DeflateStream("", 0, len(data), STRETCH_BYTES + 1)
    assert cut_streams(BytesSource(data), [stream]) == []


@quick
@given(st.data())
def test_a_damaged_payload_is_other_bytes_or_a_format_error(data: st.DataObject) -> None:
    payload = bytearray(PAYLOAD)
    for _ in range(data.draw(st.integers(1, 4))):
        # Most of what decides is in front.
        last = data.draw(st.sampled_from([40, 400, len(payload) - 1]))
        payload[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    del payload[data.draw(st.integers(0, len(payload))) or len(payload) :]
    with contextlib.suppress(FormatError):
        assert len(decode_deflated(bytes(payload), BASE, len(CHUNK))) == len(CHUNK)


@quick
@given(st.binary(max_size=2000))
def test_another_base_gives_other_bytes_or_a_format_error(base: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert len(decode_deflated(PAYLOAD, base, len(CHUNK))) == len(CHUNK)


def hostile(
    *, base: list[tuple[int, ...]], ours: list[tuple[int, ...]], parts: list[tuple[int, ...]], window: int = 0
) -> bytes:
    rows = [window, *(n for row in (*base, *ours, *parts) for n in row)]
    frame = pack_zstd(struct.pack(f"<{len(rows)}I", *rows))
    counts = len(base), len(ours), len(parts)
    stored = sum(part[4] for part in parts)
    return HEADER.pack(FORMAT, ZLIB, 6, 1, *counts, len(frame)) + frame + bytes(stored)


NONE = (0, 0, 0, 0, 0)
BOMB = deflate(bytes(64 << 20), 9)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        HEADER.pack(FORMAT, ZLIB, 6, 1, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFFFFFFF),
        HEADER.pack(2, ZLIB, 6, 1, 0, 0, 1, 0),
        HEADER.pack(FORMAT, 2, 6, 1, 0, 0, 1, 0),
        HEADER.pack(FORMAT, ZLIB, 10, 1, 0, 0, 1, 0),
        HEADER.pack(FORMAT, ZLIB, 6, 3, 0, 0, 1, 0),
        hostile(base=[(0, len(BOMB), 64 << 20, 0)], ours=[], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 0, 100)]),
        hostile(
            base=[(0, len(BOMB), 8 << 20, 0)], ours=[], parts=[(0, 0, 0, 0, 0), (8 << 20, 0, 8 << 20, 3, 4)]
        ),
        hostile(base=[(0, 2**32 - 1, 100, 0)], ours=[], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 0, 100)]),
        hostile(base=[], ours=[(0, 100, 100, 9, 0)], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 0, 100)]),
        hostile(base=[], ours=[(0, 100, 100, 3, 8)], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 0, 100)]),
        hostile(base=[], ours=[(0, 100, 2**32 - 1, 0, 0)], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 0, 100)]),
        hostile(base=[], ours=[], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 6, 100)]),
        hostile(base=[], ours=[], parts=[(2**32 - 1, 0, 0, 1, 10), (100, 0, 0, 0, 100)]),
        hostile(base=[], ours=[], parts=[(0, 0, 0, 0, 0)] * 60_000),
        hostile(base=[], ours=[], parts=[(0, 0, 0, 0, 0), (100, 0, 0, 0, 100)], window=100),
        hostile(base=[], ours=[(0, 60, 40, 0, 0)], parts=[(0, 0, 0, 0, 0), (80, 0, 0, 0, 80)]),
    ],
)
def test_a_hostile_payload_is_refused_soon(payload: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(FormatError):
        decode_deflated(payload, BOMB, 100)
    assert time.perf_counter() - started < 1


def test_a_small_chunk_does_not_compress_megabytes() -> None:
    """Level 9 takes three seconds for a MiB of short matches; that it equals the base's takes no bytes."""
    plain = np.random.default_rng(1).integers(0, 2, 1 << 20, np.uint8).tobytes()
    base = deflate(plain, 1)
    encoding, payload = encode_difference(plain, plain)
    size = len(plain)
    rows = 0, 0, len(base), size, 0, 0, 200, size, 0, 0, *NONE, size, 0, size, int(encoding), len(payload)
    frame = pack_zstd(struct.pack(f"<{len(rows)}I", *rows))
    hostile = HEADER.pack(FORMAT, ZLIB, 9, 1, 1, 1, 2, len(frame)) + frame + payload
    started = time.process_time()
    with pytest.raises(FormatError, match="more than is allowed"):
        decode_deflated(hostile, base, 200)
    assert time.process_time() - started < 0.5


def test_a_chunk_of_which_little_is_left_is_not_encoded() -> None:
    plain = bytes(1 << 20)
    stream = deflate(plain, 6)
    streams = ChunkStreams((Packed(0, len(stream), len(plain)),))
    assert encode_deflated(stream, stream, PairedStreams(streams, streams, (0,))) is None


def test_what_inflates_to_more_than_is_allowed_is_not_encoded() -> None:
    size = PLAIN_LIMIT_BYTES + 1
    stream = deflate(bytes(size), 6)
    streams = ChunkStreams((Packed(0, len(stream), size),))
    assert encode_deflated(stream, stream, PairedStreams(streams, streams, (0,))) is None
