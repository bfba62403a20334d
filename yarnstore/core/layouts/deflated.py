"""The deflate streams in a file: compressed members of zip archives and `.npz`, gzip files, chunks of HDF5.

PKWARE APPNOTE 6.3, RFC 1950 to 1952.  HDF5's own tables are not read: its compressed chunks are zlib streams,
found by their two header bytes, and told from others by their checksum at the end.  A file whose streams are
not found is a file without streams.  Pure.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from yarnstore.core.layouts.limits import LAYOUT_LIMIT_TENSORS
from yarnstore.core.layouts.model import Source
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.core.layouts.zipdir import MAGIC as ZIP_MAGIC
from yarnstore.core.layouts.zipdir import find_data, read_members
from yarnstore.core.limits import KIB, MIB
from yarnstore.errors import FormatError

GZIP_MAGIC: Final = b"\x1f\x8b\x08"
HDF5_MAGIC: Final = b"\x89HDF\r\n\x1a\n"
# A shorter stream is not worth its description.
_LEAST_BYTES: Final = 512
_DEFLATED: Final = 8
_BLOCK_BYTES: Final = 64 * KIB
_SCANNED_BYTES: Final = 8 * MIB
# CMF 0x78, deflate with a window of 32 KiB, and FLG without a dictionary (RFC 1950).
_ZLIB_HEADER: Final = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
# Numbers are hardly ever packed so well; more is not looked through.
_PLAIN_LIMIT_FACTOR: Final = 64
_GZIP_LIMIT_HEADER_BYTES: Final = 64 * KIB


class DeflateStream(NamedTuple):
    """A raw deflate stream at `offset`, of `length` bytes, that inflates to `size` bytes.

    `key` is what corresponds to it in other versions of the file: the name or the number of a part.
    """

    key: str
    offset: int
    length: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def has_streams(head: bytes) -> bool:
    """Whether a file that begins with `head` may have streams."""
    return head.startswith((ZIP_MAGIC, GZIP_MAGIC, HDF5_MAGIC))


def find_streams(source: Source) -> list[DeflateStream]:
    """Return the streams of a file, ascending, without overlaps; none if it is malformed."""
    head = source.read(0, 8)
    try:
        if head.startswith(ZIP_MAGIC):
            found = _in_zip(source)
        elif head.startswith(GZIP_MAGIC):
            found = _in_gzip(source)
        elif head.startswith(HDF5_MAGIC):
            found = list(_in_hdf5(source))
        else:
            return []
    except FormatError:
        return []
    found.sort(key=lambda stream: stream.offset)
    if any(one.end > other.offset for one, other in pairwise(found)):
        return []
    return found


def inflate_blocks(source: Source, stream: DeflateStream) -> Iterator[bytes]:
    """Yield the plain bytes of a stream, in blocks.  Raises: FormatError."""
    inflater = zlib.decompressobj(-15)
    size = 0
    for at in range(stream.offset, stream.end, _BLOCK_BYTES):
        data = source.read(at, min(_BLOCK_BYTES, stream.end - at))
        while data:
            try:
                plain = inflater.decompress(data, _SCANNED_BYTES)
            except zlib.error:
                raise FormatError("deflate stream", "is malformed") from None
            data = inflater.unconsumed_tail
            size += len(plain)
            if size > stream.size:
                raise FormatError("deflate stream", "is longer than its size")
            yield plain


def _in_zip(source: Source) -> list[DeflateStream]:
    window = ReadWindow(source, "zip")
    return [
        DeflateStream(member.name, find_data(window, member), member.packed, member.size)
        for member in read_members(window)
        if member.method == _DEFLATED and member.packed >= _LEAST_BYTES
    ]


def _in_gzip(source: Source) -> list[DeflateStream]:
    head = source.read(0, _GZIP_LIMIT_HEADER_BYTES)
    if len(head) < 10:
        return []
    flags, at = head[3], 10
    if flags & 4:
        at += 2 + int.from_bytes(head[at : at + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            at = head.index(b"\0", at) + 1 if b"\0" in head[at:] else len(head)
    at += 2 if flags & 2 else 0
    found = _measure(source, at, -15)
    return [DeflateStream("", at, *found)] if found is not None else []


def _in_hdf5(source: Source) -> Iterator[DeflateStream]:
    count = at = plain_bytes = 0
    while len(data := source.read(at, _SCANNED_BYTES)) > 1:
        pos = 0
        while match := _ZLIB_HEADER.search(data, pos):
            pos = match.start() + 1
            found = _measure(source, at + match.start(), 15, data[match.start() : pos + _BLOCK_BYTES])
            if found is None:
                continue
            pos = match.start() + found[0]
            # Without the header and the checksum of zlib.
            yield DeflateStream(str(count), at + match.start() + 2, found[0] - 6, found[1])
            count += 1
            plain_bytes += found[1]
            if count == LAYOUT_LIMIT_TENSORS or plain_bytes > _PLAIN_LIMIT_FACTOR * source.size:
                return
        at += max(pos, len(data) - 1)


def _measure(source: Source, at: int, wbits: int, first: bytes = b"") -> tuple[int, int] | None:
    """Return the length and the plain size of the stream at an offset; None if it has no end."""
    inflater = zlib.decompressobj(wbits)
    start, size = at, 0
    data = first or source.read(at, _BLOCK_BYTES)
    while data:
        at += len(data)
        try:
            while data and not inflater.eof:
                size += len(inflater.decompress(data, _SCANNED_BYTES))
                data = inflater.unconsumed_tail
        except zlib.error:
            return None
        if inflater.eof:
            length = at - len(inflater.unused_data) - start
            return (length, size) if length >= _LEAST_BYTES else None
        data = source.read(at, _BLOCK_BYTES)
    return None
