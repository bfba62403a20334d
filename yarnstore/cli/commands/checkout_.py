"""`ystore checkout`."""

from __future__ import annotations

import click

from yarnstore.cli.after import free_space, wait_option
from yarnstore.cli.command import Invocation, command, registry_option
from yarnstore.cli.display import checkout_text
from yarnstore.cli.fit import accept_change_option, app_version_option, force_option
from yarnstore.cli.locked import locked_options


@command("checkout", example="ystore checkout phi-3-mini@1.0.0\nystore checkout --locked")
@registry_option
@app_version_option
@force_option
@accept_change_option
@locked_options
@wait_option
@click.argument("spec", required=False)
def cli(
    run: Invocation,
    spec: str | None,
    app_version: str | None,
    force: bool,
    accept_change: bool,
    locked: bool,
    lock_file: str,
    no_wait: bool,
) -> None:
    """Install a version, downloading and verifying it if needed.

    A version that does not fit the application, or needs more memory than this machine has, is refused.
    Prints the path to open; when piped or with -q, only the path.
    """
    if locked == (spec is not None):
        both = "--locked cannot be combined with SPEC"
        raise click.UsageError("give a SPEC, or use --locked" if spec is None else both)
    with run.store() as store:
        if app_version is not None:
            store.set_app_version(app_version)
        if spec is not None:
            results = [store.checkout(spec, force=force, accept_change=accept_change, wait=False)]
        else:
            results = store.checkout_locked(lock_file, force=force, accept_change=accept_change, wait=False)
        if run.output.json:
            run.output.document(results if locked else results[0])
        people = run.output.for_people and not run.output.quiet
        for done in results if not run.output.json else ():
            run.output.line(done, checkout_text(done) if people else done.path)
        free_space(run, store, results, no_wait=no_wait)
