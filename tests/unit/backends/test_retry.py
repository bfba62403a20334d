from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.backends import Body, Fetched, MemoryBackend, Retrying, RetryPolicy
from yarnstore.errors import BackendError, CancelledError, MissingKeyError, TransientError, TransientReason

POLICY = RetryPolicy(attempts=4, base_s=1.0, cap_s=3.0, retry_after_cap_s=10.0)


class Failing:
    """A backend that raises each of `errors` in turn, then has what it is asked for."""

    url = "memory:"

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return Fetched(b"done", "")

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        raise NotImplementedError
        yield

    def close(self) -> None:
        """Nothing is held."""


def get(backend: Retrying) -> bytes:
    fetched = backend.get("x", limit_bytes=9)
    assert fetched is not None
    return fetched.data


def transient(retry_after_s: float = 0.0) -> TransientError:
    return TransientError("http://r/x", "reset", status=503, hint="h", retry_after_s=retry_after_s)


def test_waits_double_up_to_the_cap() -> None:
    slept: list[float] = []
    backend = Failing(transient(), transient(), transient())
    assert get(Retrying(backend, POLICY, sleep=slept.append, random=lambda: 1.0)) == b"done"
    assert slept == [1.0, 2.0, 3.0]
    assert backend.calls == 4


def test_the_last_error_says_how_often() -> None:
    backend = Failing(*[transient(7.0) for _ in range(9)])
    told: list[float] = []
    retrying = Retrying(
        backend,
        POLICY,
        sleep=lambda _: None,
        random=lambda: 0.0,
        on_wait=lambda error, delay_s: told.append(delay_s),
    )
    with pytest.raises(TransientError, match=r"http://r/x: reset \(tried 4 times\)") as caught:
        get(retrying)
    assert backend.calls == 4
    assert told == [7.0, 7.0, 7.0]
    assert (caught.value.status, caught.value.hint, caught.value.retry_after_s) == (503, "h", 7.0)


@pytest.mark.parametrize(("reason", "hint"), [("busy", "try again later"), ("broken", "the same command")])
def test_the_last_error_says_what_to_do_next(reason: TransientReason, hint: str) -> None:
    error = TransientError("http://r/x", "reset", reason=reason)
    with pytest.raises(TransientError) as caught:
        get(Retrying(Failing(error), RetryPolicy(attempts=1), sleep=pytest.fail))
    assert hint in caught.value.hint


def test_one_attempt_is_the_error_itself() -> None:
    error = transient()
    with pytest.raises(TransientError) as caught:
        get(Retrying(Failing(error), RetryPolicy(attempts=1), sleep=pytest.fail))
    assert caught.value is error


@pytest.mark.parametrize(
    "error", [BackendError("u", "w"), MissingKeyError("u", "w"), ValueError("x"), KeyboardInterrupt()]
)
def test_nothing_else_is_tried_again(error: BaseException) -> None:
    backend = Failing(error)
    with pytest.raises(type(error)):
        get(Retrying(backend, POLICY, sleep=pytest.fail))
    assert backend.calls == 1


@given(
    failed=st.integers(1, 10_000),
    retry_after_s=st.floats(0, 1e9),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_delays_are_bounded(failed: int, retry_after_s: float, draw: float) -> None:
    delay_s = POLICY.delay_s(failed, retry_after_s, lambda: draw)
    assert 0 <= delay_s <= 10.0
    assert delay_s >= min(retry_after_s, 10.0)
    if retry_after_s == 0:
        assert delay_s <= min(3.0, 2.0 ** min(failed - 1, 10))


def test_an_event_cuts_the_wait_short() -> None:
    stopped = threading.Event()
    threading.Timer(0.05, stopped.set).start()
    began_s = time.monotonic()
    backend = Failing(*[transient(9.0) for _ in range(9)])
    with pytest.raises(CancelledError):
        get(Retrying(backend, POLICY, sleep=stopped.wait))
    assert time.monotonic() - began_s < 3
    assert backend.calls == 1


class Flaky:
    """A backend whose first `bad` calls fail."""

    url = "memory:"

    def __init__(self, bad: int) -> None:
        self.bad = bad
        self.closed = False
        self.entered = self.left = 0
        self._good = MemoryBackend({"x": b"content"})

    def _fail(self) -> None:
        if self.bad:
            self.bad -= 1
            raise transient()

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        self._fail()
        return self._good.get(key, limit_bytes=limit_bytes, etag=etag)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        self._fail()
        with self._good.open(key, start=start, length=length) as body:
            self.entered += 1
            try:
                yield body
            finally:
                self.left += 1

    def close(self) -> None:
        self.closed = True


def test_retrying_get_and_open() -> None:
    for bad in (0, 3):
        assert Retrying(Flaky(bad), POLICY, sleep=lambda _: None).get("x", limit_bytes=9) is not None
        with Retrying(Flaky(bad), POLICY, sleep=lambda _: None).open("x", start=1, length=3) as body:
            assert b"".join(body) == b"ont"
    with pytest.raises(TransientError, match="tried 4 times"):
        Retrying(Flaky(4), POLICY, sleep=lambda _: None).get("x", limit_bytes=9)
    with (
        pytest.raises(TransientError, match="tried 4 times"),
        Retrying(Flaky(4), POLICY, sleep=lambda _: None).open("x"),
    ):
        pass


def test_retrying_does_not_try_a_body_again_and_always_leaves_it() -> None:
    flaky = Flaky(0)
    retrying = Retrying(flaky, POLICY, sleep=pytest.fail)
    with pytest.raises(TransientError, match=r"reset$"), retrying.open("x"):
        raise transient()
    assert (flaky.entered, flaky.left) == (1, 1)
    retrying.close()
    assert flaky.closed
