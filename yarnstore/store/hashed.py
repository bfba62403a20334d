"""Records of hashed files: their size, times and inode when they were hashed.

docs/format/hashed.md governs the records.  A file that differs from its record is hashed before it is used.
The store's own links and removals change a file's ctime and update its record, under a lock, so that only a
change by another program requires hashing again.  Small files have no records and are always hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import compress

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import KIB, MIB
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread, growing, lock
from yarnstore.store.filepath import Path
from yarnstore.store.kernel import wait_lock
from yarnstore.store.layout import EXECUTABLE, StoreLayout
from yarnstore.store.opentree import OpenTree

# Hashing a file of this size takes no longer than reading its record.
_SMALL_BYTES = 4 * KIB
# A larger record is reduced to the newest line of each of its newest inodes.
_LONG_BYTES = 4096
_INODES_KEPT = 16
_BLOCK_BYTES = 4 * MIB


def file_sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> Sha256:
    """Hash a whole file; `on_bytes` is called with the number of bytes read since the last call.

    Raises: NotFoundError, StorageError.
    """
    with open(fsread.open_read(path), "rb") as file, fsread.translating(path):
        if on_bytes is None:
            return Sha256(hashlib.file_digest(file, "sha256").digest())
        sha256 = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            sha256.update(block)
            on_bytes(len(block))
        return Sha256(sha256.digest())


def digest_of(name: str) -> Sha256 | None:
    """Return what a file of this name in `files/` hashes to; None for another name."""
    with contextlib.suppress(FormatError):
        return Sha256.parse(name.removesuffix(EXECUTABLE))
    return None


def has_record(size_bytes: int) -> bool:
    """Whether a file of this size has a record."""
    return size_bytes > _SMALL_BYTES


def small_hashes_to(folder: OpenTree, path: str, digest: Sha256) -> bool:
    """Whether a file in a folder, too small for a record, hashes to `digest` now.  Raises: StorageError."""
    with contextlib.suppress(NotFoundError, FormatError):  # it was removed or has grown
        return hashlib.sha256(folder.read_bytes(path, _SMALL_BYTES)).digest() == digest.raw
    return False


def known_as_found(layout: StoreLayout, files: Iterable[tuple[Sha256, os.stat_result]]) -> list[bool]:
    """Return for each file whether its record has the digest for its present size, times and inode."""
    try:
        records = OpenTree(layout.hashed)
    except (NotFoundError, StorageError):
        return [False for _ in files]
    with records:
        return [_line(found) in _records(records, digest) for digest, found in files]


def _records(records: OpenTree, digest: Sha256) -> list[bytes]:
    with contextlib.suppress(NotFoundError, FormatError, StorageError):
        return records.read_bytes(digest.hex, MIB).splitlines(keepends=True)
    return []


def note_hashed(layout: StoreLayout, digest: Sha256, found: os.stat_result) -> None:
    """Record that a file in its present state hashes to `digest`; a small file has no record.

    Not synced: if the record is lost, the file is hashed again.  A failed write is not an error.
    """
    if not has_record(found.st_size):
        return
    with contextlib.suppress(StorageError, NotFoundError, FormatError):
        path, line = layout.hashed / digest.hex, _line(found)
        if growing.append_mark(path, line) > _LONG_BYTES:
            lines = fsread.read_bytes(path, MIB).splitlines(keepends=True)
            last: dict[bytes, bytes] = {}
            for item in [*lines, line]:
                if words := item.split():
                    last.pop(words[-1], None)
                    last[words[-1]] = item
            kept = list(last.values())[-_INODES_KEPT:]
            fsio.write_atomic(path, b"".join(kept), tmp_dir=layout.tmp)


def hashes_to(
    layout: StoreLayout, path: Path, digest: Sha256, on_bytes: Callable[[int], None] | None = None
) -> bool:
    """Whether a regular file hashes to `digest` now; if so, it is recorded.

    Raises: StorageError.
    """
    before = fsread.stat_or_none(path)
    if before is None or not stat.S_ISREG(before.st_mode):
        return False
    try:
        if file_sha256(path, on_bytes) != digest:
            return False
    except NotFoundError:
        return False
    after = fsread.stat_or_none(path)
    if after is not None and is_same(before, after):
        note_hashed(layout, digest, after)
    return True


@contextlib.contextmanager
def locked(layout: StoreLayout) -> Iterator[None]:
    """Lock out the store's own changes of files, which update their records only afterwards."""
    try:
        fd = lock.open_folder(layout.hashed)
    except NotFoundError:  # no records yet
        yield
        return
    try:
        wait_lock(fd)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def changing(layout: StoreLayout, files: Iterable[Path]) -> Iterator[None]:
    """Keep the records of materialised files valid while their names are linked, renamed or removed.

    Raises: StorageError.
    """
    fsio.ensure_dir(layout.hashed)
    with locked(layout):
        there = []
        for path in files:
            digest = digest_of(path.name)
            found = fsread.stat_or_none(path) if digest is not None else None
            if digest is not None and found is not None and has_record(found.st_size):
                there.append((path, digest, found))
        known = known_as_found(layout, [(digest, found) for _, digest, found in there])
        before = list(compress(there, known))
        try:
            yield
        finally:
            for path, digest, found in before:
                now = fsread.stat_or_none(path)
                if now is not None and now.st_ctime_ns != found.st_ctime_ns and is_same(found, now):
                    note_hashed(layout, digest, now)


def set_mode(layout: StoreLayout, path: Path, mode: int, digest: Sha256, found: os.stat_result) -> None:
    """Give a file another mode, and keep its record valid if it is as it was `found` when it was verified.

    Needs `locked`.  Raises: StorageError, NotFoundError.
    """
    before = fsread.stat_or_none(path)
    if before is None or not stat.S_ISREG(before.st_mode):
        return
    fsio.set_mode(path, mode)
    now = fsread.stat_or_none(path)
    verified = _line(before) == _line(found)
    if verified and now is not None and now.st_ctime_ns != before.st_ctime_ns and is_same(before, now):
        note_hashed(layout, digest, now)


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether only a file's links and mode can have changed."""
    return (one.st_size, one.st_mtime_ns, one.st_ino) == (other.st_size, other.st_mtime_ns, other.st_ino)


def _line(found: os.stat_result) -> bytes:
    return b"%d %d %d %d\n" % (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
