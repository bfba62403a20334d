"""Indexes: the offset of each chunk in a pack.

docs/format/index.md governs it.  An index is a cache: it can be rebuilt from its pack, and bytes found with
it are verified.  Lookups are vectorised with numpy.  Pure.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from yarnstore.core.digest import DIGEST_BYTES, Buffer, PackId
from yarnstore.core.limits import (
    CHUNK_LIMIT_BYTES,
    INDEX_LIMIT_BYTES,
    PACK_LIMIT_BYTES,
    PACK_LIMIT_ENTRIES,
)
from yarnstore.core.pack import ENTRY_HEADER_BYTES, ENTRY_LIMIT_BYTES, PACK_HEADER_BYTES, Entry
from yarnstore.errors import FormatError

Ids: TypeAlias = NDArray[np.bytes_]
Ints: TypeAlias = NDArray[np.int64]
NO_IDS: Ids = np.empty(0, "S32")

_WHAT = "index"
_MAGIC = b"YSTOREIX"
_VERSION = 1
_HAS_BASES = 1
_HEADER = struct.Struct("<8sHHI32sQQ")
_NO_BASE = np.zeros(1, "S32")
# id, offset, stored, plain, encoding
_ROW_BYTES = DIGEST_BYTES + 8 + 4 + 4 + 1


@dataclass(frozen=True, slots=True)
class PackIndex:
    """Columns of equal length n, in ascending order of `ids`.

    `ids` and `bases` are `S32`; `offsets`, `stored` (bytes of the whole entry) and `plain` (bytes of the
    chunk) are `int64`; `encodings` is `uint8`.  `bases` has 32 zero bytes for an entry without a base.
    """

    pack: PackId
    pack_bytes: int
    ids: Ids
    offsets: Ints
    stored: Ints
    plain: Ints
    encodings: NDArray[np.uint8]
    bases: Ids

    @classmethod
    def build(cls, pack: PackId, pack_bytes: int, entries: Iterable[tuple[int, Entry]]) -> Self:
        """Make an index from `(offset, entry)` pairs; of entries with the same id, the first is used."""
        rows = [(e.chunk_id, at, e.stored_bytes, e.plain_bytes, e.encoding, e.base) for at, e in entries]
        return cls.from_rows(pack, pack_bytes, rows)

    @classmethod
    def from_rows(
        cls, pack: PackId, pack_bytes: int, rows: list[tuple[bytes, int, int, int, int, bytes]]
    ) -> Self:
        """Make an index from `(id, offset, stored, plain, encoding, base)` rows.

        The first of equal ids is used.
        """
        ids = np.array([row[0] for row in rows], "S32")
        kept, first = sorted_unique(ids)
        numbers = np.array([row[1:5] for row in rows], np.int64).reshape(len(rows), 4)[first]
        bases = np.array([row[5] for row in rows], "S32")[first]
        return cls(
            pack,
            pack_bytes,
            kept,
            numbers[:, 0].copy(),
            numbers[:, 1].copy(),
            numbers[:, 2].copy(),
            numbers[:, 3].astype(np.uint8),
            bases,
        )

    def __len__(self) -> int:
        return len(self.ids)


def encode_index(index: PackIndex) -> bytes:
    """Return the bytes of the index file."""
    has_bases = bool((index.bases != b"").any())
    parts = [
        _HEADER.pack(
            _MAGIC,
            _VERSION,
            _HAS_BASES if has_bases else 0,
            len(index),
            index.pack.raw,
            index.pack_bytes,
            0,
        ),
        index.ids.astype("S32").tobytes(),
        index.offsets.astype("<u8").tobytes(),
        index.stored.astype("<u4").tobytes(),
        index.plain.astype("<u4").tobytes(),
        index.encodings.tobytes(),
    ]
    if has_bases:
        parts.append(index.bases.astype("S32").tobytes())
    body = b"".join(parts)
    return body + blake3(body).digest()


def index_bytes(index: PackIndex) -> int:
    """The length of the index file in bytes."""
    return _encoded_bytes(len(index), has_bases=bool((index.bases != b"").any()))


def _encoded_bytes(count: int, *, has_bases: bool) -> int:
    return _HEADER.size + count * (_ROW_BYTES + (DIGEST_BYTES if has_bases else 0)) + DIGEST_BYTES


def parse_index(data: Buffer, *, pack: PackId | None = None) -> PackIndex:
    """Read an index, of `pack` if given.

    Raises: FormatError if it is malformed, does not match its checksum, is out of order, points outside its
    pack, or claims an entry larger than its chunk allows.
    """
    if not _HEADER.size + DIGEST_BYTES <= len(data) <= INDEX_LIMIT_BYTES:
        raise FormatError(_WHAT, f"has an impossible length of {len(data)} bytes")
    magic, version, flags, count, pack_raw, pack_bytes, reserved = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise FormatError(_WHAT, "does not begin with the magic bytes of an index")
    if version != _VERSION or flags & ~_HAS_BASES or reserved:
        raise FormatError(_WHAT, f"has version {version}; this release reads version {_VERSION}")
    wanted_bytes = _encoded_bytes(count, has_bases=bool(flags & _HAS_BASES))
    if count > PACK_LIMIT_ENTRIES or len(data) != wanted_bytes:
        raise FormatError(_WHAT, "does not have the length that its header gives")
    view = memoryview(data)
    if blake3(view[:-DIGEST_BYTES]).digest() != view[-DIGEST_BYTES:]:
        raise FormatError(_WHAT, "does not match its checksum")
    if pack is not None and pack.raw != pack_raw:
        raise FormatError(_WHAT, "belongs to another pack")

    position = _HEADER.size

    def column(dtype: str, width: int) -> NDArray[Any]:
        nonlocal position
        values = np.frombuffer(data, dtype, count, position)
        position += count * width
        return values

    ids = column("S32", 32)
    offsets = column("<u8", 8)
    stored = column("<u4", 4).astype(np.int64)
    plain = column("<u4", 4).astype(np.int64)
    encodings = column("u1", 1)
    bases = column("S32", 32) if flags & _HAS_BASES else np.broadcast_to(_NO_BASE, count)
    if pack_bytes > PACK_LIMIT_BYTES or (count and int(offsets.max()) > PACK_LIMIT_BYTES):
        raise FormatError(_WHAT, f"describes a pack larger than {PACK_LIMIT_BYTES} bytes")
    signed = offsets.astype(np.int64)
    if count and not (
        bool((ids[1:] > ids[:-1]).all())
        and int(signed.min()) >= PACK_HEADER_BYTES
        and int(stored.min()) >= ENTRY_HEADER_BYTES
        and int((signed + stored).max()) <= pack_bytes
        and int(plain.min()) >= 1
        and int(plain.max()) <= CHUNK_LIMIT_BYTES
    ):
        raise FormatError(_WHAT, "has entries out of order, or outside its pack")
    overhead = ENTRY_HEADER_BYTES + DIGEST_BYTES * (bases != b"")
    if count and (int(stored.max()) > ENTRY_LIMIT_BYTES or bool((stored > plain + overhead).any())):
        raise FormatError(_WHAT, "has an entry that is larger than its chunk")
    return PackIndex(
        pack=PackId(pack_raw),
        pack_bytes=pack_bytes,
        ids=ids,
        offsets=signed,
        stored=stored,
        plain=plain,
        encodings=encodings,
        bases=bases,
    )


def sorted_unique(ids: Ids) -> tuple[Ids, Ints]:
    """Return the distinct ids (`S32`, shape n) in ascending order, and the position of the first of each.

    Sorts by the first 8 bytes as numbers, which takes a fifth of the time of comparing text; ids are hashes,
    so further bytes are rarely needed.
    """
    order = np.argsort(_prefixes(ids), kind="stable")
    ascending = ids[order]
    if (ascending[1:] < ascending[:-1]).any():
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
    first = np.ones(len(ids), bool)
    first[1:] = ascending[1:] != ascending[:-1]
    if first.all():
        return ascending, order
    return ascending[first], order[first]


def distinct_ids(ids: Ids) -> Ids:
    """Return the distinct ids (`S32`, shape n) in ascending order.

    In place of `np.unique`, which is slower and imports numpy.ma.
    """
    return sorted_unique(ids)[0]


def _prefixes(ids: Ids) -> NDArray[np.uint64]:
    """The first 8 bytes of each id as a number, in the order of the ids."""
    first = np.ascontiguousarray(ids).view(np.uint8).reshape(-1, DIGEST_BYTES)[:, :8]
    return np.ascontiguousarray(first).view(">u8").ravel().astype(np.uint64)


class SortedIds:
    """Ids in ascending order (`S32`, shape n), prepared for many lookups."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids
        self._keys = _prefixes(ids)
        self._numbers = memoryview(self._keys.data)  # for one lookup, quicker than the array

    def find(self, wanted: Ids) -> Ints:
        """Do the same as `find_ids`, faster."""
        if not len(self.ids) or not len(wanted):
            return np.full(len(wanted), -1, np.int64)
        keys = _prefixes(wanted)
        # In ascending order, each search begins where the last one ended, in cached memory.
        order = np.argsort(keys, kind="stable")
        at = np.empty(len(keys), np.int64)
        at[order] = np.searchsorted(self._keys, keys[order])
        at[at == len(self.ids)] = 0
        found = np.where(self.ids[at] == wanted, at, -1)
        twins = (found < 0) & (self._keys[at] == keys)  # another id has the same first bytes
        if twins.any():
            found[twins] = find_ids(self.ids, wanted[twins])
        return found

    def find_one(self, wanted: bytes) -> int:
        """As `find`, for one id."""
        key = int.from_bytes(wanted[:8], "big")
        at = bisect_left(self._numbers, key)
        while at < len(self.ids) and self._numbers[at] == key:
            if id_bytes(self.ids, at) == wanted:
                return at
            at += 1
        return -1


def find_ids(sorted_ids: Ids, wanted: Ids) -> Ints:
    """Return the positions of `wanted` (shape m) in `sorted_ids` (ascending, shape n).

    The result is int64 of shape m, with -1 for missing ids.
    """
    if not len(sorted_ids) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    at = np.searchsorted(sorted_ids, wanted)
    at[at == len(sorted_ids)] = 0
    return np.where(sorted_ids[at] == wanted, at, -1)


def without_ids(ids: Ids, left_out: NDArray[np.bool_]) -> Ids:
    """Return the ids for which `left_out` (of equal shape) is false: the same array if it is false for all,
    as in a first download, where a copy is 32 MB for a million chunks.
    """
    return ids[~left_out] if left_out.any() else ids


def id_bytes(ids: Ids, position: int) -> bytes:
    """The 32 bytes of one id; numpy drops trailing zeros of `S32` values."""
    return bytes(ids[position]).ljust(DIGEST_BYTES, b"\0")
