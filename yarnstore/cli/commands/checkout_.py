"""`ystore checkout`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import checkout_text


@command("checkout", example="ystore checkout phi-3-mini@1.0.0")
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Install a version: fetch it if need be, verify it, and move what is installed.

    Prints the path to open; piped or with -q, that alone.
    """
    with run.store() as store:
        done = store.checkout(spec)
    people = run.output.for_people and not run.output.quiet
    run.output.line(done, checkout_text(done) if people else done.path)
