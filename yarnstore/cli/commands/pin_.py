"""`ystore pin`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command


@command("pin", example="ystore pin phi-3-mini\nystore pin phi-3-mini@^1.1\nystore pin phi-3-mini:cpu-int4")
@click.argument("spec")
def cli(run: Invocation, spec: str) -> None:
    """Protect a version from update and gc.

    MODEL alone means the installed version.  Several versions of a model may be pinned: gc keeps all of them,
    and update does not replace the installed one.  With a range or a variant, update installs only
    matching versions; gc treats them like any other.
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
