"""Decodes what the packs of a registry's folder have, deltas against parts of transposed tensors included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from yarnstore.core.codec import Encoding, decode_entry
from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.index import PackIndex
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.store.chunks import PackReader
from yarnstore.store.layout import PackFolder
from yarnstore.store.places import ChunkTable, select_rows
from yarnstore.store.transposing import Transposer


class PackedDecoder:
    """Decodes entries of full and delta packs; thread-safe.

    `full` reads the full packs, `indexes` are those of delta packs in the folder `deltas`.
    """

    def __init__(
        self,
        full: PackReader,
        deltas: PackFolder,
        indexes: Sequence[PackIndex],
        read_manifest: Callable[[Sha256], Manifest],
    ) -> None:
        parts = [select_rows(index, index.encodings == Encoding.TRANSPOSED) for index in indexes]
        self._full = full
        self._parts = PackReader(deltas, ChunkTable([index for index in parts if len(index)]))
        self._transposer = Transposer(read_manifest, lambda chunk_id: full.read_base(chunk_id, depth=0))

    def decode(self, entry: Entry) -> Buffer:
        """Return the verified bytes of an entry.  Raises: IntegrityError, NotFoundError, StorageError."""
        if entry.encoding == Encoding.TRANSPOSED:
            return self._transposer.decode(entry)
        if entry.base and self._full.row_of(entry.base) < 0:
            row = self._parts.row_of(entry.base)
            if row >= 0:
                return decode_entry(entry, self._transposer.decode(self._parts.read_entry(row)))
        return self._full.decode(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()
