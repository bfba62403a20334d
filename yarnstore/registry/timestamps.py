"""Parses and compares the times of a registry's last change.

Parses `last_updated`, and makes sure that an edit never sets it back.  docs/registry.md governs it. The
current time is an argument.  Pure.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

# The tolerated difference between clocks, including ones with a wrong time zone.
_AHEAD = timedelta(days=1)
# Earlier than any registry: an earlier clock was never set.
_CLOCKS_ARE_SET = datetime(2024, 1, 1, tzinfo=UTC)


def parse_timestamp(text: object) -> datetime | None:
    """Parse a `last_updated`; None if it is missing or invalid."""
    if not isinstance(text, str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def is_older(text: object, than: object) -> bool:
    """Whether one `last_updated` is earlier than another; False if either is missing or invalid."""
    one, other = parse_timestamp(text), parse_timestamp(than)
    return one is not None and other is not None and one < other


def is_believable(text: object, now: datetime) -> bool:
    """Whether later values may be compared with a `last_updated`, at the time `now`.

    One far in the future is a mistake or an attack, since all later states would be refused.  If this
    machine's clock was never set, nothing is far in the future.
    """
    at = parse_timestamp(text)
    return at is not None and (now < _CLOCKS_ARE_SET or at <= now + _AHEAD)


def next_timestamp(now: str, before: object) -> str:
    """Return the `last_updated` of a change at `now`, which is never earlier than the previous one.

    Otherwise, after a change on a machine whose clock is slow, clients that have seen the previous state
    would refuse the new one as old.
    """
    if not is_older(now, before):
        return now
    known = parse_timestamp(before)
    with contextlib.suppress(OverflowError):
        if known is not None:
            return (known + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(before)
