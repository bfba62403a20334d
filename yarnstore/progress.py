"""Progress events of long operations, and their cancellation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Literal, TypeAlias

import msgspec

_UNITS = ("B", "kB", "MB", "GB", "TB")

Phase: TypeAlias = Literal["read", "delta", "download", "write", "check", "note"]


class Progress(msgspec.Struct, frozen=True):
    """One step of a running operation, as `--progress json` prints it."""

    phase: Phase  #: `note` is a message; the others count bytes.
    subject: str  #: The subject of the work.
    bytes_done: int = 0  #: How many bytes are done.
    bytes_total: int = 0  #: How many bytes there are in this phase.
    text: str = ""  #: The message of a note.


OnProgress: TypeAlias = Callable[[Progress], None]


class Cancel:
    """A request to stop an operation: once it is made, `check` and each progress event raise `why()`.

    Operations also call `check` while they have no progress to report.
    """

    def __init__(self, why: Callable[[], Exception]) -> None:
        self._why = why
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Make the request, from any thread."""
        self._stopped.set()

    def check(self) -> None:
        """Raise `why()` if the request was made."""
        if self._stopped.is_set():
            raise self._why()

    def telling(self, tell: OnProgress) -> OnProgress:
        """`tell` with a check before each event."""

        def checked(event: Progress) -> None:
            self.check()
            tell(event)

        return checked


# The cancellation of the call in this context; `AsyncStore` sets it in the thread of each call.
CANCEL: ContextVar[Cancel | None] = ContextVar("CANCEL", default=None)


def ignore(_: Progress) -> None:
    """Discard the event."""


class Meter:
    """Counts bytes towards a total and reports each step."""

    def __init__(self, on_progress: OnProgress, phase: Phase, subject: str, total: int) -> None:
        self._tell = on_progress
        self._phase: Phase = phase
        self._subject = subject
        self._total = total
        self.done = 0
        self._lock = threading.Lock()
        if total:
            self.add(0)

    def add(self, count: int) -> None:
        """Count bytes; several threads may call it."""
        with self._lock:
            self.done += count
            done = self.done
        self._tell(Progress(self._phase, self._subject, done, self._total))


def format_size(count: int) -> str:
    """Format bytes in powers of 1000: `12.4 MB`."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_part(part: int, whole: int) -> str:
    """Format a part of a whole in one unit: `3 MB of 2 500 MB`; only the part if it is not smaller.

    A download may be larger than the file: small files are stored with headers.
    """
    if not part or part >= whole:
        return format_size(part)
    shown, all_of_it = format_sizes(part, whole)
    return f"{shown} of {all_of_it}"


def format_sizes(*counts: int) -> list[str]:
    """Format bytes in one unit, the largest in which none is shown as 0: `2 500 kB`, `12.4 kB`, `0 kB`."""
    largest, least = max(counts), min((count for count in counts if count), default=0)
    power = 0
    while power < len(_UNITS) - 1 and (least >= 1000 ** (power + 1) or largest >= 1000 ** (power + 2)):
        power += 1
    values = [count / 1000**power for count in counts]
    texts = [
        "<0.1" if 0 < value < 0.05 else f"{value:,.0f}" if value >= 100 or not power else f"{value:.1f}"
        for value in values
    ]
    return [f"{text.replace(',', ' ').removesuffix('.0')} {_UNITS[power]}" for text in texts]


def format_count(count: int) -> str:
    """Format a number in groups of three digits: `9 314`."""
    return f"{count:,}".replace(",", " ")


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Format a number and its noun: `1 chunk`, `2 chunks`."""
    return f"{format_count(count)} {noun if count == 1 else nouns or noun + 's'}"


def format_span(seconds: float) -> str:
    """Format a duration in its largest whole unit: `3 days`, `1 hour`, `40 seconds`."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            return plural(int(seconds // size), unit)
    return plural(int(seconds), "second")
