"""`ystore fetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.display import size
from yarnstore.cli.fit import accept_change_option, app_version_option
from yarnstore.cli.locked import locked_options
from yarnstore.cli.queued import show_queued
from yarnstore.progress import format_count, plural

if TYPE_CHECKING:
    from yarnstore.results import FetchResult


@command(
    "fetch",
    example="ystore fetch phi-3-mini@1.1.0\nystore fetch phi-3-mini@^1.1 whisper:cpu-int4\n"
    "ystore fetch --locked",
)
@registry_option
@app_version_option
@click.option("--force", is_flag=True, help="Fetch the version even if it was withdrawn.")
@accept_change_option
@locked_options
@click.option("--queue", is_flag=True, help="Add to the queue instead; `ystore queue run` downloads it.")
@click.argument("specs", nargs=-1, metavar="SPEC...")
def cli(
    run: Invocation,
    specs: tuple[str, ...],
    app_version: str | None,
    force: bool,
    accept_change: bool,
    locked: bool,
    lock_file: str,
    queue: bool,
) -> None:
    """Download versions into the store without installing them.

    `ystore checkout` installs them.  Only chunks that are not in the store are downloaded.  An interrupted
    download continues where it stopped.
    """
    if locked and specs:
        raise click.UsageError("--locked cannot be combined with SPEC")
    if not specs and not locked:
        raise click.UsageError("give a SPEC, or use --locked")
    if queue:
        if force or accept_change or locked or app_version is not None:
            raise click.UsageError(
                "--queue cannot be combined with --force, --accept-change, --locked or --app-version"
            )
        with run.store() as store:
            show_queued(run, store.enqueue(*specs))
        return
    results = []
    with run.store() as store:
        if app_version is not None:
            store.set_app_version(app_version)
        for done in store.fetch_locked(lock_file, accept_change=accept_change) if locked else ():
            results.append(done)
            if not run.output.json:
                _tell(run, done)
        for spec in specs:
            done = store.fetch(spec, force=force, accept_change=accept_change)
            results.append(done)
            if not run.output.json:
                _tell(run, done)
    if run.output.json:
        run.output.document(results[0] if len(results) == 1 and not locked else results)


def _tell(run: Invocation, done: FetchResult) -> None:
    columns = (done.model, done.version, done.variant, done.size_bytes, done.download_bytes, done.manifest)
    run.output.done(done, lambda: _text(done), columns)


def _text(done: FetchResult) -> str:
    label = f"{done.model} {done.version}"
    here = done.chunks_total - done.chunks_fetched
    if not done.chunks_fetched:
        every = (
            "its one chunk is" if done.chunks_total == 1 else f"all {plural(done.chunks_total, 'chunk')} are"
        )
        return f"{label}: {every} already stored, nothing downloaded"
    saved = f", deltas from {done.delta_from}" if done.delta_from else ""
    known = f"; {format_count(here)} of {plural(done.chunks_total, 'chunk')} already stored" if here else ""
    return f"{label}: fetched and verified {size(done.download_bytes)} in {done.seconds:.1f} s{saved}{known}"
