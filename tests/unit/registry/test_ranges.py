"""Ranges against the examples that npm publishes: github.com/npm/node-semver, README and test/fixtures."""

import time

import pytest

from yarnstore.errors import SpecError
from yarnstore.registry.ranges import RANGE_LIMIT_CHARS, Range, range_holds

INCLUDED = """
1.0.0 - 2.0.0 | 1.2.3
^1.2.3+build | 1.2.3
^1.2.3+build | 1.3.0
1.2.3-pre+asdf - 2.4.3-pre+asdf | 1.2.3
1.2.3-pre+asdf - 2.4.3-pre+asdf | 1.2.3-pre.2
1.2.3-pre+asdf - 2.4.3-pre+asdf | 2.4.3-alpha
1.0.0 | 1.0.0
>=* | 0.2.4
 | 1.0.0
* | 1.2.3
>=1.0.0 | 1.0.0
>1.0.0 | 1.1.0
<=2.0.0 | 1.9999.9999
>=   1.0.0 | 1.1.0
<    2.0.0 | 0.2.9
>=0.1.97 | 0.1.97
2.x.x | 2.1.3
1.2.* | 1.2.3
x | 1.2.3
2 | 2.1.2
2.3 | 2.3.1
~0.0.1 | 0.0.2
~x | 0.0.9
~2 | 2.0.9
~2.4 | 2.4.5
~>3.2.1 | 3.2.2
~> 1 | 1.2.3
~ 1.0.3 | 1.0.12
>= 1 | 1.0.0
< 1.2 | 1.1.1
~v0.5.4-pre | 0.5.5
~v0.5.4-pre | 0.5.4
=0.7.x | 0.7.2
<=0.7.x | 0.7.2
>=0.7.x | 0.7.2
~1.2.1 >=1.2.3 1.2.3 | 1.2.3
>=1.2 | 1.2.8
^1.2.3 | 1.8.1
^0.1 | 0.1.2
^0.0.1 | 0.0.1
^1.2 ^1 | 1.4.2
^1.2.3-alpha | 1.2.3-pre
^0.0.1-alpha | 0.0.1-beta
^0.1.1-alpha | 0.1.1-beta
x - 1.x | 0.9.7
1.0.0 - x | 1.9.7
<=7.x | 7.9.9
1.x+build.123 | 1.4.0
1.x.x-alpha+build | 1.4.0
^0.0.x | 0.0.5
^0.0 | 0.0.5
^0.x | 0.9.0
1.2 - 2.3 | 2.3.9
>1.2.3-alpha.3 | 1.2.3-alpha.7
>1.2.3-alpha.3 | 3.4.5
"""

EXCLUDED = """
1.0.0 - 2.0.0 | 2.2.3
1.2.3+asdf - 2.4.3+asdf | 1.2.3-pre.2
1.2.3+asdf - 2.4.3+asdf | 2.4.3-alpha
^1.2.3+build | 2.0.0
^1.2.3 | 1.2.3-pre
^1.2 | 1.2.0-pre
>1.2 | 1.3.0-beta
>1.2 | 1.2.8
<=1.2.3 | 1.2.3-beta
=0.7.x | 0.7.0-asdf
<=0.7.x | 0.7.0-asdf
1.0.0 | 1.0.1
>1.0.0 | 0.1.0
<=2.0.0 | 2.9999.9999
2.x.x | 3.1.3
1.2.* | 1.3.3
2.3 | 2.4.1
~0.0.1 | 0.1.0-alpha
~0.0.1 | 0.1.0
~2.4 | 2.5.0
~>3.2.1 | 3.2.0
~>1 | 2.2.3
<1 | 1.0.0
~v0.5.4-beta | 0.5.4-alpha
<1.2.3 | 1.2.3-beta
^0.0.1 | 0.0.2-alpha
^0.0.1 | 0.0.2
^1.2.3 | 2.0.0-alpha
^1.2 | 1.1.9
* | 1.2.3-foo
^1.0.0 | 2.0.0-rc1
1 - 2 | 2.0.0-pre
1.1.x | 1.1.0-a
1.1.x | 1.2.0-a
>=1.0.0 <1.1.0 | 1.1.0
>=1.0.0 <1.1.0 | 1.1.0-pre
>=1.0.0 <1.1.0-pre | 1.1.0-pre
>X | 9.9.9
<x | 0.0.0
^0.0 | 0.1.0
1.2 - 2.3 | 2.4.0
>1.2.3-alpha.3 | 3.4.5-alpha.9
"""

INCLUDED_WITH_PRERELEASES = """
2.x | 2.0.0-pre.0
1.1.x | 1.1.0-a
~1.1 | 1.1.0-a
~2 | 2.0.0-pre.0
* | 1.0.0-rc1
^1.0.0-rc2 | 1.0.1-rc1
^1.0.0 | 1.1.0-rc1
1 - 2 | 2.0.0-pre
1.0 - 2 | 1.0.0-pre
1.0.0 - 2 | 1.0.0-pre
>=0.7.x | 0.7.0-asdf
<=0.7.x | 0.7.0-asdf
>1.2 | 1.3.0-a
>=1.0.0 <=1.1.0 | 1.1.0-pre
"""

