"""`ystore fetch`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.format import format_count
from yarnstore.cli.text import size


@command("fetch", example="ystore fetch phi-3-mini@1.1.0")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
def cli(run: Invocation, specs: tuple[str, ...]) -> None:
    """Bring versions into the store without installing them.

    Only chunks that are nowhere in the store are downloaded; what arrived is kept whatever happens.
    """
    with run.store() as store:
        results = [store.fetch(spec) for spec in specs]
    if run.output.json:
        run.output.document(results[0] if len(results) == 1 else results)
        return
    for done in results:
        here = done.chunks_total - done.chunks_fetched
        if done.chunks_fetched:
            click.echo(
                f"{done.model} {done.version}: fetched and verified {size(done.download_bytes)} "
                f"in {done.seconds:.1f} s; {format_count(here)} of {format_count(done.chunks_total)} "
                "chunks were here"
            )
        else:
            click.echo(f"{done.model} {done.version}: {size(done.size_bytes)}, all here")
