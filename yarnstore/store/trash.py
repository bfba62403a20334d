"""The store's trash: `gc` deletes by moving files into it, and damaged files that a repair moves aside stay
for a day.

docs/format/store.md governs it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from functools import partial

from yarnstore.errors import StorageError
from yarnstore.store import fsio, fsread, patience
from yarnstore.store.filepath import Path

# The prefix of files that a repair moved aside.
_QUARANTINE = "bad-"
_QUARANTINE_S = 24 * 3600


def discard(path: Path, trash: Path) -> bool:
    """Move a path to delete into the trash, if it exists; what is on another disk is removed.

    Returns False if it stays, since another program has it open, or a link to it (on Windows).
    """
    return _unless_in_use(partial(_take, path, trash, ""))


def move_aside(path: Path, trash: Path) -> None:
    """Move a damaged path into the trash, if it exists, for a day."""
    _take(path, trash, _QUARANTINE)


def replace_by_folder(place: Path, root: Path, trash: Path) -> None:
    """Make a folder and move the file in its place into the trash, which may be that folder, for a day."""
    aside = root / f"{place.name}.{fsread.unique_name()[:8]}"
    fsio.rename(place, aside)
    fsio.ensure_dir(place)
    fsio.ensure_dir(trash)
    move_aside(aside, trash)


def keep_copy(path: Path, trash: Path) -> None:
    """Link a damaged file, if it exists, into the trash for a day; its name stays until it is replaced.

    Anything but a file is moved, since a file cannot replace it.
    """
    if fsread.is_file(path):
        fsio.ensure_dir(trash)
        fsio.hard_link(path, _place(trash, path, _QUARANTINE))
    else:
        move_aside(path, trash)


def _take(path: Path, trash: Path, prefix: str) -> None:
    found = fsread.stat_or_none(path)
    if found is not None:
        if stat.S_ISDIR(found.st_mode):
            fsio.set_writable(path, writable=True)  # a read-only folder cannot be moved
        if prefix or not fsio.remove_across(path, trash):
            fsio.rename(path, _place(trash, path, prefix))
        fsio.sync_dir(path.parent)


def _place(trash: Path, path: Path, prefix: str) -> Path:
    return trash / f"{prefix}{fsread.unique_name()[:8]}-{path.name}"


def iter_trash(trash: Path, now_s: float) -> Iterator[Path]:
    """Yield the paths to delete: everything in the trash that a repair did not move there within a day."""
    for name in fsread.list_names(trash):
        found = fsread.stat_or_none(trash / name)
        # Renames and links set the ctime.
        young = found is not None and now_s - found.st_ctime < _QUARANTINE_S
        if not (name.startswith(_QUARANTINE) and young):
            yield trash / name


def empty(trash: Path, now_s: float) -> None:
    """Delete the paths of `iter_trash`; what another program has open is deleted a later time."""
    for path in iter_trash(trash, now_s):
        _unless_in_use(partial(fsio.remove_tree, path))


def _unless_in_use(act: Callable[[], None]) -> bool:
    try:
        with patience.hurried():
            act()
    except StorageError as error:
        if not fsread.is_in_use(error):
            raise
        return False
    return True
