"""Maintenance windows for updates, and random delays between machines.

Owns the grammar of a window (`Sat,Sun 02:00-05:00`) and its meaning when clocks change.  Instants are aware
`datetime`s; the time, the zone and random numbers are arguments.  `policies` decides which updates are
allowed.  Pure.

A window opens when the local time first reaches its start, and closes when it first reaches its end.  Of
times that occur twice, when summer time ends, the first is used.  A time that does not occur, when summer
time begins, is replaced by the instant of the change; a window completely inside the change does not open
that day.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo

import msgspec

from yarnstore.errors import InvalidNameError

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_EVERY_DAY = frozenset(range(7))
_DAY_MINUTES = 24 * 60
# A window may extend into the next day, and a clock change may move it: two days back is enough.
_DAYS_BACK = 2
_DAYS_AHEAD = 15
# The interval of checks while a window is open, the same as of the timers that `install-timer` writes.
CHECK_EVERY = timedelta(hours=1)

_WINDOW = re.compile(r"(?:(\S+)\s+)?(\d\d?):(\d\d)\s*[-–]\s*(\d\d?):(\d\d)", re.ASCII)
_FULL_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DURATION = re.compile(r"([0-9]{1,6})\s*([smhd]?)")
_AGE = re.compile(r"([0-9]{1,6})\s*([mhdw])")
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class Opening(msgspec.Struct, frozen=True):
    """One opening of a window: from `opens` until just before `closes`, both in UTC."""

    opens: datetime
    closes: datetime


class Window(msgspec.Struct, frozen=True):
    """A time of day on some days of the week; `days` are those on which it opens, Monday is 0.

    Times are minutes after midnight; an `end` that is not after `start` is on the next day.
    """

    days: frozenset[int]
    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read `02:00-05:00`, `Sat,Sun 02:00-05:00` or `Mon-Fri 22:00-06:00`.  Raises: InvalidNameError."""
        match = _WINDOW.fullmatch(text.strip())
        if not match:
            raise InvalidNameError("window", text, "is not written like 'Sat,Sun 02:00-05:00'")
        words, *numbers = match.groups()
        hours, minutes, end_hours, end_minutes = map(int, numbers)
        start, end = 60 * hours + minutes, 60 * end_hours + end_minutes
        if minutes > 59 or end_minutes > 59 or start >= _DAY_MINUTES or end > _DAY_MINUTES:
            raise InvalidNameError("window", text, "has an invalid time")
        return cls(_parse_days(words, text) if words else _EVERY_DAY, start, end)

    def __str__(self) -> str:
        times = f"{_clock(self.start)}-{_clock(self.end)}"
        if self.days == _EVERY_DAY:
            return times
        return f"{','.join(DAYS[day] for day in sorted(self.days))} {times}"

    def opening(self, day: date, zone: tzinfo) -> Opening | None:
        """Return the opening that begins on `day`; None on other days, or if a clock change skips it."""
        if day.weekday() not in self.days:
            return None
        opens = _instant(day, self.start, zone)
        closes = _instant(day, self.end + (0 if self.end > self.start else _DAY_MINUTES), zone)
        return Opening(opens, closes) if opens < closes else None


def _parse_days(words: str, text: str) -> frozenset[int]:
    if words.casefold() in ("daily", "every-day"):
        return _EVERY_DAY
    found: set[int] = set()
    for word in words.split(","):
        first, *rest = re.split("[-–]", word, maxsplit=1)
        begin, end = _day(first, text), _day(rest[0] if rest else first, text)
        found |= {(begin + n) % 7 for n in range((end - begin) % 7 + 1)}
    return frozenset(found)


def _day(word: str, text: str) -> int:
    for number, name in enumerate(_FULL_NAMES):
        if word.casefold() in (name[:3], name):
            return number
    raise InvalidNameError("window", text, f"has an unknown day of the week, {word!r}")


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _instant(day: date, minutes: int, zone: tzinfo) -> datetime:
    """Return the first instant of a local time; for a time that does not occur, the instant of the change."""
    wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _wall(instant, zone) == wall:
        return instant
    # A gap: `fold` selects the offset before or after it; the change is in between.
    low, high = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), instant
    after = _offset(high, zone)
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (low, middle) if _offset(middle, zone) == after else (middle, high)
    return high.replace(microsecond=0)


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(instant: datetime, zone: tzinfo) -> timedelta | None:
    return instant.astimezone(zone).utcoffset()


def _openings(windows: Iterable[Window], now: datetime, zone: tzinfo) -> Iterator[Opening]:
    """Return the openings around `now` in order, adjacent ones merged."""
    today = now.astimezone(zone).date()
    found: list[Opening] = []
    for window in windows:
        for n in range(-_DAYS_BACK, _DAYS_AHEAD):
            opening = window.opening(today + timedelta(days=n), zone)
            if opening is not None:
                found.append(opening)
    found.sort(key=lambda opening: opening.opens)
    current: Opening | None = None
    for opening in found:
        if current is not None and opening.opens <= current.closes:
            current = Opening(current.opens, max(current.closes, opening.closes))
            continue
        if current is not None:
            yield current
        current = opening
    if current is not None:
        yield current


def find_opening(windows: Sequence[Window], now: datetime, zone: tzinfo) -> Opening | None:
    """Return the opening that contains `now`, else the next one; None if no window ever opens.

    `now` is in it if `opens <= now`.  Do not call without windows, when updates are always allowed.
    """
    for opening in _openings(windows, now, zone):
        if opening.closes > now:
            return opening
    return None


def due_at(windows: Sequence[Window], now: datetime, last: datetime | None, zone: tzinfo) -> datetime | None:
    """Return when the next check after `last` is due: when a window opens, and each hour while one is open.

    Without windows each hour; None if no window ever opens.
    """
    again = now if last is None else max(now, last + CHECK_EVERY)
    if not windows:
        return again
    opening = find_opening(windows, now, zone)
    if opening is None or opening.opens > now:
        return opening.opens if opening else None
    if last is None or last < opening.opens:
        return now
    if again < opening.closes:
        return again
    following = find_opening(windows, opening.closes, zone)
    return following.opens if following else None


def parse_duration_s(text: str) -> float:
    """Seconds of `90`, `90s`, `30m`, `2h` or `1d`.  Raises: InvalidNameError."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise InvalidNameError("duration", text, "is not written like 30m (s, m, h or d)")
    return int(match[1]) * _UNITS_S[match[2]]


def parse_age_s(text: str) -> float:
    """Seconds of `30m`, `2h`, `30d`, `4w` or `0`: a time to keep things.  Raises: InvalidNameError."""
    if text.strip() == "0":
        return 0.0
    match = _AGE.fullmatch(text.strip())
    if not match:
        raise InvalidNameError("time", text, "is not a number with m, h, d or w, such as 30d")
    return int(match[1]) * _UNITS_S[match[2]]


def format_duration(seconds: float) -> str:
    """`30m`, as `parse_duration_s` reads it."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNITS_S[unit] and seconds % _UNITS_S[unit] == 0:
            return f"{int(seconds // _UNITS_S[unit])}{unit}"
    return f"{int(seconds)}s"


def delay_s(jitter_s: float, draw: float, left_s: float | None) -> float:
    """Return a delay in seconds, so that machines do not check at the same time; `draw` is random in [0, 1).

    At most half of the `left_s` seconds for which the window is still open.
    """
    most = jitter_s if left_s is None else min(jitter_s, left_s / 2)
    return max(0.0, most * draw)
