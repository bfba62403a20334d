"""Values as people read them, and rows as programs do."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str | None) -> str:
    """Text from outside without what could steer a terminal."""
    return _CONTROL.sub("�", text or "")


def one_line(text: str | None) -> str:
    """The first line of a text from outside, with a mark where more follows."""
    lines = clean(text).replace("\t", " ").strip().splitlines()
    return "" if not lines else lines[0] + (" …" if len(lines) > 1 else "")


def format_age(time_ms: int, *, now_s: float | None = None) -> str:
    """How long ago: `just now`, `5 minutes ago`, `3 days ago`, then the date."""
    if not time_ms:
        return "never"
    seconds = (time.time() if now_s is None else now_s) - time_ms / 1000
    for limit, size, unit in ((3600, 60, "minute"), (86400, 3600, "hour"), (30 * 86400, 86400, "day")):
        if seconds < 60:
            return "just now"
        if seconds < limit:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''} ago"
    return time.strftime("%Y-%m-%d", time.localtime(time_ms / 1000))


def format_time(time_ms: int) -> str:
    """Local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_ms / 1000))


def format_count(count: int) -> str:
    """A number with thin groups of three: `9 314`."""
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


def lines(rows: Sequence[Sequence[object]]) -> str:
    """Stable lines for programs: columns between tabs, what is None empty, six digits of a float."""
    return "\n".join("\t".join(map(_cell, row)) for row in rows)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else clean(str(value)).replace("\t", " ").replace("\n", " ")
