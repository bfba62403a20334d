"""`last_updated`: which of two is older, and that it never goes back."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from yarnstore.registry.edit import add_version, amend, new_registry, set_alias, yank
from yarnstore.registry.timestamps import is_believable, is_older, next_timestamp

EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("one", "other", "older"),
    [
        (EARLY, LATE, True),
        (LATE, EARLY, False),
        (EARLY, EARLY, False),
        ("2026-01-02T01:00:00+02:00", LATE, True),
        ("2026-01-01T23:00:00-02:00", LATE, False),
        ("2026-01-01", LATE, True),
        (None, LATE, False),
        (EARLY, None, False),
        ("yesterday", LATE, False),
        ("0001-01-01T00:00:00+14:00", LATE, False),
        (3, LATE, False),
    ],
)
def test_which_is_older(one: object, other: object, older: bool) -> None:
    assert is_older(one, other) is older


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (LATE, EARLY, LATE),
        (EARLY, EARLY, EARLY),
        (EARLY, LATE, "2026-01-02T00:00:01Z"),
        (EARLY, "2026-01-02T02:00:00+02:00", "2026-01-02T00:00:01Z"),
        (EARLY, None, EARLY),
        (EARLY, "yesterday", EARLY),
        (EARLY, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_a_change_never_looks_older_than_the_one_before(now: str, before: object, said: str) -> None:
    assert next_timestamp(now, before) == said


@pytest.mark.parametrize(
    ("text", "now", "believed"),
    [
        (EARLY, datetime(2026, 1, 1, tzinfo=UTC), True),
        (LATE, datetime(2026, 1, 1, tzinfo=UTC), True),
        ("2026-01-02T00:00:01Z", datetime(2026, 1, 1, tzinfo=UTC), False),
        ("9999-12-31T23:59:59Z", datetime(2026, 1, 1, tzinfo=UTC), False),
        (EARLY, datetime(1970, 1, 1, tzinfo=UTC), True),
        (None, datetime(2026, 1, 1, tzinfo=UTC), False),
        ("soon", datetime(2026, 1, 1, tzinfo=UTC), False),
    ],
)
def test_the_far_future_is_held_against_nobody(text: object, now: datetime, believed: bool) -> None:
    assert is_believable(text, now) is believed


def test_neither_publishing_nor_amending_goes_back() -> None:
    raw = new_registry(LATE)
    entry = {"checksum": "0" * 64, "download_url": "https://example.org/x"}
    add_version(raw, model="phi", version="1.0.0", entry=entry, now=EARLY)
    assert raw["last_updated"] == "2026-01-02T00:00:01Z"
    amend(raw, "phi", set_alias("stable", "1.0.0"), now=EARLY)
    assert raw["last_updated"] == "2026-01-02T00:00:02Z"
    amend(raw, "phi", yank("1.0.0"), now="2026-02-01T00:00:00Z")
    assert raw["last_updated"] == "2026-02-01T00:00:00Z"
