"""`ystore unpin`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("unpin", example="ystore unpin phi-3-mini")
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Let a pinned version be updated and freed again."""
    with run.store() as store:
        done = store.unpin(spec)
    run.output.done(
        done,
        lambda: f"{done.model} {done.version}: no longer pinned",
        (done.model, done.version, done.variant, done.pinned),
    )
