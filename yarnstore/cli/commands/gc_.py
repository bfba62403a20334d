"""`ystore gc`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from yarnstore.cli.command import Duration, Invocation, Size, WholeNumber, command
from yarnstore.cli.display import size
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import GcResult, KeptView

_REASONS = {"rollback": "previous", "recent": "recently used", "newest": "newest"}

# In the year 2999: Windows knows no later local times.
_LAST_S = 32_500_000_000


@command("gc", example="ystore gc --keep 3 --dry-run\nystore gc --keep 1 --keep-within 30d")
@click.option(
    "--keep",
    type=WholeNumber(min=0),
    metavar="N",
    help="Newest versions of each model to keep (default: `keep` in config.toml, else 3).",
)
@click.option(
    "--keep-within",
    type=Duration(),
    metavar="30d",
    help="Also keep versions added or used within this time (m, h, d, w; "
    "default: `keep_within` in config.toml).",
)
@click.option(
    "--grace",
    type=Duration(),
    metavar="1d",
    help="Keep files whose path was printed within this time (m, h, d, w, or 0; "
    "default: `path_grace` in config.toml, else 1d).",
)
@click.option(
    "--max-size",
    type=Size(),
    metavar="50G",
    help="Delete more versions, those used least recently first, until the store takes no more (k, M, G, T).",
)
@click.option(
    "--unused",
    type=Duration(),
    metavar="90d",
    help="Delete versions that were not added or used within this time (m, h, d, w).",
)
@click.option(
    "--thin",
    is_flag=False,
    flag_value="*",
    metavar="[MODEL]",
    help="Keep the previous version of MODEL (of all models if none is given) only as deltas, without files "
    '(`rollback = "thin"` in config.toml always does this).',
)
@click.option("--repack", is_flag=True, help="Store older versions as deltas against the newest.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be deleted; delete nothing.")
def cli(
    run: Invocation,
    keep: int | None,
    keep_within: float | None,
    grace: float | None,
    max_size: int | None,
    unused: float | None,
    thin: str | None,
    dry_run: bool,
    repack: bool,
) -> None:
    """Delete data that no installed, pinned or recent version needs.

    Installed versions, previous ones, and pinned or open versions are always kept; the previous versions of
    a model are the one that `rollback` returns to, and the one that was replaced last.
    Files of other versions are kept if `ystore path` printed their path within the last day.

    Before versions are deleted, and with -n, stderr lists the versions to delete and to keep, with reasons.
    --max-size counts disk space as `ystore du` does.
    """
    with run.store() as store:
        done = store.gc(
            keep=keep,
            keep_within_s=keep_within,
            grace_s=grace,
            max_size_bytes=max_size,
            unused_s=unused,
            thin=thin,
            dry_run=dry_run,
            repack=repack,
        )
    run.output.facts(done, lambda: _text(done, max_size), answer=dry_run)


def _text(done: GcResult, limit: int | None = None) -> str:
    verb = "would free" if done.dry_run else "freed"
    what = []
    if done.versions:
        shown = ", ".join(done.versions[:6]) + (" …" if len(done.versions) > 6 else "")
        what.append(f"{plural(len(done.versions), 'version')} ({shown})")
    if done.chunks_removed:
        what.append(plural(done.chunks_removed, "chunk"))
    if done.packs_rewritten:
        what.append(f"{plural(done.packs_rewritten, 'pack')} rewritten")
    first = f"{verb} {size(done.freed_bytes)}" + (f": {', '.join(what)}" if what else "")
    kept = ", ".join(f"{_REASONS.get(why, why)} {count}" for why, count in done.kept.items())
    lines = [first, f"kept: {kept or 'nothing, the store is empty'}", *map(_view_text, done.kept_views)]
    if done.incomplete_bytes:
        incomplete = f"{size(done.incomplete_bytes)} of incomplete downloads"
        lines.append(f"kept: {incomplete}, which the next fetch or checkout continues")
    if limit is not None and done.disk_bytes is not None:
        lines.append(_limit_text(done.disk_bytes, limit, dry_run=done.dry_run))
    if done.low_on_space and done.grace_bytes:
        more = size(done.grace_bytes)
        lines.append(f"free disk space is below the reserve: `ystore gc --grace 0` frees {more} more")
    return "\n".join(lines)


def _limit_text(disk_bytes: int, limit: int, *, dry_run: bool) -> str:
    takes = f"the store {'would take' if dry_run else 'takes'} {size(disk_bytes)}"
    if disk_bytes <= limit:
        return f"{takes}; the limit is {size(limit)}"
    return (
        f"{takes}, more than {size(limit)}: the remaining versions are installed, pinned, open, or what "
        "`rollback` returns to; files whose path was printed stay for their grace period"
    )


def _view_text(view: KeptView) -> str:
    what = f"{view.model} {view.version}" if view.model else view.path
    if view.until_ms is None:
        why = "a process has it open"
    else:
        until = datetime.fromtimestamp(min(view.until_ms / 1000, _LAST_S)).astimezone()
        why = f"printed by `path`, kept until {until:%Y-%m-%d %H:%M}"
    return f"kept view: {what}, {size(view.size_bytes)} ({why})"
