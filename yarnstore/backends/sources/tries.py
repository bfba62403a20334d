"""How often a download is tried at each source, how long it waits, and when a source is given up.

Only counts and computes; `sourceset` has the loop and waits.  A `TransientError` is tried again, and no other
error.
"""

from __future__ import annotations

import random as _random
import time
from collections.abc import Callable
from typing import Final

import msgspec

from yarnstore.errors import BackendError, TransientError

_CHECK: Final = "check the address and the network, then run the same command again"

# Seconds slept.  May be `threading.Event().wait`: what it returns, if true, means "stopped", so
# setting the event cuts a wait short.  `time.sleep` is cut short by Ctrl-C in the main thread only.
Sleep = Callable[[float], object]


class RetryPolicy(msgspec.Struct, frozen=True):
    """Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter").

    Waits are drawn from [0, min(cap_s, base_s · 2ⁿ)), so that clients that failed together do not
    return together.  A server's Retry-After is a lower bound, of at most `retry_after_cap_s`.
    """

    attempts: int = 5
    base_s: float = 0.5
    cap_s: float = 20.0
    retry_after_cap_s: float = 60.0

    def delay_s(self, failed: int, retry_after_s: float, random: Callable[[], float]) -> float:
        """Seconds to wait after `failed` (≥ 1) failures; `random` draws from [0, 1)."""
        # 2**60 overflows nothing; beyond it only the cap counts.
        backoff_s = random() * min(self.cap_s, self.base_s * 2.0 ** min(failed - 1, 60))
        return max(backoff_s, min(retry_after_s, self.retry_after_cap_s))


# What an answer that then stalls must have brought to count as progress: a few bytes every half minute
# would never end.
_STALLED_PROGRESS_BYTES: Final = 4096


# Wrong ranges in a row until a source is not asked for ranges any more.
_TRIES_OF_RANGES: Final = 2
_PARTIAL: Final = 206


class Tries:
    """The tries of one download: how often each source failed in a row since data last arrived.

    Refused requests and responses that end early both count, so that the number in an error is the number of
    requests.  A response with any data restarts the count, so that a slow, unreliable connection can finish a
    download.  `is_stopped` is called before each request and while waiting.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        is_stopped: Callable[[], bool] | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self.is_stopped = is_stopped
        # The source of the answer that is being read; None if no answer was opened.
        self.source: str | None = None
        # The sources that the last request could have gone to.
        self.asked: tuple[str, ...] = ()
        # False once they are done without: whole files are asked for.
        self.ranges = True
        # The sources that do not have the file, or do not give it, and why.
        self.refused: dict[str, BackendError] = {}
        self._policy = policy
        self._random = random
        self._allowed: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        self._wrong_ranges: dict[str, int] = {}
        self._errors: dict[str, TransientError] = {}
        self._began_s = time.monotonic()

    def allow(self, source: str, attempts: int) -> None:
        """Set how often a source may fail; later calls change nothing."""
        self._allowed.setdefault(source, attempts)

    def begin(self) -> None:
        """Count a request that begins."""
        self._began_s = time.monotonic()

    def failed(self, source: str, error: TransientError, gained_bytes: int = 0) -> float:
        """Count a request that brought `gained_bytes` and then failed; return the seconds until the next."""
        gained = gained_bytes >= (_STALLED_PROGRESS_BYTES if error.reason == "stalled" else 1)
        if gained:
            self._failed.clear()
            self._wrong_ranges.clear()
        if error.status == _PARTIAL:
            self._wrong_ranges[source] = self._wrong_ranges.get(source, 0) + 1
        failures = self._failed[source] = self._failed.get(source, 0) + 1
        self._errors[source] = error
        delay_s = self._policy.delay_s(failures, error.retry_after_s, self._random)
        if gained and not error.retry_after_s:
            # No longer than the answer took: half of the time is spent on progress.
            return min(delay_s, time.monotonic() - self._began_s)
        return delay_s

    def is_spent(self, source: str) -> bool:
        """Whether a source has failed as often as it may."""
        allowed = self._allowed.get(source, self._policy.attempts)
        wrong_ranges = self._wrong_ranges.get(source, 0) if self.ranges else 0
        return self._failed.get(source, 0) >= allowed or wrong_ranges >= _TRIES_OF_RANGES

    def give_up_ranges(self) -> bool:
        """Stop using ranges, if a source sent only wrong ones.  Returns False if that changes nothing."""
        wrong = [source for source, times in self._wrong_ranges.items() if times >= _TRIES_OF_RANGES]
        if not self.ranges or not wrong:
            return False
        self.ranges = False
        for source in wrong:
            self._failed.pop(source, None)
        return True

    def error(self, source: str) -> TransientError:
        """Return the last error of a source, with the number of tries."""
        error, tries = self._errors[source], self._failed[source]
        again = "try again later" if error.reason == "busy" else _CHECK
        error.hint = error.hint or again
        return error if tries == 1 else _exhausted(error, tries)


def _exhausted(error: TransientError, tries: int) -> TransientError:
    return TransientError(
        error.url,
        f"{error.fields['why']} (tried {tries} times)",
        hint=error.hint,
        status=error.status,
        retry_after_s=error.retry_after_s,
        reason=error.reason,
    )
