"""`ystore move`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import size

if TYPE_CHECKING:
    from yarnstore.results import MoveResult


@command("move", example="ystore move /mnt/disk/models")
@click.argument("folder", type=click.Path(file_okay=False), metavar="DIR")
def cli(run: Invocation, folder: str) -> None:
    """Move the store to another disk.

    Every file is copied to DIR and checked by its hash; then the store's folder becomes a link to DIR, so all
    paths stay valid, and the old files are removed.  Without symlinks, as on Windows, the old folder keeps a
    note that leads all commands to DIR.  If this is interrupted, the store stays usable, and the
    same command continues.  Programs that have models open, and `ystore serve`, must end first.
    """
    with run.store() as store:
        done = store.move(folder)
    run.output.done(done, lambda: _text(done), (done.path, done.size_bytes, done.moved))


def _text(done: MoveResult) -> str:
    if not done.moved:
        return f"{done.root} is at {done.path} already"
    return f"{size(done.size_bytes)} moved and checked: {done.root} now leads to {done.path}"
