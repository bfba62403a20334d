"""Estimates the size of a store after `gc`, if only some versions are kept.

Owns the rule by which packs are rewritten.  Models what `gc` does with chunks: those that files of kept
versions have are deleted from packs, those that only other files have are encoded, and deltas are encoded
again if their bases are deleted.  Of the chunks that would be encoded a few are, to learn their sizes.
`ops/upkeep/gc` deletes.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.codec import make_entry
from yarnstore.core.delta_entries import make_stored_entry
from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ids, Ints, find_ids, id_bytes, index_bytes
from yarnstore.core.limits import MIB
from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.core.pairing import Pair, chunk_elements
from yarnstore.errors import IntegrityError, NotFoundError, StorageError
from yarnstore.ops.copies.second import keep_copies
from yarnstore.ops.copies.space import Space
from yarnstore.ops.session.session import Session
from yarnstore.registry.policies import KeepCopy
from yarnstore.store.chunks import ChunkStore, load_indexes
from yarnstore.store.parts import sample_pairs
from yarnstore.store.places import manifest_chunks

# A pack is rewritten if at least this share of it is garbage: below, the copying is not worth it.
_GARBAGE_SHARE = 0.25
# Several packs smaller than this are merged, since each update makes some.
_SMALL_PACK_BYTES = 8 * MIB
_SMALL_PACKS = 4
# Chunks that are encoded in all, so that the estimate takes about a second, however many the models are; and
# for one version.
_SAMPLES = 48
_SAMPLES_OF_ONE = 12

_Mask = NDArray[np.bool_]


def are_rewritten(pack_bytes: Ints, file_bytes: Ints, live_bytes: Ints) -> _Mask:
    """Return which packs `gc` replaces by smaller ones, or merges.

    All columns have one length: the sizes of packs, those with their indexes, and of their live entries.
    """
    wasteful: _Mask = pack_bytes - PACK_HEADER_BYTES - live_bytes > _GARBAGE_SHARE * pack_bytes
    small: _Mask = (live_bytes > 0) & (file_bytes < _SMALL_PACK_BYTES)
    return wasteful | small if small.sum() >= _SMALL_PACKS else wasteful


class AfterGc:
    """The size of a store after `gc`, by the versions that are kept.  All sizes are in bytes.

    `with_files` are the versions that keep their files.
    """

    def __init__(
        self, session: Session, space: Space, with_files: Collection[Sha256], keep_copy: KeepCopy
    ) -> None:
        self._session, self._space, self._table = session, space, space.table
        manifests = space.manifests
        self._filed = {digest for digest in manifests if space.form(digest) == "file"}
        self._with_files = self._filed.intersection(with_files)
        self._ids, self._plain = manifest_chunks(manifests.values())
        self._chunks = {
            digest: find_ids(self._ids, manifest_chunks([manifest])[0])
            for digest, manifest in manifests.items()
        }
        self._rows = self._table.find(self._ids)
        bases = self._table.bases[self._rows] if len(self._table) else np.zeros(len(self._ids), "S32")
        self._delta: _Mask = (self._rows >= 0) & (bases != b"")
        self._bases = find_ids(self._ids, bases)  # -1 for those of no version
        self._in_files = self._mask(self._filed)
        self._copied = {item.digest for item in keep_copies(session, keep_copy, manifests.values())}
        indexes = load_indexes(session.layout.pack_folder, rebuild=False).indexes
        sizes = {index.pack: (index.pack_bytes, index.pack_bytes + index_bytes(index)) for index in indexes}
        found = [sizes.get(pack, (0, 0)) for pack in self._table.packs]
        self._packs = np.array(found, np.int64).reshape(-1, 2)
        self._rates: dict[Sha256, float] = {}
        self._sampled = np.zeros(2, np.int64)  # bytes of all samples: encoded, plain
        self._left = _SAMPLES

    def _mask(self, digests: Collection[Sha256]) -> _Mask:
        mask: _Mask = np.zeros(len(self._ids), bool)
        for digest in digests:
            mask[self._chunks[digest]] = True
        return mask

    def bytes_with(self, kept: Collection[Sha256], *, thin: Collection[Sha256] = ()) -> int:
        """Estimate the size of the store if only the `kept` versions are, those of `thin` without files.

        Includes leftovers in `tmp/` and `trash/`, but not views that are kept for their grace period.
        """
        filed = self._with_files.intersection(kept).difference(thin)
        live = self._mask(kept)
        copied = self._mask(self._copied.intersection(kept))
        in_packs = live & (copied | ~self._mask(filed))
        # What any file has is deleted from packs first, and encoded again if the file goes.
        deleted = ~copied & self._mask(self._filed.intersection(kept))
        deleted |= self._delta & ((self._bases < 0) | ~live[self._bases])
        stays = in_packs & (self._rows >= 0) & ~deleted
        anew = in_packs & ~stays & ((self._rows >= 0) | self._in_files)
        rows = np.union1d(self._rows[stays], np.flatnonzero(self._space.begun))
        table, (pack_bytes, file_bytes) = self._table, self._packs.T
        live_bytes = np.bincount(table.pack[rows], table.stored[rows], len(pack_bytes)).astype(np.int64)
        anew_bytes = self._encoded_bytes(anew, kept)
        smaller = are_rewritten(pack_bytes, file_bytes, live_bytes)
        after = np.where(live_bytes == 0, 0, np.where(smaller, live_bytes + PACK_HEADER_BYTES, pack_bytes))
        gone = self._space.files_bytes(self._chunks.keys() - filed, only=True)
        packs = int(after.sum() - pack_bytes.sum())
        return self._space.total_bytes + packs + anew_bytes - gone - self._space.unused_files_bytes

    @cached_property
    def _bytes_with_all(self) -> int:
        return self.bytes_with(self._chunks.keys())

    def frees_bytes(self, digest: Sha256) -> int:
        """Return about how much less the store has after `gc` if this version was removed before."""
        return max(0, self._bytes_with_all - self.bytes_with(self._chunks.keys() - {digest}))

    def thin_frees_bytes(self, digest: Sha256) -> int:
        """Return about how much less the store has after `gc` if this version does not keep its files."""
        if digest not in self._with_files:
            return 0
        return max(0, self._bytes_with_all - self.bytes_with(self._chunks.keys(), thin=[digest]))

    def too_many(
        self, limit_bytes: int, kept: Collection[Sha256], candidates: Sequence[Sha256]
    ) -> Sequence[Sha256]:
        """Return the first `candidates` that must be deleted so that the store is no larger than the limit.

        All of them, if even that is not enough.  `kept` are the versions to keep, including the candidates.
        """

        def fits(count: int) -> bool:
            return self.bytes_with(set(kept).difference(candidates[:count])) <= limit_bytes

        return candidates[: bisect_left(range(len(candidates)), True, key=fits)]

    # --- what chunks take that are encoded -----------------------------------------------------------

    def _encoded_bytes(self, anew: _Mask, kept: Collection[Sha256]) -> int:
        """Estimate the size of chunks once they are encoded, each as one of a `kept` version."""
        left, total = anew.copy(), 0.0
        for digest in sorted(kept):
            chunks = self._chunks[digest]
            mine = np.flatnonzero(left & self._mask([digest])) if left[chunks].any() else chunks[:0]
            if len(mine):
                total += self._rate(digest, self._ids[mine]) * int(self._plain[mine].sum())
                left[mine] = False
        return int(total)

    def _rate(self, digest: Sha256, ids: Ids) -> float:
        """Return the encoded size of a version's chunks per byte, of a sample of the given ones."""
        if digest not in self._rates:
            ids = ids[:: -(-len(ids) // min(_SAMPLES_OF_ONE, self._left))] if self._left else ids[:0]
            self._left -= len(ids)
            encoded, plain = self._sample(digest, ids)
            self._sampled += (encoded, plain)
            if not plain:
                encoded, plain = self._sampled.tolist()
            self._rates[digest] = encoded / plain if plain else 1.0
        return self._rates[digest]

    def _sample(self, digest: Sha256, ids: Ids) -> tuple[int, int]:
        """Return the sizes of chunks, encoded as `gc` does, and without encoding."""
        old = self._space.manifests[digest]
        new = self._space.manifests.get(self._session.refs.installed(old.model) or digest)
        elements = chunk_elements([old])
        wanted = {id_bytes(ids, n) for n in range(len(ids))}
        pairs: dict[bytes, Pair] = {}
        encoded, plain = 0, 0
        with ChunkStore(self._session.layout, rebuild=False) as chunks:
            if new is not None and new is not old and wanted:
                with contextlib.suppress(StorageError):
                    found = sample_pairs(old, new, chunks, wanted)
                    pairs = {pair.chunk.chunk_id: pair for pair in found}
            for chunk_id in sorted(wanted):
                with contextlib.suppress(IntegrityError, NotFoundError, StorageError):  # it says nothing
                    data = chunks.read(chunk_id, chunks.row_of(chunk_id))
                    if (pair := pairs.get(chunk_id)) is not None:
                        base = chunks.read(pair.base_id, chunks.row_of(pair.base_id))
                        entry = make_stored_entry(pair, data, base)
                    else:
                        entry = make_entry(chunk_id, data, elements[chunk_id])
                    encoded, plain = encoded + entry.stored_bytes, plain + len(data)
        return encoded, plain
