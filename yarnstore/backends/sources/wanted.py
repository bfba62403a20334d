"""What a download wants of one file: the interface of those who read streams, and small files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from yarnstore.backends.base import Body, oversize_error
from yarnstore.backends.sources.faults import EARLIER, BadPart
from yarnstore.core.digest import Buffer
from yarnstore.errors import IntegrityError

T = TypeVar("T")


class Wanted(Protocol):
    """What is wanted of one file, and what has come of it; each part is verified as it comes."""

    @property
    def came_bytes(self) -> int:
        """How much has come; what was wrong and is wanted again counts no more."""

    def next_range(self) -> tuple[int, int | None] | None:
        """The range to ask for next, as `Backend.open` takes it; None where all has come."""

    def receive(self, body: Body) -> Iterator[BadPart]:
        """Read an answer, and say what came wrong: `next_range` asks for it again.

        The answer may begin at 0 and be the whole file, whatever was asked for.

        Raises: TransientError where the body breaks off; BackendError where the answer cannot be one of
        the file, which says nothing of other sources.
        """

    def restart(self) -> bool:
        """Drop what has come, since the file is shorter than that.  False if nothing had come."""


class Kept(Protocol):
    """Where the beginning of a file is kept, for the next run."""

    def read(self) -> bytes:
        """What is kept."""

    def keep(self, came: Buffer) -> None:
        """Keep the beginning of the file; what is kept already is a beginning of it."""

    def drop(self) -> None:
        """Forget it."""


class SmallFile(Generic[T]):
    """A file of up to `limit_bytes`, wanted whole; `check` verifies it, and makes a value of it.

    `kept` keeps what came of an answer that breaks off.
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
