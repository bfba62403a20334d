"""The time of a registry's last change, and the comparison of two such times.

Owns the reading of `last_updated`, and that an editor never moves it back.  docs/registry.md governs it.
The clock is an argument.  Pure.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

# What clocks may differ by, time zones that were forgotten included.
_AHEAD = timedelta(days=1)
# Nothing of ours is older: a clock before it was never set.
_CLOCKS_ARE_SET = datetime(2024, 1, 1, tzinfo=UTC)


def parse_timestamp(text: object) -> datetime | None:
    """The instant that a `last_updated` names; None where it is left out, or is no time."""
    if not isinstance(text, str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def is_older(text: object, than: object) -> bool:
    """Whether one `last_updated` is earlier than another; where either says nothing, it is not."""
    one, other = parse_timestamp(text), parse_timestamp(than)
    return one is not None and other is not None and one < other


def is_believable(text: object, now: datetime) -> bool:
    """Whether later values may be compared with a `last_updated`, at the time `now`.

    One far in the future is somebody's mistake, or is meant to have all that comes after it refused.  A
    clock that was never set knows nothing of that.
    """
    at = parse_timestamp(text)
    return at is not None and (now < _CLOCKS_ARE_SET or at <= now + _AHEAD)


def next_timestamp(now: str, before: object) -> str:
    """The `last_updated` of a change at `now`, which is never earlier than the one before.

    A clock that was set back, or another machine's that goes wrong, would else make the change look like
    an old registry to everybody who has seen the last.
    """
    if not is_older(now, before):
        return now
    known = parse_timestamp(before)
    with contextlib.suppress(OverflowError):
        if known is not None:
            return (known + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(before)
