"""Encodings: no bomb, no cut frame and no faulty compressor gets by."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys

import pytest
import zstandard

from yarnstore.core import codec
from yarnstore.core.codec import (
    Encoding,
    decode_entry,
    decode_payload,
    decode_zstd,
    encode_chunk,
    make_delta_entry,
    make_entry,
)
from yarnstore.core.digest import ChunkId
from yarnstore.core.layouts import BYTES, ELEMENT_TYPES, LIKELY_TYPES
from yarnstore.core.limits import CHUNK_LIMIT_BYTES, MIB, ZSTD_WINDOW_LIMIT_BYTES
from yarnstore.core.pack import Entry
from yarnstore.errors import FormatError, IntegrityError

TEXT = b"the quick brown fox jumps over the lazy dog\n" * 50
FRAME = zstandard.ZstdCompressor(level=3).compress(TEXT)
MAGIC = bytes.fromhex("28b52ffd")


def entry_of(data: bytes) -> Entry:
    return make_entry(ChunkId.of(data).raw, data)


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"\0" * 32,
        TEXT,
        bytes(MIB),
        random.Random(1).randbytes(MIB),
        random.Random(2).randbytes(65 * 1024),
        random.Random(3).randbytes(500_000) + bytes(500_000),
        bytes(CHUNK_LIMIT_BYTES),
    ],
)
def test_chunks_come_back_and_never_grow(data: bytes) -> None:
    entry = entry_of(data)
    assert len(entry.payload) <= len(data)
    assert decode_entry(entry) == data
    assert make_entry(entry.chunk_id, memoryview(data)) == entry


def test_what_compresses_is_compressed_and_noise_is_not() -> None:
    assert encode_chunk(TEXT)[0] is Encoding.ZSTD
    noise = random.Random(4).randbytes(100_000)
    assert encode_chunk(noise) == (Encoding.RAW, noise)


@pytest.mark.parametrize("cut", range(len(FRAME)))
def test_a_frame_cut_at_any_byte_is_refused(cut: int) -> None:
    with pytest.raises(FormatError):
        decode_zstd(FRAME[:cut], len(TEXT), "frame")


@pytest.mark.parametrize(
    "tail", [b"\0", b"x" * 100, FRAME, MAGIC, struct.pack("<II", 0x184D2A50, 4) + b"skip"]
)
def test_bytes_after_the_frame_are_refused(tail: bytes) -> None:
    with pytest.raises(FormatError):
        decode_zstd(FRAME + tail, len(TEXT), "frame")


@pytest.mark.parametrize("size", [0, 1, len(TEXT) - 1, len(TEXT) + 1, CHUNK_LIMIT_BYTES, 2**31])
def test_a_frame_of_another_size_than_recorded_is_refused(size: int) -> None:
    with pytest.raises(FormatError, match="size other than"):
        decode_zstd(FRAME, size, "frame")


def claiming(content: int, *, window_log: int | None = None, dictionary: int = 0) -> bytes:
    """The header of a frame of one empty raw block that claims what is asked for (RFC 8878 §3.1.1)."""
    single = window_log is None
    descriptor = 0b1100_0000 | (0b0010_0000 if single else 0) | (0b11 if dictionary else 0)
    window = b"" if window_log is None else bytes([(window_log - 10) << 3])
    ids = struct.pack("<I", dictionary) if dictionary else b""
    return MAGIC + bytes([descriptor]) + window + ids + struct.pack("<Q", content) + b"\x01\0\0"


BOMBS = [
    claiming(2**31),
    claiming(2**40),
    claiming(2**62),
    claiming(2**64 - 3),
    claiming(2**64 - 2),
    claiming(2**64 - 1),
    MAGIC + b"\xe0" + struct.pack("<Q", 2**34),  # thirteen bytes that ask for 16 GiB
    *(claiming(4, window_log=log) for log in range(24, 42)),
    *(claiming(2**40, window_log=log) for log in (10, 23, 31, 41)),
    claiming(4, dictionary=1),
    claiming(4, dictionary=2**32 - 1),
    zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(256 * MIB)),
    zstandard.ZstdCompressor(level=3).compress(bytes(256 * MIB)),
]


def test_the_bombs_are_small_and_many() -> None:
    assert len(BOMBS) >= 30
    assert max(map(len, BOMBS)) < 32 * 1024
    thirteen = BOMBS[6]
    assert len(thirteen) == 13
    assert zstandard.get_frame_parameters(thirteen).content_size == 2**34


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(bomb: bytes) -> None:
    for size in (1, 4, CHUNK_LIMIT_BYTES):
        with pytest.raises(FormatError):
            decode_payload(Entry(bytes(32), size, Encoding.ZSTD, bomb))


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS")
def test_bombs_take_no_memory() -> None:
    """All bombs at every claimed size, within 64 MiB over what the interpreter has (T13)."""
    script = """
import resource, sys
from yarnstore.core.codec import decode_payload
from yarnstore.core.limits import CHUNK_LIMIT_BYTES
from yarnstore.core.pack import Entry
from yarnstore.errors import FormatError
bombs = [bytes.fromhex(line) for line in sys.stdin.read().split()]
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for bomb in bombs:
    for size in (1, 4, 1 << 20, CHUNK_LIMIT_BYTES):
        try:
            decode_payload(Entry(bytes(32), size, 1, bomb))
        except FormatError as error:
            assert "allocate" not in str(error).lower(), error
        else:
            raise SystemExit("a bomb was decoded")
