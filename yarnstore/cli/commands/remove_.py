"""`ystore remove`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command(
    "remove",
    example="ystore remove phi-3-mini@1.0.0\nystore remove --all phi-3-mini\nystore remove --undo phi-3-mini",
)
@click.option(
    "--all",
    "whole_model",
    is_flag=True,
    help="Remove all versions of the model, including the installed one.",
)
@click.option(
    "--undo",
    is_flag=True,
    help="Undo the removal of a version, or of all removed versions of a model, until gc runs.",
)
@click.argument("spec")
def cli(run: Invocation, spec: str, whole_model: bool, undo: bool) -> None:
    """Remove a version, or with --all a model, from the store.

    `ystore gc` then reclaims its disk space.  Until then --undo stores it again, without a download, and
    installs the version that was installed; pins do not come back.
    """
    if undo:
        _undo(run, spec)
        return
    with run.store() as store:
        done = store.remove(spec, whole_model=whole_model)
    what = f"{done.model} {', '.join(done.versions)}".rstrip()
    run.output.done(
        done,
        lambda: f"{what}: removed; `ystore gc` reclaims the disk space",
        (done.model, done.versions, done.uninstalled),
    )


def _undo(run: Invocation, spec: str) -> None:
    with run.store() as store:
        done = store.restore(spec)
    installed = f"; {done.installed} is installed" if done.installed else ""
    run.output.done(
        done,
        lambda: f"{done.model} {', '.join(done.versions)}: in the store again{installed}",
        (done.model, done.versions, done.installed),
    )
