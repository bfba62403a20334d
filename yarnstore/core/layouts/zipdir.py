"""Zip directories: the stored members of an archive, and the offsets of their bytes.

PKWARE APPNOTE 6.3, with zip64, on one disk.  Compressed members are listed and have no data offset. The
standard library's zipfile needs a file object and reads everything at once.  Pure.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from yarnstore.core.layouts.limits import HEADER_LIMIT_BYTES, LAYOUT_LIMIT_TENSORS
from yarnstore.core.layouts.window import ReadWindow
from yarnstore.errors import FormatError

MAGIC: Final = b"PK\x03\x04"

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_COMMENT_LIMIT_BYTES: Final = 65535
_ENCRYPTED: Final = 0x2041  # encrypted, strongly encrypted, or with a masked directory
_NO16, _NO32 = 0xFFFF, 0xFFFFFFFF


class Member(NamedTuple):
    """`stored` members have `size` bytes as they are, others `packed` bytes by zip's `method`; `at` is where
    the local header lies."""

    name: str
    at: int
    size: int
    stored: bool
    packed: int = 0
    method: int = 0


def read_members(window: ReadWindow) -> list[Member]:
    """Return the members of the archive, in the directory's order.  Raises: FormatError."""
    what = window.what
    count, size, at = _find_directory(window)
    if size > HEADER_LIMIT_BYTES or count > LAYOUT_LIMIT_TENSORS:
        raise FormatError(
            what,
            f"has a directory of {count} members in {size} bytes; at most {LAYOUT_LIMIT_TENSORS} in "
            f"{HEADER_LIMIT_BYTES} are read",
        )
    directory = window.take(at, size)
    members: list[Member] = []
    names: set[str] = set()
    pos = 0
    for _ in range(count):
        if pos + _ENTRY.size > size:
            raise FormatError(what, "has a directory that ends early")
        (magic, _, _, flags, method, _, _, _, packed, unpacked, name_bytes, extra_bytes, comment_bytes,
         disk, _, _, header_at) = _ENTRY.unpack_from(directory, pos)  # fmt: skip
        pos += _ENTRY.size
        extra_at = pos + name_bytes
        end = extra_at + extra_bytes + comment_bytes
        if magic != b"PK\x01\x02" or end > size or flags & _ENCRYPTED:
            raise FormatError(what, "has an invalid directory entry")
        if _NO32 in (packed, unpacked, header_at) or disk == _NO16:
            extra = directory[extra_at : extra_at + extra_bytes]
            unpacked, packed, header_at = _widen(extra, unpacked, packed, header_at, what)
        try:
            name = directory[pos:extra_at].decode()
        except UnicodeDecodeError:
            raise FormatError(what, "has a member name that is not UTF-8") from None
        if name in names:
            raise FormatError(what, f"has two members named {name[:80]!r}")
        names.add(name)
        stored = method == 0
        if (stored and packed != unpacked) or header_at + _LOCAL.size + name_bytes + packed > at:
            raise FormatError(what, f"has the member {name[:80]!r} at an impossible offset")
        members.append(
            Member(name=name, at=header_at, size=unpacked, stored=stored, packed=packed, method=method)
        )
        pos = end
    return members


def find_data(window: ReadWindow, member: Member) -> int:
    """Return the offset of a member's first byte, compressed or not.  Raises: FormatError."""
    head = _LOCAL.unpack(window.take(member.at, _LOCAL.size))
    magic, method, name_bytes, extra_bytes = head[0], head[3], head[9], head[10]
    name_at = member.at + _LOCAL.size
    name = member.name.encode()
    if magic != MAGIC or method != member.method or window.take(name_at, name_bytes) != name:
        raise FormatError(
            window.what, f"has a header of {member.name[:80]!r} that differs from its directory"
        )
    return name_at + int(name_bytes) + int(extra_bytes)


def _find_directory(window: ReadWindow) -> tuple[int, int, int]:
    """Return the number of members, the size in bytes and the offset of the central directory."""
    what = window.what
    tail_at = max(0, window.size - _END.size - _COMMENT_LIMIT_BYTES)
    tail = window.take(tail_at, window.size - tail_at)
    found = tail.rfind(b"PK\x05\x06")
    if found < 0 or found + _END.size > len(tail):
        raise FormatError(what, "has no zip directory")
    _, disk, start_disk, here, count, size, at, comment_bytes = _END.unpack_from(tail, found)
    end_at = tail_at + found
    if end_at + _END.size + comment_bytes != window.size:
        raise FormatError(what, "has bytes after its zip directory")
    if end_at >= _END64_LOCATOR.size:
        magic, disk64, end64_at, disks = _END64_LOCATOR.unpack(
            window.take(end_at - _END64_LOCATOR.size, _END64_LOCATOR.size)
        )
        if magic == b"PK\x06\x07":
            if disk64 or disks > 1 or end64_at + _END64.size > end_at:
                raise FormatError(what, "has a zip64 directory that cannot be read")
            magic, _, _, _, disk, start_disk, here, count, size, at = _END64.unpack(
                window.take(end64_at, _END64.size)
            )
            if magic != b"PK\x06\x06":
                raise FormatError(what, "has a zip64 directory that cannot be read")
            end_at = end64_at
    if disk or start_disk or here != count or at + size > end_at:
        raise FormatError(what, "has a zip directory that does not fit the file")
    return count, size, at


def _widen(extra: bytes, unpacked: int, packed: int, header_at: int, what: str) -> tuple[int, int, int]:
    """Return sizes and offset; those that do not fit 32 bits are read from the zip64 field, id 1."""
    pos = 0
    while pos + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, pos)
        pos += 4
        if kind == 1:
            field = extra[pos : pos + length]
            wide = [int.from_bytes(field[i : i + 8], "little") for i in range(0, len(field) - 7, 8)]
            wide.reverse()
            values = []
            for narrow in (unpacked, packed, header_at):
                if narrow == _NO32 and not wide:
                    raise FormatError(what, "lacks a zip64 size")
                values.append(wide.pop() if narrow == _NO32 else narrow)
            return values[0], values[1], values[2]
        pos += length
    if _NO32 in (unpacked, packed, header_at):
        raise FormatError(what, "lacks a zip64 size")
    return unpacked, packed, header_at
