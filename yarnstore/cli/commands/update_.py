"""`ystore update`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.exitcodes import exit_code_of
from yarnstore.cli.fit import app_version_option
from yarnstore.cli.format import clean, indented
from yarnstore.cli.text import size
from yarnstore.errors import UsageError

if TYPE_CHECKING:
    from yarnstore.results import UpdateResult, UpdateSummary


@command(
    "update",
    example="ystore update phi-3-mini\nystore update --all --dry-run\nystore update --major phi-3-mini",
)
@registry_option
@click.option("--all", "every", is_flag=True, help="All installed models.")
@click.option("--dry-run", is_flag=True, help="Say what would be installed and downloaded; change nothing.")
@click.option("--major", is_flag=True, help="Across breaking versions too.")
@click.option("--to", metavar="RANGE", help="Stay in this range of versions, such as ~1.1.")
@click.option("--force", is_flag=True, help="Take what needs more memory than there is.")
@app_version_option
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def cli(
    run: Invocation,
    models: tuple[str, ...],
    every: bool,
    dry_run: bool,
    major: bool,
    to: str | None,
    force: bool,
    app_version: str | None,
) -> None:
    """Install the newest version of installed models that fits; says first what changed.

    Stays within the installed major, the application's version, the memory, and pins.  Of several
    models each stands or falls alone; the exit code is that of the first that failed.
    """
    if bool(models) == every:
        raise UsageError("name the models to update, or give --all", hint="`ystore list` shows them")
    with run.store() as store:
        if app_version is not None:
            store.set_app_version(app_version)
        if len(models) == 1:
            one = store.update_model(models[0], major=major, to=to, force=force, dry_run=dry_run)
            _tell(run, one)
            return
        at_once = run.output.for_people and not run.output.json
        found = store.update_models(
            *models,
            major=major,
            to=to,
            force=force,
            dry_run=dry_run,
            on_result=(lambda done: _tell(run, done)) if at_once else None,
        )
    if run.output.json:
        run.output.document(found)
    elif at_once and not run.output.quiet:
        click.echo(_summary(found))
    else:
        for done in found.results:
            _tell(run, done)
    failures = [result.error for result in found.results if result.error is not None]
    if failures:
        if not at_once and not run.output.json:
            for result in found.results:
                if result.error is not None:
                    run.output.complain(f"{result.model}: {result.note}")
        raise click.exceptions.Exit(exit_code_of(str(failures[0]["code"])))


def _tell(run: Invocation, done: UpdateResult) -> None:
    columns = (done.model, done.status, done.previous, done.version, done.download_bytes, done.path)
    run.output.done(done, lambda: _text(done), columns)


def _text(done: UpdateResult) -> str:
    label = f"{done.model} {done.version}"
    note = f"\n  {indented(done.note)}" if done.note else ""
    if done.status == "failed" and done.error is not None:
        hint = f"\n  {indented(str(done.error['hint']))}" if done.error["hint"] else ""
        return f"{label}: failed, and stays: {indented(done.note)}{hint}"
    if done.status == "pinned":
        return f"{label} is pinned and stays   (let it go: ystore unpin {done.model})"
    if done.status == "held":
        return f"{label} stays; what is newer does not fit{note}"
    if done.status == "current":
        return f"{label} is up to date{note}"
    if done.status == "unlisted":
        return f"{label} stays: {indented(done.note)}"
    if done.status == "planned":
        return _plan(done) + note
    got = f"{size(done.download_bytes)} downloaded" if done.download_bytes else "nothing downloaded"
    return f"{label} installed, {got}   (back: ystore rollback {done.model}){note}"


def _plan(done: UpdateResult) -> str:
    """What would be done, with the changelogs of all versions crossed."""
    kind = f"{done.kind}, breaking" if done.breaking and done.kind != "major" else done.kind
    cost = f"{size(done.download_bytes)} of {size(done.size_bytes)} to download"
    lines = [f"{done.model} {done.previous} → {done.version} ({kind}): {cost}"]
    lines += [
        f"  {change.version} ({change.kind}): {indented(clean(change.changelog) or 'no changelog', '    ')}"
        for change in done.changes
    ]
    return "\n".join(lines)


_WORDS = {
    "updated": "updated",
    "planned": "to update",
    "current": "up to date",
    "pinned": "pinned",
    "held": "held back",
    "unlisted": "in no registry",
    "failed": "failed",
}


def _summary(found: UpdateSummary) -> str:
    """`9 updated, 1 failed`."""
    statuses = [result.status for result in found.results]
    parts = [f"{statuses.count(status)} {word}" for status, word in _WORDS.items() if status in statuses]
    return ", ".join(parts) or "nothing is installed"
