"""`ystore pin`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("pin", example="ystore pin phi-3-mini\nystore pin phi-3-mini@^1.1\nystore pin phi-3-mini:cpu-int4")
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Keep a version from update and gc; of a bare model the installed one.

    Several versions of a model may be pinned: gc keeps each, and update does not leave the one that is
    installed.  With a range or a variant, update takes only versions in it; gc keeps them as any other.
    """
    with run.store() as store:
        done = store.pin(spec)
    run.output.done(
        done,
        lambda: (
            f"{done.what}: pinned" + (f"   (pinned too: {', '.join(done.others)})" if done.others else "")
        ),
        (done.model, done.version or done.range, done.variant, done.pinned),
    )
