"""Makes materialised files of one small chunk, of which a version can have thousands, in batches.

A batch is read and hashed before it is written, since code between system calls slows both down.
`store/files` makes all other files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.limits import KIB, MIB
from yarnstore.core.manifest import ManifestFile
from yarnstore.errors import IntegrityError
from yarnstore.store.batches import write_many
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.files import UNFINISHED, OnBytes, check_whole, read_chunk
from yarnstore.store.layout import StoreLayout, file_mode, file_name

# The size of a batch.
_BATCH_BYTES = 4 * MIB
_BATCH_FILES = 4096
_SMALL_BYTES = 64 * KIB


def is_small(file: ManifestFile) -> bool:
    """Whether a file is one small chunk."""
    return file.size_bytes <= _SMALL_BYTES and file.is_one_chunk


def materialise_small(
    layout: StoreLayout, chunks: ChunkStore, files: Iterable[ManifestFile], on_bytes: OnBytes
) -> None:
    """Make small files in `files/`, which the caller syncs.

    Raises: IntegrityError if a file does not match the manifest, or a chunk is damaged (all such chunks of a
    batch are then in `chunks.bad`); StorageError.
    """
    for batch in _batches(files):
        contents = _read(chunks, batch)
        write_many(
            [(file_name(file), data, file_mode(file)) for file, data in zip(batch, contents, strict=True)],
            layout.files,
            tmp_dir=layout.tmp,
            suffix=UNFINISHED,
        )
        on_bytes(sum(map(len, contents)))


def _batches(files: Iterable[ManifestFile]) -> Iterator[list[ManifestFile]]:
    batch: list[ManifestFile] = []
    size = 0
    for file in files:
        if size + file.size_bytes > _BATCH_BYTES or len(batch) == _BATCH_FILES:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size_bytes
    if batch:
        yield batch


def _read(chunks: ChunkStore, files: list[ManifestFile]) -> list[Buffer]:
    """Return the verified contents of files."""
    ids = np.concatenate([file.chunk_list()[0] for file in files])
    contents: list[Buffer] = []
    fault: IntegrityError | None = None
    for file, chunk_id, row in zip(files, ids.tolist(), chunks.table.find(ids).tolist(), strict=True):
        try:
            data, _ = read_chunk(chunks, file, chunk_id.ljust(32, b"\0"), row, file.size_bytes)
            check_whole(file, Sha256.of(data))
        except IntegrityError as error:
            fault = fault or error
        else:
            contents.append(data)
    if fault is not None:
        raise fault
    return contents
