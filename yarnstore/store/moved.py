"""Where a store is that was moved: its old folder is a link to the new one, or leads there by `moved-to`.

`store/moving` moves stores; docs/format/store.md governs the two notes and the format of the old folder.
"""

from __future__ import annotations

import contextlib
import os

from yarnstore.errors import ConflictError, FormatError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread
from yarnstore.store.filepath import Path

# In the old folder: the path of the new store.  In the new one: the path of the old folder, until its files
# are removed.
MOVED_TO, MOVED_FROM = "moved-to", "moved-from"
# The format of a folder that only leads to the one in `moved-to`, where the file system has no symlinks.
LEADS_ON = b"yarnstore-store/3\n"
_PATH_LIMIT_BYTES = 64 * 1024
# How many moves are followed, each to a folder that was moved later.
_MOVES = 16


def old_folder(root: Path) -> Path:
    """Return the path of a store's old folder until it is removed."""
    return root.with_name(f"{root.name}.moved")


def read_path(note: Path) -> Path | None:
    """Return the path in a note; None if it does not exist."""
    with contextlib.suppress(NotFoundError, StorageError, FormatError):
        return Path(os.fsdecode(fsread.read_bytes(note, _PATH_LIMIT_BYTES)))
    return None


def target_of(folder: Path) -> Path | None:
    """Return where a folder leads that only leads to the store; None if it does not."""
    with contextlib.suppress(NotFoundError, StorageError, FormatError):
        if fsread.read_bytes(folder / "format", 256) == LEADS_ON:
            return read_path(folder / MOVED_TO)
    return None


def check_not_moved(folder: Path) -> None:
    """Refuse a folder that leads to a store, such as one that was moved while a program used it.

    Raises: ConflictError.
    """
    target = target_of(folder)
    if target is not None:
        raise ConflictError(
            f"the store at {folder} was moved to {target}",
            hint="connect the disk of that folder if it is missing, then run this again",
        )


def find_store(root: Path) -> Path:
    """Return the folder of the store whose folder is or was `root`, after any number of moves.

    Makes the link that a killed move left out, if possible.

    Raises: ConflictError for a folder that leads to one without a store, such as on a disk that is not
    connected.
    """
    if not os.path.lexists(root):
        return _settle(root)
    for _ in range(_MOVES):
        target = target_of(root)
        if target is None:
            return root
        if not os.path.lexists(target / "format"):
            break
        root = target
    check_not_moved(root)
    return root


def _settle(root: Path) -> Path:
    """Do as `find_store` after a kill between the two renames of a move."""
    target = read_path(old_folder(root) / MOVED_TO)
    if target is None:
        return root
    with contextlib.suppress(StorageError, NotFoundError):
        fsio.swap_link(root, str(target), tmp_dir=root.parent)
    return root if os.path.lexists(root) else target
