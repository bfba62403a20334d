"""The messages of the HTTP server on stderr: warnings, which any client can cause, appear seldom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_QUIET_S = 60.0


class Seldom(logging.Filter):
    """Passes errors, and each warning once a minute, with how many were left out before it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._passed: dict[str, tuple[float, int]] = {}  # when it was last passed, how many were left out

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging."""
        if record.levelno >= logging.ERROR:
            return True
        text, now = str(record.msg), self._clock()
        at, left_out = self._passed.get(text, (float("-inf"), 0))
        if now - at < _QUIET_S:
            self._passed[text] = (at, left_out + 1)
            return False
        self._passed[text] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more times before)"
        return True


def print_seldom() -> None:
    """Print the messages of uvicorn through the filter."""
    handler = logging.StreamHandler()
    handler.addFilter(Seldom())
    logger = logging.getLogger("uvicorn.error")
    logger.addHandler(handler)
    logger.propagate = False
