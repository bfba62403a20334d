"""Backends around another backend: cancellable, limited to a rate, or refusing the network.

Owns what applies to all bytes of any backend.  The caller decides the rate and when to cancel; `transport`
calls its check while a server is silent.
"""

from __future__ import annotations

import functools
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from yarnstore.backends.base import Backend, Body, Fetched, check_key, check_range
from yarnstore.errors import OfflineError, UsageError

# How long a wait goes on after it was cancelled, at most.
_POLL_S: Final = 0.2
# What an idle bucket saves up, in seconds of the rate: little, so that short downloads keep to it too.
_BURST_S: Final = 0.05
_RATE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgKMG]?)(i?)(?:[bB](?:/s)?)?", re.ASCII)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3}


def parse_rate(text: str) -> float:
    """Return bytes per second from `5M`, `500k`, `2.5Mi` or a plain number; K, M and G are powers of 1000,
    Ki, Mi and Gi of 1024.  0 means no limit.

    Raises: UsageError.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise UsageError(
            f"{text[:40]!r} is not a rate",
            hint="give bytes per second, such as 5M, 500k or 2.5Mi, or 0 for no limit",
        )
    base = 1024 if match[3] else 1000
    rate = float(match[1]) * float(base ** _POWERS[match[2].lower()])
    if 0 < rate < 1 or math.isinf(rate):
        raise UsageError(
            f"{text[:40]!r} is not a download rate", hint="give at least 1 byte per second, or 0 for no limit"
        )
    return rate


def checked_wait(
    seconds: float,
    check: Callable[[], None] | None,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Wait; what `check` raises in the meantime ends it."""
    until_s = clock() + seconds
    while (left_s := until_s - clock()) > 0:
        if check is not None:
            check()
        sleep(min(left_s, _POLL_S))


class RateLimit:
    """A token bucket of `bytes_per_s`; safe to share between threads.

    Bytes are charged after they arrived, so that the size of a block does not matter: a caller that took more
    than the bucket had waits until it is filled again.
    """

    def __init__(
        self,
        bytes_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"no such rate: {bytes_per_s}")
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        # When everything taken so far will have been paid for.
        self._paid_s = clock()

    def take(self, size_bytes: int, check: Callable[[], None] | None = None) -> None:
        """Wait until `size_bytes` more are available; what `check` raises ends the wait."""
        with self._lock:
            now_s = self._clock()
            self._paid_s = max(self._paid_s, now_s - _BURST_S) + size_bytes / self.bytes_per_s
            wait_s = self._paid_s - now_s
        checked_wait(wait_s, check, clock=self._clock, sleep=self._sleep)


@functools.lru_cache(maxsize=64)
def shared_limit(bytes_per_s: float) -> RateLimit:
    """Return the limit of this process for a rate; all callers with the same rate share it."""
    return RateLimit(bytes_per_s)


class Wrapper:
    """A `Backend` that passes everything on to another."""

    def __init__(self, backend: Backend) -> None:
        self.url = backend.url
        self._backend = backend

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`."""
        return self._backend.get(key, limit_bytes=limit_bytes, etag=etag)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`."""
        with self._backend.open(key, start=start, length=length) as body:
            yield body.passing(self._passed(body))

    def close(self) -> None:
        """Close the inner backend."""
        self._backend.close()

    def _passed(self, body: Body) -> Iterator[bytes]:
        """Yield the blocks of a body as they are passed on."""
        return iter(body)


class Cancellable(Wrapper):
    """A `Backend` that calls `check` before each request and after each block; what it raises ends them."""

    def __init__(self, backend: Backend, check: Callable[[], None]) -> None:
        super().__init__(backend)
        self._check = check

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`."""
        self._check()
        return super().get(key, limit_bytes=limit_bytes, etag=etag)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`."""
        self._check()
        with super().open(key, start=start, length=length) as body:
            yield body

    def _passed(self, body: Body) -> Iterator[bytes]:
        for block in body:
            yield block
            self._check()


class Limited(Wrapper):
    """A `Backend` that reads no faster than its `RateLimit` allows; what `check` raises ends a wait."""

    def __init__(self, backend: Backend, limit: RateLimit, check: Callable[[], None] | None = None) -> None:
        super().__init__(backend)
        self._limit = limit
        self._check = check

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`; a small file is read at once and charged afterwards."""
        fetched = super().get(key, limit_bytes=limit_bytes, etag=etag)
        if fetched is not None:
            self._limit.take(len(fetched.data), self._check)
        return fetched

    def _passed(self, body: Body) -> Iterator[bytes]:
        for block in body:
            self._limit.take(len(block), self._check)
            yield block


class OneFile(Wrapper):
    """A `Backend` that returns the one file under `key` of another, for every key."""

    def __init__(self, backend: Backend, key: str) -> None:
        super().__init__(backend)
        self._key = key

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:  # noqa: ARG002
        """See `Backend.get`."""
        return super().get(self._key, limit_bytes=limit_bytes, etag=etag)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:  # noqa: ARG002
        """See `Backend.open`."""
        with super().open(self._key, start=start, length=length) as body:
            yield body


class Offline:
    """A `Backend` that refuses every request, since the network may not be used."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:  # noqa: ARG002
        """Raises: OfflineError."""
        raise OfflineError(self.url, _name(key))

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> AbstractContextManager[Body]:
        """Raises: OfflineError."""
        check_range(start, length)
        raise OfflineError(self.url, _name(key))

    def close(self) -> None:
        """Do nothing: no connection is open."""


def _name(key: str) -> str:
    return "it" if "://" in key else check_key(key)  # an absolute address is the backend's own
