"""`ystore fetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.format import format_count, plural
from yarnstore.cli.text import size

if TYPE_CHECKING:
    from yarnstore.results import FetchResult


@command("fetch", example="ystore fetch phi-3-mini@1.1.0\nystore fetch phi-3-mini@^1.1 whisper:cpu-int4")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
def cli(run: Invocation, specs: tuple[str, ...]) -> None:
    """Bring versions into the store without installing them.

    Only chunks that are nowhere in the store are downloaded; what arrived is kept whatever happens.
    """
    results = []
    with run.store() as store:
        for spec in specs:
            done = store.fetch(spec)
            results.append(done)
            if not run.output.json:
                _tell(run, done)
    if run.output.json:
        run.output.document(results[0] if len(results) == 1 else results)


def _tell(run: Invocation, done: FetchResult) -> None:
    columns = (done.model, done.version, done.variant, done.size_bytes, done.download_bytes, done.manifest)
    run.output.done(done, lambda: _text(done), columns)


def _text(done: FetchResult) -> str:
    label = f"{done.model} {done.version}"
    here = done.chunks_total - done.chunks_fetched
    if not done.chunks_fetched:
        return f"{label}: all {plural(done.chunks_total, 'chunk')} were here, nothing downloaded"
    saved = f", deltas from {done.delta_from}" if done.delta_from else ""
    known = f"; {format_count(here)} of {plural(done.chunks_total, 'chunk')} were here" if here else ""
    return f"{label}: fetched and verified {size(done.download_bytes)} in {done.seconds:.1f} s{saved}{known}"
