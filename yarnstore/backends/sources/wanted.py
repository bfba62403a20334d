"""What a download needs from one file: the interface of receivers of streams, and of small files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from yarnstore.backends.base import Body, oversize_error
from yarnstore.backends.sources.faults import EARLIER, BadPart
from yarnstore.core.digest import Buffer
from yarnstore.errors import IntegrityError

T = TypeVar("T")


class Wanted(Protocol):
    """The wanted parts of one file, and those that have arrived; each part is verified when it arrives."""

    @property
    def came_bytes(self) -> int:
        """Return how many bytes have arrived, without those that were wrong."""

    def next_range(self) -> tuple[int, int | None] | None:
        """Return the next range to request, for `Backend.open`; None if all have arrived."""

    def receive(self, body: Body) -> Iterator[BadPart]:
        """Read a response and return the wrong parts in it; `next_range` requests them again.

        The response may begin at 0 and be the whole file, whatever was requested.

        Raises: TransientError if the body ends early; BackendError if the response cannot be one of this
        file.
        """

    def restart(self) -> bool:
        """Drop what has arrived, since the file is shorter.  Returns False if nothing had arrived."""


class Kept(Protocol):
    """A place that keeps the beginning of a file for the next run."""

    def read(self) -> bytes:
        """Return the kept beginning."""

    def keep(self, came: Buffer) -> None:
        """Keep a longer beginning of the file."""

    def drop(self) -> None:
        """Delete the kept beginning."""


class SmallFile(Generic[T]):
    """A whole file of up to `limit_bytes`; `check` verifies it and returns a value made from it.

    `kept` keeps the beginning if a response ends early.
    """

    def __init__(self, check: Callable[[bytes], T], limit_bytes: int, kept: Kept | None) -> None:
        # The value, and the source that sent the last of it.
        self.accepted: tuple[T, str] | None = None
        self._check = check
        self._limit_bytes = limit_bytes
        self._kept = kept
        self._data = bytearray(kept.read() if kept is not None else b"")
        self._sources = {EARLIER} if self._data else set()

    @property
    def came_bytes(self) -> int:
        """See `Wanted`."""
        return len(self._data)

    def next_range(self) -> tuple[int, int | None] | None:
        """See `Wanted`."""
        return None if self.accepted is not None else (len(self._data), None)

    def receive(self, body: Body) -> Iterator[BadPart]:
        """See `Wanted`."""
        if body.start < len(self._data):  # ranges are ignored
            self._clear()
        if body.total is not None and body.total > self._limit_bytes:
            raise oversize_error(body.source, self._limit_bytes)
        self._sources.add(body.source)
        for block in body:
            self._data += block
            if len(self._data) > self._limit_bytes:
                raise oversize_error(body.source, self._limit_bytes)
            if self._kept is not None and (body.total is None or len(self._data) < body.total):
                self._kept.keep(self._data)
        data, sources = bytes(self._data), frozenset(self._sources)
        self.restart()
        try:
            self.accepted = self._check(data), body.source
        except IntegrityError as error:
            yield BadPart(error, sources=sources)

    def restart(self) -> bool:
        """See `Wanted`."""
        had = bool(self._data)
        self._clear()
        if self._kept is not None:
            self._kept.drop()
        return had

    def _clear(self) -> None:
        self._data.clear()
        self._sources.clear()
