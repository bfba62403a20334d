"""A registry in a dict, for tests and simulators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from yarnstore.backends.base import (
    BLOCK_LIMIT_BYTES,
    Body,
    Fetched,
    check_key,
    check_range,
    content_etag,
    oversize_error,
    slice_range,
)
from yarnstore.errors import MissingKeyError


class Asked(msgspec.Struct, frozen=True):
    """One request as it was made.  `verb` is `get` or `open`."""

    verb: str
    key: str
    start: int = 0
    length: int | None = None


class MemoryBackend:
    """A `Backend` over `files`, which the caller may change at any time.

    `requests` lists the requests in order (appending is atomic, so threads need no lock).
    """

    def __init__(self, files: Mapping[str, bytes], *, url: str = "memory:") -> None:
        self.url = url
        self.requests: list[Asked] = []
        self._files = files

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`."""
        data = self._find(Asked("get", key))
        if len(data) > limit_bytes:
            raise oversize_error(self._where(key), limit_bytes)
        found = content_etag(data)
        return None if found == etag else Fetched(data, found)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`."""
        check_range(start, length)
        data = self._find(Asked("open", key, start, length))
        end = start + slice_range(self._where(key), start, length, len(data))
        yield Body(
            start,
            len(data),
            (data[at : min(at + BLOCK_LIMIT_BYTES, end)] for at in range(start, end, BLOCK_LIMIT_BYTES)),
        )

    def close(self) -> None:
        """Do nothing: no connection is open."""

    def _where(self, key: str) -> str:
        return f"{self.url}{key}"

    def _find(self, asked: Asked) -> bytes:
        check_key(asked.key)
        self.requests.append(asked)
        try:
            return self._files[asked.key]
        except KeyError:
            raise MissingKeyError(self._where(asked.key), "no such file") from None
