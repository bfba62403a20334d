"""The activity of a session: its progress, cancellation and clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from yarnstore.errors import CancelledError
from yarnstore.progress import OnProgress, Progress, ignore


class Activity:
    """The progress, cancellation and clock of a session; shared by its threads.

    `check` is called between the blocks of downloads, and raises to stop them.  Listeners are called by one
    thread at a time, under the lock `listening`.
    """

    def __init__(
        self,
        on_progress: OnProgress = ignore,
        check: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.listening = threading.RLock()
        self._tell = on_progress
        self._checks = [check]
        self._ended = threading.Event()

    def now_ms(self) -> int:
        """Return the time in milliseconds since 1970."""
        return int(self.clock() * 1000)

    def report(self, event: Progress) -> None:
        """Report progress.  Raises: CancelledError if the operation is to stop."""
        self._raise_if_ended()
        with self.listening:
            self._tell(event)
        if event.phase == "download":  # also if no further block is requested
            self.check()

    def note(self, text: str) -> None:
        """Report one sentence."""
        self.report(Progress("note", "", text=text))

    def check(self) -> None:
        """Raise CancelledError if the operation is to stop."""
        self._raise_if_ended()
        for check in self._checks:
            check()

    def unstoppable(self) -> Activity:
        """Return an activity with the same listener and clock that nothing stops."""

        def tell(event: Progress) -> None:
            with self.listening, suppress(CancelledError):
                self._tell(event)

        return Activity(tell, clock=self.clock)

    @contextmanager
    def until(self, check: Callable[[], None]) -> Iterator[None]:
        """While the context lasts, also call `check`, which raises to end downloads."""
        self._checks.append(check)
        try:
            yield
        finally:
            self._checks.remove(check)

    def end(self) -> None:
        """Make all threads stop at their next report or check."""
        self._ended.set()

    def _raise_if_ended(self) -> None:
        if self._ended.is_set():
            raise CancelledError("interrupted")
