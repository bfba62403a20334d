"""`ystore path`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("path", example="ystore path phi-3-mini\nystore path phi-3-mini@1.0.0")
@click.option("--no-verify", is_flag=True, help="Do not verify files that changed since the last check.")
@click.argument("spec")
def cli(run: Invocation, spec: str, no_verify: bool) -> None:
    """Print the path of a version's file or folder.

    MODEL alone means the installed version; a full SPEC means that version, downloaded if needed.
    The path always belongs to that version, even after another is installed.
    """
    with run.store() as store:
        found = store.path(spec, verify=not no_verify)
    run.output.line({"spec": spec, "path": found}, found)
