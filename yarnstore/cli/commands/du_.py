"""`ystore du`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import size

if TYPE_CHECKING:
    from yarnstore.results import StorageUsage

_OTHER = {
    "shared": "shared by several versions",
    "unused": "used by no version   (ystore gc)",
    "temporary": "unfinished downloads and temporary files",
    "trash": "deleted files that stay for a day",
    "registries": "cached registries",
    "records": "manifests, refs, logs and indexes",
}
# For people; a version that was rolled back is kept too, and `rollback` does not return to it.
_REASONS: dict[str | None, str] = {"rollback": "previous"}
_HEADER = ("VERSION", "VARIANT", "FORM", "SIZE", "OWN", "SHARED", "FREES", "KEPT AS")


@command("du", example="ystore du\nystore du phi-3-mini")
@click.argument("model", required=False)
def cli(run: Invocation, model: str | None) -> None:
    """Show the disk space of each version and of other data.

    The total is what `du -s` shows for the store.  OWN is the disk space that only this version uses, SHARED
    what other versions use too; FREES is about how much more a gc frees if the version is removed before.
    FORM is `file` for versions whose files programs can open, `deltas` for versions stored as differences
    from others, and `packed` for others.  KEPT AS is why gc keeps it: `previous` is the version that
    `rollback` returns to, and the one that was replaced last.
    """
    with run.store() as store:
        found = store.storage(model)
    people = run.output.for_people and not (run.output.json or run.output.quiet)
    run.output.rows(found, _HEADER, _rows(found, people=people), "no version is stored")
    if people:
        other = [] if model else [f"{size(item.bytes)} {_OTHER[item.kind]}" for item in found.other]
        thin = sum(row.thin_frees_bytes for item in found.models for row in item.versions)
        if thin:
            other.append(f"about {size(thin)} less if previous versions are deltas   (ystore gc --thin)")
        total = f"{size(found.total_bytes)} in total, {size(found.free_bytes)} free"
        reserve = f" ({size(found.reserve_bytes)} kept in reserve)"
        run.output.text("\n".join([*other, total + reserve]))


def _rows(found: StorageUsage, *, people: bool) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for item in found.models:
        for row in item.versions:
            sizes = (row.size_bytes, row.own_bytes, row.shared_bytes, row.frees_bytes)
            shown = map(size, sizes) if people else sizes
            why = (people and _REASONS.get(row.reason_kept)) or row.reason_kept or "–"
            rows.append((f"{item.model}@{row.version}", row.variant, row.form, *shown, why))
    if not people:
        rows += [(item.kind, item.bytes) for item in found.other]
        rows.append(("total", found.total_bytes))
    return rows
