"""Materialised files: made from chunks, hashed with SHA-256 meanwhile, and read-only afterwards.

docs/format/store.md governs `files/`.  `store/chunks` finds chunks; `store/views` makes the folders that link
to these files.
"""

from __future__ import annotations

import contextlib
import hashlib
import stat
from collections.abc import Callable
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.index import id_bytes
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.hashed import has_record, hashes_to, note_hashed
from yarnstore.store.held import Place, find, names
from yarnstore.store.layout import StoreLayout, file_mode, file_name
from yarnstore.store.open_files import pread_exact
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import FileRange

# Called with the number of bytes written since the last call.
OnBytes = Callable[[int], None]

# The suffix of an unfinished file in `tmp/`.
UNFINISHED = ".file"

# Chunks decoded ahead of the writer; limits memory to about 16 MiB.
READ_WINDOW = 16


def has_file(layout: StoreLayout, file: ManifestFile) -> bool:
    """Whether the materialised file exists, with the size of its record."""
    return _fits(file, find(layout, file_name(file)))


def _fits(file: ManifestFile, place: Place) -> bool:
    found = place.found
    return found is not None and stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes


def is_sound(layout: StoreLayout, file: ManifestFile) -> bool:
    """Whether the materialised file exists and hashes to its name now."""
    place = find(layout, file_name(file))
    while _fits(file, place):
        if hashes_to(layout, place.path, file.sha256):
            return True
        before, place = place, find(layout, file_name(file))
        if before.path == place.path:  # else a view took it, or gave it back, meanwhile
            break
    return False


def missing_files(layout: StoreLayout, manifest: Manifest) -> list[ManifestFile]:
    """Return the files of a manifest that are not materialised, each name once."""
    there = names(layout)
    wanted = {file_name(file): file for file in manifest.files}
    return [file for name, file in wanted.items() if name not in there or not has_file(layout, file)]


def read_chunk(
    chunks: ChunkStore, file: ManifestFile, chunk_id: bytes, row: int, length: int
) -> tuple[Buffer, FileRange | None]:
    """Return a chunk of a file, and where another file has it.

    Raises: as `ChunkStore.locate`, and IntegrityError for another length.
    """
    data, place = chunks.locate(chunk_id, row)
    if len(data) != length:
        # It would leave a gap or overlap the next chunk, and differ from the bytes that are hashed here.
        raise IntegrityError(file.path, why="has a chunk of a different length than its manifest says")
    return data, place


def check_whole(file: ManifestFile, got: Sha256) -> None:
    """Raise IntegrityError if a file has another SHA-256 than in its manifest."""
    if got != file.sha256:
        raise IntegrityError(file.path, expected=str(file.sha256), got=str(got))


class Hashed:
    """The SHA-256 of the first `count` chunks of a file."""

    def __init__(self) -> None:
        self.count = 0
        self.sha256 = hashlib.sha256()

    def add(self, data: Buffer) -> None:
        """Hash the next chunk."""
        self.sha256.update(data)
        self.count += 1


def write_content(
    chunks: ChunkStore,
    file: ManifestFile,
    target: fsio.NewFile,
    on_bytes: OnBytes,
    placed: NDArray[np.bool_] | None = None,
    hashed: Hashed | None = None,
) -> None:
    """Write a file and hash it meanwhile.

    `placed`, of shape (chunks of the file,), is true for chunks that the target has already, which are read
    back unless they are `hashed`.

    Raises: IntegrityError if a chunk is damaged (all such chunks are then in `chunks.bad`), or if the whole
    does not match the manifest.
    """
    ids, sizes = file.chunk_list()
    lengths: list[int] = sizes.tolist()
    offsets = list(accumulate(lengths, initial=0))
    there = None if placed is None else placed.tolist()
    rows: list[int] | None = chunks.table.find(ids).tolist() if len(ids) > 1 else None
    start, sha256 = (hashed.count, hashed.sha256.copy()) if hashed else (0, hashlib.sha256())

    def bring(n: int) -> Buffer | IntegrityError:
        try:
            if there is not None and there[n]:
                return pread_exact(target.fileno(), target.path, offsets[n], lengths[n])
            chunk_id = id_bytes(ids, n)
            row = chunks.row_of(chunk_id) if rows is None else rows[n]
            data, place = read_chunk(chunks, file, chunk_id, row, lengths[n])
        except IntegrityError as error:
            return error
        # Here, and not where it is hashed, since that thread is what the others wait for.
        write_chunk(chunks, target, offsets[n], data, place)
        return data

    fault: IntegrityError | None = None
    if start:
        on_bytes(offsets[start])
    # The generator is not bound to a name, so that an error ends its threads before target and packs are
    # closed.
    for found in ordered_map(bring, range(start, len(ids)), window=READ_WINDOW):
        if isinstance(found, IntegrityError):
            fault = fault or found
        elif fault is None:
            sha256.update(found)
            on_bytes(len(found))
    if fault is not None:
        raise fault
    check_whole(file, Sha256(sha256.digest()))


def write_chunk(
    chunks: ChunkStore, target: fsio.NewFile, offset: int, data: Buffer, place: FileRange | None
) -> None:
    """Write a chunk that was read from `place`, and share its blocks with that file if possible.

    Raises: StorageError.
    """
    if place is None:
        target.write_at(offset, data)
        return
    try:
        with chunks.opened(place) as fd:
            target.write_shared(offset, data, fd, place.offset)
    except NotFoundError:  # it moved meanwhile
        target.write_at(offset, data)


def materialise(
    layout: StoreLayout,
    chunks: ChunkStore,
    file: ManifestFile,
    on_bytes: OnBytes,
    target: fsio.NewFile | None = None,
    placed: NDArray[np.bool_] | None = None,
    hashed: Hashed | None = None,
) -> None:
    """Make a file in `files/`, from chunks or from a `target` that has those `placed` and `hashed`
    (`write_content`); after an error the caller owns the target.

    Raises: IntegrityError, StorageError.
    """
    with contextlib.nullcontext(target) if target else fsio.NewFile(layout.tmp, UNFINISHED) as new:
        fsio.ensure_dir(layout.files)
        write_content(chunks, file, new, on_bytes, placed, hashed)
        path = layout.file(file)
        new.publish(path, mode=file_mode(file), sync_folder=False)
    if has_record(file.size_bytes) and (found := fsread.stat_or_none(path)) is not None:
        note_hashed(layout, file.sha256, found)
