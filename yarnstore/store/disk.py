"""Disk usage, counted like `du`: in blocks, including folders, hard links counted once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from yarnstore.store.filepath import Path
from yarnstore.store.fsread import translate, translating

_BLOCK_BYTES = 512  # the unit of `st_blocks`, whatever the file system's blocks are


class DiskEntry(NamedTuple):
    """The disk usage of one name below a folder; `parts` of its relative path, none for the folder itself."""

    parts: tuple[str, ...]
    inode: tuple[int, int]
    disk_bytes: int
    size_bytes: int  # without the rest of the last block, holes included
    is_folder: bool
    links: int  # the number of hard links of a file; 1 for a folder


def iter_disk(root: Path) -> Iterator[DiskEntry]:
    """Yield a folder and everything below it, including every hard link of a file; nothing if it does not
    exist.

    Files that are removed meanwhile are omitted.  No link is followed, except `root` itself.

    Raises: StorageError if a folder cannot be read.
    """
    with translating(root):
        if root.is_file():
            yield from _entry(root, (root.name,), is_folder=False)
            return
    for place, folders, names in os.walk(root, onerror=_refuse):
        folder = Path(place)
        parts = folder.relative_to(root).parts
        yield from _entry(folder, parts, is_folder=True)
        for name in (*names, *(name for name in folders if os.path.islink(os.path.join(place, name)))):
            yield from _entry(folder / name, (*parts, name), is_folder=False)


def _entry(path: Path, parts: tuple[str, ...], *, is_folder: bool) -> Iterator[DiskEntry]:
    try:
        found = os.stat(path, follow_symlinks=is_folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise translate(error, path) from error
    blocks = getattr(found, "st_blocks", None)  # Windows has none
    size = found.st_size if blocks is None else blocks * _BLOCK_BYTES
    links = 1 if is_folder else found.st_nlink
    yield DiskEntry(
        parts=parts,
        inode=(found.st_dev, found.st_ino),
        disk_bytes=size,
        size_bytes=found.st_size,
        is_folder=is_folder,
        links=links,
    )


def disk_bytes(root: Path, *, freed: bool = False) -> int:
    """Return the disk usage of a folder or file in bytes, as `du` does; 0 if it does not exist.

    With `freed`, how much removing it frees: without files that have other hard links.

    Raises: as `iter_disk`.
    """
    sizes = {entry.inode: entry.disk_bytes for entry in iter_disk(root) if not freed or entry.links == 1}
    return sum(sizes.values())


def content_bytes(*roots: Path) -> int:
    """Return the sizes of all files below folders, a file of several names once, in bytes.

    Raises: as `iter_disk`.
    """
    sizes = {
        entry.inode: entry.size_bytes for root in roots for entry in iter_disk(root) if not entry.is_folder
    }
    return sum(sizes.values())


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise translate(error, error.filename or "") from error
