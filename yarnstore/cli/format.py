"""Values as people read them, and rows as programs do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import combining, east_asian_width

# C0 and C1 controls without newline and tab, line separators, and what turns the direction of text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def clean(text: str | None) -> str:
    """Text from outside without what could steer a terminal."""
    return _CONTROL.sub("�", text or "")


def escape_json(text: str) -> str:
    """A JSON document of the same value without what could steer a terminal, which its strings may hold."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


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
    """How many columns of a terminal a text takes: two for wide letters, none for combining marks."""
    if text.isascii():
        return len(text)
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
    """The widths of the columns, the widest made narrower first; None where they do not fit."""
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
