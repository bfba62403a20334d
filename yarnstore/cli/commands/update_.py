"""`ystore update`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from yarnstore.cli.after import free_space, wait_option
from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.display import clean, indented, part, size, up_to_date
from yarnstore.cli.exitcodes import exit_code_of
from yarnstore.cli.fit import accept_change_option, app_version_option
from yarnstore.errors import CancelledError, UsageError
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import UpdateResult, UpdateSummary


@command(
    "update",
    example="ystore update phi-3-mini\n"
    "ystore update phi-3-mini 1.1.0\n"
    "ystore update --all --dry-run\n"
    "ystore update --major phi-3-mini",
)
@registry_option
@click.option("--all", "every", is_flag=True, help="Update all installed models.")
@click.option(
    "-n",
    "--dry-run",
    is_flag=True,
    help="Show what would be installed, downloaded and deleted; change nothing.",
)
@click.option("--major", is_flag=True, help="Allow a new major version.")
@click.option("--to", metavar="RANGE", help="Install only versions in this range, such as ~1.1.")
@click.option("--force", is_flag=True, help="Install even if it needs more memory than this machine has.")
@accept_change_option
@app_version_option
@wait_option
@click.argument("words", nargs=-1, metavar="[MODEL [VERSION]|SPEC]...")
def cli(
    run: Invocation,
    words: tuple[str, ...],
    every: bool,
    dry_run: bool,
    major: bool,
    to: str | None,
    force: bool,
    accept_change: bool,
    app_version: str | None,
    no_wait: bool,
) -> None:
    """Install the newest compatible version of installed models.

    An update respects the installed major version, the application's version, this machine's memory, and
    pins.  With a VERSION, which may be a range or an alias, as in `phi-3-mini 1.1.0` or
    `phi-3-mini@1.1.0`, that version is installed, newer or older; `phi-3-mini:cpu-int4` changes the variant.

    One failed model does not stop the others; the exit code is that of the first failure.  Without a model,
    on a terminal, the command lists all updates and asks before installing them.
    """
    asks = not (words or every)
    if asks and not _can_ask(run):
        raise UsageError(
            "give the models to update, or --all", hint="`ystore outdated` lists available updates"
        )
    if words and every:
        raise UsageError("give the models to update, or --all", hint="`ystore list` shows them")
    with run.store() as store:
        if app_version is not None:
            store.set_app_version(app_version)
        specs = store.read_requests(*words)
        if len(specs) == 1:
            one = store.update_model(
                specs[0],
                major=major,
                to=to,
                force=force,
                accept_change=accept_change,
                dry_run=dry_run,
                wait=False,
            )
            _tell(run, one, dry_run=dry_run)
            free_space(run, store, [one], no_wait=no_wait)
            return
        if asks:
            planned = store.update_models(
                major=major, to=to, force=force, accept_change=accept_change, dry_run=True
            )
            specs = _asked(run, planned, dry_run=dry_run)
            if not specs:
                _fail(planned)
                return
        at_once = run.output.for_people and not (run.output.json or run.output.quiet)
        found = store.update_models(
            *specs,
            major=major,
            to=to,
            force=force,
            accept_change=accept_change,
            dry_run=dry_run,
            on_result=(lambda done: _tell(run, done, dry_run=dry_run)) if at_once else None,
            wait=False,
        )
        _tell_all(run, found, at_once=at_once, dry_run=dry_run)
        free_space(run, store, found.results, no_wait=no_wait)
    _fail(found)


def _tell_all(run: Invocation, found: UpdateSummary, *, at_once: bool, dry_run: bool) -> None:
    """Print the results; those of single models are printed already if that was done at once."""
    if run.output.json:
        run.output.document(found)
    elif at_once:
        run.output.settle()
        click.echo(_summary(found))
    else:
        for done in found.results:
            _tell(run, done, dry_run=dry_run)
    if not at_once and not run.output.json:
        for result in found.results:
            if result.error is not None:
                run.output.complain(f"{result.model}: {result.note}")


def _fail(found: UpdateSummary) -> None:
    """Exit with the code of the first failure."""
    failures = [result.error for result in found.results if result.error is not None]
    if failures:
        raise click.exceptions.Exit(exit_code_of(str(failures[0]["code"])))


def _can_ask(run: Invocation) -> bool:
    """Whether a question can be asked: output for people, and stdin a terminal."""
    plain = run.output.json or run.output.quiet
    return run.output.for_people and not plain and sys.stdin is not None and sys.stdin.isatty()


def _asked(run: Invocation, planned: UpdateSummary, *, dry_run: bool) -> list[str]:
    """List the available updates and ask; return the models to update, empty if the answer is no."""
    wanted = [result for result in planned.results if result.status == "planned"]
    for result in planned.results:
        if result.status not in ("current", "unlisted"):
            _tell(run, result, dry_run=dry_run)
    if not wanted:
        current = all(result.status == "current" for result in planned.results)
        click.echo(up_to_date(len(planned.results)) if current else _summary(planned))
        return []
    cost = sum(result.download_bytes or 0 for result in wanted)
    question = f"update {plural(len(wanted), 'model')}, {size(cost)} to download?"
    if dry_run or not _confirmed(question):
        return []
    return [result.model for result in wanted]


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question, default=False)
    except click.Abort:
        click.echo()  # ends the line of the question
        hint = "nothing was downloaded; `ystore update --all` does not ask"
        raise CancelledError("no answer", hint=hint) from None


def _tell(run: Invocation, done: UpdateResult, *, dry_run: bool) -> None:
    columns = (done.model, done.status, done.previous, done.version, done.download_bytes, done.path)
    run.output.done(done, lambda: _text(done), columns, answer=dry_run)


def _text(done: UpdateResult) -> str:
    label = f"{done.model} {done.version}"
    note = f"\n  {indented(done.note)}" if done.note else ""
    if done.status == "failed" and done.error is not None:
        hint = f"\n  {indented(str(done.error['hint']))}" if done.error["hint"] else ""
        return f"{label}: update failed; still installed: {indented(done.note)}{hint}"
    if done.status == "pinned":
        return f"{label} is pinned; not updated   (ystore unpin {done.model})"
    if done.status == "held":
        return f"{label} stays; newer versions are not compatible{note}"
    if done.status == "current":
        return f"{label} is up to date{note}"
    if done.status == "unlisted":
        return f"{label} stays: {indented(done.note)}"
    if done.status == "planned":
        return _plan(done) + note
    got = f"{size(done.download_bytes)} downloaded" if done.download_bytes else "nothing downloaded"
    return f"{label} installed, {got}   (back: ystore rollback {done.model}){note}"


def _plan(done: UpdateResult) -> str:
    """The planned update, with the changelogs of all versions in between."""
    kind = f"{done.kind}, breaking" if done.breaking and done.kind != "major" else done.kind
    cost = f"{part(done.download_bytes, done.size_bytes)} to download"
    if done.download_bytes == 0:
        cost = "nothing to download"
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
