"""Trying again: when, how long apart, and when to give up.

Owns the waiting.  What is worth another try was decided where the failure was seen:
a `TransientError` is, nothing else is.
"""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, TypeVar

import msgspec

from yarnstore.backends.base import Backend, Body, Fetched
from yarnstore.errors import CancelledError, TransientError

T = TypeVar("T")

# Seconds slept.  May be `threading.Event().wait`: what it returns, if true, means "stopped", so
# setting the event cuts a wait short.  `time.sleep` is cut short by Ctrl-C in the main thread only.
Sleep = Callable[[float], object]
# (the failure, how many tries have failed, seconds until the next)
OnRetry = Callable[[TransientError, int, float], None]


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Waits are drawn from [0, min(cap_s, base_s · 2ⁿ)), so that clients that failed together do not
    return together.  A server's Retry-After is a lower bound, believed up to `retry_after_cap_s`.
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 20.0
    retry_after_cap_s: float = 60.0

    def delay_s(self, failed: int, retry_after_s: float, random: Callable[[], float]) -> float:
        """Seconds to wait after `failed` (≥ 1) failures; `random` draws from [0, 1)."""
        # 2**60 overflows nothing; beyond it only the cap counts.
        backoff_s = random() * min(self.cap_s, self.base_s * 2.0 ** min(failed - 1, 60))
        return max(backoff_s, min(retry_after_s, self.retry_after_cap_s))


# What an answer that then stalls must have brought to count as progress: a few bytes every half minute
# would never end.
_STALLED_PROGRESS_BYTES: Final = 4096


# Wrong ranges in a row until a source is not asked for ranges any more.
_TRIES_OF_RANGES: Final = 2
_PARTIAL: Final = 206


class Tries:
    """The tries at one download: how often each source failed in a row since something last came.

    Requests that are refused and answers that break off count alike, so that the number in an error is
    the number of requests.  An answer that brought something begins the count anew: a line that brings
    anything gets there in the end.  `attempts` is how often each source may fail, None for what the
    policy and the number of sources say; `is_stopped` is asked before each request and while waiting.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        attempts: int | None = None,
        is_stopped: Callable[[], bool] | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self.is_stopped = is_stopped
        # The source of the answer that is being read; None where no answer was opened.
        self.source: str | None = None
        # The sources that the last request could have gone to.
        self.asked: tuple[str, ...] = ()
        # False once they are done without: whole files are asked for.
        self.ranges = True
        self._policy = policy
        self._attempts = attempts
        self._random = random
        self._allowed: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._wrong_ranges: dict[str, int] = {}
        self._errors: dict[str, TransientError] = {}
        self._began_s = time.monotonic()

    def allow(self, source: str, attempts: int) -> None:
        """Say how often a source may fail; the first word counts."""
        self._allowed.setdefault(source, self._attempts or attempts)

    def begin(self) -> None:
        """A request begins."""
        self._began_s = time.monotonic()

    def failed(self, source: str, error: TransientError, gained_bytes: int = 0) -> float:
        """Count a request that brought `gained_bytes` and failed; return the seconds until the next."""
        gained = gained_bytes >= (_STALLED_PROGRESS_BYTES if error.reason == "stalled" else 1)
        if gained:
            self._failed.clear()
            self._wrong_ranges.clear()
        if error.status == _PARTIAL:
            self._wrong_ranges[source] = self._wrong_ranges.get(source, 0) + 1
        failures = self._failed[source] = self._failed.get(source, 0) + 1
        self._errors[source] = error
        delay_s = self._policy.delay_s(failures, error.retry_after_s, self._random)
        if gained and not error.retry_after_s:
            # No longer than the answer took: half of the time is spent on progress.
            return min(delay_s, time.monotonic() - self._began_s)
        return delay_s

    def is_spent(self, source: str) -> bool:
        """Whether a source has failed as often as it may."""
        return self._failed.get(source, 0) >= self._allowed.get(
            source, self._attempts or self._policy.attempts
        ) or (self.ranges and self._wrong_ranges.get(source, 0) >= _TRIES_OF_RANGES)

    def give_up_ranges(self) -> bool:
        """Do without ranges from now on, if a source gave only wrong ones.  False if that changes nothing."""
        wrong = [source for source, times in self._wrong_ranges.items() if times >= _TRIES_OF_RANGES]
        if not self.ranges or not wrong:
            return False
        self.ranges = False
        for source in wrong:
            self._failed.pop(source, None)
        return True

    def error(self, source: str) -> TransientError:
        """The last failure of a source, saying how often it was tried."""
        error, tries = self._errors[source], self._failed[source]
        return error if tries == 1 else _exhausted(error, tries)


def call_with_retry(
    fn: Callable[[], T],
    policy: RetryPolicy,
    *,
    sleep: Sleep = time.sleep,
    random: Callable[[], float] = _random.random,
    on_retry: OnRetry | None = None,
) -> T:
    """Call `fn` until it raises no TransientError, at most `policy.attempts` times.

    Raises: the last TransientError, saying how often it was tried; CancelledError if `sleep` was
    stopped; whatever else `fn` raises, at once.
    """
    failed = 0
    while True:
        try:
            return fn()
        except TransientError as error:
            failed += 1
            if failed >= policy.attempts:
                if failed == 1:
                    raise
                raise _exhausted(error, failed) from error
            delay_s = policy.delay_s(failed, error.retry_after_s, random)
            if on_retry is not None:
                on_retry(error, failed, delay_s)
        if sleep(delay_s):
            raise CancelledError("stopped while waiting to try again")


def _exhausted(error: TransientError, tries: int) -> TransientError:
    return TransientError(
        error.url,
        f"{error.fields['why']} (tried {tries} times)",
        hint=error.hint,
        status=error.status,
        retry_after_s=error.retry_after_s,
        reason=error.reason,
    )


class Retrying:
    """A `Backend` that tries `get` and the opening of `open` again; a body that breaks stays broken."""

    def __init__(
        self,
        backend: Backend,
        policy: RetryPolicy | None = None,
        *,
        sleep: Sleep = time.sleep,
        random: Callable[[], float] = _random.random,
        on_retry: OnRetry | None = None,
    ) -> None:
        self.url = backend.url
        self._backend = backend
        self._policy = policy or RetryPolicy()
        self._sleep = sleep
        self._random = random
        self._on_retry = on_retry

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`."""
        return self._call(lambda: self._backend.get(key, limit_bytes=limit_bytes, etag=etag))

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`."""
        with ExitStack() as stack:
            yield self._call(lambda: stack.enter_context(self._backend.open(key, start=start, length=length)))

    def close(self) -> None:
        """Close the backend within."""
        self._backend.close()

    def _call(self, fn: Callable[[], T]) -> T:
        return call_with_retry(
            fn, self._policy, sleep=self._sleep, random=self._random, on_retry=self._on_retry
        )
