"""Checks one pack, its entries against their headers and its index; or one file and its chunks.

Shared by `ops/checking/fsck`, which reports damaged entries, and `ops/checking/repair`, which keeps the sound
ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
from blake3 import blake3

from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ids, PackIndex, id_bytes
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import ManifestFile
from yarnstore.core.pack import Entry, parse_entry
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.store import fsread
from yarnstore.store.filepath import Path
from yarnstore.store.open_files import pread_exact
from yarnstore.store.packs import iter_entries
from yarnstore.store.pipeline import ordered_map

# Returns an entry's verified bytes, or raises IntegrityError or NotFoundError.
Decode: TypeAlias = Callable[[Entry], object]

_WINDOW = 16


def hash_pack(path: Path, on_bytes: Callable[[int], None]) -> bytes:
    """Return the BLAKE3 of a pack's file, which is the pack's name if it is undamaged."""
    digest = blake3()
    fd = fsread.open_read(path)
    try:
        while True:
            with fsread.translating(path):
                block = os.read(fd, 4 * MIB)
            if not block:
                return digest.digest()
            digest.update(block)
            on_bytes(len(block))
    finally:
        os.close(fd)


def hash_chunks(path: Path, lists: Sequence[ManifestFile]) -> tuple[Sha256, Ids]:
    """Return the SHA-256 of a materialised file, and its sound chunks, given its chunk lists in manifests.
    It is read once for one list.

    Raises: NotFoundError, StorageError.
    """
    sha256 = hashlib.sha256()
    sound: list[Ids] = [np.empty(0, "S32")]
    with open(fsread.open_read(path), "rb") as file, fsread.translating(path):
        for n, item in enumerate(lists):
            file.seek(0)
            ids, lengths = item.chunk_list()
            right = np.zeros(len(ids), bool)
            for at, length in enumerate(lengths.tolist()):
                block = file.read(length)
                right[at] = blake3(block).digest() == id_bytes(ids, at)
                if n == 0:
                    sha256.update(block)
            sound.append(ids[right])
            if n == 0:
                while block := file.read(4 * MIB):  # it may be longer than every list
                    sha256.update(block)
        if not lists:
            while block := file.read(4 * MIB):
                sha256.update(block)
    return Sha256(sha256.digest()), np.concatenate(sound)


def good_entries(path: Path, index: PackIndex | None, decode: Decode) -> dict[bytes, bool]:
    """Yield each chunk that a pack should contain, and whether it is in it and sound.

    Uses the entries' headers; after an unreadable header, the index.
    """
    sound = {entry.chunk_id: True for entry in iter_sound(path, index, decode)}
    listed = [] if index is None else [id_bytes(index.ids, n) for n in range(len(index))]
    return {**dict.fromkeys(listed, False), **sound}


def iter_sound(path: Path, index: PackIndex | None, decode: Decode) -> Iterator[Entry]:
    """Yield the sound entries of a pack, each chunk once; `decode` has the bases of deltas."""
    seen: set[bytes] = set()

    def sound_or_none(entry: Entry) -> Entry | None:
        try:
            decode(entry)
        except (IntegrityError, NotFoundError):
            return None
        return entry

    def readable() -> Iterator[Entry]:
        with contextlib.suppress(FormatError):
            for _, entry in iter_entries(path):
                yield entry

    for entry in ordered_map(sound_or_none, readable(), window=_WINDOW):
        if entry is not None and entry.chunk_id not in seen:
            seen.add(entry.chunk_id)
            yield entry
    rest = [n for n in range(len(index)) if id_bytes(index.ids, n) not in seen] if index is not None else []
    if index is None or not rest:
        return
    fd = fsread.open_read(path)
    try:
        for n in rest:
            with contextlib.suppress(IntegrityError):
                data = pread_exact(fd, path, int(index.offsets[n]), int(index.stored[n]))
                entry = sound_or_none(parse_entry(data))
                if entry is not None and entry.chunk_id == id_bytes(index.ids, n):
                    yield entry
    finally:
        os.close(fd)


def leads_right(path: Path, index: PackIndex) -> bool:
    """Whether every row of an index has the offset of the entry that it names."""
    fd = fsread.open_read(path)
    try:
        for n in range(len(index)):
            entry = parse_entry(pread_exact(fd, path, int(index.offsets[n]), int(index.stored[n])))
            named = id_bytes(index.ids, n), int(index.plain[n]), int(index.encodings[n])
            if (entry.chunk_id, entry.plain_bytes, entry.encoding) != named:
                return False
    except FormatError:
        return False
    finally:
        os.close(fd)
    return True
