"""`ystore compat`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.fit import app_version_option

_NONE_FITS = 6  # as an IncompatibleError


@command(
    "compat",
    example="ystore compat phi-3-mini\n"
    "ystore compat phi-3-mini --app-version 1.5.0\n"
    "ystore compat phi-3-mini@^1.1 --app-version 2.0.0",
)
@app_version_option
@click.argument("spec", metavar="MODEL")
def cli(run: Invocation, spec: str, app_version: str | None) -> None:
    """Show which versions fit the application and this machine.

    MODEL may include a range or an alias to list fewer versions.  If the application's version is
    not known, only memory is compared.  Exits with 6 if none of the listed versions fits.
    """
    with run.store() as store:
        if app_version is not None:
            store.set_app_version(app_version)
        found = store.compatibility(spec)
    people = run.output.for_people
    if people and found.app_version is None and not run.output.json:
        run.output.say("the application's version is not known, so only memory is compared   (--app-version)")
    rows = [
        (
            row.version + (" (latest)" if people and not run.output.quiet and row.latest else ""),
            row.variant,
            row.usable if not people else "yes" if row.usable else "no",
            ", ".join(row.compatibility) or ("any" if people else ""),
            _memory(row.minimum_ram_gb, people=people),
            row.note,
        )
        for row in found.rows
    ]
    header = ("VERSION", "VARIANT", "FITS", "APPLICATION", "MEMORY", "NOTE")
    run.output.rows(found, header, rows, "")
    if not any(row.usable for row in found.rows):
        raise click.exceptions.Exit(_NONE_FITS)


def _memory(size: float | None, *, people: bool) -> str:
    if size is None:
        return "–" if people else ""
    return f"{size:g} GB" if people else f"{size:g}"
