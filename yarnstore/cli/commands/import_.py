"""`ystore import`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import size


@command("import", example="ystore import ./my-model my-model@0.1.0")
@click.argument("source", type=click.Path())
@click.argument("spec")
def cli(run: Invocation, source: str, spec: str) -> None:
    """Take a model of this machine into the store, without any registry."""
    with run.store() as store:
        done = store.import_model(source, spec)
    run.output.result(
        done,
        lambda: (
            f"{done.model} {done.version}: {size(done.size_bytes)} taken in as {size(done.stored_bytes)} "
            f"({done.chunks_new} new of {done.chunks_total} chunks)\n"
            f"  install it: ystore checkout {done.model}@{done.version}"
        ),
    )
