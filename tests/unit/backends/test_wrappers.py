"""The rate limit: how it is written, and how well it is kept."""

from __future__ import annotations

import threading
import time

import pytest

from yarnstore.backends import Limited, MemoryBackend, RateLimit
from yarnstore.backends.wrappers import parse_rate, shared_limit
from yarnstore.errors import CancelledError, UsageError


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5M", 5e6),
        ("500k", 5e5),
        ("2.5Mi", 2.5 * 1024**2),
        ("1G", 1e9),
        ("1234", 1234.0),
        ("0", 0.0),
        ("5MB/s", 5e6),
        (" 3 m ", 3e6),
        ("64Ki", 65536.0),
        ("7B", 7.0),
    ],
)
def test_rates_as_people_write_them(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "fast", "-1", "5T", "5i", "1e6", "M", "5 5", "nan", "٣M", "0.5", "0.0000000000001", "9" * 400],
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rate(text)


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize("block", [1000, 65536, 1 << 20])
def test_the_size_of_blocks_does_not_matter(block: int) -> None:
    clock = Clock()
    limit = RateLimit(1e6, clock=lambda: clock.now_s, sleep=clock.sleep)
    count = 3_000_000 // block + 1
    for _ in range(count):
        limit.take(block)
    assert clock.now_s - 100.0 == pytest.approx(count * block / 1e6, rel=0.1)


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    limit = RateLimit(1e6, clock=lambda: clock.now_s, sleep=clock.sleep)
    clock.now_s += 3600
    began_s = clock.now_s
    for _ in range(20):
        limit.take(100_000)
    assert clock.now_s - began_s == pytest.approx(2.0, rel=0.1)


def test_threads_share_the_rate() -> None:
    """Four workers for a second and a half: together they take no more; less, if the machine is busy."""
    data = b"x" * 100_000_000
    limit = RateLimit(8e6)
    backend = Limited(MemoryBackend({"a": data}), limit)
    got = [0] * 4
    end_s = time.monotonic() + 1.5

    def work(n: int) -> None:
        with backend.open("a") as body:
            for block in body:
                got[n] += len(block)
                if time.monotonic() >= end_s:
                    return

    began_s = time.monotonic()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert 3e6 < sum(got) / (time.monotonic() - began_s) < 8.8e6


def test_small_files_are_paid_for_too() -> None:
    clock = Clock()
    limit = RateLimit(1000.0, clock=lambda: clock.now_s, sleep=clock.sleep)
    backend = Limited(MemoryBackend({"a": b"x" * 5000}), limit)
    assert backend.get("a", limit_bytes=5000)
    assert clock.now_s - 100.0 == pytest.approx(5.0, rel=0.1)


def test_a_long_wait_for_the_rate_ends_when_it_is_cancelled() -> None:
    clock = Clock()
    limit = RateLimit(10_000.0, clock=lambda: clock.now_s, sleep=clock.sleep)

    def check() -> None:
        if clock.now_s > 101:
            raise CancelledError("cancelled")

    backend = Limited(MemoryBackend({"a": b"x" * 1_000_000}), limit, check)
    with pytest.raises(CancelledError):
        backend.get("a", limit_bytes=1_000_000)
    assert clock.now_s - 100.0 == pytest.approx(1.0, abs=0.3)


def test_one_process_has_one_limit_for_a_rate() -> None:
    assert shared_limit(3e6) is shared_limit(3e6)
    with pytest.raises(ValueError, match="no such rate"):
        RateLimit(0)
