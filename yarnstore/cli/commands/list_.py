"""`ystore list`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import size
from yarnstore.cli.times import format_age


@command("list", example="ystore list")
@click.option("--detailed", is_flag=True, help="Uses, path and manifest too; as -v.")
def cli(run: Invocation, detailed: bool) -> None:
    """The installed models."""
    with run.store() as store:
        found = store.list_installed_models()
    if not run.output.for_people:
        plain = [
            (i.model, i.version, i.variant, i.size_bytes, i.installed_ms, i.last_used_ms, i.path)
            for i in found
        ]
        run.output.rows(found, (), plain, "")
        return
    rows: list[tuple[str, ...]] = [
        (
            item.model,
            item.version + (" (pinned)" if item.pinned else ""),
            item.variant,
            size(item.size_bytes),
            format_age(item.installed_ms),
            format_age(item.last_used_ms),
        )
        for item in found
    ]
    header: tuple[str, ...] = ("MODEL", "VERSION", "VARIANT", "SIZE", "INSTALLED", "LAST USED")
    if detailed or run.output.verbose:
        header = (*header, "USES", "MANIFEST", "PATH")
        rows = [
            (*row, str(item.uses), item.manifest[:19], item.path)
            for row, item in zip(rows, found, strict=True)
        ]
    run.output.rows(found, header, rows, "nothing is installed   (`ystore search` lists what there is)")
