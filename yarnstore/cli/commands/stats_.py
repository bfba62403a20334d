"""`ystore stats`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Duration, Invocation, command
from yarnstore.cli.display import size
from yarnstore.progress import format_size, plural

if TYPE_CHECKING:
    from yarnstore.results import ModelStatistics, Statistics


@command("stats", example="ystore stats\nystore stats --since 30d")
@click.option(
    "--since",
    type=Duration(),
    metavar="30d",
    help="Count operations within this time only (m, h, d, w).",
)
def cli(run: Invocation, since: float | None) -> None:
    """Show bytes saved, use of models, durations and failures.

    The statistics are kept in the store and sent nowhere.
    """
    with run.store() as store:
        found = store.stats(since_s=since)
    run.output.facts(found, lambda: _text(found))


def _text(found: Statistics) -> str:
    if not found.operations and not found.models:
        return "nothing counted yet"
    lines = []
    if found.first_ms is not None:
        lines.append(f"since {datetime.fromtimestamp(found.first_ms / 1000):%Y-%m-%d %H:%M}")
    if found.size_bytes or found.download_bytes:
        lines += [
            f"  downloaded {size(found.download_bytes)} for {size(found.size_bytes)} of models",
            f"  saved {size(found.saved_bytes)}: {size(found.dedupe_bytes)} already stored, "
            f"{size(found.delta_bytes)} by deltas and compression",
        ]
    for item in found.operations:
        failed = f", {item.failed} failed" if item.failed else ""
        took = f", {item.mean_seconds:.1f} s each" if item.count > item.failed else ""
        lines.append(f"  {item.operation}: {item.count}{failed}{took}")
    lines += [f"  failed: {item.operation}, {item.error}: {item.count}" for item in found.failures]
    return "\n".join([*lines, *map(_model, found.models)])


def _model(item: ModelStatistics) -> str:
    used = plural(item.uses, "use")
    if item.last_used_ms:
        days = max(0, int((time.time() * 1000 - item.last_used_ms) // 86_400_000))
        used += ", last today" if not days else f", last {plural(days, 'day')} ago"
    parts = [used]
    if item.updates:
        parts.append(plural(item.updates, "update"))
    if item.rollbacks:
        parts.append(plural(item.rollbacks, "rollback"))
    if item.failed:
        parts.append(f"{item.failed} failed")
    if item.size_bytes:
        parts.append(f"{format_size(item.download_bytes)} downloaded for {format_size(item.size_bytes)}")
    return f"  {item.model}: {'; '.join(parts)}"
