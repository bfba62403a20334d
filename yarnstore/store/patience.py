"""How long opening, renaming and removing files waits for other programs, on Windows.

Scanners hold files for seconds.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 12.0
# A folder is held by programs that have a file in it open, usually for long; so is a file that `gc` deletes.
SHORT_S = 1.0
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.25
# winerror.h: access denied, sharing violation, lock violation.
BUSY = (5, 32, 33)
# Where access can also be denied for good, as for opening: sharing violation, lock violation.
HELD = (32, 33)


class _Limit(threading.local):
    longest_s = PATIENCE_S


_limit = _Limit()


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Wait a second at most within it, since what is prevented can be done later."""
    before, _limit.longest_s = _limit.longest_s, SHORT_S
    try:
        yield
    finally:
        _limit.longest_s = before


def patiently(act: Callable[[], T], *, longest_s: float = PATIENCE_S, busy: tuple[int, ...] = BUSY) -> T:
    """Repeat what another program prevents, with growing pauses; `busy` are the errors that say so."""
    until = time.monotonic() + min(longest_s, _limit.longest_s)
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return act()
        except OSError as error:
            if getattr(error, "winerror", None) not in busy or time.monotonic() >= until:
                raise
        time.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
