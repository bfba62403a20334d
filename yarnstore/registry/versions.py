"""The order of versions, and the type of the step between two of them.

Owns SemVer 2.0.0 precedence (semver.org §11), update types and the test for a breaking change. `core.names`
parses versions, `ranges` parses ranges.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

from yarnstore.core.names import is_version, parse_version, split_version

UpdateType: TypeAlias = Literal["security", "major", "minor", "patch", "prerelease", "downgrade", "none"]

# One identifier of a prerelease: numbers (0, n, "") sort below words (1, 0, word).
Identifier: TypeAlias = tuple[int, int, str]


class Precedence(NamedTuple):
    """A sort key by SemVer precedence, which ignores build metadata."""

    major: int
    minor: int
    patch: int
    released: bool  # False sorts first: a prerelease comes before its release
    prerelease: tuple[Identifier, ...]

    @property
    def core(self) -> tuple[int, int, int]:
        return self[:3]


def prerelease_key(text: str) -> tuple[Identifier, ...]:
    """Return the sort key of a valid prerelease such as `rc.1`."""
    return tuple((0, int(word), "") if word.isdigit() else (1, 0, word) for word in text.split("."))


@lru_cache(maxsize=8192)
def precedence(version: str) -> Precedence:
    """Return the sort key of an exact version.  Raises: InvalidNameError."""
    numbers = parse_version(version).split(".")
    if len(numbers) == 3 and numbers[2].isdigit():  # most are, and need no import of semver
        return Precedence(int(numbers[0]), int(numbers[1]), int(numbers[2]), True, ())
    parts = split_version(version)
    prerelease = () if parts.prerelease is None else prerelease_key(parts.prerelease)
    return Precedence(parts.major, parts.minor, parts.patch, parts.prerelease is None, prerelease)


def meant_version(version: str, known: Iterable[str]) -> str | None:
    """Return the known version that `version` matches: itself, or without build metadata one that has some.

    Raises: InvalidNameError.
    """
    same = meant_versions(version, known)
    return same[-1] if same else None


def meant_versions(version: str, known: Iterable[str]) -> list[str]:
    """Return all matches of `meant_version` that differ only in build metadata, the preferred one last.

    Raises: InvalidNameError.
    """
    versions = set(known)
    if version in versions:
        return [version]
    if "+" in version:
        return []
    key = precedence(version)
    return sort_versions(other for other in versions if is_version(other) and precedence(other) == key)


def is_prerelease(version: str) -> bool:
    """Whether a version has a prerelease part.  Raises: InvalidNameError."""
    return not precedence(version).released


def sort_versions(versions: Iterable[str], *, newest_first: bool = False) -> list[str]:
    """Sort versions by precedence; those that differ only in build metadata, by their text.

    Raises: InvalidNameError.
    """
    return sorted(versions, key=lambda version: (precedence(version), version), reverse=newest_first)


def security_between(old: str, new: str, security: Iterable[str]) -> bool:
    """Whether one of the versions `security` is newer than `old` and no newer than `new`.

    Raises: InvalidNameError.
    """
    low, high = precedence(old), precedence(new)
    return any(low < precedence(version) <= high for version in security)


def update_type(old: str, new: str, *, security: bool = False) -> UpdateType:
    """Return the type of the step from `old` to `new`; `security` if one in between is a security version.

    A step to a prerelease is `prerelease`.  A step from a prerelease is named after the release that it
    precedes: 2.0.0-rc.1 → 2.0.0 is `major`, as in node-semver's diff().

    Raises: InvalidNameError.
    """
    before, after = precedence(old), precedence(new)
    if after == before:
        return "none"
    if after < before:
        return "downgrade"
    if security:
        return "security"
    if not after.released:
        return "prerelease"
    return _release_step(before, after)


def _release_step(before: Precedence, after: Precedence) -> UpdateType:
    if after.core == before.core:  # from a prerelease to its own release
        if after.patch:
            return "patch"
        return "minor" if after.minor else "major"
    if after.major != before.major or (not before.released and before.minor == before.patch == 0):
        return "major"
    return "minor" if after.minor != before.minor else "patch"


def is_breaking(old: str, new: str) -> bool:
    """Whether the step from `old` to `new` leaves the range `^old`: the same left-most non-zero number.

    Symmetric: a downgrade across a major version is breaking too.

    Raises: InvalidNameError.
    """
    before, after = precedence(old), precedence(new)
    kept = 1 if before.major else 2 if before.minor else 3
    return before[:kept] != after[:kept]
