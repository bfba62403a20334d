"""Formats figures about tensors: shares, counts, shapes, names."""

from __future__ import annotations

from yarnstore.progress import format_count

NAME_CHARS = 64


def format_ratio(value: float | None) -> str:
    """Format a share or a relative change with about two digits: `0.42 %`; from ten on as a factor, `25×`."""
    if value is None:
        return "–"
    if value >= 10:
        return f"{value:.0f}×" if value < 1e6 else f"{value:.0e}×"
    percent = value * 100
    if percent in (0, 100):
        return f"{percent:.0f} %"
    if percent < 0.001:
        return f"{percent:.0e} %"
    digits = 4 if percent < 0.01 else 3 if percent < 0.1 else 2 if percent < 1 else 1
    # Only a complete share is shown as 100 %.
    return f"{min(percent, 99.9) if percent < 100 else percent:.{digits}f} %"


def format_share(part: int, whole: int) -> str:
    """`part / whole`; `–` of nothing."""
    return format_ratio(part / whole if whole else None)


def format_parameters(count: int) -> str:
    """`22.7 M`."""
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return format_count(count)


def format_shape(shape: tuple[int, ...]) -> str:
    """`384×1536`."""
    return "×".join(map(str, shape)) or "scalar"


def shorten(name: str, limit_chars: int = NAME_CHARS) -> str:
    """Return the end of a long name, which distinguishes tensors."""
    return name if len(name) <= limit_chars else f"…{name[1 - limit_chars :]}"
