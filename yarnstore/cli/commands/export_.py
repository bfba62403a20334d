"""`ystore export`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import size


@command("export", example="ystore export phi-3-mini@1.0.0 ./phi-3-mini-1.0.0")
@click.argument("spec")
@click.argument("destination", type=click.Path())
def cli(run: Invocation, spec: str, destination: str) -> None:
    """Copy a version out of the store.

    On file systems with reflinks the copy shares disk blocks with the store.
    """
    with run.store() as store:
        done = store.export(spec, destination)
    how = {"reflink": "sharing disk blocks", "copy": "copied", "decoded": "rebuilt from chunks"}[done.how]
    run.output.done(
        done,
        lambda: f"{done.model} {done.version}: exported {size(done.size_bytes)} to {done.path} ({how})",
        (done.model, done.version, done.size_bytes, done.how, done.path),
    )
