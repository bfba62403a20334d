"""Downloads that end as soon as somebody says so, between two blocks of a body.

Owns the asking; when it is time, is the caller's to say.  While a server is silent `transport` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from yarnstore.backends.base import Backend, Body, Fetched


class Cancellable:
    """A `Backend` that asks before each request and each block; what the question raises ends it."""

    def __init__(self, backend: Backend, check: Callable[[], None]) -> None:
        self.url = backend.url
        self._backend = backend
        self._check = check

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`."""
        self._check()
        return self._backend.get(key, limit_bytes=limit_bytes, etag=etag)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`."""
        self._check()
        with self._backend.open(key, start=start, length=length) as body:
            yield body.passing(self._checked(body))

    def close(self) -> None:
        """Close the backend within."""
        self._backend.close()

    def _checked(self, body: Body) -> Iterator[bytes]:
        for block in body:
            yield block
            self._check()
