"""`ystore rollback`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import size, step_text


@command("rollback", example="ystore rollback phi-3-mini\nystore rollback phi-3-mini 1.0.0")
@click.argument("model")
@click.argument("version", required=False)
def cli(run: Invocation, model: str, version: str | None) -> None:
    """Install what was installed before, or VERSION.

    Needs no network for what is in the store.
    """
    with run.store() as store:
        done = store.rollback_model(model, version)
    got = f"{size(done.download_bytes)} downloaded" if done.download_bytes else "nothing downloaded"
    run.output.done(
        done,
        lambda: f"{step_text(done)}   in {done.seconds * 1000:.0f} ms, {got}",
        (done.model, done.previous, done.version, done.path),
    )
