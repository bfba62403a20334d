"""`ystore lock`."""

from __future__ import annotations

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import size
from yarnstore.errors import UsageError


@command(
    "lock", example="ystore lock phi-3-mini@^1.0 whisper:cpu-int4\nystore lock --update\nystore lock --check"
)
@click.argument("specs", nargs=-1, metavar="[SPEC...]")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False),
    default="ystore.lock",
    show_default=True,
    help="The lock file.",
)
@click.option("--update", is_flag=True, help="Update locked versions: all, or those of the SPECs.")
@click.option("--check", is_flag=True, help="Compare the locked versions with the registries; write nothing.")
@click.option("--digest", is_flag=True, help="Print only the lock file's digest, for use as a cache key.")
def cli(run: Invocation, specs: tuple[str, ...], path: str, update: bool, check: bool, digest: bool) -> None:
    """Write the exact versions of SPECs to ystore.lock.

    `fetch --locked` and `checkout --locked` use them.  Locked versions change only with --update.
    Without a SPEC, print the locked versions.  --check fails if one of them is not in the requested range, or
    if a registry no longer has it, or has other content under it.
    """
    if check and (specs or update):
        raise UsageError("--check takes neither a SPEC nor --update")
    with run.store() as store:
        done = store.check_lock(path) if check else store.lock(*specs, file=path, update=update)
    if digest:
        run.output.line({"digest": done.digest}, done.digest)
        return
    people = run.output.for_people
    rows = [
        (
            item.model,
            item.version,
            item.variant,
            size(item.size_bytes) if people else "" if item.size_bytes is None else str(item.size_bytes),
            item.requested,
            item.previous or ("–" if people else ""),
        )
        for item in done.builds
    ]
    if run.output.json:
        run.output.document(done)
        return
    run.output.rows(
        done, ("MODEL", "VERSION", "VARIANT", "SIZE", "REQUESTED", "BEFORE"), rows, "nothing is locked"
    )
    if people and not run.output.quiet:
        state = "as in the registries" if check else "written" if done.changed else "unchanged"
        run.output.text(f"{done.path}: {state}, {done.digest}")
