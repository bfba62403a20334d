"""Indexes: a cache that may lie, so everything it says is checked before it is believed."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from blake3 import blake3

from yarnstore.core.digest import PackId
from yarnstore.core.index import (
    PackIndex,
    SortedIds,
    distinct_ids,
    encode_index,
    find_ids,
    id_bytes,
    parse_index,
    sorted_unique,
    without_ids,
)
from yarnstore.core.limits import CHUNK_LIMIT_BYTES, PACK_LIMIT_BYTES, PACK_LIMIT_ENTRIES
from yarnstore.core.pack import ENTRY_LIMIT_BYTES
from yarnstore.errors import FormatError

PACK = PackId(b"p" * 32)
Row = tuple[bytes, int, int, int, int, bytes]
ROWS: list[Row] = [
    (b"b" * 32, 16, 60, 16, 0, b""),
    (b"a" + b"\0" * 31, 76, 50, 100, 1, b""),
    (b"\0" * 32, 126, 44, 1, 7, b"base".ljust(32, b"\0")),
    (b"b" * 32, 170, 44, 1, 9, b""),
]


def raw_index(
    rows: list[Row],
    *,
    magic: bytes = b"YSTOREIX",
    version: int = 1,
    flags: int = 0,
    count: int | None = None,
    pack_bytes: int = 1000,
    reserved: int = 0,
    extra: bytes = b"",
) -> bytes:
    """An index as a hostile writer makes it: rows as given, and a check that is right."""
    parts = [
        struct.pack(
            "<8sHHI32sQQ",
            magic,
            version,
            flags,
            len(rows) if count is None else count,
            PACK.raw,
            pack_bytes,
            reserved,
        )
    ]
    parts += [row[0] for row in rows]
    for column, code in ((1, "<Q"), (2, "<I"), (3, "<I"), (4, "<B")):
        parts += [struct.pack(code, row[column]) for row in rows]
    if flags & 1:
        parts += [row[5].ljust(32, b"\0") for row in rows]
    body = b"".join(parts) + extra
    return body + blake3(body).digest()


GOOD = raw_index([(b"a" * 32, 16, 44, 1, 0, b""), (b"b" * 32, 60, 45, 2, 0, b"")])


def test_an_index_comes_back() -> None:
    index = PackIndex.from_rows(PACK, 300, ROWS)
    assert len(index) == 3
    data = encode_index(index)
    again = parse_index(data, pack=PACK)
    assert [id_bytes(again.ids, n) for n in range(3)] == [ROWS[2][0], ROWS[1][0], ROWS[0][0]]
    assert again.offsets.tolist() == [126, 76, 16], "of equal ids the first counts"
    assert again.stored.tolist() == [44, 50, 60]
    assert again.plain.tolist() == [1, 100, 16]
    assert again.encodings.tolist() == [7, 1, 0]
    assert [id_bytes(again.bases, n) for n in range(3)] == [ROWS[2][5], b"\0" * 32, b"\0" * 32]
    assert again.pack_bytes == 300
    assert encode_index(again) == data


def test_an_empty_index_comes_back() -> None:
    data = encode_index(PackIndex.from_rows(PACK, 16, []))
    assert len(data) == 64 + 32
    assert len(parse_index(data, pack=PACK)) == 0


def test_the_hostile_writer_writes_sound_indexes_too() -> None:
    assert parse_index(GOOD).offsets.tolist() == [16, 60]


@pytest.mark.parametrize("at", range(len(GOOD)))
def test_every_changed_byte_is_seen(at: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= 0x01
    with pytest.raises(FormatError):
        parse_index(bytes(data))
    with pytest.raises(FormatError):
        parse_index(GOOD[:at])


def row(offset: int, stored: int, plain: int, *, name: bytes = b"a" * 32) -> Row:
    return (name, offset, stored, plain, 0, b"")


@pytest.mark.parametrize(
    "data",
    [
        raw_index([], magic=b"YSTOREPK"),
        raw_index([], version=2),
        raw_index([], version=0),
        raw_index([], flags=2),
        raw_index([], flags=0x8000),
        raw_index([], reserved=1),
        raw_index([], count=1),
        raw_index([], count=2**32 - 1),
        raw_index([], extra=b"\0"),
        raw_index([], pack_bytes=PACK_LIMIT_BYTES + 1),
        raw_index([], pack_bytes=2**64 - 1),
        raw_index([row(16, 44, 1)], count=0),
        raw_index([row(15, 44, 1)]),
        raw_index([row(0, 44, 1)]),
        raw_index([row(16, 43, 1)]),
        raw_index([row(16, 0, 1)]),
        raw_index([row(16, 44, 0)]),
        raw_index([row(16, 44, CHUNK_LIMIT_BYTES + 1)]),
        raw_index([row(16, 44, 2**32 - 1)]),
        raw_index([row(957, 44, 1)]),
        raw_index([row(16, 2**32 - 1, 1)]),
        raw_index([row(2**63, 44, 1)]),
        raw_index([row(2**64 - 44, 44, 1)]),
        raw_index([row(2**64 - 1, 2**32 - 1, 1)]),
        raw_index([row(16, 44, 1), row(60, 44, 1)]),
        raw_index([row(16, 44, 1, name=b"b" * 32), row(60, 44, 1, name=b"a" * 32)]),
        raw_index([row(16, 44, 1, name=b"\0" * 32), row(60, 44, 1, name=b"\0" * 32)]),
        b"",
        bytes(95),
        bytes(96),
    ],
)
def test_hostile_indexes(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_index(data)


def test_rows_at_the_very_edges_are_read() -> None:
    assert len(parse_index(raw_index([row(16, 984, CHUNK_LIMIT_BYTES)]))) == 1
    assert len(parse_index(raw_index([row(956, 44, 1)]))) == 1


def test_more_entries_than_a_pack_may_have() -> None:
    count = PACK_LIMIT_ENTRIES + 1
    body = struct.pack("<8sHHI32sQQ", b"YSTOREIX", 1, 0, count, PACK.raw, PACK_LIMIT_BYTES, 0) + bytes(
        count * 49
    )
    with pytest.raises(FormatError, match="does not have the length"):
        parse_index(body + blake3(body).digest())


def test_an_index_of_another_pack_is_refused() -> None:
    with pytest.raises(FormatError, match="another pack"):
        parse_index(GOOD, pack=PackId(b"q" * 32))


def test_lookups_with_nothing_in_them() -> None:
    none = np.empty(0, "S32")
    some = np.array([b"a" * 32], "S32")
    assert find_ids(none, some).tolist() == [-1]
    assert find_ids(some, none).tolist() == []
    assert len(sorted_unique(none)[0]) == 0


@pytest.mark.parametrize(
    ("stored", "plain", "base", "good"),
    [
        (44 + 1000, 1000, b"", True),
        (44 + 1001, 1000, b"", False),
        (76 + 1000, 1000, b"b" * 32, True),
        (77 + 1000, 1000, b"b" * 32, False),
        (ENTRY_LIMIT_BYTES, CHUNK_LIMIT_BYTES, b"b" * 32, True),
        (200 << 20, 1000, b"", False),
    ],
)
def test_no_entry_is_larger_than_its_chunk_allows(stored: int, plain: int, base: bytes, good: bool) -> None:
    made = encode_index(PackIndex.from_rows(PACK, 250 << 20, [(b"a" * 32, 16, stored, plain, 0, base)]))
    if good:
        assert len(parse_index(made)) == 1
    else:
        with pytest.raises(FormatError, match="larger than its chunk"):
            parse_index(made)


def test_one_id_is_found_as_many_are() -> None:
    twins = [b"\1" * 8 + bytes([n]) * 24 for n in (0, 2, 4)]
    ids = np.array(sorted([*twins, b"\0" * 32, b"\xff" * 32]), "S32")
    table = SortedIds(ids)
    for wanted in (
        *twins,
        b"\0" * 32,
        b"\xff" * 32,
        b"\1" * 8 + b"\3" * 24,
        b"\xfe" * 32,
        b"\0" * 31 + b"\1",
    ):
        assert table.find_one(wanted) == table.find(np.array([wanted], "S32"))[0]
    assert SortedIds(ids[:0]).find_one(twins[0]) == -1


@pytest.mark.parametrize(
    "ids", [[], [b"b"], [b"b", b"a", b"b"], [b"", b"a" * 8 + b"z", b"", b"a" * 8 + b"b"]]
)
def test_distinct_ids_are_those_of_numpy(ids: list[bytes]) -> None:
    given = np.array([one.ljust(32, b"\0") for one in ids], "S32")
    assert distinct_ids(given).tolist() == np.unique(given).tolist()


def test_ids_are_found_in_any_order_they_are_asked_for() -> None:
    random = np.random.default_rng(0)
    ids = np.frombuffer(random.bytes(32 * 5000), "S32")
    table, _ = sorted_unique(ids)
    wanted = np.concatenate([ids[random.permutation(5000)], np.frombuffer(random.bytes(32 * 50), "S32")])
    assert SortedIds(table).find(wanted).tolist() == find_ids(table, wanted).tolist()


def test_without_ids_copies_nothing_if_nothing_is_left_out() -> None:
    ids = np.array([b"a" * 32, b"b" * 32], "S32")
    assert without_ids(ids, np.array([False, False])) is ids
    assert without_ids(ids, np.array([True, False])).tolist() == [b"b" * 32]
