"""`ystore fsck`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import clean, indented, size
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import FsckResult, Problem

_DAMAGED = 4


@command("fsck", example="ystore fsck\nystore fsck --repair")
@click.option("--quick", is_flag=True, help="Do not read the contents of packs and files.")
@click.option("--repair", is_flag=True, help="Repair problems; corrupt files are moved to trash/.")
def cli(run: Invocation, quick: bool, repair: bool) -> None:
    """Check the store for corruption, and repair it with --repair.

    Checks refs, manifests, indexes, packs, every chunk and every file.  Exits with 4 if problems remain.
    """
    if quick and repair:
        raise click.UsageError("--repair and --quick cannot be combined")
    with run.store() as store:
        done = store.fsck(quick=quick, repair=repair)
    run.output.facts(done, lambda: _text(done, repair=repair), answer=bool(done.problems))
    if done.remaining if repair else done.problems:
        raise click.exceptions.Exit(_DAMAGED)


def _text(done: FsckResult, *, repair: bool) -> str:
    how = "checked quickly" if done.quick else f"{size(done.checked_bytes)} checked"
    lines = [
        f"{plural(done.models, 'model')}, {plural(done.versions, 'version')}, "
        f"{plural(done.chunks, 'chunk')}, {how} in {done.seconds:.1f} s"
    ]
    lines += [_problem(item) for item in done.problems]
    lines += [f"repaired  {clean(item)}" for item in done.repaired]
    if repair and done.problems:
        left = done.remaining
        lines.append(f"{plural(len(left), 'problem')} left" if left else "all problems repaired")
        lines += [_problem(item) for item in left]
    elif done.problems:
        lines.append(f"{plural(len(done.problems), 'problem')}.  `ystore fsck --repair` repairs what it can")
    return "\n".join(lines)


def _problem(item: Problem) -> str:
    hurts = f".  Affects {', '.join(item.hurts)}" if item.hurts else ""
    return indented(f"{item.where}: {item.what}{hurts}", " " * 9)
