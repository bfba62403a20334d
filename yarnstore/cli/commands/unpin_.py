"""`ystore unpin`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("unpin", example="ystore unpin phi-3-mini\nystore unpin phi-3-mini@^1.1")
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Remove a pin from a version, range or variant."""
    with run.store() as store:
        done = store.unpin(spec)
    run.output.done(
        done,
        lambda: f"{done.what}: no longer pinned",
        (done.model, done.version or done.range, done.variant, done.pinned),
    )
