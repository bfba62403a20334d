"""The width and the colours of the terminal that a stream writes to."""

from __future__ import annotations

import os
import re
from typing import TextIO

import click

# What may begin a line of ours.  Further lines of texts from outside stand in, so that none looks like it.
_MARKS = {
    "error:": {"fg": "red", "bold": True},
    "WRONG": {"fg": "red", "bold": True},
    "warning:": {"fg": "yellow"},
    "  note ": {"fg": "yellow"},
    "  ok ": {"fg": "green"},
    "*": {"fg": "green", "bold": True},
}


def columns(stream: TextIO) -> int | None:
    """The width of the terminal of a stream, from COLUMNS or the terminal; None without one."""
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return int(said)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def has_colour(stream: TextIO) -> bool:
    """Whether colour may be used: on a terminal that is not dumb, unless NO_COLOR is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, stream: TextIO) -> str:
    """Colour the marks at the beginnings of lines, if the stream shows colour."""
    if not has_colour(stream):
        return text
    mark = "|".join(map(re.escape, _MARKS))
    return re.sub(f"(?m)^({mark})", lambda found: click.style(found[0], **_MARKS[found[0]]), text)  # type: ignore[arg-type]
