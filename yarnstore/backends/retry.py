"""Trying again: when, how long apart, and when to give up.

Owns the waiting.  What is worth another try was decided where the failure was seen:
a `TransientError` is, nothing else is.
"""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from yarnstore.backends.base import Backend, Body, Fetched
from yarnstore.errors import CancelledError, TransientError

T = TypeVar("T")

# Seconds slept.  May be `threading.Event().wait`: what it returns, if true, means "stopped", so
# setting the event cuts a wait short.  `time.sleep` is cut short by Ctrl-C in the main thread only.
Sleep = Callable[[float], object]
# (the failure, how many tries have failed, seconds until the next)
OnRetry = Callable[[TransientError, int, float], None]


@dataclass(frozen=True)
class RetryPolicy:
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


class Resuming:
    """The failures in a row of a download that goes on where it broke off.

    A request that brought something begins the count anew, so that any line that brings anything gets
    there in the end.
    """

    def __init__(self, policy: RetryPolicy, random: Callable[[], float] = _random.random) -> None:
        self._policy = policy
        self._random = random
        self._began_s = time.monotonic()
        self.failures = 0

    def begin(self) -> None:
        """A request begins."""
        self._began_s = time.monotonic()

    def failed(self, error: TransientError, gained_bytes: int) -> float:
        """Seconds to wait after a request that brought `gained_bytes` and broke off.

        Raises: `error`, where too many in a row brought nothing.
        """
        least = _STALLED_PROGRESS_BYTES if error.reason == "stalled" else 1
        self.failures = 1 if gained_bytes >= least else self.failures + 1
        if self.failures >= self._policy.attempts:
            raise error
        delay_s = self._policy.delay_s(self.failures, error.retry_after_s, self._random)
        if gained_bytes >= least and not error.retry_after_s:
            # No longer than the answer took: half of the time is spent on progress.
            return min(delay_s, time.monotonic() - self._began_s)
        return delay_s


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
