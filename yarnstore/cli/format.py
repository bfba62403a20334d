"""Values as people read them, and rows as programs do."""

from __future__ import annotations

import re
from collections.abc import Sequence

# C0 and C1 controls without newline and tab, line separators, and what turns the direction of text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def clean(text: str | None) -> str:
    """Text from outside without what could steer a terminal."""
    return _CONTROL.sub("�", text or "")


def one_line(text: str | None) -> str:
    """The first line of a text from outside, with a mark where more follows."""
    lines = clean(text).replace("\t", " ").strip().splitlines()
    return "" if not lines else lines[0] + (" …" if len(lines) > 1 else "")


def indented(text: str | None, margin: str = "  ") -> str:
    """A text from outside whose further lines stand in from the left, so that none looks like ours."""
    return f"\n{margin}".join(clean(text).strip().splitlines())


def format_count(count: int) -> str:
    """A number in groups of three: `9 314`."""
    return f"{count:,}".replace(",", " ")


def plural(count: int, noun: str, nouns: str = "") -> str:
    """`1 chunk`, `2 chunks`."""
    return f"{format_count(count)} {noun if count == 1 else nouns or noun + 's'}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned under their header, two spaces apart."""
    widths = [max(len(row[n]) for row in (header, *rows)) for n in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (header, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)
