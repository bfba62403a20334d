from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from yarnstore.backends.replies import (
    RETRY_AFTER_LIMIT_S,
    ContentRange,
    check_partial,
    parse_content_length,
    parse_content_range,
    parse_etag,
    parse_retry_after,
    parse_unsatisfied_range,
)
from yarnstore.errors import TransientError

NOW = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
SIZES = st.integers(0, 10**18)


@given(first=SIZES, size=st.integers(1, 10**15), beyond=st.none() | st.integers(0, 10**15))
def test_content_range_round_trip(first: int, size: int, beyond: int | None) -> None:
    last = first + size - 1
    total = None if beyond is None else last + 1 + beyond
    text = f"bytes {first}-{last}/{'*' if total is None else total}"
    assert parse_content_range(text) == ContentRange(first, last, total)


@given(st.text() | st.from_regex(r"bytes ?[0-9*-]{0,25}/?[0-9*]{0,25}"))
def test_content_range_of_anything_is_sound_or_none(text: str) -> None:
    found = parse_content_range(text)
    if found is not None:
        assert 0 <= found.first <= found.last
        assert found.total is None or found.last < found.total
        assert (
            text == f"bytes {found.first}-{found.last}/{'*' if found.total is None else found.total}"
            or "0" in text
        )
    size = parse_unsatisfied_range(text)
    assert size is None or size >= 0


@pytest.mark.parametrize(
    "text",
    ["", "bytes 0-1", "bytes 0-1/1", "bytes 5-4/10", "bytes  0-1/2", "Bytes 0-1/2", "bytes 0-1/2 ",
     "bytes 0-1/2\n", "bytes ٠-1/2", "bytes 0-1/2, bytes 0-1/2", "bytes */2", "bytes=0-1/2",
     "bytes 0-1/-2"],
)  # fmt: skip
def test_content_ranges_that_are_none(text: str) -> None:
    assert parse_content_range(text) is None


@given(start=st.integers(0, 1000), length=st.none() | st.integers(1, 1000), total=st.integers(1, 1500))
def test_a_right_partial_answer_is_taken(start: int, length: int | None, total: int) -> None:
    assume(start < total)
    last = total - 1 if length is None else min(start + length, total) - 1
    size = last - start + 1
    headers = {"content-range": f"bytes {start}-{last}/{total}", "content-length": str(size)}
    assert check_partial(headers, "u", start, length) == (size, total)


@given(
    start=st.integers(1, 50),
    length=st.integers(2, 50),
    moved=st.sampled_from((0, 0, 0, -1, 1)),
    cut=st.sampled_from((0, 0, 0, -1, 1)),
    beyond=st.sampled_from((None, 0, 0, 1, -1)),
)
def test_a_partial_answer_is_taken_only_if_it_is_that_range(
    start: int, length: int, moved: int, cut: int, beyond: int | None
) -> None:
    first, last = start + moved, start + length - 1 - cut
    total = None if beyond is None else last + 1 + beyond
    headers = {"content-range": f"bytes {first}-{last}/{'*' if total is None else total}"}
    try:
        size, said = check_partial(headers, "u", start, length)
    except TransientError:
        assert moved or cut or beyond == -1
        return
    assert first == start
    assert size == last - first + 1 <= length
    assert said == total
    assert size == length or last + 1 == total


@pytest.mark.parametrize(("announced", "fine"), [("100", True), ("99", False), ("101", False), ("", True)])
def test_content_length_must_agree(announced: str, fine: bool) -> None:
    headers = {"content-range": "bytes 0-99/100", "content-length": announced}
    if fine:
        assert check_partial(headers, "u", 0, 100) == (100, 100)
    else:
        with pytest.raises(TransientError, match="Content-Length") as caught:
            check_partial(headers, "u", 0, 100)
        assert caught.value.status == 206


@given(st.integers(-(10**6), 10**6))
def test_retry_after_as_a_date(seconds: int) -> None:
    text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(text, NOW) == min(max(seconds, 0), RETRY_AFTER_LIMIT_S)


@given(st.integers(0, 10**12 - 1))
def test_retry_after_as_seconds(seconds: int) -> None:
    assert parse_retry_after(str(seconds), NOW) == min(seconds, RETRY_AFTER_LIMIT_S)


@given(st.text())
def test_retry_after_of_anything_is_bounded(text: str) -> None:
    assert 0 <= parse_retry_after(text, NOW) <= RETRY_AFTER_LIMIT_S


@pytest.mark.parametrize(
    "text",
    ["", "nan", "inf", "Mon, 99 Foo 2024", "Wed, 21 Oct 99999 07:28:00 GMT", "1" * 400, "Thu, 01 Jan 1970"],
)
def test_retry_after_that_is_none(text: str) -> None:
    assert parse_retry_after(text, NOW) == 0


def test_etags_and_lengths() -> None:
    for good in ('"abc"', 'W/"a-b"', '""'):
        assert parse_etag(good) == good
    for bad in ("abc", '"a"b"', '"a\r\nb"', '"é"', '"' + "x" * 600 + '"', "*"):
        assert parse_etag(bad) == ""
    assert parse_content_length("5") == 5
    for bad in ("", "-5", "+5", " 5", "5, 5", "٥", "9" * 20):
        assert parse_content_length(bad) is None
