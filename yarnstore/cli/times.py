"""Times as people read them: ages, and local time."""

from __future__ import annotations

import time
from datetime import datetime

from yarnstore.cli.format import one_line

_MINUTE_S = 60
_HOUR_S = 60 * _MINUTE_S
_DAY_S = 24 * _HOUR_S
_MONTH_S = 30 * _DAY_S


def format_age(time_ms: int, *, now_s: float | None = None) -> str:
    """How long ago: `just now`, `5 minutes ago`, `3 days ago`, then the date; `never` for 0."""
    if not time_ms:
        return "never"
    seconds = (time.time() if now_s is None else now_s) - time_ms / 1000
    if not -_MINUTE_S < seconds < _MONTH_S:
        return format_date(time_ms)
    for size, unit in ((_DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return "just now"


def format_date(time_ms: int) -> str:
    """The local date: `2024-05-03`.  A time that no calendar has is `–`."""
    try:
        return time.strftime("%Y-%m-%d", time.localtime(time_ms / 1000))
    except (OverflowError, OSError, ValueError):
        return "–"


def format_time(time_ms: int, *, now_s: float | None = None) -> str:
    """Local time: `14:02` today, `May  3` this year, the date before."""
    now = time.localtime(now_s)
    try:
        then = time.localtime(time_ms / 1000)
    except (OverflowError, OSError, ValueError):
        return "–"
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b %d" if then[0] == now[0] else "%Y-%m-%d", then)


def format_iso_age(text: str | None, *, now_s: float | None = None) -> str:
    """The age of an RFC 3339 time from a registry; any other text unchanged."""
    if not text:
        return ""
    try:
        return format_age(max(1, int(datetime.fromisoformat(text).timestamp() * 1000)), now_s=now_s)
    except (ValueError, OverflowError, OSError):
        return one_line(text)[:40]
