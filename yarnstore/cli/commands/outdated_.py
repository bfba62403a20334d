"""`ystore outdated`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.display import indented, one_line, part, up_to_date
from yarnstore.cli.exitcodes import exit_code_of
from yarnstore.cli.fit import app_version_option
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import Update

_HAS_UPDATES = 10


@command("outdated", example="ystore outdated\nystore outdated -v phi-3-mini")
@registry_option
@click.option("--all", "every", is_flag=True, help="Also list models that are up to date.")
@click.option("--exit-code", is_flag=True, help="Exit with 10 if updates exist.")
@app_version_option
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def cli(
    run: Invocation, models: tuple[str, ...], every: bool, exit_code: bool, app_version: str | None
) -> None:
    """List installed models that have newer versions.

    Downloads no model.  On a terminal, models that are up to date are left out unless they need attention;
    piped and with --json, all models are listed.

    WANTED is the version that `ystore update` would install: within the installed major version, the pins,
    the application's version and this machine's memory.  -v adds the changelogs of all versions in between.
    If a model cannot be checked, its row says why, and the exit code is that of the first such error.
    """
    with run.store() as store:
        if app_version is not None:
            store.set_app_version(app_version)
        found = store.check_for_updates(*models)
    people = run.output.for_people
    shown = [item for item in found if every or not people or _is_outdated(item)]
    rows = []
    for item in shown:
        download = "–"
        if item.kind and item.download_bytes is not None:
            download = part(item.download_bytes, item.size_bytes)
        note = item.note or ("pinned" if item.pinned else "" if item.kind else "up to date")
        if not people:
            download = "" if item.download_bytes is None else str(item.download_bytes)
        rows.append(
            (
                item.model,
                item.installed,
                item.wanted,
                item.latest or ("–" if people else ""),
                item.kind or ("–" if people else ""),
                download,
                one_line(note),
            )
        )
    header = ("MODEL", "INSTALLED", "WANTED", "LATEST", "TYPE", "DOWNLOAD", "NOTE")
    run.output.rows(found, header, rows, _none(found))
    if run.output.verbose and not (run.output.json or run.output.quiet):
        for item in shown:
            _changelogs(run, item)
    if exit_code and any(item.available for item in found):
        raise click.exceptions.Exit(_HAS_UPDATES)
    failures = [item.error for item in found if item.error is not None]
    if failures:
        raise click.exceptions.Exit(exit_code_of(str(failures[0]["code"])))


def _is_outdated(item: Update) -> bool:
    """Whether an installed model has a newer version, or needs attention."""
    if item.kind or item.available or item.error:
        return True
    return item.registry is not None and bool(item.note) and (item.pin is None or bool(str(item.standing)))


def _none(found: list[Update]) -> str:
    unlisted = sum(item.registry is None and item.error is None for item in found)
    text = up_to_date(len(found) - unlisted) if len(found) > unlisted or not found else ""
    rest = f"{plural(unlisted, 'model')} not in any registry   (ystore outdated --all)" if unlisted else ""
    return "; ".join(filter(None, (text, rest)))


def _changelogs(run: Invocation, item: Update) -> None:
    for change in item.changes:
        marks = f"{change.kind}, breaking" if change.breaking and change.kind != "major" else change.kind
        text = indented(change.changelog or "no changelog")
        run.output.text(f"\n{item.model} {change.version} ({marks})\n  {text}")
