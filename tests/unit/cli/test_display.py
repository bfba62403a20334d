"""Values as people read them, and what of a foreign text reaches a terminal."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarnstore.cli.display import (
    clean,
    fold,
    format_age,
    format_iso_age,
    format_time,
    indented,
    one_line,
    table,
)
from yarnstore.progress import format_count, plural

NOW_S = 1_750_000_000.0


@pytest.mark.parametrize(
    ("ago_s", "said"),
    [
        (0, "just now"),
        (59, "just now"),
        (-30, "just now"),
        (60, "1 minute ago"),
        (3599, "59 minutes ago"),
        (3600, "1 hour ago"),
        (86_399, "23 hours ago"),
        (86_400, "1 day ago"),
        (29 * 86_400, "29 days ago"),
    ],
)
def test_age(ago_s: int, said: str) -> None:
    assert format_age(int((NOW_S - ago_s) * 1000), now_s=NOW_S) == said


@pytest.mark.parametrize("ago_s", [30 * 86_400, 400 * 86_400, -61, -400 * 86_400])
def test_an_age_of_months_or_in_the_future_is_a_date(ago_s: int) -> None:
    then_s = NOW_S - ago_s
    assert format_age(int(then_s * 1000), now_s=NOW_S) == time.strftime("%Y-%m-%d", time.localtime(then_s))


def test_an_age_of_nothing_and_of_nonsense() -> None:
    assert format_age(0) == "never"
    assert format_age(10**30, now_s=NOW_S) == "–"
    assert format_time(10**30, now_s=NOW_S) == "–"


def test_time_gives_what_is_needed() -> None:
    noon_s = time.mktime((2025, 6, 15, 12, 0, 0, 0, 0, -1))
    assert format_time(int(noon_s - 3600) * 1000, now_s=noon_s) == "11:00"
    assert format_time(int(noon_s - 5 * 86_400) * 1000, now_s=noon_s) == "Jun 10"
    assert format_time(int(noon_s - 400 * 86_400) * 1000, now_s=noon_s) == "2024-05-11"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2025-06-15T15:06:40Z", "just now"),
        ("2025-06-15T13:06:40+00:00", "2 hours ago"),
        ("2025-06-12T15:06:40Z", "3 days ago"),
        ("soon\nerror: x", "soon …"),
        ("\x1b[2J", "�[2J"),
        ("", ""),
        (None, ""),
    ],
)
def test_age_of_a_registry_time(text: str | None, said: str) -> None:
    assert format_iso_age(text, now_s=NOW_S) == said


def test_counts() -> None:
    assert [format_count(n) for n in (0, 999, 1000, 9_314_000)] == ["0", "999", "1 000", "9 314 000"]
    assert [plural(n, "chunk") for n in (0, 1, 2)] == ["0 chunks", "1 chunk", "2 chunks"]


def test_table_aligns_and_ends_no_line_in_spaces() -> None:
    assert table(("A", "NOTE"), [("long", ""), ("x", "y")]) == "A     NOTE\nlong\nx     y"


def test_a_path_on_a_line_of_its_own_is_folded_nowhere() -> None:
    path = "/a folder/" + "with spaces " * 9
    folded = fold(f"{'word ' * 20}\n{path}\n{'/'.join('ab')} {'word ' * 20}", 60)
    assert path in folded.split("\n")
    assert [line for line in folded.split("\n") if len(line) > 60] == [path]


@given(st.text())
def test_clean_text_is_printable_but_for_newline_and_tab(text: str) -> None:
    for character in clean(text):
        code = ord(character)
        assert character in "\n\t" or not (code < 0x20 or 0x7F <= code < 0xA0)
        assert character not in "\u2028\u2029\u202e\u2066\u061c"


@given(st.text(st.characters(exclude_categories=("Cc", "Zl", "Zp", "Cf", "Cs"))))
def test_clean_leaves_ordinary_text_alone(text: str) -> None:
    assert clean(text) == text


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1
    assert "\t" not in one_line(text)


@given(st.text())
def test_further_lines_stand_in(text: str) -> None:
    assert all(line.startswith("    ") for line in indented(text, "    ").split("\n")[1:])
