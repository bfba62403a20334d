"""`ystore log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.format import format_age, format_time, one_line
from yarnstore.cli.text import size

if TYPE_CHECKING:
    from yarnstore.results import History, HistoryVersion


@command("log", example="ystore log phi-3-mini")
@click.argument("model")
def cli(run: Invocation, model: str) -> None:
    """What was installed here and when, beside what the registry has published."""
    with run.store() as store:
        found = store.get_version_history(model)
    run.output.result(found, lambda: _text(found, people=run.output.for_people))


def _text(found: History, *, people: bool) -> str:
    if not people:
        return "\n".join("\t".join(_columns(row)) for row in found.versions)
    variants = len({row.variant for row in found.versions}) > 1
    installed_ms = found.moves[-1].time_ms if found.moves else 0
    lines = [_line(row, installed_ms, found, variants=variants) for row in found.versions]
    if found.moves:
        lines += ["", "  what happened here"]
        for move in reversed(found.moves):
            lines.append(
                f"  {format_time(move.time_ms)}  {move.operation:<8}  {move.old or '–'} → {move.new or '–'}"
            )
    return "\n".join(lines)


def _columns(row: HistoryVersion) -> list[str]:
    marks = [name for name in ("installed", "pinned", "latest", "deprecated", "yanked") if getattr(row, name)]
    if row.in_store:
        marks.insert(0, "stored")
    size_bytes = "" if row.size_bytes is None else str(row.size_bytes)
    return [
        row.version,
        row.variant,
        ",".join(marks),
        row.release_date or "",
        size_bytes,
        one_line(row.changelog),
    ]


def _line(row: HistoryVersion, installed_ms: int, found: History, *, variants: bool) -> str:
    parts = []
    if row.installed:
        back = ""
        if found.moves and found.moves[-1].operation == "rollback":
            back = f" (rolled back from {found.moves[-1].old})"
        parts.append(f"installed {format_age(installed_ms)}{back}")
    elif row.in_store:
        parts.append("in the store")
    if row.published:
        parts.append(f"published {row.release_date[:10]}" if row.release_date else "published")
    else:
        parts.append("local")
    parts += [
        word
        for word in (row.type, "security" if row.security else None, "pinned" if row.pinned else None)
        if word
    ]
    if row.size_bytes is not None:
        parts.append(size(row.size_bytes))
    if row.yanked:
        parts.append("withdrawn")
    if row.deprecated:
        why = one_line(row.deprecated_reason) or (f"use {row.replaced_by}" if row.replaced_by else "")
        parts.append(f"deprecated{': ' + why if why else ''}")
    if row.changelog:
        parts.append(one_line(row.changelog))
    name = f"{row.version}:{row.variant}" if variants else row.version
    return f"{'*' if row.installed else ' '} {name:<8} {' · '.join(parts)}"
