"""`ystore pin`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("pin", example="ystore pin phi-3-mini\nystore pin phi-3-mini@1.0.0")
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Keep a version from update and gc; of a bare model the installed one."""
    with run.store() as store:
        done = store.pin(spec)
    run.output.done(
        done,
        lambda: f"{done.model} {done.version}: pinned",
        (done.model, done.version, done.variant, done.pinned),
    )
