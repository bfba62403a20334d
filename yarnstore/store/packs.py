"""Packs on disk: writing new ones, and completing those that a killed process left.

docs/format/pack.md governs the bytes.  Used for a store's packs and for those of a registry folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeAlias

from blake3 import blake3

from yarnstore.core.codec import Encoding, decode_entry
from yarnstore.core.digest import PackId
from yarnstore.core.index import PackIndex, encode_index
from yarnstore.core.limits import KIB, MIB, PACK_TARGET_BYTES
from yarnstore.core.pack import PACK_HEADER, PACK_HEADER_BYTES, Entry, EntryStream, encode_entry
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.filepath import Path
from yarnstore.store.layout import PackFolder

# The suffix of an unfinished pack in `tmp/`.
UNFINISHED = ".pack"
_READ_BYTES = 4 * MIB
# A payload up to this size is copied behind its header, so that one call writes both.
_SMALL_BYTES = 64 * KIB

# Id, offset, stored and plain bytes, encoding, base.
_Row: TypeAlias = tuple[bytes, int, int, int, int, bytes]


class PackWriter:
    """Writes entries into packs of about 64 MiB; used by one thread.

    Every added entry is verified before.  A full pack is synced and published while the next one is written.
    Leaving the context completes the current pack, also after an error or an interrupt, so that its entries
    are kept.
    """

    def __init__(self, folder: PackFolder) -> None:
        self._folder = folder
        self._file: fsio.NewFile | None = None
        self._hash = blake3()
        self._rows: list[_Row] = []
        self._torn = False  # whether an entry is being written
        self._publisher = ThreadPoolExecutor(1, thread_name_prefix="yarnstore-pack")
        self._publishing: Future[PackIndex] | None = None
        self.packs: list[PackId] = []
        self.published: list[PackIndex] = []  # those of `packs` that are published with their index
        self.stored_bytes = 0
        self.chunks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._publisher:
            if self._torn and self._file is not None:
                # The file differs from the hashed bytes.  After a failed write it is useless; after an
                # interrupt, `recover_packs` keeps the complete entries.
                if kind is not None and issubclass(kind, StorageError):
                    self._file.discard()
                else:
                    self._file.leave()
                self._file = None
            self._finish()
            self._wait()

    def discard(self) -> None:
        """Delete the pack that is not published yet."""
        if self._file is not None:
            self._file.discard()
            self._file, self._torn = None, False

    def add(self, entry: Entry) -> None:
        """Append one verified entry.  Raises: StorageError."""
        stored_bytes = entry.stored_bytes
        if self._file is not None and self._file.size_bytes + stored_bytes > PACK_TARGET_BYTES:
            self._finish()
        self._torn = True
        if self._file is None:
            self._file = fsio.NewFile(self._folder.tmp, UNFINISHED)
            self._hash = blake3(PACK_HEADER)
            self._rows = []
            self._file.write(PACK_HEADER)
        offset = self._file.size_bytes
        header, payload = encode_entry(entry)
        parts = (header, payload) if len(payload) > _SMALL_BYTES else (b"".join((header, payload)),)
        for part in parts:
            self._hash.update(part)
        self._file.write(*parts)
        self._rows.append(
            (entry.chunk_id, offset, stored_bytes, entry.plain_bytes, entry.encoding, entry.base)
        )
        self._torn = False
        self.stored_bytes += stored_bytes
        self.chunks += 1

    def _finish(self) -> None:
        """Publish the current pack, after the previous one."""
        if self._file is None:
            return
        self._wait()
        file, self._file = self._file, None
        index = PackIndex.from_rows(PackId(self._hash.digest()), file.size_bytes, self._rows)
        self._publishing = self._publisher.submit(_publish, self._folder, file, index)
        self.packs.append(index.pack)

    def _wait(self) -> None:
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            self.published.append(publishing.result())


class PackSizer:
    """Computes the packs that `PackWriter` would write, as indexes only, with invented pack names."""

    def __init__(self) -> None:
        self._indexes: list[PackIndex] = []
        self._rows: list[_Row] = []
        self._bytes = PACK_HEADER_BYTES

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        self.add_row(entry.chunk_id, entry.stored_bytes, entry.plain_bytes, entry.base)

    def add_row(self, chunk_id: bytes, stored_bytes: int, plain_bytes: int, base: bytes) -> None:
        """Count an entry that an index describes."""
        if self._rows and self._bytes + stored_bytes > PACK_TARGET_BYTES:
            self.finish()
        self._rows.append((chunk_id, self._bytes, stored_bytes, plain_bytes, 0, base))
        self._bytes += stored_bytes

    def finish(self) -> list[PackIndex]:
        """Return all packs so far, and close the current one."""
        if self._rows:
            name = PackId(blake3(b"".join(row[0] for row in self._rows)).digest())
            self._indexes.append(PackIndex.from_rows(name, self._bytes, self._rows))
            self._rows, self._bytes = [], PACK_HEADER_BYTES
        return self._indexes


def _publish(folder: PackFolder, file: fsio.NewFile, index: PackIndex) -> PackIndex:
    with file:
        if folder.before_mapped is not None and (index.encodings == Encoding.DELTA_MAPPED).any():
            folder.before_mapped()
        fsio.ensure_dir(folder.packs)
        file.publish(folder.pack(index.pack))
    write_index(folder, index)
    return index


def write_index(folder: PackFolder, index: PackIndex) -> None:
    """Publish an index whose pack exists."""
    fsio.write_atomic(folder.index(index.pack), encode_index(index), tmp_dir=folder.tmp)


def iter_entries(path: Path) -> Iterator[tuple[int, Entry]]:
    """Yield the entries of a pack file with their offsets, in order, not verified.

    Raises: FormatError at the first incomplete entry, StorageError.
    """
    stream = EntryStream()
    fd = fsread.open_read(path)
    try:
        while True:
            with fsread.translating(path):
                block = os.read(fd, _READ_BYTES)
            if not block:
                break
            yield from stream.feed(block)
    finally:
        os.close(fd)
    stream.finish()


def recover_packs(folder: PackFolder, decode: Callable[[Entry], object] = decode_entry) -> int:
    """Complete the unfinished packs of killed processes.  Returns the recovered chunks.

    Every entry is decoded and hashed again, by `decode`, which has the bases of deltas; a pack ends before
    its first incomplete entry.
    """
    kept = 0
    for name in fsread.list_names(folder.tmp):
        path = folder.tmp / name
        if not name.endswith(UNFINISHED):
            continue
        with lock.claimed(path) as claimed:
            if not claimed:
                continue
            with PackWriter(folder) as writer, contextlib.suppress(IntegrityError):
                for _, entry in iter_entries(path):
                    decode(entry)
                    writer.add(entry)
            kept += writer.chunks
            fsio.remove(path)
    for pack in set(folder.pack_ids(".pack")).difference(folder.pack_ids(".idx")):
        # The pack's writer was killed before it wrote the index, or is about to write the same index.
        with contextlib.suppress(NotFoundError, IntegrityError):
            kept += len(rebuild_index(folder, pack))
    return kept


def rebuild_index(folder: PackFolder, pack: PackId) -> PackIndex:
    """Rebuild the index of a pack.  Raises: as `scan_pack`, StorageError."""
    index = scan_pack(folder, pack)
    write_index(folder, index)
    return index


def scan_pack(folder: PackFolder, pack: PackId) -> PackIndex:
    """Read a whole pack and return the rows of its sound entries.

    Deltas are not checked, since their bases may be in other packs; readers hash them.

    Raises: NotFoundError if the pack does not exist; IntegrityError if no entry can be read, since with an
    empty index the pack would count as unneeded; StorageError.
    """
    path = folder.pack(pack)
    found = fsread.stat_or_none(path)
    if found is None:
        raise NotFoundError("pack", pack.hex)
    rows = []
    with contextlib.suppress(FormatError):
        for offset, entry in iter_entries(path):
            with contextlib.suppress(IntegrityError):
                if not entry.base:
                    decode_entry(entry)
                rows.append((offset, entry))
    if not rows:
        raise IntegrityError(f"pack {pack.hex}", why="contains no readable chunk")
    return PackIndex.build(pack, found.st_size, rows)
