"""`ystore log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import format_age, format_iso_age, format_time, indented, one_line, size

if TYPE_CHECKING:
    from yarnstore.results import History, HistoryMove, HistoryVersion


@command("log", example="ystore log phi-3-mini\nystore log --moves phi-3-mini")
@click.option("--moves", is_flag=True, help="Show only changes of the installed version, oldest first.")
@click.argument("model")
def cli(run: Invocation, model: str, moves: bool) -> None:
    """Show published versions and the history of installed versions.

    When piped, prints one published version per line; with --moves, one change of the installed version.
    """
    with run.store() as store:
        found = store.get_version_history(model)
    if moves:
        rows = [_move_columns(move) for move in found.moves]
        run.output.report(found, lambda: "\n".join(_moves(found)), rows)
    else:
        rows = [_columns(row) for row in found.versions]
        run.output.report(found, lambda: _text(found, verbose=run.output.verbose), rows)


def _text(found: History, *, verbose: bool) -> str:
    variants = len({row.variant for row in found.versions}) > 1
    names = [f"{row.version}:{row.variant}" if variants else row.version for row in found.versions]
    width = max(map(len, names), default=0)
    lines = []
    for name, row in zip(names, found.versions, strict=True):
        mark = "*" if row.installed else " "
        lines.append(f"{mark} {name:<{width}}  {' · '.join(_parts(row, found))}")
        if verbose and row.changelog and "\n" in row.changelog.strip():
            lines.append(f"{' ' * (width + 4)}{indented(row.changelog, ' ' * (width + 4))}")
    if found.moves:
        lines += ["", "  changes on this machine", *reversed(_moves(found))]
    return "\n".join(lines)


def _moves(found: History) -> list[str]:
    lines = []
    times = [format_time(move.time_ms) for move in found.moves]
    wide = max((len(move.operation) for move in found.moves), default=0)
    for when, move in zip(times, found.moves, strict=True):
        step = f"{move.old or '–'} → {move.new or '–'}"
        lines.append(
            f"  {when:<{max(map(len, times))}}  {move.operation:<{max(8, wide)}}  {step}{_remark(move)}"
        )
    return lines


def _remark(move: HistoryMove) -> str:
    """The reason for a rollback, the direction, or the registry, where the operation does not say it."""
    if move.operation == "self-check":
        return f"   {move.old} failed its self-check"
    if move.operation == "rollback":
        return "   forward" if move.direction == "forward" else ""
    origin = f"   from {move.registry}" if move.registry else ""
    return f"{'   back' if move.direction == 'back' else ''}{origin}"


def _move_columns(move: HistoryMove) -> tuple[object, ...]:
    return move.time_ms, move.operation, move.old, move.new, move.variant, move.registry


def _columns(row: HistoryVersion) -> tuple[object, ...]:
    marks = [name for name in ("installed", "pinned", "latest", "deprecated", "yanked") if getattr(row, name)]
    if row.in_store:
        marks.insert(0, "stored")
    return (
        row.version,
        row.variant,
        ",".join(marks),
        row.release_date,
        row.size_bytes,
        one_line(row.changelog),
    )


def _why_back(last: HistoryMove) -> str:
    if last.operation == "self-check":
        return f" ({last.old} failed its self-check)"
    if last.operation == "rollback":
        way = "rolled forward from" if last.direction == "forward" else "rolled back from"
        return f" ({way} {last.old})"
    return ""


def _parts(row: HistoryVersion, found: History) -> list[str]:
    parts = []
    if row.installed and found.moves:
        last = found.moves[-1]
        parts.append(f"installed {format_age(last.time_ms)}{_why_back(last)}")
    elif row.in_store:
        parts.append("in the store")
    if row.published:
        parts.append(f"published {format_iso_age(row.release_date)}".rstrip())
    else:
        parts.append("not published")
    parts += filter(None, (row.type, "security" if row.security and row.type != "security" else ""))
    if row.pinned:
        parts.append("pinned")
    if row.size_bytes is not None:
        parts.append(size(row.size_bytes))
    if row.yanked:
        parts.append("withdrawn")
    if row.deprecated:
        why = one_line(row.deprecated_reason) or (f"use {row.replaced_by}" if row.replaced_by else "")
        parts.append(f"deprecated{': ' + one_line(why) if why else ''}")
    if row.changelog:
        parts.append(one_line(row.changelog))
    return parts
