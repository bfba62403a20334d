"""Version ranges with npm's grammar.

Owns the grammar and the meaning of `^1.2`, `~1.2.3`, `1.x`, `>=1 <2`, `1.2 - 2.3` and `a || b`, which is
node-semver's (github.com/npm/node-semver, "Ranges"), with ',' as a second word for AND. `versions` has exact
versions and their order; `spec` and `select` use ranges. Parsed in one pass without regular expressions that
could backtrack.  Pure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Final, NoReturn, Self

import msgspec

from yarnstore.errors import SpecError
from yarnstore.registry.versions import Identifier, Precedence, precedence, prerelease_key

# Longer than any useful range; limits the work of parsing and of every match.
RANGE_LIMIT_CHARS: Final = 256

# Strings, which `re` compiles when first used and caches: most commands parse no range.
_OPERATOR = r"~>|[<>]=?|[~^=]|"
_MARKS = r"(?<![0-9A-Za-z.+-])(=*)v[v=]*(?=[0-9xX*])"
_IDENTIFIER = r"[0-9A-Za-z-]+"
_LOWEST: Final[tuple[Identifier, ...]] = ((0, 0, ""),)  # the prerelease "0"; nothing sorts below it
_COMPARE: Final[dict[str, Callable[[Precedence, Precedence], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}


class Comparator(msgspec.Struct, frozen=True):
    """A comparison with one bound.

    A `floor` is a lower bound completed with zeros, as of `1.x`: if prereleases are included, those of the
    bound are in the range.
    """

    op: str
    bound: Precedence
    floor: bool = False

    def holds(self, version: Precedence, *, include_prereleases: bool) -> bool:
        bound = self.bound
        if self.floor and include_prereleases:
            bound = _below(*bound.core)
        return _COMPARE[self.op](version, bound)


class _Partial(msgspec.Struct, frozen=True):
    """A version whose last numbers may be missing or `x`."""

    numbers: tuple[int, ...]  # zero to three
    prerelease: tuple[Identifier, ...] = ()

    @property
    def complete(self) -> bool:
        return len(self.numbers) == 3

    def lowest(self) -> Precedence:
        major, minor, patch = (*self.numbers, 0, 0, 0)[:3]
        return Precedence(major, minor, patch, not self.prerelease, self.prerelease)

    def after(self, index: int) -> Precedence:
        """Return the bound just below the first version whose number `index` is one higher."""
        bumped = (*self.numbers[:index], self.numbers[index] + 1, 0, 0)
        return _below(*bumped[:3])


def _below(major: int, minor: int, patch: int) -> Precedence:
    return Precedence(major, minor, patch, released=False, prerelease=_LOWEST)


_NOTHING: Final = Comparator("<", _below(0, 0, 0))


class _FaultError(ValueError):
    """A range cannot be parsed; becomes a SpecError in `Range.parse`."""


class Range(msgspec.Struct, frozen=True):
    """Sets of comparators; a version is in the range if it satisfies all of one set.  Made by `parse()`."""

    text: str
    sets: tuple[tuple[Comparator, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a range.  An empty text means `*`.

        Raises: SpecError.
        """
        try:
            if len(text) > RANGE_LIMIT_CHARS:
                _refuse(f"a range has at most {RANGE_LIMIT_CHARS} characters")
            plain = text.replace("\t", " ")
            if not (plain.isascii() and plain.isprintable()):
                _refuse("a range may hold only printable ASCII characters")
            sets = tuple(tuple(_parse_set(part)) for part in plain.split("||"))
        except _FaultError as fault:
            error = SpecError(text, str(fault))
            error.hint = "a range is written like ^1.1, ~1.1.2, >=1.0.0 <2.0.0, 1.x or 1.0 || 2.0"
            raise error from None
        return cls(" ".join(plain.split()) or "*", sets)

    @classmethod
    def parse_stored(cls, text: str) -> Self:
        """Parse a stored range, also one with marks that earlier releases skipped, such as `^vv1`.

        Its text is kept unchanged.  Raises: SpecError.
        """
        try:
            return cls.parse(text)
        except SpecError:
            plain = without_doubled_marks(text)
            if plain == text:
                raise
            return cls(" ".join(text.split()), cls.parse(plain).sets)

    def matches(self, version: str, *, include_prereleases: bool = False) -> bool:
        """Whether an exact version is in the range.

        A prerelease is in the range only if a comparator of the same set names a prerelease of the same
        MAJOR.MINOR.PATCH, or with `include_prereleases`.

        Raises: InvalidNameError.
        """
        key = precedence(version)
        return any(_set_holds(each, key, include_prereleases=include_prereleases) for each in self.sets)

    def __str__(self) -> str:
        return self.text


def without_doubled_marks(text: str) -> str:
    """Remove every `v` before a number from a range: earlier releases read `vv1`, `v=1` and `=v=1` as 1."""
    return re.sub(_MARKS, r"\1", text)


def range_holds(text: str, version: str) -> bool:
    """Return whether `version` is in a published range; prereleases are compared by precedence.

    An invalid range contains no version.  Raises: InvalidNameError.
    """
    try:
        return Range.parse_stored(text).matches(version, include_prereleases=True)
    except SpecError:
        return False


