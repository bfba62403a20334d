"""Incomplete downloads: how much disk space they take, and deleting them if the disk is too full.

The next `fetch` or `checkout` continues them, so they stay for some days, unless the disk has less free space
than its reserve after everything else was deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from yarnstore.ops.session.session import Session
from yarnstore.progress import format_size
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.disk import disk_bytes
from yarnstore.store.drafts import DRAFT
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout

# How the names of incomplete downloads in `tmp/` end: of files, and of entries of packs and small files.
SUFFIXES = (".download", DRAFT)


def _incomplete(layout: StoreLayout) -> Iterator[Path]:
    for name in fsread.list_names(layout.tmp):
        if name.endswith(SUFFIXES) and fsread.is_file(layout.tmp / name):
            yield layout.tmp / name


def incomplete_bytes(layout: StoreLayout, *, without: Collection[Path] = ()) -> int:
    """Return the disk space of incomplete downloads in bytes, also of those that are running."""
    return sum(disk_bytes(path, freed=True) for path in _incomplete(layout) if path not in without)


def is_short(layout: StoreLayout, freed_bytes: int = 0) -> bool:
    """Whether the disk has no more free space than its reserve, also once `freed_bytes` are freed."""
    free, reserve = fsread.free_bytes(layout.root, layout.reserve)
    return free + freed_bytes <= reserve


def drop_incomplete(session: Session) -> int:
    """Delete incomplete downloads that no process continues, and their refs; return how many bytes.

    Chunks that they brought into packs go with the next plan.  Needs the exclusive lock.
    """
    layout, refs = session.layout, session.refs
    freed = 0
    for path in _incomplete(layout):
        with lock.claimed(path) as dead:
            if dead:
                freed += disk_bytes(path, freed=True)
                fsio.remove(path, sync=False)
    for name in refs.partials():
        refs.remove_partial(name)
    if freed:
        what = f"deleted {format_size(freed)} of incomplete downloads"
        session.note(f"{what}: the disk has less free space than its reserve")
    return freed
