"""Output of the queue of downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnstore.cli.command import Invocation
from yarnstore.cli.display import format_age, one_line

if TYPE_CHECKING:
    from yarnstore.results import QueuedFetch


def show_queued(run: Invocation, items: list[QueuedFetch]) -> None:
    """Print queued items, one a line."""
    people = run.output.for_people
    rows = [
        (
            item.spec,
            item.status,
            format_age(item.added_ms) if people else str(item.added_ms),
            item.registry or "",
            one_line(item.error),
        )
        for item in items
    ]
    header = ("SPEC", "STATUS", "ADDED", "REGISTRY", "")
    run.output.rows(items, header, rows, "nothing is queued   (ystore fetch --queue SPEC)")
