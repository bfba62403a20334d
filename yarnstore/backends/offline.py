"""A registry that is on the network, when the network is not to be used."""

from __future__ import annotations

from contextlib import AbstractContextManager

from yarnstore.backends.base import Body, Fetched, check_key, check_range
from yarnstore.errors import OfflineError


class Offline:
    """A `Backend` that refuses every question, saying what it was."""

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
        """Nothing is held."""


def _name(key: str) -> str:
    return "it" if "://" in key else check_key(key)  # an absolute address is the backend's own
