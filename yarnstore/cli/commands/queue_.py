"""`ystore queue`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command, common_options, invocation
from yarnstore.cli.display import one_line, size
from yarnstore.cli.group import Group
from yarnstore.cli.queued import show_queued

if TYPE_CHECKING:
    from yarnstore.results import QueueRun

_FAILED = 1


@click.group(
    "queue",
    cls=Group,
    invoke_without_command=True,
    epilog="\b\nExample:\n  ystore queue\n  ystore queue run --limit-rate 2M",
)
@common_options
@click.pass_context
def cli(context: click.Context) -> None:
    """Manage downloads queued for later.

    `fetch --queue` adds to the queue, `queue run` downloads it; `queue` alone lists it.
    """
    if context.invoked_subcommand is None:
        _show(invocation(context))


@command("list", example="ystore queue list")
def _list(run: Invocation) -> None:
    """List queued downloads, in order."""
    _show(run)


@command("run", example="ystore queue run\nystore queue run --limit-rate 2M")
def _run(run: Invocation) -> None:
    """Run queued downloads, in order.

    Finished downloads leave the queue.  A failed one stays in it and does not stop the others; the exit code
    is then 1.  An interrupted run continues where it stopped.
    """

    def tell(item: QueueRun) -> None:
        if not run.output.json:
            got = item.result.download_bytes if item.result else 0
            row = (item.spec, item.status, got, one_line(item.error))
            run.output.done(item, lambda: _text(item), row)

    with run.store() as store:
        done = store.run_queue(on_result=tell)
    if run.output.json:
        run.output.document(done)
    elif not done:
        run.output.say("nothing is queued")
    if any(item.status == "failed" for item in done):
        raise click.exceptions.Exit(_FAILED)


@command("remove", example="ystore queue remove phi-3-mini@1.1.0")
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
def _remove(run: Invocation, specs: tuple[str, ...]) -> None:
    """Remove downloads from the queue.

    Data that was already downloaded stays in the store.
    """
    with run.store() as store:
        gone = store.dequeue(*specs)
    if run.output.json:
        run.output.document(gone)
    else:
        for item in gone:
            text = f"{item.spec}: removed from the queue"
            run.output.done(item, partial(str, text), (item.spec, "removed"))


def _show(run: Invocation) -> None:
    with run.store() as store:
        found = store.list_queue()
    show_queued(run, found)


def _text(item: QueueRun) -> str:
    if item.result is None:
        return f"{item.spec}: failed; still queued: {one_line(item.error)}"
    got = size(item.result.download_bytes) if item.result.download_bytes else "nothing"
    return f"{item.spec}: fetched {item.result.model} {item.result.version}, {got} downloaded"


for _command in (_list, _run, _remove):
    cli.add_command(_command)
