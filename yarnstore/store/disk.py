"""What a folder takes on the disk, as `du` counts it: in blocks, with folders, hard links counted once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from yarnstore.store.fsread import translate, translating

_BLOCK_BYTES = 512  # the unit of `st_blocks`, whatever the file system's blocks are


class DiskEntry(NamedTuple):
    """One name below a folder: `parts` of its path there (none for the folder itself), and what it takes."""

    parts: tuple[str, ...]
    inode: tuple[int, int]
    disk_bytes: int
    is_folder: bool


def iter_disk(root: Path) -> Iterator[DiskEntry]:
    """Yield a folder and everything below it, every name of a file; nothing if it does not exist.

    What is removed meanwhile is left out.  No link is followed, except for `root`.

    Raises: StorageError if a folder cannot be read.
    """
    with translating(root):
        if not root.exists():
            return
    for place, folders, names in os.walk(root, onerror=_refuse):
        parts = Path(place).relative_to(root).parts
        with_links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in ("", *names, *with_links):
            path = os.path.join(place, name) if name else place
            try:
                found = os.stat(path) if not (name or parts) else os.lstat(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise translate(error, path) from error
            blocks = getattr(found, "st_blocks", None)  # Windows has none
            size = found.st_size if blocks is None else blocks * _BLOCK_BYTES
            yield DiskEntry((*parts, name) if name else parts, (found.st_dev, found.st_ino), size, not name)


def disk_bytes(root: Path) -> int:
    """Return what `du` says of a folder, in bytes; 0 if it does not exist.  Raises: as `iter_disk`."""
    return sum({entry.inode: entry.disk_bytes for entry in iter_disk(root)}.values())


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise translate(error, error.filename or "") from error
