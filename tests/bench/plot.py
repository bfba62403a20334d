"""Horizontal bars as SVG, by hand: text is text, and it reads on light and on dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.bar { fill: #8c959f }
.ours { fill: #0969da }
.mark { stroke: #cf222e; stroke-dasharray: 4 3 }
.note { fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.bar { fill: #6e7681 }
.ours { fill: #4493f8 }
.mark { stroke: #f85149 }
.note { fill: #f85149 }
}"""
_WIDTH = 760
_ROW = 24
_TOP = 40
_LETTER = 7.2  # about the width of a letter at 13 px
_VALUE_WIDTH = 90


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its length, what is written at its end, and whether it is ours."""

    label: str
    value: float
    text: str
    ours: bool = False


def draw(title: str, bars: Sequence[Bar], unit: str, mark: float | None) -> str:
    """The bars on one scale from zero; `mark` draws a line at that value."""
    left = 16 + _LETTER * max(len(bar.label) for bar in bars)
    longest = max([bar.value for bar in bars] + ([mark] if mark else [])) or 1.0
    scale = (_WIDTH - left - _VALUE_WIDTH) / longest
    bottom = _TOP + _ROW * len(bars)
    height = bottom + (24 if mark else 8)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(title)}{f" ({escape(unit)})" if unit else ""}</text>',
    ]
    for n, bar in enumerate(bars):
        top = _TOP + _ROW * n
        length = max(1.0, bar.value * scale)
        kind = "ours" if bar.ours else "bar"
        parts += [
            f'<text x="{left - 8:.0f}" y="{top + 14}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{kind}" x="{left:.0f}" y="{top + 2}" width="{length:.1f}" height="16" rx="2"/>',
            f'<text x="{left + length + 6:.1f}" y="{top + 14}">{escape(bar.text)}</text>',
        ]
    if mark:
        x = left + mark * scale
        goal = escape(f"{mark:g} {unit}")
        parts += [
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{bottom}"/>',
            f'<text class="note" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{goal}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
