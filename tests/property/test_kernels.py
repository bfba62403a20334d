"""The C kernels and numpy's give the same bytes, and C refuses whatever does not fit together."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.chunks import NAMES, bodies, successors
from tests.support.kernels import ALL, c_kernels, encodings_with
from yarnstore.core.digest import Buffer
from yarnstore.core.encodings import (
    BLOCKS,
    ELEMENTS,
    decode_delta_planes,
    decode_planes,
    encode_delta_planes,
    encode_planes,
    guess_encoding,
)
from yarnstore.core.encodings.transforms import RADIX, Kernels, Keys
from yarnstore.errors import FormatError

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
built = pytest.mark.skipif(len(ALL) < 2, reason="the C kernels are not built here")
FLOATS = [element for element in ELEMENTS.values() if element.exponent_mask]


def agreed(work: Callable[[], object]) -> object:
    """What both kernels make of it: the same, or the same refusal."""
    found = []
    for kernels in ALL:
        with encodings_with(kernels):
            try:
                result = work()
            except FormatError as error:
                result = str(error)
            found.append(bytes(result) if isinstance(result, memoryview) else result)
    assert all(one == other for one, other in pairwise(found))
    return found[0]


@built
@quick
@given(bodies(), st.sampled_from([2, 4, 8]), st.integers(0, 7), st.data())
def test_planes_are_the_same(data: bytes, width: int, phase: int, draw: st.DataObject) -> None:
    payload = agreed(lambda: encode_planes(data, width, phase % width))
    if isinstance(payload, bytes):
        assert agreed(lambda: decode_planes(payload, len(data))) == data
        broken = _broken(payload, draw)
        agreed(lambda: decode_planes(broken, len(data)))


@built
@quick
@given(successors(), NAMES, st.booleans(), st.data())
def test_deltas_are_the_same(pair: tuple[bytes, bytes], name: str, sort: bool, draw: st.DataObject) -> None:
    base, data = pair
    payload = agreed(lambda: encode_delta_planes(data, base, name, sort=sort))
    if isinstance(payload, bytes):
        assert agreed(lambda: decode_delta_planes(payload, base, len(data))) == data
        broken = _broken(payload, draw)
        agreed(lambda: decode_delta_planes(broken, base, len(data)))
        agreed(lambda: decode_delta_planes(payload, base[: len(base) // 2], len(data)))


def _broken(payload: bytes, draw: st.DataObject) -> bytes:
    broken = bytearray(payload)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.one_of(st.integers(0, min(40, len(broken) - 1)), st.integers(0, len(broken) - 1)))
        broken[at] = draw.draw(st.integers(0, 255))
    return bytes(broken)


@built
@quick
@given(bodies())
def test_guesses_are_the_same(data: bytes) -> None:
    agreed(lambda: guess_encoding(data))


@built
@quick
@given(
    st.sampled_from(FLOATS),
    st.integers(0, 700),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**32),
    st.integers(1, 9),
    st.booleans(),
)
def test_any_order_is_the_same(
    element: tuple, count: int, one: int, other: int, seed: int, step: int, whole: bool
) -> None:
    """Also with so many keys that C counts, and with keys that no encoder would choose."""
    rng = np.random.default_rng(seed)
    keys = Keys(min(one, other), max(one, other), whole)
    width = element[1]
    few = rng.integers(0, 2 ** (8 * width), 40, np.uint64)
    base = rng.choice(few, count).astype(f"<u{width}").tobytes() + rng.bytes(seed % width)
    data = rng.bytes(count * width + seed % 3)
    results = []
    for kernels in ALL:
        streams, cuts = kernels.delta_split(data, base, element, keys)
        streams = [bytes(stream) for stream in streams]
        counts = kernels.key_counts(base, element, count, step)
        used = min(len(data), len(base)) // width * width
        plain = kernels.delta_join([*streams, data[used:]], base, len(data), element, keys)
        assert bytes(plain) == data
        results.append((streams, cuts, counts))
    assert results[0] == results[1]


@built
@quick
@given(st.binary(max_size=300), st.integers(0, 5), st.integers(1, 5), st.sampled_from([1, 9, 60]))
def test_streams_are_the_same(data: bytes, start: int, step: int, sparse: int) -> None:
    data = bytes(byte if n % sparse == 0 else 0 for n, byte in enumerate(data)) * 40
    results = []
    for kernels in ALL:
        mask, values = map(bytes, kernels.sparse_split(data))
        assert kernels.mask_count(mask, len(data)) == len(values)
        assert bytes(kernels.sparse_join(mask, values, len(data))) == data
        found = kernels.count_nonzero(data, len(values))
        counts = kernels.byte_counts(data, min(start, len(data)), step)
        results.append((mask, values, found >= len(values), counts))
    assert results[0] == results[1]


@built
@quick
@given(
    st.integers(0, 300),
    st.sampled_from(list(RADIX)),
    st.booleans(),
    st.sampled_from([2, 3, 6, 17, 256]),
    st.integers(0, 2**32),
)
def test_symbols_are_the_same(length: int, per_byte: int, signed: bool, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = (rng.integers(0, most, length) - (most // 2 if signed else 0)).astype(np.uint8).tobytes()
    hostile = rng.bytes(-(-length // per_byte))
    results = []
    for kernels in ALL:
        packed, escaped = map(bytes, kernels.symbols_split(data, per_byte, signed))
        assert len(packed) == len(hostile)
        assert kernels.escapes_count(packed, length, per_byte) == len(escaped)
        assert bytes(kernels.symbols_join(packed, escaped, length, per_byte, signed)) == data
        count = kernels.escapes_count(hostile, length, per_byte)
        values = (b"\xff\x07" * count)[:count]
        joined = kernels.symbols_join(hostile, values, length, per_byte, signed)
        results.append((packed, escaped, count, bytes(joined)))
    assert results[0] == results[1]


@pytest.fixture(params=[0, 128, 512])
def shuffles(request: pytest.FixtureRequest) -> Iterator[int]:
    """The C kernels put elements in order in registers of at most so many bits, without any for 0."""
    found = c_kernels()
    if found is None or found.limit_shuffles(request.param) != request.param:
        pytest.skip(f"no shuffles of {request.param} bits here")
    yield request.param
    found.limit_shuffles(1 << 31)


@pytest.mark.parametrize("span", [1, 2, 7, 12, 13, 31, 32, 33])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 31, 32, 33, 511, 512, 545, 1024, 5000])
def test_every_width_of_shuffles_gives_the_same_order(shuffles: int, span: int, count: int) -> None:
    rng = np.random.default_rng(count + span)
    low = int(rng.integers(0, 255 - span))
    for spread in (1, span, 2 * span):  # one key, all keys, and keys that are clipped
        exponents = rng.integers(low, min(low + spread, 255), count, np.uint16)
        base = (exponents << 7 | rng.integers(0, 128, count, np.uint16)).astype("<u2").tobytes()
        data = rng.bytes(len(base))
        for whole in (False, True):
            results = []
            for kernels in ALL:
                keys = Keys(low, low + span, whole)
                streams, cuts = kernels.delta_split(data, base, ELEMENTS["bf16"], keys)
                streams = [bytes(stream) for stream in streams]
                joined = kernels.delta_join([*streams, b""], base, len(data), ELEMENTS["bf16"], keys)
                assert bytes(joined) == data, shuffles
                results.append((streams, cuts))
            assert results[0] == results[-1]


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 200, 9000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 1.0])
def test_every_width_of_shuffles_gives_the_same_sparse_streams(
    shuffles: int, length: int, share: float
) -> None:
    rng = np.random.default_rng(length)
    data = (rng.integers(1, 256, length) * (rng.random(length) < share)).astype(np.uint8).tobytes()
    results = []
    for kernels in ALL:
        mask, values = map(bytes, kernels.sparse_split(data))
        assert bytes(kernels.sparse_join(mask, values, length)) == data, shuffles
        results.append((mask, values))
        for wrong in (values[:-1], values + b"x"):
            if kernels is c_kernels() and wrong != values:
                with pytest.raises(ValueError, match="as many values"):
                    kernels.sparse_join(mask, wrong, length)
    assert results[0] == results[-1]


@built
@pytest.mark.parametrize("offset", [1, 2, 3, 31, 63])
@pytest.mark.parametrize("count", [0, 5, 33, 511, 577, 2001])
def test_buffers_may_begin_anywhere(shuffles: int, offset: int, count: int) -> None:
    def placed(data: Buffer) -> memoryview:
        return memoryview(bytearray(offset) + bytes(data))[offset:]

    rng = np.random.default_rng(count + offset)
    base = placed((rng.integers(120, 130, count, np.uint16) << 7).astype("<u2").tobytes() + b"x")
    data = placed(rng.bytes(len(base)))
    sparse = placed((rng.integers(0, 256, count) * (rng.random(count) < 0.3)).astype(np.uint8).tobytes())
    results = []
    for kernels in ALL:
        streams, cuts = kernels.delta_split(data, base, ELEMENTS["bf16"], Keys(121, 128, whole=True))
        parts = [*map(placed, streams), placed(data[2 * count :])]
        joined = kernels.delta_join(parts, base, len(data), ELEMENTS["bf16"], Keys(121, 128, whole=True))
        assert bytes(joined) == data, shuffles
        mask, values = map(placed, kernels.sparse_split(sparse))
        assert bytes(kernels.sparse_join(mask, values, count)) == sparse, shuffles
        results.append(([*map(bytes, streams)], cuts, bytes(mask), bytes(values)))
    assert results[0] == results[-1]


@built
@pytest.mark.parametrize("length", [0, 7, 8, 9, 100_000])
def test_bytes_are_counted_the_same(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, length, np.uint8).tobytes()
    for start, step in ((0, 1), (min(3, length), 1), (0, 2), (min(1, length), 99)):
        one, other = (kernels.byte_counts(data, start, step) for kernels in ALL)
        assert one == other


def test_the_greatest_key_has_a_run() -> None:
    base = np.array([0x7F80, 0x3F80, 0x7FC1, 0xFF80, 0x0080] * 99, "<u2").tobytes()
    data = bytes(len(base))
    for kernels in ALL:
        streams, cuts = kernels.delta_split(data, base, FLOATS[0], Keys(254, 255))
        assert cuts == [198]
        joined = kernels.delta_join([*map(bytes, streams), b""], base, len(base), FLOATS[0], Keys(254, 255))
        assert bytes(joined) == data


def test_a_mask_may_have_bits_behind_its_end() -> None:
    for kernels in ALL:
        assert kernels.mask_count(b"\xff\xff", 9) == 9
        assert bytes(kernels.sparse_join(b"\x80\xff", b"ab", 9)) == b"a\0\0\0\0\0\0\0b"


@built
@pytest.mark.parametrize("name", [*ELEMENTS, *BLOCKS])
def test_whole_chunks_are_the_same(name: str) -> None:
    rng = np.random.default_rng(3)
    base = (rng.standard_normal(150_000) * 0.05).astype("<f4").tobytes()
    new = np.frombuffer(base, "<u2").copy()
    new += rng.integers(0, 2, new.size).astype("<u2")
    data = new.tobytes() + b"end"
    payload = agreed(lambda: encode_delta_planes(data, base, name))
    assert isinstance(payload, bytes)
    assert agreed(lambda: decode_delta_planes(payload, base, len(data))) == data


ELEMENT, BLOCK = ELEMENTS["bf16"], BLOCKS["q4_0"]
# Calls of which the last is right, and arguments put in its place that are not.
REFUSED: list[tuple[str, tuple[object, ...]]] = [
    ("planes_split", (b"1234", 3, 0)),
    ("planes_split", (b"1234", 2, 2)),
    ("planes_split", (b"1234", 2, -1)),
    ("planes_join", ([b"12", b"12", b""], 5, 2, 0)),
    ("planes_join", ([b"12", b"123", b""], 4, 2, 0)),
    ("planes_join", ([b"12", b""], 4, 2, 0)),
    ("planes_join", ([b"12", b"12", b""], -4, 2, 0)),
    ("planes_join", ([b"12", b"12", b""], 1 << 40, 2, 0)),
    ("delta_split", (b"1234", b"1234", (4, 3, 7, 255), (0, 0, 0))),
    ("delta_split", (b"1234", b"1234", (4, 0, 7, 255), (0, 0, 0))),
    ("delta_split", (b"1234", b"1234", (4, 2, 16, 255), (0, 1, 0))),
    ("delta_split", (b"1234", b"1234", (4, 2, 7, 256), (0, 1, 0))),
    ("delta_split", (b"1234", b"1234", (4, 2, -1, 0), (0, 1, 0))),
    ("delta_split", (b"1234", b"1234", (4, 1, 0, 255), (0, 1, 0))),
    ("delta_split", (b"1234", b"1234", ELEMENT, (2, 1, 0))),
    ("delta_split", (b"1234", b"1234", ELEMENT, (0, 256, 0))),
    ("delta_split", (b"1234", b"1234", ELEMENT, (-1, 0, 0))),
    ("delta_join", ([b"1", b"1", b"12", b""], b"1234", 5, ELEMENT, (1, 2, 0))),
    ("delta_join", ([b"1", b"1", b"12", b""], b"123", 4, ELEMENT, (1, 2, 0))),
    ("delta_join", ([b"12", b"12", b""], b"1234", 4, ELEMENT, (1, 2, 0))),
    ("delta_join", ([b"1"] * 99, b"1234", 4, ELEMENT, (1, 2, 0))),
    ("delta_join", ([b"12", b"12", b""], b"1234", -1, ELEMENT, (0, 0, 0))),
    ("key_counts", (b"1234", ELEMENT, 3, 1)),
    ("key_counts", (b"1234", ELEMENT, -1, 1)),
    ("key_counts", (b"1234", ELEMENT, 2, 0)),
    ("key_counts", (b"1234", ELEMENTS["i16"], 2, 1)),
    ("blocks_split", (bytes(18), bytes(18), (1, 0, 1))),
    ("blocks_split", (bytes(18), bytes(18), (18, 17, 1))),
    ("blocks_split", (bytes(18), bytes(18), (18, 0, 1 << 62))),
    ("blocks_split", (bytes(18), bytes(18), (18, -2, 1))),
    ("blocks_split", (bytes(18), bytes(18), (1 << 62, 0, 1))),
    ("blocks_join", ([b"1", b"1", bytes(16), b""], bytes(18), 19, BLOCK)),
    ("blocks_join", ([b"1", b"1", bytes(15), b""], bytes(18), 18, BLOCK)),
    ("blocks_join", ([b"1", b"1", bytes(16), b""], bytes(18), -1, BLOCK)),
    ("byte_counts", (b"1234", 5, 1)),
    ("byte_counts", (b"1234", -1, 1)),
    ("byte_counts", (b"1234", 0, 0)),
    ("mask_count", (b"\xff", 9)),
    ("mask_count", (b"\xff", -1)),
    ("sparse_join", (b"\xff", bytes(7), 8)),
    ("sparse_join", (b"\xff", bytes(9), 8)),
    ("sparse_join", (b"\xff", bytes(8), 9)),
    ("sparse_join", (b"\xff", bytes(8), -1)),
    ("symbols_split", (b"1234", 7, False)),
    ("escapes_count", (b"1", 5, 4)),
    ("escapes_count", (b"1", -1, 4)),
    ("escapes_count", (b"1", 1, 1 << 40)),
    ("symbols_join", (b"\xff", bytes(3), 4, 4, False)),
    ("symbols_join", (b"\xff", bytes(5), 4, 4, False)),
    ("symbols_join", (b"\xff", bytes(4), 4, -1, True)),
]


@built
@pytest.mark.parametrize(("name", "arguments"), REFUSED, ids=lambda value: str(value)[:60])
def test_c_refuses_what_does_not_fit_together(name: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        getattr(c_kernels(), name)(*arguments)


@built
def test_c_survives_any_arguments() -> None:
    """Whatever comes, in any place: an error or a result, and no damage to memory (see tests/fuzz)."""
    kernels, rng = c_kernels(), random.Random(7)
    values: list[object] = [
        b"",
        b"1",
        bytes(18),
        bytes(36),
        memoryview(bytes(40))[::2],
        [],
        [b"12"] * 3,
        None,
    ]
    values += [
        [b"12"] * 3,
        None,
        ELEMENT,
        BLOCK,
        (0, 0, 0),
        (1, 2, 1),
        (0, 255, 0),
        -1,
        0,
        1,
        2,
        4,
        8,
        18,
        1 << 31,
        1 << 62,
        1 << 70,
    ]
    for name in (name for name in dir(Kernels) if not name.startswith("_") and name != "NAME"):
        for _ in range(400):
            arguments = [rng.choice(values) for _ in range(rng.randint(1, 5))]
            with contextlib.suppress(ValueError, TypeError, OverflowError, BufferError):
                getattr(kernels, name)(*arguments)
