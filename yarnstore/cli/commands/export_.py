"""`ystore export`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import size


@command("export", example="ystore export phi-3-mini@1.0.0 ./phi-3-mini-1.0.0")
@click.argument("spec")
@click.argument("destination", type=click.Path())
def cli(run: Invocation, spec: str, destination: str) -> None:
    """Write a plain copy of a version, sharing the disk's blocks where the file system can."""
    with run.store() as store:
        done = store.export(spec, destination)
    run.output.result(
        done, lambda: f"{done.model} {done.version}: {size(done.size_bytes)} to {done.path} ({done.how})"
    )
