"""The store's trash: what `gc` deletes passes through it, and what a repair moves aside stays for a day.

docs/format/store.md governs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from yarnstore.store import fsio, fsread

# What a repair moved aside begins with this.
_QUARANTINE = "bad-"
_QUARANTINE_S = 24 * 3600


def discard(path: Path, trash: Path) -> None:
    """Rename something that is to be deleted into the trash, if it exists."""
    _take(path, trash, "")


def move_aside(path: Path, trash: Path) -> None:
    """Move something damaged into the trash, if it exists, where it stays for a day."""
    _take(path, trash, _QUARANTINE)


def keep_copy(path: Path, trash: Path) -> None:
    """Keep a damaged file, if it exists, in the trash for a day; it stays in its place until it is replaced.

    Anything but a file cannot be replaced by a file, and is moved.
    """
    if fsread.is_file(path):
        fsio.ensure_dir(trash)
        fsio.hard_link(path, _place(trash, path, _QUARANTINE))
    else:
        move_aside(path, trash)


def _take(path: Path, trash: Path, prefix: str) -> None:
    if fsread.stat_or_none(path) is not None:
        fsio.set_writable(path, writable=True)  # a folder that is not writable cannot be moved
        fsio.rename(path, _place(trash, path, prefix))
        fsio.sync_dir(path.parent)


def _place(trash: Path, path: Path, prefix: str) -> Path:
    return trash / f"{prefix}{fsread.unique_name()[:8]}-{path.name}"


def iter_trash(trash: Path, now_s: float) -> Iterator[Path]:
    """Yield what may be deleted: everything in the trash that a repair did not move aside within a day."""
    for name in fsread.list_names(trash):
        found = fsread.stat_or_none(trash / name)
        # A rename and a link set ctime.
        young = found is not None and now_s - found.st_ctime < _QUARANTINE_S
        if not (name.startswith(_QUARANTINE) and young):
            yield trash / name


def empty(trash: Path, now_s: float) -> None:
    """Delete what may be deleted."""
    for path in iter_trash(trash, now_s):
        fsio.remove_tree(path)
