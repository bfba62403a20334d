"""Where a file is cut does not depend on how it was read, and little on what is before."""

from __future__ import annotations

import io
import random

import pytest
from pyfastcdc import FastCDC

from yarnstore.core import chunking
from yarnstore.core.chunking import iter_chunk_batches
from yarnstore.core.layouts import BYTES, Segment
from yarnstore.core.limits import CHUNK_AVG_BYTES, CHUNK_MAX_BYTES, CHUNK_MIN_BYTES, KIB, MIB

NOISE = random.Random(7).randbytes(25 * MIB)
ZEROS = bytes(20 * MIB)
MIXED = NOISE[: 5 * MIB] + ZEROS[: 7 * MIB] + NOISE[5 * MIB : 12 * MIB]


def chunks_of(data: bytes) -> list[bytes]:
    batches = iter_chunk_batches(io.BytesIO(data).read, [Segment(0, len(data), BYTES)])
    return [bytes(piece.data) for batch in batches for piece in batch]


def cut_whole(data: bytes) -> list[bytes]:
    """The chunks of a buffer cut in one go: what windows must agree with."""
    cutter = FastCDC(avg_size=CHUNK_AVG_BYTES, min_size=CHUNK_MIN_BYTES, max_size=CHUNK_MAX_BYTES)
    return [data[chunk.offset : chunk.offset + chunk.length] for chunk in cutter.cut_buf(data)]


@pytest.mark.parametrize("data", [NOISE, ZEROS, MIXED], ids=["noise", "zeros", "mixed"])
def test_windows_cut_as_the_whole_is_cut(data: bytes) -> None:
    found = chunks_of(data)
    assert found == cut_whole(data)
    assert b"".join(found) == data


@pytest.mark.parametrize("around", [8 * MIB, 16 * MIB, 9 * MIB, 7 * MIB])
@pytest.mark.parametrize("by", [-1, 0, 1])
def test_sizes_about_the_window(around: int, by: int) -> None:
    data = NOISE[: around + by]
    assert chunks_of(data) == cut_whole(data)


@pytest.mark.parametrize("size", [1, 2, 63 * KIB, CHUNK_MIN_BYTES, CHUNK_MIN_BYTES + 1, MIB, MIB + 1])
def test_small_files(size: int) -> None:
    assert b"".join(chunks_of(NOISE[:size])) == NOISE[:size]
    if size <= CHUNK_MIN_BYTES:
        assert len(chunks_of(NOISE[:size])) == 1


def test_an_empty_file_has_no_chunk() -> None:
    assert chunks_of(b"") == []


def test_chunks_keep_their_limits() -> None:
    sizes = [len(chunk) for chunk in chunks_of(NOISE)]
    assert max(sizes) <= CHUNK_MAX_BYTES
    assert min(sizes[:-1]) >= CHUNK_MIN_BYTES
    assert CHUNK_AVG_BYTES / 2 < len(NOISE) / len(sizes) < CHUNK_AVG_BYTES * 2


def test_an_insertion_changes_the_chunks_about_it_alone() -> None:
    before = set(chunks_of(NOISE))
    after = set(chunks_of(NOISE[: 3 * MIB] + b"inserted" + NOISE[3 * MIB :]))
    assert len(after - before) <= 3
    assert len(before & after) >= len(before) - 3


def test_batches_bound_what_is_read_ahead() -> None:
    asked: list[int] = []
    source = io.BytesIO(NOISE)

    def read(count: int) -> bytes:
        asked.append(count)
        return source.read(count)

    batches = iter_chunk_batches(read, [Segment(0, len(NOISE), BYTES)])
    sizes = [sum(len(piece.data) for piece in batch) for batch in batches]
    assert max(asked) == chunking._WINDOW_BYTES
    assert max(sizes) <= chunking._BATCH_BYTES + CHUNK_MAX_BYTES


def test_cut_points_do_not_move_between_releases() -> None:
    """Cuts are free to change, but one that changes by accident halves every dedupe."""
    sizes = [len(chunk) for chunk in chunks_of(random.Random(11).randbytes(2 * MIB))]
    assert sizes == [201704, 465251, 164523, 81636, 108691, 571480, 261052, 185651, 57164]
