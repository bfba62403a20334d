"""`ystore update`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.text import size

if TYPE_CHECKING:
    from yarnstore.results import UpdateResult


@command("update", example="ystore update phi-3-mini")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
def cli(run: Invocation, models: tuple[str, ...]) -> None:
    """Install the latest version of installed models; says first what changed."""
    results = []
    with run.store() as store:
        for model in models:
            done = store.update_model(model)
            results.append(done)
            if not run.output.json:
                _tell(run, done)
    if run.output.json:
        run.output.document(results[0] if len(results) == 1 else results)


def _tell(run: Invocation, done: UpdateResult) -> None:
    columns = (done.model, done.status, done.previous, done.version, done.download_bytes, done.path)
    run.output.done(done, lambda: _text(done), columns)


def _text(done: UpdateResult) -> str:
    if done.status == "pinned":
        return f"{done.model} {done.version} is pinned and stays   (let it go: ystore unpin {done.model})"
    if done.status == "current":
        return f"{done.model} {done.version} is up to date"
    got = f"{size(done.download_bytes)} downloaded" if done.download_bytes else "nothing downloaded"
    return f"{done.model} {done.version} installed, {got}   (back: ystore rollback {done.model})"
