"""Windows by the clock on the wall, in zones whose clocks leap, with a fake clock."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.errors import InvalidNameError, UsageError
from yarnstore.registry.windows import (
    DAYS,
    Window,
    delay_s,
    find_opening,
    format_duration,
    parse_duration_s,
)

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")  # 2024: leaps 02:00 → 03:00 on 31 March, back on 27 October
LORD_HOWE = zoneinfo.ZoneInfo("Australia/Lord_Howe")  # leaps by half an hour: 2024-10-06 02:00 → 02:30
APIA = zoneinfo.ZoneInfo("Pacific/Apia")  # had no 30 December 2011


def at(text: str, zone: tzinfo = UTC, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def found(text: str, now: datetime, zone: tzinfo) -> tuple[str, str] | None:
    opening = find_opening([Window.parse(part) for part in text.split(" | ")], now, zone)
    if opening is None:
        return None
    return (opening.opens.strftime("%m-%d %H:%M"), opening.closes.strftime("%m-%d %H:%M"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Sat,Sun 02:00-05:00", "Sat,Sun 02:00-05:00"),
        ("sun,SAT 2:00 - 05:00", "Sat,Sun 02:00-05:00"),
        ("Mon-Fri 22:00-06:00", "Mon,Tue,Wed,Thu,Fri 22:00-06:00"),
        ("Sat-Mon 00:00-24:00", "Mon,Sat,Sun 00:00-24:00"),
        ("Saturday 01:30–02:00", "Sat 01:30-02:00"),
        ("daily 03:00-04:00", "03:00-04:00"),
        ("03:00-04:00", "03:00-04:00"),
        ("Mon-Sun 03:00-03:00", "03:00-03:00"),
    ],
)
def test_windows_are_read_and_shown(text: str, shown: str) -> None:
    assert str(Window.parse(text)) == shown
    assert Window.parse(shown) == Window.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "Sat", "02:00", "Sat 02:00", "Sat 25:00-26:00", "24:00-25:00", "02:60-03:00", "Foo 02:00-03:00",
     "Sat, Sun 02:00-03:00", "Sat 02:00-03:00 UTC", "Saaaat 02:00-03:00", "Sat 02:00-24:01",
     "Satxxx 02:00-03:00", "Wedn 02:00-03:00", "Sat-Sun-Mon 02:00-03:00", "Sat- 02:00-03:00", "٠٢:00-05:00"],
)  # fmt: skip
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError) as caught:
        Window.parse(text)
    assert isinstance(caught.value, UsageError)


@given(st.text(max_size=30))
def test_any_text_is_a_window_or_refused(text: str) -> None:
    try:
        window = Window.parse(text)
    except InvalidNameError:
        return
    assert Window.parse(str(window)) == window


# 2024-05-04 is a Saturday.
@pytest.mark.parametrize(
    ("text", "now", "opens", "closes"),
    [
        ("Sat,Sun 02:00-05:00", "2024-05-03 12:00", "05-04 02:00", "05-04 05:00"),
        ("Sat,Sun 02:00-05:00", "2024-05-04 02:00", "05-04 02:00", "05-04 05:00"),
        ("Sat,Sun 02:00-05:00", "2024-05-04 04:59", "05-04 02:00", "05-04 05:00"),
        ("Sat,Sun 02:00-05:00", "2024-05-04 05:00", "05-05 02:00", "05-05 05:00"),
        ("Sat,Sun 02:00-05:00", "2024-05-05 05:00", "05-11 02:00", "05-11 05:00"),
        # across midnight: the day is that on which it opens
        ("Fri 22:00-06:00", "2024-05-04 05:00", "05-03 22:00", "05-04 06:00"),
        ("Fri 22:00-06:00", "2024-05-04 06:00", "05-10 22:00", "05-11 06:00"),
        ("22:00-06:00", "2024-05-04 06:00", "05-04 22:00", "05-05 06:00"),
        ("22:00-24:00", "2024-05-04 23:00", "05-04 22:00", "05-05 00:00"),
        # those that touch are one
        ("Sat 22:00-24:00 | Sun 00:00-03:00", "2024-05-04 23:00", "05-04 22:00", "05-05 03:00"),
        ("Sat 01:00-03:00 | Sat 02:00-04:00", "2024-05-04 02:30", "05-04 01:00", "05-04 04:00"),
        ("Sat 01:00-02:00 | Sat 03:00-04:00", "2024-05-04 02:30", "05-04 03:00", "05-04 04:00"),
        ("Sat 05:00-05:00", "2024-05-05 04:00", "05-04 05:00", "05-05 05:00"),
    ],
)
def test_when_it_is_open(text: str, now: str, opens: str, closes: str) -> None:
    assert found(text, at(now), UTC) == (opens, closes)


def test_the_zone_counts() -> None:
    window = "Sat 00:30-02:00"
    assert found(window, at("2024-05-03 23:00"), BERLIN) == ("05-03 22:30", "05-04 00:00")
    assert found(window, at("2024-05-03 23:00"), timezone(timedelta(hours=-8))) == (
        "05-04 08:30",
        "05-04 10:00",
    )
    assert found(window, at("2024-05-03 23:00"), timezone(timedelta(hours=14))) == (
        "05-10 10:30",
        "05-10 12:00",
    )


@pytest.mark.parametrize(
    ("text", "now", "opens", "closes"),
    [
        # 31 March: at 02:00 it is 03:00 (01:00 UTC)
        ("Sun 01:00-05:00", "03-31 00:30", "03-31 00:00", "03-31 03:00"),  # an hour less
        ("Sun 02:30-05:00", "03-31 00:30", "03-31 01:00", "03-31 03:00"),  # opens as it leaps
        ("Sun 01:00-02:30", "03-31 00:30", "03-31 00:00", "03-31 01:00"),  # closes as it leaps
        ("Sun 03:00-04:00", "03-31 00:30", "03-31 01:00", "03-31 02:00"),
        ("Sun 02:00-03:00", "03-31 00:30", "04-07 00:00", "04-07 01:00"),  # leapt over as a whole
        ("Sun 02:15-02:45", "03-31 00:30", "04-07 00:15", "04-07 00:45"),
        # 27 October: at 03:00 it is 02:00 again (01:00 UTC)
        ("Sun 01:00-05:00", "10-27 02:00", "10-26 23:00", "10-27 04:00"),  # an hour more
        ("Sun 02:15-02:45", "10-26 12:00", "10-27 00:15", "10-27 00:45"),  # once, the first time
        ("Sun 02:15-02:45", "10-27 01:20", "11-03 01:15", "11-03 01:45"),  # and not the second
        ("Sun 02:00-03:00", "10-26 12:00", "10-27 00:00", "10-27 02:00"),  # until the clock shows 03:00
        ("Sat 23:00-02:30", "10-26 12:00", "10-26 21:00", "10-27 00:30"),
    ],
)
def test_summer_time_begins_and_ends(text: str, now: str, opens: str, closes: str) -> None:
    assert found(text, at(f"2024-{now}"), BERLIN) == (opens, closes)


def test_odd_zones() -> None:
    # Half an hour is left out: 02:00 → 02:30 (15:30 UTC the day before).
    assert found("Sun 02:10-04:00", at("2024-10-05 12:00"), LORD_HOWE) == ("10-05 15:30", "10-05 17:00")
    # A day is left out: Friday, 30 December 2011.
    assert found("Fri 10:00-12:00", at("2011-12-30 05:00"), APIA) == ("01-05 20:00", "01-05 22:00")


def test_no_window_never_opens() -> None:
    assert find_opening([], at("2024-05-04 02:00"), UTC) is None


WINDOWS = st.builds(
    Window, st.frozensets(st.integers(0, 6), min_size=1), st.integers(0, 1439), st.integers(0, 1440)
)
ZONES = st.sampled_from([UTC, BERLIN, LORD_HOWE, APIA, zoneinfo.ZoneInfo("America/St_Johns")])


@given(
    st.lists(WINDOWS, min_size=1, max_size=3),
    st.datetimes(datetime(2011, 1, 1), datetime(2030, 1, 1)),
    ZONES,
)
def test_openings_go_by_the_clock_on_the_wall(windows: list[Window], naive: datetime, zone: tzinfo) -> None:
    now = naive.replace(tzinfo=UTC)
    opening = find_opening(windows, now, zone)
    assert opening is not None
    assert opening.opens < opening.closes
    assert now < opening.closes
    # What is found stays the same until it closes, and then comes a later one.
    middle = max(now, opening.opens + (opening.closes - opening.opens) / 2)
    again = find_opening(windows, middle, zone)
    assert again is not None
    assert again.closes >= opening.closes
    later = find_opening(windows, opening.closes, zone)
    assert later is None or later.closes > opening.closes
    # Where no clock leaps nearby, it begins at a window's start on one of its days.
    begin = opening.opens.astimezone(zone)
    calm = {(opening.opens + timedelta(hours=n)).astimezone(zone).utcoffset() for n in range(-50, 51, 2)}
    if len(calm) == 1 and opening.opens.astimezone(zone) == opening.opens:
        starts = {(day, window.start) for window in windows for day in window.days}
        assert (begin.weekday(), 60 * begin.hour + begin.minute) in starts


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == seconds
    assert parse_duration_s(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "m", "-3m", "3 weeks", "1.5h", "3m 2s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_duration_s(text)


def test_jitter_stays_within_the_window() -> None:
    assert delay_s(1800, 0.5, None) == 900
    assert delay_s(1800, 0.5, 10_000) == 900
    assert delay_s(1800, 0.999, 100) < 50
    assert delay_s(0, 0.9, None) == 0
    assert delay_s(1800, 0.9, -5) == 0


def test_the_days_are_those_of_datetime() -> None:
    assert DAYS[datetime(2024, 5, 4).weekday()] == "Sat"
