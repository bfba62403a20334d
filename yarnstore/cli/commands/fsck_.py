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


class Share(click.ParamType[float]):
    """A percentage such as 5%, as a share of 1."""

    name = "share"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        text = str(value)
        number = text.removesuffix("%").strip()
        is_number = text.endswith("%") and number.replace(".", "", 1).isdecimal()
        if not is_number or not 0 < float(number) <= 100:
            self.fail(f"{text!r} is not a percentage such as 5%, more than 0% and at most 100%", param, ctx)
        return float(number) / 100


@command("fsck", example="ystore fsck\nystore fsck --repair\nystore fsck --sample 5%")
@click.option("--quick", is_flag=True, help="Do not read the contents of packs and files.")
@click.option(
    "--sample",
    type=Share(),
    metavar="SHARE",
    help="Read the contents of a random share only, such as 5%; everything else is checked in full.",
)
@click.option("--repair", is_flag=True, help="Repair problems; corrupt files are moved to trash/.")
def cli(run: Invocation, quick: bool, repair: bool, sample: float | None) -> None:
    """Check the store for corruption, and repair it with --repair.

    Checks refs, manifests, indexes, packs, every chunk and every file.  Exits with 4 if problems remain.
    """
    if quick and repair:
        raise click.UsageError("--repair and --quick cannot be combined")
    if sample is not None and (quick or repair):
        raise click.UsageError("--sample cannot be combined with --quick or --repair")
    with run.store() as store:
        done = store.fsck(quick=quick, repair=repair, sample=sample)
    run.output.facts(done, lambda: _text(done, repair=repair), answer=bool(done.problems))
    if done.remaining if repair else done.problems:
        raise click.exceptions.Exit(_DAMAGED)


def _text(done: FsckResult, *, repair: bool) -> str:
    how = "checked quickly" if done.quick else f"{size(done.checked_bytes)} checked"
    if done.sample is not None:
        share = done.checked_bytes / done.stored_bytes if done.stored_bytes else 1.0
        how = f"{size(done.checked_bytes)} of {size(done.stored_bytes)} checked ({share:.0%})"
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