try:
    bytearray(65 << 20)
except MemoryError:
    print(len(bombs), "refused")
"""
    text = "\n".join(bomb.hex() for bomb in BOMBS)
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ},
    )
    assert done.stdout == f"{len(BOMBS)} refused\n", done.stderr


def test_a_window_at_the_limit_is_allowed_and_beyond_it_is_not() -> None:
    assert ZSTD_WINDOW_LIMIT_BYTES == 1 << 23
    header = claiming(4, window_log=23)[:-3]
    block = b"\x21\0\0" + b"four"  # last, raw, four bytes
    assert decode_zstd(header + block, 4, "frame") == b"four"
    with pytest.raises(FormatError, match="window"):
        decode_zstd(claiming(4, window_log=24)[:-3] + block, 4, "frame")


def test_a_frame_without_a_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    with pytest.raises(FormatError, match="size"):
        decode_zstd(frame, len(TEXT), "frame")


def test_a_part_of_a_transposed_tensor_is_not_decoded_without_the_tensor() -> None:
    with pytest.raises(FormatError, match="whole tensor"):
        decode_payload(Entry(bytes(32), 4, Encoding.TRANSPOSED, b"data", bytes(32)), b"base")


@pytest.mark.parametrize("encoding", [8, 127, 255])
def test_encodings_of_later_releases_are_refused_by_number(encoding: int) -> None:
    with pytest.raises(FormatError, match=f"encoding {encoding}"):
        decode_payload(Entry(bytes(32), 1, encoding, b"x"))


def test_a_raw_chunk_has_its_own_length() -> None:
    for payload in (b"", b"on", b"onex"):
        with pytest.raises(FormatError):
            decode_payload(Entry(bytes(32), 3, Encoding.RAW, payload))


def test_bytes_of_the_same_size_under_anothers_name_are_refused() -> None:
    for data in (TEXT, b"raw"):
        entry = entry_of(data)
        with pytest.raises(IntegrityError) as caught:
            decode_entry(entry._replace(chunk_id=b"\0" * 32))
        assert not isinstance(caught.value, FormatError)


class FaultyCompressor:
    """A compressor at fault in one byte, as memory is (restic#4523)."""

    def __init__(self, what: bytes) -> None:
        self.what = what

    def compress(self, data: bytes) -> bytes:
        return zstandard.ZstdCompressor(level=3).compress(self.what or bytes(data)[:-1] + b"!")


@pytest.mark.parametrize("what", [b"", TEXT[:-1], b"nothing alike"])
def test_a_faulty_compressor_is_caught_before_anything_is_published(
    what: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec._local, "compressor", FaultyCompressor(what), raising=False)
    with pytest.raises(IntegrityError):
        entry_of(TEXT)
    monkeypatch.undo()
    assert decode_entry(entry_of(TEXT)) == TEXT


def test_a_compressor_that_writes_nonsense_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nonsense:
        def compress(self, data: bytes) -> bytes:
            return b"nonsense"

    monkeypatch.setattr(codec._local, "compressor", Nonsense(), raising=False)
    with pytest.raises(IntegrityError):
        entry_of(TEXT)


@pytest.mark.parametrize("encoder", ["encode_delta_planes", "encode_delta_zstd"])
def test_a_delta_that_does_not_decode_to_its_chunk_is_caught(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else could see it before a user does: the base is theirs."""
    base = random.Random(5).randbytes(100_000)
    data = base[:-1] + b"!" if encoder == "encode_delta_zstd" else bytes(byte ^ 1 for byte in base)
    element = BYTES if encoder == "encode_delta_zstd" else LIKELY_TYPES[2]
    real = getattr(codec, encoder)
    monkeypatch.setattr(codec, encoder, lambda data, *rest: real(data[:-1] + b"?", *rest))
    with pytest.raises(IntegrityError):
        make_delta_entry(ChunkId.of(data).raw, data, ChunkId.of(base).raw, base, element)
    monkeypatch.undo()
    entry = make_delta_entry(ChunkId.of(data).raw, data, ChunkId.of(base).raw, base, element)
    assert entry is not None
    assert decode_entry(entry, base) == data


@pytest.mark.parametrize("name", ["f32", "bf16", "i8"])
@pytest.mark.parametrize("changed", [1, 30, 300, 3000])
def test_a_delta_of_few_numbers_is_near_their_own_size(name: str, changed: int) -> None:
    """As a patch of the bytes is: 8 bytes for a number and its place, where many changed; less in planes."""
    chance = random.Random(changed)
    base = b"".join(struct.pack("<f", chance.gauss(0, 0.05)) for _ in range(MIB // 4))
    element = ELEMENT_TYPES[name]
    data = bytearray(base)
    for at in chance.sample(range(MIB // 8), changed):
        data[8 * at : 8 * at + element.width] = chance.randbytes(element.width)
    entry = make_delta_entry(ChunkId.of(data).raw, bytes(data), ChunkId.of(base).raw, base, element)
    assert entry is not None
    assert decode_entry(entry, base) == data
    assert len(entry.payload) < 200 + 8 * changed


def test_threads_do_not_share_a_compressor() -> None:
    from concurrent.futures import ThreadPoolExecutor

    chunks = [bytes([n]) * 10_000 + random.Random(n).randbytes(50_000) for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(entry_of, chunks))
    assert [decode_entry(entry) for entry in entries] == chunks
