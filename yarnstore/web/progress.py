"""A job's progress, computed from the events of its operation: bytes, rate, time left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from yarnstore.progress import Progress

# The rate is an average of the last seconds, so that it is current but steady.
_WINDOW_S = 6.0


class Gauge:
    """The progress of one job.  Not safe for several threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counts: dict[str, tuple[int, int]] = {}
        self._seen: deque[tuple[float, int]] = deque()
        self.phase: str | None = None

    def add(self, event: Progress) -> None:
        """Add an event that counts bytes.  Several subjects of one phase are summed."""
        if event.phase != self.phase:
            self.phase = event.phase
            self._counts.clear()
            self._seen.clear()
        self._counts[event.subject] = (event.bytes_done, event.bytes_total)
        now = self._clock()
        if not self._seen or now - self._seen[-1][0] >= 0.1:
            self._seen.append((now, self.bytes_done))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_done(self) -> int:
        """How many bytes of this phase are done."""
        return sum(done for done, _ in self._counts.values())

    @property
    def bytes_total(self) -> int:
        """How many bytes this phase has."""
        return sum(total for _, total in self._counts.values())

    @property
    def bytes_per_s(self) -> float | None:
        """The average rate of the last few seconds; None until it is known."""
        if len(self._seen) < 2:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s) if last_s > first_s and last >= first else None

    @property
    def seconds_left(self) -> float | None:
        """The time until the phase ends at that rate."""
        rate, left = self.bytes_per_s, self.bytes_total - self.bytes_done
        return left / rate if rate and left >= 0 else None
