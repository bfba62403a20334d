"""`ystore path`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("path", example="ystore path phi-3-mini\nystore path phi-3-mini@1.0.0")
@click.option("--no-verify", is_flag=True, help="Do not hash files that changed since they were hashed.")
@click.argument("spec")
def cli(run: Invocation, spec: str, no_verify: bool) -> None:
    """The file to open, or the folder where a version has several files.

    Of a bare model the installed version; of a full SPEC that version, fetched if need be.
    The path stays that version's, whatever is installed later.
    """
    with run.store() as store:
        found = store.path(spec, verify=not no_verify)
    run.output.line({"spec": spec, "path": found}, found)
