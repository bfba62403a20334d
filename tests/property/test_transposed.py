"""Encoding 7: strips make what numpy makes, whatever the cuts; hostile payloads are refused."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.core.transposed import (
    COLUMN_LIMIT_BYTES,
    TENSOR_LIMIT_BYTES,
    WIDTHS,
    TensorPart,
    elements_of,
    encode_part,
    parse_part,
    put_columns,
)
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.store.transposing import Transposer

quick = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Stored:
    """A version of one file, cut at some places, and what is read of it."""

    def __init__(self, content: bytes, cuts: list[int]) -> None:
        edges = sorted({0, len(content), *cuts})
        self.chunks: dict[bytes, Buffer] = {}
        self.reads = 0
        pieces = []
        for start, end in pairwise(edges):
            name = blake3(content[start:end]).digest()
            self.chunks[name] = content[start:end]
            pieces.append((name, end - start))
        file = ManifestFile("w", len(content), Sha256.of(content), pack_chunk_list(pieces))
        self.manifest = Manifest.make("m", "1.0.0", "default", [file])

    def read(self, chunk_id: bytes) -> Buffer:
        self.reads += 1
        if chunk_id not in self.chunks:
            raise NotFoundError("chunk", chunk_id.hex())
        return self.chunks[chunk_id]

    def transposer(self, strip_bytes: int = 1 << 20) -> Transposer:
        return Transposer(lambda _: self.manifest, self.read, strip_bytes=strip_bytes)

    def part(self, array: NDArray[Any], offset: int, start: int = 0) -> TensorPart:
        return TensorPart(self.manifest.digest, 0, offset, *array.shape, array.itemsize, start)


@quick
@given(st.data())
def test_strips_make_what_numpy_makes(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    before, after = data.draw(st.integers(0, 20)), data.draw(st.integers(0, 20))
    count = rows * columns
    array = np.random.default_rng(0).integers(0, 256, count * width, np.uint8).view(f"<u{width}")
    array = array.reshape(rows, columns)
    cuts = [before + width * n for n in data.draw(st.lists(st.integers(0, count), max_size=8))]
    stored = Stored(bytes(before) + array.tobytes() + bytes(after), cuts)
    transposer = stored.transposer(strip_bytes=data.draw(st.integers(1, 600)))
    expected = array.T.tobytes()
    for _ in range(3):
        start = data.draw(st.integers(0, count - 1))
        stop = data.draw(st.integers(start + 1, count))
        part = stored.part(array, before, start * width)
        made = transposer.read(part, (stop - start) * width)
        assert made == expected[start * width : stop * width]
        entry = transposer.make_entry(part, blake3(made).digest(), len(made))
        assert entry.base in stored.chunks
        assert parse_part(entry.payload, len(made)) == part
        assert transposer.decode(entry) == made


@quick
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_columns_are_put_together_from_any_pieces(rows: int, columns: int, data: st.DataObject) -> None:
    array = np.arange(rows * columns, dtype="<u4").reshape(rows, columns)
    first = data.draw(st.integers(0, columns - 1))
    strip = np.zeros((data.draw(st.integers(1, columns - first)), rows), "<u4")
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, array.size), max_size=6))), array.size]
    for start, stop in pairwise(edges):
        piece = elements_of(array.reshape(-1)[start:stop].tobytes(), 4)
        put_columns(strip, first, columns, start, piece)
    assert (strip == array[:, first : first + len(strip)].T).all()


@pytest.fixture
def array() -> NDArray[np.uint16]:
    return np.arange(64 * 48, dtype="<u2").reshape(64, 48)


@pytest.fixture
def stored(array: NDArray[np.uint16]) -> Stored:
    return Stored(array.tobytes(), [1000, 2000, 5000])


def test_a_tensor_is_read_once_for_all_parts_of_a_strip(array: NDArray[np.uint16], stored: Stored) -> None:
    transposer = stored.transposer()
    for start in range(0, array.nbytes, 512):
        assert transposer.read(stored.part(array, 0, start), 512) == array.T.tobytes()[start : start + 512]
    assert stored.reads == len(stored.chunks)


def test_parts_for_which_too_much_is_read_are_refused(
    array: NDArray[np.uint16], stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarnstore.store.transposing._READ_MARGIN_BYTES", array.nbytes)
    transposer = stored.transposer(strip_bytes=1)
    monkeypatch.setattr("yarnstore.store.transposing._STRIPS_BYTES", 1)
    transposer.read(stored.part(array, 0), 2)
    with pytest.raises(IntegrityError, match="too much"):
        transposer.read(stored.part(array, 0, 4096), 2)


def test_a_part_with_another_hash_is_refused(array: NDArray[np.uint16], stored: Stored) -> None:
    transposer = stored.transposer()
    entry = transposer.make_entry(stored.part(array, 0), bytes(32), 512)
    with pytest.raises(IntegrityError, match="digest"):
        transposer.decode(entry)


@pytest.mark.parametrize(
    "change",
    [
        {"file": 1},
        {"rows": 65},
        {"offset": 2},
        {"offset": 2**63},
        {"offset": 1, "rows": 63},
    ],
)
def test_a_part_that_is_not_in_the_version_is_refused(
    array: NDArray[np.uint16], stored: Stored, change: dict[str, int]
) -> None:
    entry = stored.transposer().make_entry(stored.part(array, 0), bytes(32), 512)
    other = encode_part(stored.part(array, 0)._replace(**change))
    with pytest.raises((IntegrityError, NotFoundError)):
        stored.transposer().decode(entry._replace(payload=other))
    assert stored.reads <= len(stored.chunks)


def test_a_chunk_that_is_missing_is_an_error(array: NDArray[np.uint16], stored: Stored) -> None:
    stored.chunks.popitem()
    with pytest.raises(NotFoundError):
        stored.transposer().read(stored.part(array, 0), 512)


@pytest.mark.parametrize(
    "part",
    [
        TensorPart(Sha256(bytes(32)), 0, 0, 0, 4, 2),
        TensorPart(Sha256(bytes(32)), 0, 0, 4, 0, 2),
        TensorPart(Sha256(bytes(32)), 0, 0, 64, 64, 3),
        TensorPart(Sha256(bytes(32)), 0, 0, 64, 64, 0),
        TensorPart(Sha256(bytes(32)), 0, 0, COLUMN_LIMIT_BYTES // 2 + 1, 2, 2),
        TensorPart(Sha256(bytes(32)), 0, 0, 1 << 16, TENSOR_LIMIT_BYTES >> 16, 2),
        TensorPart(Sha256(bytes(32)), 0, 0, 64, 64, 2, start=1),
        TensorPart(Sha256(bytes(32)), 0, 0, 64, 64, 2, start=64 * 64 * 2),
        TensorPart(Sha256(bytes(32)), 0, 0, 64, 64, 2, start=2**62),
        TensorPart(Sha256(bytes(32)), 0, 0, 2**32 - 1, 2**32 - 1, 8),
    ],
)
def test_a_payload_beyond_the_limits_is_refused(part: TensorPart) -> None:
    with pytest.raises(FormatError):
        parse_part(encode_part(part), 512)


@quick
@given(st.binary(max_size=80), st.integers(1, 1 << 22))
def test_any_bytes_are_a_part_or_a_format_error(payload: bytes, plain_bytes: int) -> None:
    with contextlib.suppress(FormatError):
        part = parse_part(payload, plain_bytes)
        assert encode_part(part) == payload