EXCLUDED_WITH_PRERELEASES = """
2.x | 3.0.0-pre.0
^0.0.3 | 0.0.3-alpha
^0.2.3 | 0.2.3-alpha
^1.0.0 | 1.0.0-rc1
^1.0.0 | 2.0.0-rc1
^1.2.3-rc2 | 2.0.0
1 - 2 | 3.0.0-pre
1.1.x | 1.2.0-a
1.1.x | 1.0.0-a
1.x | 2.0.0-a
<2 | 2.0.0-a
>=1.0.0 <1.1.0 | 1.1.0
"""


def cases(table):
    return [tuple(part.strip() for part in line.split("|")) for line in table.strip("\n").splitlines()]


@pytest.mark.parametrize(("text", "version"), cases(INCLUDED))
def test_in_the_range(text, version):
    assert Range.parse(text).matches(version)


@pytest.mark.parametrize(("text", "version"), cases(EXCLUDED))
def test_not_in_the_range(text, version):
    assert not Range.parse(text).matches(version)


@pytest.mark.parametrize(("text", "version"), cases(INCLUDED_WITH_PRERELEASES))
def test_in_the_range_with_prereleases(text, version):
    assert Range.parse(text).matches(version, include_prereleases=True)


@pytest.mark.parametrize(("text", "version"), cases(EXCLUDED_WITH_PRERELEASES))
def test_not_in_the_range_with_prereleases(text, version):
    assert not Range.parse(text).matches(version, include_prereleases=True)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("0.1.20 || 1.2.4", "1.2.4", "1.2.3"),
        (">=0.2.3 || <0.0.1", "0.0.0", "0.0.3"),
        ("1.2.x||2.x", "2.1.3", "1.1.3"),
        (">x 2.x || 1 || <x", "1.3.4", "2.1.0"),
        (">=1.0.0, <2.0.0", "1.5.0", "2.0.0"),
        ("1.2 - 2.3, <2", "1.9.0", "2.1.0"),
    ],
)
def test_or_and_and(text, inside, outside):
    parsed = Range.parse(text)
    assert parsed.matches(inside)
    assert not parsed.matches(outside)


def test_an_empty_alternative_is_everything():
    assert Range.parse("||").matches("1.3.4")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1.x.5", "a number after x"),
        ("x.1", "a number after x"),
        (">01.02.03", "leading zero"),
        ("1.0.0-01", "leading zero"),
        ("~1.2.3beta", "is not a version"),
        ("1.2.3.4", "more than three numbers"),
        ("1..2", "empty number"),
        ("1.", "empty number"),
        (">=", "no version after '>='"),
        ("1.2-beta", "needs MAJOR.MINOR.PATCH"),
        ("1.0.0-", "SemVer does not allow"),
        ("1.0.0-a..b", "SemVer does not allow"),
        ("1.0.0+", "SemVer does not allow"),
        ("1 - ", "a hyphen range is two versions"),
        ("1 - 2 3", "a hyphen range is two versions"),
        (">=1,", "one side of a comma"),
        ("!=1.0.0", "is not a version"),
        (">=1.0<2.0", "is not a version"),
        ("1.0.0\n", "printable"),
        ("１.0.0", "ASCII"),
        ("1.0.0\x1b[2J", "printable"),
        ("latest", "is not a version"),
    ],
)
def test_an_unreadable_range_says_why(text, why):
    with pytest.raises(SpecError) as caught:
        Range.parse(text)
    assert why in caught.value.fields["why"]
    assert "a range is written like" in caught.value.hint


def test_the_length_is_bounded():
    longest = "1" * RANGE_LIMIT_CHARS
    assert Range.parse(longest).matches(f"{longest[:100]}.0.0") is False
    with pytest.raises(SpecError, match="at most 256 characters"):
        Range.parse(longest + "1")


@pytest.mark.parametrize("piece", ["=", "v", " ", "-", "1-", "1.", "~", ">", "||", "0 ", "1.2 - ", "+a"])
def test_no_repetition_takes_long(piece):
    text = (piece * RANGE_LIMIT_CHARS)[: RANGE_LIMIT_CHARS - 1] + "!"
    start = time.process_time()
    with pytest.raises(SpecError):
        Range.parse(text)
    assert time.process_time() - start < 0.5


def test_text_is_kept_with_its_spaces_tidied():
    assert str(Range.parse("  >=1   <2 ||\t3 ")) == ">=1 <2 || 3"
    assert str(Range.parse("")) == "*"


@pytest.mark.parametrize(
    ("stored", "plain"),
    [
        ("^vv1", "^1"), ("v=1", "1"), ("=v=1.2.3", "=1.2.3"), (">=vv1.2 <v2", ">=1.2 <2"), ("<=v=1", "<=1"),
        ("<v=2", "<2"), ("vv1 - =vv2", "1 - 2"), ("~>vvv1.2", "~>1.2"), ("^ vv1 || vvx", "^1 || x"),
        ("1.0.0-vv1", "1.0.0-vv1"), ("^1.2", "^1.2"),
    ],
)  # fmt: skip
def test_a_stored_range_may_have_marks_that_are_refused_now(stored: str, plain: str) -> None:
    found = Range.parse_stored(stored)
    assert found.sets == Range.parse(plain).sets
    assert str(found) == stored
    assert range_holds(stored, "1.2.3") == range_holds(plain, "1.2.3")


@pytest.mark.parametrize("text", ["^v", "vv", "^vva1", "1..2", "=vv=", "^w1"])
def test_a_stored_range_that_no_release_read_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        Range.parse_stored(text)
    assert not range_holds(text, "1.0.0")
