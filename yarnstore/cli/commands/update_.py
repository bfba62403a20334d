"""`ystore update`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import arrow, size


@command("update", example="ystore update phi-3-mini")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def cli(run: Invocation, models: tuple[str, ...]) -> None:
    """Install the latest version of installed models; says first what changed."""
    with run.store() as store:
        results = [store.update_model(model) for model in models]
    if run.output.json:
        run.output.document(results[0] if len(results) == 1 else results)
        return
    for done in results:
        if done.status == "updated":
            step = arrow(done.model, done.previous, done.version)
            click.echo(
                f"{step}   ({size(done.download_bytes)} downloaded; back: ystore rollback {done.model})"
            )
        elif done.status == "pinned":
            click.echo(f"{done.model} {done.version}: pinned, left as it is (ystore unpin {done.model})")
        else:
            click.echo(f"{done.model} {done.version}: up to date")
