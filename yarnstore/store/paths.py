"""Checks paths that users give, before anything is opened.

`store/fsread` opens and reads files.
"""

from __future__ import annotations

import os
import re

from yarnstore.core.suggestions import close_names
from yarnstore.errors import NotFoundError, UsageError
from yarnstore.store.filepath import Path

# `https://…`, or `https:/…`, to which `Path` normalises it; a drive has one letter.
_ADDRESS = r"[A-Za-z][A-Za-z0-9+.-]+:/"


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path, without `.` and `..`.

    Raises: UsageError for a URL, which would become a folder of that name, for an empty path, which would be
    the current folder, and for a path with a NUL; NotFoundError if the current folder was removed.
    """
    refuse_unusable(path)
    if ":/" in os.fspath(path) and re.match(_ADDRESS, os.fspath(path)):
        raise UsageError(
            f"{os.fspath(path)[:120]!r} is an address; a path on this machine is needed",
            hint="give a folder or a file; ./ before a name makes it a path",
        )
    try:
        return Path(os.path.abspath(path))
    except FileNotFoundError:
        raise NotFoundError(
            "folder", ".", hint="the current folder was removed: change to another one"
        ) from None


def refuse_unusable(path: str | os.PathLike[str]) -> None:
    """Raise UsageError for an empty path, such as that of an unset variable in a script, and for one that no
    file can have.
    """
    text = os.fspath(path)
    if not text:
        raise UsageError("a path is empty", hint="give a file or a folder; . is the current folder")
    if "\0" in text:
        raise UsageError(f"{text[:120]!r} contains a NUL character, which no path can have")


def missing(what: str, path: str | os.PathLike[str], *, also: str = "") -> NotFoundError:
    """Return the error for a path of the user that does not exist: where it was looked for, and similar names
    there.  `also` is one more sentence of the hint.
    """
    text = os.fspath(path)
    folder, name = os.path.split(os.path.abspath(text))
    try:
        near = close_names(name, os.listdir(folder))
        hint = f"{folder} has no such file or folder"
    except FileNotFoundError:
        near, hint = [], f"the folder {folder} does not exist"
    except OSError as error:
        near, hint = [], f"the folder {folder} cannot be read: {error.strerror}"
    return NotFoundError(what, text, near=near, hint=f"{hint}; {also}" if also else hint)


def names_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a path as given can only be a folder: it ends in a slash, in `.` or in `..`.

    Decided on the text, since `Path` removes the slash.
    """
    return os.path.basename(os.fspath(path)) in ("", ".", "..")


def source_path(path: str | os.PathLike[str]) -> Path:
    """Return a path to read from.

    Raises: UsageError if it is empty or has a NUL, or if it is given as a folder although it is a file.
    """
    refuse_unusable(path)
    if names_folder(path) and os.path.exists(Path(path)) and not os.path.isdir(path):
        raise UsageError(f"{Path(path)} is not a folder", hint="remove the final slash, or give a folder")
    return Path(path)


def file_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a file that a user named; for a link, the path of its target.

    Raises: as `absolute`; UsageError if it is given as a folder.
    """
    found = follow(absolute(path))
    if names_folder(path) or found.is_dir():
        raise UsageError(
            f"{os.fspath(path)} is a folder; a file is needed",
            hint="give a file, without a slash at the end",
        )
    return found


def follow(path: Path) -> Path:
    """Return the path, or the path of its target if it is a link, since users may name links."""
    return Path(os.path.realpath(path)) if os.path.islink(path) else path
