"""When a registry says that it last changed, and which of two states of it is the older one.

Owns the reading of `last_updated`, and that an editor never moves it back.  docs/registry.md governs it.
The clock is an argument.  Pure.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta


def moment_of(text: object) -> datetime | None:
    """The instant that a `last_updated` names; None where it is left out, or is no time."""
    if not isinstance(text, str):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def is_older(text: object, than: object) -> bool:
    """Whether one `last_updated` is earlier than another; where either says nothing, it is not."""
    one, other = moment_of(text), moment_of(than)
    return one is not None and other is not None and one < other


def next_moment(now: str, before: object) -> str:
    """The `last_updated` of a change at `now`, which is never earlier than the one before.

    A clock that was set back, or another machine's that goes wrong, would else make the change look like
    an old registry to everybody who has seen the last.
    """
    if not is_older(now, before):
        return now
    known = moment_of(before)
    with contextlib.suppress(OverflowError):
        if known is not None:
            return (known + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(before)
