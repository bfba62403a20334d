"""`ystore rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.after import free_space, wait_option
from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import size, step_text

if TYPE_CHECKING:
    from yarnstore.results import CheckoutResult


@command("rollback", example="ystore rollback phi-3-mini\nystore rollback phi-3-mini 1.0.0")
@wait_option
@click.argument("model")
@click.argument("version", required=False)
def cli(run: Invocation, model: str, version: str | None, no_wait: bool) -> None:
    """Install the previous version, or VERSION.

    Needs no network if that version is in the store.  Pins do not prevent a rollback, and are kept.
    """
    with run.store() as store:
        done = store.rollback_model(model, version, wait=False)
        got = f"{size(done.download_bytes)} downloaded" if done.download_bytes else "nothing downloaded"
        run.output.done(
            done,
            lambda: f"{step_text(done)}   in {done.seconds * 1000:.0f} ms, {got}{_way_on(done)}",
            (done.model, done.previous, done.version, done.path),
        )
        free_space(run, store, [done], no_wait=no_wait)


def _way_on(done: CheckoutResult) -> str:
    """The command that installs the replaced version again."""
    if not done.changed or done.previous is None:
        return ""
    from yarnstore.registry.versions import precedence

    ahead = precedence(done.previous) > precedence(done.version)
    variant = f":{done.previous_variant}" if done.previous_variant not in (None, done.variant) else ""
    way = "forward" if ahead else "back"
    return f"   ({way}: ystore checkout {done.model}{variant}@{done.previous})"
