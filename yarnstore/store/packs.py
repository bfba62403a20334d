"""Packs on disk: writing new ones, and finishing what a killed process had written.

docs/format/pack.md governs the bytes.  Serves a store's packs and a published registry's alike.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from blake3 import blake3

from yarnstore.core.codec import decode_entry
from yarnstore.core.digest import PackId
from yarnstore.core.index import PackIndex, encode_index
from yarnstore.core.limits import MIB, PACK_TARGET_BYTES
from yarnstore.core.pack import PACK_HEADER, Entry, EntryStream, encode_entry
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import PackFolder

_SUFFIX = ".pack"
_READ_BYTES = 4 * MIB


class PackWriter:
    """Writes entries into packs of about 64 MiB; used by one thread.

    Every entry added is verified already.  Leaving the context finishes the pack at hand, also
    after an error or an interrupt, so that what arrived is kept.
    """

    def __init__(self, folder: PackFolder) -> None:
        self._folder = folder
        self._file: fsio.NewFile | None = None
        self._hash = blake3()
        self._rows: list[tuple[bytes, int, int, int, int, bytes]] = []
        self._torn = False  # an entry is being written
        self.packs: list[PackId] = []
        self.stored_bytes = 0
        self.chunks = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._torn and self._file is not None:
            # What the file holds is not what was hashed.  Where the disk refused part of an entry it
            # is of no use; after an interrupt, `recover_packs` keeps the entries before.
            if kind is not None and issubclass(kind, StorageError):
                self._file.discard()
            else:
                self._file.leave()
            self._file = None
        self.finish()

    def add(self, entry: Entry) -> None:
        """Append one verified entry.  Raises: StorageError."""
        if self._file is not None and self._file.size_bytes + entry.stored_bytes > PACK_TARGET_BYTES:
            self.finish()
        self._torn = True
        if self._file is None:
            self._file = fsio.NewFile(self._folder.tmp, _SUFFIX)
            self._hash = blake3()
            self._rows = []
            self._write(PACK_HEADER)
        offset = self._file.size_bytes
        header, payload = encode_entry(entry)
        self._write(header)
        self._write(payload)
        self._rows.append(
            (entry.chunk_id, offset, entry.stored_bytes, entry.plain_bytes, entry.encoding, entry.base)
        )
        self._torn = False
        self.stored_bytes += entry.stored_bytes
        self.chunks += 1

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        if self._file is not None:
            self._file.write(data)
            self._hash.update(data)

    def finish(self) -> None:
        """Publish the pack at hand, then its index."""
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            pack = PackId(self._hash.digest())
            _publish(self._folder, file, PackIndex.from_rows(pack, file.size_bytes, self._rows))
            self.packs.append(pack)


def _publish(folder: PackFolder, file: fsio.NewFile, index: PackIndex) -> None:
    fsio.ensure_dir(folder.packs)
    file.publish(folder.pack(index.pack))
    write_index(folder, index)


def write_index(folder: PackFolder, index: PackIndex) -> None:
    """Publish an index whose pack is there."""
    fsio.write_atomic(folder.index(index.pack), encode_index(index), tmp_dir=folder.tmp)


def iter_entries(path: Path) -> Iterator[tuple[int, Entry]]:
    """The entries of a pack file with their offsets, in order, not verified.

    Raises: FormatError at the first that is torn, StorageError.
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


def recover_packs(folder: PackFolder) -> int:
    """Keep what killed processes had written of packs.  Returns the chunks kept.

    Every entry is decoded and hashed again; the first torn one ends it.
    """
    kept = 0
    for name in fsread.list_names(folder.tmp):
        path = folder.tmp / name
        if not name.endswith(_SUFFIX):
            continue
        with fsio.claimed(path) as claimed:
            if not claimed:
                continue
            with PackWriter(folder) as writer, contextlib.suppress(IntegrityError):
                for _, entry in iter_entries(path):
                    decode_entry(entry)
                    writer.add(entry)
            kept += writer.chunks
            fsio.remove(path)
    for pack in set(folder.pack_ids(".pack")).difference(folder.pack_ids(".idx")):
        # Its writer was killed between the two, or is about to write the same index.
        with contextlib.suppress(NotFoundError):
            kept += len(rebuild_index(folder, pack))
    return kept


def rebuild_index(folder: PackFolder, pack: PackId) -> PackIndex:
    """Read a pack through and give it an index anew, of the entries that are sound.

    Raises: NotFoundError where the pack is not there.
    """
    path = folder.pack(pack)
    rows = []
    with contextlib.suppress(FormatError):
        for offset, entry in iter_entries(path):
            with contextlib.suppress(IntegrityError):
                decode_entry(entry)
                rows.append((offset, entry))
    index = PackIndex.build(pack, path.stat().st_size, rows)
    write_index(folder, index)
    return index
