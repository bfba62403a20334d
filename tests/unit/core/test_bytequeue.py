"""Bytes that arrive in blocks of any size and leave in runs of any length."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from yarnstore.core.bytequeue import ByteQueue
from yarnstore.core.limits import MIB


@pytest.mark.parametrize("seed", range(20))
def test_what_goes_in_comes_out_in_order(seed: int) -> None:
    chance = random.Random(seed)
    queue, model = ByteQueue(), bytearray()
    for _ in range(400):
        block = chance.randbytes(chance.choice((0, 1, 7, 4095, 4096, 4097, 20_000)))
        queue.append(chance.choice((bytes, bytearray, memoryview))(block))
        model += block
        assert len(queue) == len(model)
        count = min(len(model), chance.choice((0, 0, 1, 48, 5000, 50_000)))
        assert bytes(queue.take(count)) == model[:count]
        del model[:count]
    assert bytes(queue.take(len(queue))) == model
    assert len(queue) == 0


def test_a_block_that_changes_later_changes_nothing() -> None:
    for size in (10, 10_000):
        queue, block = ByteQueue(), bytearray(size)
        queue.append(block)
        block[:] = b"x" * size
        assert bytes(queue.take(size)) == bytes(size)


def test_a_run_within_a_block_is_not_copied() -> None:
    queue, block = ByteQueue(), bytes(MIB)
    queue.append(block)
    queue.take(48)
    run = queue.take(1000)
    assert isinstance(run, memoryview)
    assert run.obj is block


def test_bytes_that_come_one_by_one_cost_no_more_than_they_are() -> None:
    queue = ByteQueue()
    tracemalloc.start()
    try:
        for _ in range(MIB // 4):
            queue.append(b"x")
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert len(queue.take(MIB // 4)) == MIB // 4
