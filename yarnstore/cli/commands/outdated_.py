"""`ystore outdated`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.format import indented, one_line
from yarnstore.cli.text import size

_HAS_UPDATES = 10


@command("outdated", example="ystore outdated\nystore outdated -v phi-3-mini")
@click.option("--exit-code", is_flag=True, help="Exit with 10 when there are updates.")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def cli(run: Invocation, models: tuple[str, ...], exit_code: bool) -> None:
    """Installed models beside what their registries have; downloads no model."""
    with run.store() as store:
        found = store.check_for_updates(*models)
    people = run.output.for_people
    rows = []
    for item in found:
        download = "–"
        if item.kind and item.download_bytes is not None:
            download = f"{size(item.download_bytes)} of {size(item.size_bytes)}"
        note = item.note or ("pinned" if item.pinned else "" if item.kind else "up to date")
        if not people:
            download = "" if item.download_bytes is None else str(item.download_bytes)
        rows.append(
            (
                item.model,
                item.installed,
                item.wanted,
                item.latest,
                item.kind or ("–" if people else ""),
                download,
                one_line(note),
            )
        )
    header = ("MODEL", "INSTALLED", "WANTED", "LATEST", "TYPE", "DOWNLOAD", "NOTE")
    run.output.rows(found, header, rows, "nothing is installed")
    if run.output.verbose and not run.output.json:
        for item in found:
            if item.kind and item.changelog:
                click.echo(f"\n{item.model} {item.wanted}\n  {indented(item.changelog)}")
    if exit_code and any(item.kind for item in found):
        raise click.exceptions.Exit(_HAS_UPDATES)
