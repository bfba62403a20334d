"""Text for people: clean, folded, in tables; ages and times; sentences that several commands print.

Owns what is particular to a terminal.  Sizes and counts, which the engine needs too, are in `progress`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarnstore.results import CheckoutResult

# C0 and C1 controls without newline and tab, line separators, and what turns the direction of text.
# None of them is printable; most texts are, so that the pattern is compiled when it is first used.
_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"


def clean(text: str | None) -> str:
    """Remove terminal control characters from foreign text."""
    if not text or text.isprintable():
        return text or ""
    return re.sub(_CONTROL, "�", text)


def escape_json(text: str) -> str:
    """Escape the terminal control characters in the strings of a JSON document."""
    return re.sub(_CONTROL, lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str | None) -> str:
    """Return the first line of foreign text, with `…` if more follows."""
    lines = clean(text).replace("\t", " ").strip().splitlines()
    return "" if not lines else lines[0] + (" …" if len(lines) > 1 else "")


def indented(text: str | None, margin: str = "  ") -> str:
    """Indent the further lines of foreign text, so that none looks like a line of ours."""
    return f"\n{margin}".join(clean(text).strip().splitlines())


def cut_middle(word: str, width: int) -> str:
    """A word of at most `width` columns, its beginning and its end kept: `sha256:1f…9c`."""
    if cells(word) <= width:
        return word
    end = (width - 1) // 2
    head, tail = word, ""
    while head and cells(head) > max(width - 1 - end, 0):
        head = head[:-1]
    for letter in reversed(word):
        if cells(letter + tail) > end:
            break
        tail = letter + tail
    return f"{head}…{tail}"


def cells(text: str) -> int:
    """Return the width of a text in terminal columns: two for wide letters, none for combining marks."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(letter) else 1 + (east_asian_width(letter) in "WF") for letter in text)


