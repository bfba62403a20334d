"""Packs: immutable files of encoded chunks with self-describing entries.

docs/format/pack.md governs it.  Owns the bytes of a pack; `core/index` has the offsets of entries,
`core/codec` decodes payloads.  Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from yarnstore.core.bytequeue import ByteQueue
from yarnstore.core.digest import DIGEST_BYTES, Buffer
from yarnstore.core.limits import CHUNK_LIMIT_BYTES
from yarnstore.errors import FormatError

_WHAT = "pack"
_MAGIC = b"YSTOREPK"
_VERSION = 1
_HEADER = struct.Struct("<8sHHI")
_ENTRY = struct.Struct("<32sIIBBH")
_HAS_BASE = 1

PACK_HEADER = _HEADER.pack(_MAGIC, _VERSION, 0, 0)
PACK_HEADER_BYTES = _HEADER.size
ENTRY_HEADER_BYTES = _ENTRY.size
# The longest entry that a reader accepts: header, base, and a payload no longer than its chunk.
ENTRY_LIMIT_BYTES = ENTRY_HEADER_BYTES + DIGEST_BYTES + CHUNK_LIMIT_BYTES


class Entry(NamedTuple):
    """One encoded chunk.  `base` is the id of a delta's base chunk, else empty."""

    chunk_id: bytes
    plain_bytes: int
    encoding: int
    payload: Buffer
    base: bytes = b""

    @property
    def stored_bytes(self) -> int:
        """Length of the whole entry in its pack, headers included."""
        return ENTRY_HEADER_BYTES + len(self.base) + len(self.payload)


def encode_entry(entry: Entry) -> tuple[bytes, Buffer]:
    """Return the header bytes (with the base) and the payload, to be written in this order."""
    header = _ENTRY.pack(
        entry.chunk_id,
        entry.plain_bytes,
        len(entry.payload),
        entry.encoding,
        _HAS_BASE if entry.base else 0,
        0,
    )
    return header + entry.base, entry.payload


def check_pack_header(data: Buffer) -> None:
    """Raise FormatError unless `data` begins like a pack of this format."""
    if len(data) < PACK_HEADER_BYTES:
        raise FormatError(_WHAT, "is shorter than its header")
    magic, version, flags, reserved = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise FormatError(_WHAT, "does not begin with the magic bytes of a pack")
    if version != _VERSION or flags or reserved:
        raise FormatError(_WHAT, f"has version {version}; this release reads version {_VERSION}")


class _Head(NamedTuple):
    chunk_id: bytes
    plain_bytes: int
    payload_bytes: int
    encoding: int
    base_bytes: int

    @property
    def stored_bytes(self) -> int:
        return ENTRY_HEADER_BYTES + self.base_bytes + self.payload_bytes


def _parse_head(data: Buffer) -> _Head:
    chunk_id, plain, stored, encoding, flags, reserved = _ENTRY.unpack_from(data)
    if not 1 <= plain <= CHUNK_LIMIT_BYTES:
        why = f"a chunk of {plain} bytes; 1 to {CHUNK_LIMIT_BYTES} are allowed"
        raise FormatError(_WHAT, f"is corrupt: its bytes changed since it was written ({why})")
    if stored > plain:
        raise FormatError(_WHAT, "has an entry that is larger than its chunk")
    if flags & ~_HAS_BASE or reserved:
        raise FormatError(_WHAT, "has an entry with unknown flags")
    return _Head(chunk_id, plain, stored, encoding, DIGEST_BYTES if flags & _HAS_BASE else 0)


def parse_entry(data: Buffer) -> Entry:
    """Parse exactly one entry; its payload is a view of `data`.  Raises: FormatError."""
    if len(data) < ENTRY_HEADER_BYTES:
        raise FormatError(_WHAT, "has an entry that is cut short")
    head = _parse_head(data)
    if len(data) != head.stored_bytes:
        raise FormatError(_WHAT, "has an entry whose length differs from the index")
    view = memoryview(data)
    middle = ENTRY_HEADER_BYTES + head.base_bytes
    base = bytes(view[ENTRY_HEADER_BYTES:middle])
    return Entry(head.chunk_id, head.plain_bytes, head.encoding, view[middle:], base)


class EntryStream:
    """Parses entries from arriving bytes, from the start of a pack or of any entry.

    Memory is bounded by one entry and the largest block fed.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset  # of the next entry in the pack
        self._queue = ByteQueue()
        self._in_header = offset == 0
        self._head: _Head | None = None  # of the incomplete entry

    def feed(self, data: Buffer) -> Iterator[tuple[int, Entry]]:
        """Add bytes and yield `(offset in the pack, entry)` for each entry that is now complete.

        Raises: FormatError if the bytes are not a pack.
        """
        queue = self._queue
        queue.append(data)
        if self._in_header and len(queue) >= PACK_HEADER_BYTES:
            check_pack_header(queue.take(PACK_HEADER_BYTES))
            self._in_header = False
            self.offset = PACK_HEADER_BYTES
        while not self._in_header:
            if self._head is None:
                if len(queue) < ENTRY_HEADER_BYTES:
                    break
                self._head = _parse_head(queue.take(ENTRY_HEADER_BYTES))
            head = self._head
            if len(queue) < head.base_bytes + head.payload_bytes:
                break
            base = bytes(queue.take(head.base_bytes))
            entry = Entry(
                head.chunk_id, head.plain_bytes, head.encoding, queue.take(head.payload_bytes), base
            )
            at = self.offset
            self.offset += head.stored_bytes
            self._head = None
            yield at, entry

    def finish(self) -> None:
        """Raise FormatError if the bytes ended inside the header or an entry."""
        if self._in_header or self._head is not None or len(self._queue):
            raise FormatError(_WHAT, "is cut short")
