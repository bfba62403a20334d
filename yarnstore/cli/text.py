"""Sentences that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarnstore.results import CheckoutResult


def size(count: int | None) -> str:
    """Bytes as people read them; `–` where unknown."""
    from yarnstore.ops.progress import format_size

    return "–" if count is None else format_size(count)


def arrow(model: str, old: str | None, new: str) -> str:
    """`phi-3-mini 1.0.0 → 1.1.0`."""
    return f"{model} {old or '–'} → {new}"


def checkout_text(done: CheckoutResult) -> str:
    """What a checkout did."""
    if not done.changed:
        return f"{done.model} {done.version} is installed already\n{done.path}"
    if done.previous is None:
        return f"{done.model} {done.version} installed\n{done.path}"
    step = arrow(done.model, done.previous, done.version)
    return f"{step}   (back: ystore rollback {done.model})\n{done.path}"