def fold(text: str, width: int | None, *, hang: int = 4, cut: bool = True) -> str:
    """Text with its long lines folded between words; their further lines stand in to column `hang`.

    With `cut` a word that is longer than a line is cut in the middle, but for paths and addresses, which
    stay whole; so does a line that is a path, whatever spaces it has.
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        body = line.lstrip(" ")
        margin = len(line) - len(body)
        first, further = (" " * min(column, width // 2) for column in (margin, max(margin, hang)))
        whole = cells(line) <= width or body.startswith("/")  # a path that is a line of its own
        lines += [line] if whole else _folded(body, width, first, further, cut=cut, paths=False)
    return "\n".join(lines)


def _folded(
    text: str, width: int, first: str = "", further: str = "", *, cut: bool = True, paths: bool = True
) -> list[str]:
    """Lines of at most `width` columns; the spaces between words stay.  `cut` words, and `paths` too."""
    lines = []
    line, empty = first, True
    for gap, word in re.findall(r"( *)([^ ]+)", text):
        if not empty and cells(line + gap + word) > width:
            lines.append(line)
            line, empty = further, True
        room = max(width - cells(line), 3)
        shown = cut_middle(word, room) if cut and (paths or "/" not in word) else word
        line += shown if empty else gap + shown
        empty = False
    return [*lines, line]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns aligned under their header, two spaces apart, within `width` columns of a terminal.

    Where they do not fit, cells are folded, and single words cut in the middle; where that leaves too
    little of them, each row is a record: a line for each of its cells.
    """
    grid = [header, *rows]
    natural = [max(cells(row[n]) for row in grid) for n in range(len(header))]
    widths = natural if width is None else _shrunk(grid, natural, width)
    if widths is None:
        return "\n\n".join(_record(header, row, width or 0) for row in rows)
    lines = []
    for row in grid:
        columns = [_folded(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        for n in range(max(map(len, columns))):
            shown = (column[n] if n < len(column) else "" for column in columns)
            padded = (cell + " " * (wide - cells(cell)) for cell, wide in zip(shown, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


_WORD, _TEXT = 10, 20  # columns below which a word, or a text of several, is better in a record


def _shrunk(grid: Sequence[Sequence[str]], natural: Sequence[int], width: int) -> Sequence[int] | None:
    """Return the widths of the columns, the widest reduced first; None if they do not fit."""
    gaps = 2 * (len(natural) - 1)
    least = [
        min(wide, max(cells(grid[0][n]), _TEXT if any(" " in row[n] for row in grid[1:]) else _WORD))
        for n, wide in enumerate(natural)
    ]
    for most in range(max(natural), 0, -1):
        widths = [min(wide, max(few, most)) for wide, few in zip(natural, least, strict=True)]
        if sum(widths) + gaps <= width:
            return widths
    return None


def _record(header: Sequence[str], row: Sequence[str], width: int) -> str:
    margin = max(map(cells, header)) + 2
    lines = []
    for name, cell in zip(header, row, strict=True):
        if cell:
            first = name + " " * (margin - cells(name))
            lines += _folded(cell, width, first, " " * margin)
    return "\n".join(lines)


# --- times ----------------------------------------------------------------------------------------

_MINUTE_S = 60
_MONTH_S = 30 * 24 * 60 * _MINUTE_S


def format_age(time_ms: int, *, now_s: float | None = None) -> str:
    """Format an age: `just now`, `5 minutes ago`, `3 days ago`, then the date; `never` for 0."""
    if not time_ms:
        return "never"
    seconds = (time.time() if now_s is None else now_s) - time_ms / 1000
    if not -_MINUTE_S < seconds < _MONTH_S:
        return format_date(time_ms)
    if seconds < _MINUTE_S:
        return "just now"
    from yarnstore.progress import format_span

    return f"{format_span(seconds)} ago"


def format_date(time_ms: int) -> str:
    """The local date: `2024-05-03`.  A time that no calendar has is `–`."""
    try:
        return time.strftime("%Y-%m-%d", time.localtime(time_ms / 1000))
    except (OverflowError, OSError, ValueError):
        return "–"


def format_time(time_ms: int, *, now_s: float | None = None) -> str:
    """Local time: `14:02` today, `May  3` this year, the date before."""
    now = time.localtime(now_s)
    try:
        then = time.localtime(time_ms / 1000)
    except (OverflowError, OSError, ValueError):
        return "–"
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b %d" if then[0] == now[0] else "%Y-%m-%d", then)


def format_iso_age(text: str | None, *, now_s: float | None = None) -> str:
    """The age of an RFC 3339 time from a registry; any other text unchanged."""
    from yarnstore.registry.timestamps import parse_timestamp

    found = parse_timestamp(text)
    if found is None:
        return one_line(text)[:40]
    return format_age(max(1, int(found.timestamp() * 1000)), now_s=now_s)


def format_iso_time(text: str) -> str:
    """The local day and time of an RFC 3339 time: `Sat 2024-05-04 02:00`; any other text unchanged."""
    from yarnstore.registry.timestamps import parse_timestamp

    found = parse_timestamp(text)
    return one_line(text) if found is None else f"{found.astimezone():%a %Y-%m-%d %H:%M}"


# --- sentences ------------------------------------------------------------------------------------


def size(count: int | None) -> str:
    """Bytes as people read them; `–` where unknown."""
    from yarnstore.progress import format_size

    return "–" if count is None else format_size(count)


def part(count: int | None, whole: int | None) -> str:
    """`3 MB of 2 500 MB`; `–` where unknown."""
    from yarnstore.progress import format_part

    return size(count) if count is None or whole is None else format_part(count, whole)


def up_to_date(models: int) -> str:
    """The sentence for the case that no installed model is outdated."""
    if models == 1:
        return "the installed model is up to date"
    return f"all {models} models are up to date" if models else "nothing is installed"


def arrow(model: str, old: str | None, new: str) -> str:
    """`phi-3-mini 1.0.0 → 1.1.0`."""
    return f"{model} {old or '–'} → {new}"


def step_text(done: CheckoutResult) -> str:
    """As `arrow`, with the variants where they differ."""
    if done.previous_variant in (None, done.variant):
        return arrow(done.model, done.previous, done.version)
    return f"{done.model} {done.previous} ({done.previous_variant}) → {done.version} ({done.variant})"


def checkout_text(done: CheckoutResult) -> str:
    """The sentence about a finished checkout, and the path."""
    if not done.changed:
        return f"{done.model} {done.version} is already installed\n{done.path}"
    if done.previous is None:
        return f"{done.model} {done.version} installed\n{done.path}"
    return f"{step_text(done)}   (back: ystore rollback {done.model})\n{done.path}"
