"""Packs: entries describe themselves, and arrive in blocks of any size."""

from __future__ import annotations

import struct

import pytest

from yarnstore.core.limits import CHUNK_LIMIT_BYTES
from yarnstore.core.pack import (
    ENTRY_HEADER_BYTES,
    PACK_HEADER,
    PACK_HEADER_BYTES,
    Entry,
    EntryStream,
    check_pack_header,
    encode_entry,
    parse_entry,
)
from yarnstore.errors import FormatError

ENTRIES = [
    Entry(b"a" * 32, 3, 0, b"one"),
    Entry(b"\0" * 32, 9, 1, b"packed"),
    Entry(b"c" * 32, 2, 7, b"", b"b" * 32),
    Entry(b"d" * 32, 1, 255, b"x"),
]


def join(entry: Entry) -> bytes:
    return b"".join(encode_entry(entry))


PACK = PACK_HEADER + b"".join(map(join, ENTRIES))


def offsets() -> list[int]:
    found, at = [], PACK_HEADER_BYTES
    for entry in ENTRIES:
        found.append(at)
        at += entry.stored_bytes
    return found


@pytest.mark.parametrize("cut", range(len(PACK) + 1))
def test_a_pack_cut_at_every_byte_is_read_whole(cut: int) -> None:
    stream = EntryStream()
    read = [*stream.feed(PACK[:cut]), *stream.feed(PACK[cut:])]
    stream.finish()
    assert read == list(zip(offsets(), ENTRIES, strict=True))
    assert stream.offset == len(PACK)


@pytest.mark.parametrize("cut", range(len(PACK)))
def test_a_pack_that_ends_at_any_byte_gives_whole_entries_and_says_where(cut: int) -> None:
    stream = EntryStream()
    read = list(stream.feed(PACK[:cut]))
    ends = [at + entry.stored_bytes for at, entry in zip(offsets(), ENTRIES, strict=True)]
    assert [entry for _, entry in read] == ENTRIES[: sum(end <= cut for end in ends)]
    if cut in (PACK_HEADER_BYTES, *ends):
        stream.finish()
    else:
        with pytest.raises(FormatError, match="cut short"):
            stream.finish()


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_blocks_of_any_size(size: int) -> None:
    stream = EntryStream()
    blocks = [PACK[at : at + size] for at in range(0, len(PACK), size)]
    assert [entry for block in blocks for _, entry in stream.feed(memoryview(block))] == ENTRIES
    stream.finish()


def test_reading_begins_at_any_entry() -> None:
    at = offsets()[2]
    stream = EntryStream(at)
    assert list(stream.feed(PACK[at:])) == list(zip(offsets()[2:], ENTRIES[2:], strict=True))


def test_a_reader_that_stops_early_goes_on_where_it_stopped() -> None:
    stream = EntryStream()
    first = next(stream.feed(PACK))
    assert [first, *stream.feed(b"")] == list(zip(offsets(), ENTRIES, strict=True))


def test_payloads_do_not_change_with_the_readers_buffer() -> None:
    stream = EntryStream()
    buffer = bytearray(PACK)
    read = list(stream.feed(buffer))
    buffer[:] = bytes(len(buffer))
    assert [entry for _, entry in read] == ENTRIES


@pytest.mark.parametrize("entry", ENTRIES)
def test_one_entry_comes_back(entry: Entry) -> None:
    data = join(entry)
    assert len(data) == entry.stored_bytes
    assert parse_entry(data) == entry
    for wrong in (data + b"x", b"", *(data[:cut] for cut in range(len(data)))):
        with pytest.raises(FormatError):
            parse_entry(wrong)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        PACK_HEADER[:-1],
        b"YSTOREIX" + PACK_HEADER[8:],
        b"YSTOREPK" + struct.pack("<HHI", 2, 0, 0),
        b"YSTOREPK" + struct.pack("<HHI", 0, 0, 0),
        b"YSTOREPK" + struct.pack("<HHI", 1, 1, 0),
        b"YSTOREPK" + struct.pack("<HHI", 1, 0, 1),
        b"YSTOREPK" + struct.pack(">HHI", 1, 0, 0),
    ],
)
def test_what_is_no_pack(header: bytes) -> None:
    with pytest.raises(FormatError):
        check_pack_header(header)
    if len(header) == PACK_HEADER_BYTES:
        with pytest.raises(FormatError):
            list(EntryStream().feed(header))


def head(plain: int, stored: int, *, flags: int = 0, reserved: int = 0) -> bytes:
    return struct.pack("<32sIIBBH", b"x" * 32, plain, stored, 0, flags, reserved)


@pytest.mark.parametrize(
    "data",
    [
        head(0, 0),
        head(CHUNK_LIMIT_BYTES + 1, 1),
        head(2**32 - 1, 2**32 - 1),
        head(3, 4) + b"four",
        head(3, 3, flags=2) + b"one",
        head(3, 3, flags=0x80) + b"one",
        head(3, 3, reserved=1) + b"one",
    ],
)
def test_hostile_entries_are_refused_by_their_head_alone(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_entry(data)
    with pytest.raises(FormatError):
        list(EntryStream(PACK_HEADER_BYTES).feed(data[:ENTRY_HEADER_BYTES]))


def test_the_largest_entry_is_read() -> None:
    entry = Entry(b"x" * 32, CHUNK_LIMIT_BYTES, 0, bytes(CHUNK_LIMIT_BYTES), b"y" * 32)
    assert parse_entry(join(entry)) == entry


@pytest.mark.parametrize("zeros", [ENTRY_HEADER_BYTES, 4096])
def test_zeros_in_place_of_entries_are_called_corrupt(zeros: int) -> None:
    for read in (parse_entry, lambda data: list(EntryStream(PACK_HEADER_BYTES).feed(data))):
        with pytest.raises(FormatError, match="is corrupt"):
            read(bytes(zeros))
