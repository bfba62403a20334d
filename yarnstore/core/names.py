"""Names chosen by users: model ids, variants, registry names, and paths inside a version.

All can become file names, so each is checked against an allow-list before it is used;
docs/format/names.md governs it.  Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from yarnstore.core.limits import (
    NAME_LIMIT_CHARS,
    PATH_COMPONENT_LIMIT_BYTES,
    PATH_LIMIT_BYTES,
    PATH_LIMIT_PARTS,
    VERSION_LIMIT_CHARS,
)
from yarnstore.errors import FormatError, InvalidNameError

if TYPE_CHECKING:
    from semver import Version

# The variant of a version that names none.
DEFAULT_VARIANT = "default"

# Sets instead of patterns: every command checks names, and compiling a pattern takes longer than that.
_ALPHANUMERIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_IN_PART = _ALPHANUMERIC | frozenset("._-")
# Device names on Windows, with or without an extension; spaces before the extension are ignored there.
_DEVICES = frozenset(
    (
        *("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"),
        *(f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"),
    )
)
# The expression of semver.org: three numbers, prerelease identifiers, build identifiers.  A string, compiled
# when first used: versions of three numbers do not need it.
_NUMBER = "(?:0|[1-9][0-9]*)"
_IDENTIFIER = f"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = (
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_FORBIDDEN_IN_PATH = frozenset('\\:*?"<>|')


def _check_part(what: str, part: str, whole: str) -> None:
    if not part:
        raise InvalidNameError(what, whole, "is empty")
    if len(part) > NAME_LIMIT_CHARS:
        raise InvalidNameError(what, whole, f"is longer than {NAME_LIMIT_CHARS} characters")
    if part[0] not in _ALPHANUMERIC or not _IN_PART.issuperset(part):
        raise InvalidNameError(
            what,
            whole,
            "may contain only letters, digits, '.', '_' and '-', and must begin with a letter or digit",
        )
    if part.endswith("."):
        raise InvalidNameError(what, whole, "ends in a dot")
    if _is_device(part):
        raise InvalidNameError(what, whole, "is a device name on Windows")


def _is_device(part: str) -> bool:
    """Whether a file name is a device name on Windows."""
    return part.partition(".")[0].rstrip(" ").upper() in _DEVICES


def parse_model_id(text: str) -> str:
    """Check a model id, `[org/]name`, and return it.  Raises: InvalidNameError."""
    parts = text.split("/")
    if len(parts) > 2:
        raise InvalidNameError("model id", text, "has more than one '/'")
    for part in parts:
        _check_part("model id", part, text)
    return text


def parse_variant(text: str) -> str:
    """Check a variant such as `cpu-int4` and return it.  Raises: InvalidNameError."""
    _check_part("variant", text, text)
    return text


def parse_registry_name(text: str) -> str:
    """Check the local name of a registry and return it.  Raises: InvalidNameError."""
    _check_part("registry name", text, text)
    return text


def parse_version(text: str) -> str:
    """Check an exact SemVer 2.0.0 version and return it.  Raises: InvalidNameError."""
    if len(text) > VERSION_LIMIT_CHARS:
        raise InvalidNameError("version", text, f"is longer than {VERSION_LIMIT_CHARS} characters")
    if not (_is_release(text) or re.fullmatch(_VERSION, text)):
        raise InvalidNameError("version", text, "is not MAJOR.MINOR.PATCH (semver.org)")
    return text


def _is_release(text: str) -> bool:
    """Whether a string is three numbers without leading zeros, as most versions are."""
    words = text.split(".")
    return (
        len(words) == 3
        and text.isascii()
        and all(word.isdigit() and (word[0] != "0" or word == "0") for word in words)
    )


@lru_cache(maxsize=8192)
def split_version(text: str) -> Version:
    """Return the parts of an exact SemVer 2.0.0 version.  Raises: InvalidNameError."""
    from semver import Version  # late: checking a version does not need it

    return Version.parse(parse_version(text))


def read_version(text: str) -> str:
    """Parse an exact version as users write it, such as `v1.0.0` or `V1.0.0`.  Raises: InvalidNameError."""
    bare = text.strip()
    bare = bare[1:] if bare[:1] in ("v", "V") else bare
    return bare if is_version(bare) else parse_version(text)


def is_version(text: str) -> bool:
    """Whether a text is an exact version."""
    try:
        parse_version(text)
    except InvalidNameError:
        return False
    return True


def model_dirname(model: str) -> str:
    """The file name of a model id: `org/name` becomes `org~name` ('~' is in no id)."""
    return parse_model_id(model).replace("/", "~")


def model_from_dirname(name: str) -> str:
    """Return the model id of a file name.  Raises: InvalidNameError."""
    return parse_model_id(name.replace("~", "/"))


def parse_file_path(text: str) -> str:
    """Check the path of a file inside a version and return it.

    The path must be relative, '/'-separated and NFC, without empty, '.' or '..' parts, without control or
    reserved characters, and without names that a file system would change.

    Raises: FormatError.
    """

    def refuse(why: str) -> FormatError:
        return FormatError("file path", f"{why}: {text[:120]!r}")

    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise refuse("is not valid Unicode") from None
    if not text:
        raise refuse("is empty")
    if len(encoded) > PATH_LIMIT_BYTES:
        raise refuse(f"is longer than {PATH_LIMIT_BYTES} bytes")
    if text.startswith("/"):
        raise refuse("is absolute")
    if not _is_normal(text):
        raise refuse("is not in Unicode normal form C")
    plain = text.isascii() and text.isprintable() and _FORBIDDEN_IN_PATH.isdisjoint(text)
    for char in () if plain else text:
        if _is_invisible(char):
            raise refuse("contains a control or invisible character")
        if char in _FORBIDDEN_IN_PATH:
            raise refuse(f"contains {char!r}, which some file systems do not allow")
    parts = text.split("/")
    if len(parts) > PATH_LIMIT_PARTS:
        raise refuse(f"has more than {PATH_LIMIT_PARTS} parts")
    for part in parts:
        if part in ("", ".", ".."):
            raise refuse("has an empty, '.' or '..' part")
        if len(part.encode()) > PATH_COMPONENT_LIMIT_BYTES:
            raise refuse(f"has a part longer than {PATH_COMPONENT_LIMIT_BYTES} bytes")
        if part != part.strip() or part.endswith("."):
            raise refuse("has a part that ends in a dot or begins or ends in a space")
        if _is_device(part):
            raise refuse("has a part that is a device name on Windows")
    return text


def _is_normal(text: str) -> bool:
    if text.isascii():
        return True
    import unicodedata  # late: most paths are ASCII

    return unicodedata.is_normalized("NFC", text)


def _is_invisible(char: str) -> bool:
    import unicodedata

    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _fold(path: str) -> str:
    if path.isascii():
        return path.lower()
    import unicodedata

    return unicodedata.normalize("NFC", path.casefold())


def check_file_paths(paths: Iterable[str]) -> None:
    """Check each path, that no two are the same file on a case-insensitive file system, and that none is a
    folder of another.

    Raises: FormatError.
    """
    seen: dict[str, str] = {}
    for path in paths:
        parse_file_path(path)
        folded = _fold(path)
        if folded in seen:
            raise FormatError(
                "the files", f"{seen[folded]!r} and {path!r} have the same path on some file systems"
            )
        seen[folded] = path
    folders: dict[str, str] = {}  # case-folded folder → its first spelling
    climbed: set[str] = set()
    for path in seen.values():
        spelled = path
        while "/" in spelled:
            spelled = spelled.rpartition("/")[0]
            if spelled in climbed:
                break
            climbed.add(spelled)
            folded = _fold(spelled)
            if folded in seen:
                raise FormatError("file path", f"{seen[folded]!r} is both a file and a folder")
            if folders.setdefault(folded, spelled) != spelled:
                raise FormatError(
                    "the folders",
                    f"{folders[folded]!r} and {spelled!r} have the same path on some file systems",
                )
