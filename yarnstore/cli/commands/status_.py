"""`ystore status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnstore.cli.command import Invocation, command
from yarnstore.cli.display import one_line, size
from yarnstore.progress import plural

if TYPE_CHECKING:
    from yarnstore.results import StoreStatus


@command("status", example="ystore status")
def cli(run: Invocation) -> None:
    """Show the store's contents, disk usage and free space."""
    with run.store() as store:
        found = store.status()
    run.output.facts(found, lambda: _text(found))


def _text(found: StoreStatus) -> str:
    if not found.exists:
        return f"{found.root}: no store yet; the first fetch or import creates it"
    unused = []
    if found.unused_bytes:
        unused = [f"  {size(found.unused_bytes)} that no version needs   (ystore gc)"]
    return "\n".join(
        [
            f"{found.root}",
            f"  {plural(found.models, 'model')}, {plural(found.versions, 'version')}; "
            f"{found.installed} installed, {found.pinned} pinned",
            f"  {size(found.raw_bytes)} of models stored as {size(found.used_bytes)}{_saved(found)}",
            f"  {size(found.file_bytes)} of checked-out files, "
            f"{size(found.stored_bytes)} in {plural(found.packs, 'pack')} ({plural(found.chunks, 'chunk')})",
            *unused,
            f"  {size(found.free_bytes)} free ({size(found.reserve_bytes)} kept in reserve)",
            *(f"  {one_line(notice)}" for notice in found.notices),
        ]
    )


def _saved(found: StoreStatus) -> str:
    """What is stored only once, or as a difference from something else."""
    saved = found.raw_bytes - found.used_bytes
    if saved <= 0:  # second copies, and files that are not packed
        return ""
    once = min(saved, found.raw_bytes - found.unique_bytes)
    return f": saved {size(once)} by deduplication, {size(saved - once)} by deltas and compression"
