"""Specs, which name a version: `MODEL[:VARIANT][@VERSION|@RANGE|@ALIAS]`.

Owns the grammar of specs.  `core.names` parses names, `ranges` parses ranges, and `select` resolves a spec in
a registry.  Pure.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import msgspec

from yarnstore.core.limits import NAME_LIMIT_CHARS
from yarnstore.core.names import parse_model_id, parse_variant, read_version
from yarnstore.errors import InvalidNameError, SpecError
from yarnstore.registry.ranges import RANGE_LIMIT_CHARS, Range, without_doubled_marks

if TYPE_CHECKING:
    from yarnstore.core.reflog import Installed

# Three names, punctuation and a range.
SPEC_LIMIT_CHARS: Final = 3 * (NAME_LIMIT_CHARS + 1) + RANGE_LIMIT_CHARS

LATEST: Final = "latest"
_ALIAS = r"[A-Za-z][A-Za-z0-9._-]*"  # compiled when first used


class Exact(msgspec.Struct, frozen=True):
    """One version by its number."""

    version: str

    def __str__(self) -> str:
        return self.version


class Alias(msgspec.Struct, frozen=True):
    """A name that the registry gives to a version: `latest`, `stable`, `beta`, …"""

    name: str

    def __str__(self) -> str:
        return self.name


Selector: TypeAlias = Exact | Range | Alias


class Spec(msgspec.Struct, frozen=True):
    """A model, optionally a variant and a version.  Without a selector it means the latest version.

    Made by `parse()`; `str()` returns a text that parses to an equal spec.
    """

    model: str
    variant: str | None = None
    selector: Selector | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a spec.  `1.1.0`, `v1.1.0` and `V1.1.0` are that version; `1.1` is the range 1.1.x, as in
        npm.

        Raises: SpecError.
        """
        if not text.strip():
            raise SpecError(text, "it is empty")
        if len(text) > SPEC_LIMIT_CHARS:
            raise SpecError(text, f"it is longer than {SPEC_LIMIT_CHARS} characters")
        name, at, chosen = text.partition("@")
        if "@" in chosen:
            raise SpecError(text, "it has more than one '@'")
        model, colon, variant = name.partition(":")
        if ":" in variant:
            raise SpecError(text, "it has more than one ':'")
        if not model:
            raise SpecError(text, f"no model before {text[0]!r}")
        try:
            return cls(
                parse_model_id(model),
                parse_variant(variant) if colon else None,
                parse_selector(chosen) if at else None,
            )
        except InvalidNameError as error:
            raise SpecError(text, error.message) from None
        except SpecError as error:
            raise SpecError(text, str(error.fields["why"])) from None

    @classmethod
    def parse_stored(cls, text: str) -> Self:
        """Parse a stored spec, its range with `Range.parse_stored`.  Raises: SpecError."""
        try:
            return cls.parse(text)
        except SpecError:
            name, _, chosen = text.partition("@")
            if without_doubled_marks(chosen) == chosen:
                raise
            bare = cls.parse(name)
            return cls(bare.model, bare.variant, Range.parse_stored(chosen))

    def admits(self, variant: str, version: str) -> bool:
        """Whether a version of the model is one that this spec can mean; an alias can mean any version."""
        if self.variant not in (None, variant):
            return False
        match self.selector:
            case Exact(wanted):
                return wanted in (version, version.partition("+")[0])
            case Range() as wanted:
                return wanted.matches(version, include_prereleases=True)
        return True

    def instead(self, installed: Installed | None) -> str:
        """Return what is installed instead of a version that this spec admits; empty if one is installed."""
        if installed is None:
            return "it is not installed"
        return (
            "" if self.admits(installed.variant, installed.version) else f"{installed.version} is installed"
        )

    def __str__(self) -> str:
        variant = "" if self.variant is None else f":{self.variant}"
        selector = "" if self.selector is None else f"@{self.selector}"
        return f"{self.model}{variant}{selector}"


def exact_version(spec: Spec, command: str) -> str:
    """Return the version of a spec for a command that needs an exact one.  Raises: SpecError."""
    if not isinstance(spec.selector, Exact):
        why = f"{command} needs an exact version"
        given = f", not {spec.selector}" if spec.selector else ""
        raise SpecError(str(spec), why, message=f"{why}, such as {spec.model}@1.0.0{given}")
    return spec.selector.version


def parse_specs(texts: Iterable[object]) -> list[Spec]:
    """Return those stored texts that are specs."""
    found = []
    for text in texts:
        with contextlib.suppress(SpecError):
            found.append(Spec.parse_stored(str(text)))
    return found


def parse_selector(text: str) -> Selector:
    """Parse the part of a spec after its '@'.

    Raises: SpecError.
    """
    word = _with_small_v(text.strip(" "))
    if not word:
        raise SpecError(text, "nothing after '@'")
    with contextlib.suppress(InvalidNameError):
        return Exact(read_version(word))
    return Alias(word) if is_alias(word) else Range.parse(word)


def is_alias(word: str) -> bool:
    """Whether a word can be an alias: neither a version nor one of npm's ranges, such as `v2` and `x`."""
    if len(word) > NAME_LIMIT_CHARS or not re.fullmatch(_ALIAS, word):
        return False
    # Also refuses `vv1.0`, a typing error.
    word = _with_small_v(word)
    return not (word[0] in "vxX" and _is_range(word.lstrip("v") or word))


def _with_small_v(word: str) -> str:
    """Return a version or range with a lower-case mark, as ranges need it: `V1.1` as `v1.1`."""
    return "v" + word[1:] if re.match("V[0-9xX*]", word) else word


def _is_range(text: str) -> bool:
    try:
        Range.parse(text)
    except SpecError:
        return False
    return True
