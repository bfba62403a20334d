"""Sentences that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarnstore.results import CheckoutResult


def size(count: int | None) -> str:
    """Bytes as people read them; `–` where unknown."""
    from yarnstore.progress import format_size

    return "–" if count is None else format_size(count)


def part(count: int | None, whole: int | None) -> str:
    """`3 MB of 2 500 MB`; `–` where unknown."""
    from yarnstore.progress import format_part

    return size(count) if count is None or whole is None else format_part(count, whole)


def up_to_date(models: int) -> str:
    """What there is to say where no installed model is outdated."""
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
    """What a checkout did."""
    if not done.changed:
        return f"{done.model} {done.version} is installed already\n{done.path}"
    if done.previous is None:
        return f"{done.model} {done.version} installed\n{done.path}"
    return f"{step_text(done)}   (back: ystore rollback {done.model})\n{done.path}"
