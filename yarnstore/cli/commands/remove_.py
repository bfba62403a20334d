"""`ystore remove`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("remove", example="ystore remove phi-3-mini@1.0.0\nystore remove --all phi-3-mini")
@click.option(
    "--all",
    "whole_model",
    is_flag=True,
    help="Remove all versions of the model, including the installed one.",
)
@click.argument("spec")
def cli(run: Invocation, spec: str, whole_model: bool) -> None:
    """Remove a version, or with --all a model, from the store.

    `ystore gc` then reclaims its disk space.
    """
    with run.store() as store:
        done = store.remove(spec, whole_model=whole_model)
    what = f"{done.model} {', '.join(done.versions)}".rstrip()
    run.output.done(
        done,
        lambda: f"{what}: removed; `ystore gc` reclaims the disk space",
        (done.model, done.versions, done.uninstalled),
    )
