"""`ystore import`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.format import format_count, plural
from yarnstore.cli.text import size


@command("import", example="ystore import ./my-model my-model@0.1.0")
@click.argument("source", type=click.Path())
@click.argument("spec")
def cli(run: Invocation, source: str, spec: str) -> None:
    """Take a model of this machine into the store, without any registry."""
    with run.store() as store:
        done = store.import_model(source, spec)
    run.output.done(
        done,
        lambda: (
            f"{done.model} {done.version}: {size(done.size_bytes)} taken in as {size(done.stored_bytes)} "
            f"({format_count(done.chunks_new)} of {plural(done.chunks_total, 'chunk')} new)\n"
            f"  install it: ystore checkout {done.model}@{done.version}"
        ),
        (done.model, done.version, done.variant, done.size_bytes, done.stored_bytes, done.manifest),
    )