def _set_holds(
    comparators: tuple[Comparator, ...], version: Precedence, *, include_prereleases: bool
) -> bool:
    for comparator in comparators:
        if not comparator.holds(version, include_prereleases=include_prereleases):
            return False
    if version.released or include_prereleases:
        return True
    return any(not each.bound.released and each.bound.core == version.core for each in comparators)


def _refuse(why: str) -> NoReturn:
    raise _FaultError(why)


def _parse_set(text: str) -> Iterator[Comparator]:
    parts = text.split(",")
    for part in parts:
        words = part.split()
        if not words and len(parts) > 1:
            _refuse("nothing on one side of a comma")
        if len(words) == 3 and words[1] == "-":
            yield from _hyphen(_parse_partial(_bare(words[0])), _parse_partial(_bare(words[2])))
        else:
            yield from _parse_words(words)


def _parse_words(words: list[str]) -> Iterator[Comparator]:
    rest = iter(words)
    for word in rest:
        if word == "-":
            _refuse("a hyphen range is two versions and nothing else, as in 1.2 - 2.3")
        match = re.match(_OPERATOR, word)
        op = match[0] if match else ""
        bare = _bare(word[len(op) :]) or (_bare(next(rest, "")) if op else "")
        if not bare:
            _refuse(f"no version after {word!r}")
        yield from _comparators("~" if op == "~>" else op, _parse_partial(bare))


def _bare(word: str) -> str:
    return word.lstrip("=").removeprefix("v")  # `v1.2` and `==1.2`, as in node-semver


def _comparators(op: str, version: _Partial) -> Iterator[Comparator]:
    numbers = version.numbers
    if not numbers:
        if op in ("<", ">"):
            yield _NOTHING
        return
    if op in ("^", "~"):
        yield Comparator(">=", version.lowest(), floor=not version.complete)
        yield Comparator("<", version.after(_fixed(op, numbers)))
    elif version.complete:
        yield Comparator(op or "=", version.lowest())
    elif op in ("", "="):
        yield Comparator(">=", version.lowest(), floor=True)
        yield Comparator("<", version.after(len(numbers) - 1))
    elif op == ">=":
        yield Comparator(">=", version.lowest(), floor=True)
    elif op == ">":  # >1.2 is >=1.3.0
        yield Comparator(
            ">=", version.after(len(numbers) - 1)._replace(released=True, prerelease=()), floor=True
        )
    elif op == "<=":  # <=1.2 is <1.3.0-0
        yield Comparator("<", version.after(len(numbers) - 1))
    else:
        yield Comparator("<", _below(*version.lowest().core))


def _fixed(op: str, numbers: tuple[int, ...]) -> int:
    """Return the last number that `^` or `~` fixes: for `^` the left-most that is not zero."""
    last = len(numbers) - 1
    if op == "~":
        return min(last, 1)
    return next((index for index, number in enumerate(numbers) if number), last)


def _hyphen(low: _Partial, high: _Partial) -> Iterator[Comparator]:
    if low.numbers:
        yield Comparator(">=", low.lowest(), floor=not low.prerelease)
    if high.complete:
        yield Comparator("<=", high.lowest())
    elif high.numbers:
        yield Comparator("<", high.after(len(high.numbers) - 1))


def _parse_partial(text: str) -> _Partial:
    core, plus, build = text.partition("+")
    if plus:
        _check_identifiers(text, build)
    core, dash, prerelease = core.partition("-")
    words = core.split(".")
    if len(words) > 3:
        _refuse(f"{text!r} has more than three numbers")
    numbers = _parse_numbers(text, words)
    if not dash:
        return _Partial(numbers)
    if len(words) < 3:
        _refuse(f"{text!r} has a prerelease, which needs MAJOR.MINOR.PATCH before it")
    _check_identifiers(text, prerelease, leading_zeros=False)
    return _Partial(numbers, prerelease_key(prerelease) if len(numbers) == 3 else ())


def _parse_numbers(text: str, words: list[str]) -> tuple[int, ...]:
    numbers: list[int] = []
    for index, word in enumerate(words):
        if word in ("x", "X", "*"):
            continue
        if not word.isdigit():
            missing = not word and len(words) > 1
            _refuse(f"{text!r} {'has an empty number' if missing else 'is not a version'}")
        if word[0] == "0" and word != "0":
            _refuse(f"{text!r} has a number with a leading zero")
        if len(numbers) < index:
            _refuse(f"{text!r} has a number after x")
        numbers.append(int(word))
    return tuple(numbers)


def _check_identifiers(text: str, dotted: str, *, leading_zeros: bool = True) -> None:
    for word in dotted.split("."):
        if not re.fullmatch(_IDENTIFIER, word):
            _refuse(f"{text!r} has a prerelease or build part that SemVer does not allow")
        if not leading_zeros and word.isdigit() and word[0] == "0" and word != "0":
            _refuse(f"{text!r} has a prerelease number with a leading zero")
