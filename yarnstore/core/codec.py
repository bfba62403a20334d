"""Encoding of chunks for storage, and decoding.

docs/format/encodings.md governs it; `core/encodings` has the numeric payloads.  An encoded chunk is never
longer than the chunk.  The decoder checks sizes and windows before it allocates, and hashes all bytes that it
returns.  Pure.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import zstandard
from blake3 import blake3

from yarnstore.core.digest import Buffer
from yarnstore.core.encodings import (
    BLOCKS,
    ELEMENTS,
    decode_delta_planes,
    decode_delta_zstd,
    decode_planes,
    encode_delta_planes,
    encode_delta_zstd,
    encode_planes,
    guess_encoding,
)
from yarnstore.core.layouts import BYTES, ELEMENT_TYPES, LIKELY_TYPES, ElementType
from yarnstore.core.limits import ZSTD_WINDOW_LIMIT_BYTES
from yarnstore.core.pack import Entry
from yarnstore.errors import FormatError, IntegrityError

if TYPE_CHECKING:
    from yarnstore.core.deflated import PairedStreams


class Encoding(IntEnum):
    """The encoding of a stored chunk: one byte in its entry."""

    RAW = 0
    ZSTD = 1
    PLANES = 2
    DELTA_PLANES = 3
    DELTA_ZSTD = 4
    DELTA_MAPPED = 5
    DELTA_DEFLATED = 6
    TRANSPOSED = 7


# Those that a store does not contain: one needs a zlib that makes the publisher's bytes, the other a whole
# tensor of another version (docs/decisions/0041).
NOT_STORED: Final = frozenset({Encoding.DELTA_DEFLATED, Encoding.TRANSPOSED})
DELTAS: Final = frozenset({Encoding.DELTA_PLANES, Encoding.DELTA_ZSTD, Encoding.DELTA_MAPPED}) | NOT_STORED

ZSTD_LEVEL = 3
# An encoding that saves less than this is not used: decoding would cost more than the bytes saved.
_WORTH_SHARE = 0.97
# A mapped delta must be this much smaller than one that is not: a registry has both, for older clients, so
# that 2 % less to download of a full fine-tune would nearly double its deltas.
MAPPED_PAYS_SHARE: Final = 0.95
_PLANE_WIDTHS = (2, 4, 8)
# Windows of a chunk that are compared with its base, and the share of equal ones with which few numbers
# changed: at two in a hundred, three quarters of the windows of 16 numbers are equal.
_WINDOW_BYTES: Final = 64
_WINDOW_STEP_BYTES: Final = 4096
_FEW_CHANGED_SHARE: Final = 0.7
# Level 9 takes ten times as long as level 3, and makes frames up to this much smaller.
_MATCHING_LEVEL: Final = 9
_MATCHING_GAIN: Final = 0.45
# What bytes of an unknown type are compared as.
_SAMPLED_TYPES: Final = ("f32", "bf16", "f16", "i8", "f64")
_TYPE_SAMPLE_BYTES: Final = 32 * 1024
# Types whose deltas are computed as those of another type.
_DELTA_AS: Final = {
    **dict.fromkeys(("u8", "bool", "f8_e4m3", "f8_e5m2", "f8_e4m3fnuz", "f8_e5m2fnuz", "f8_e8m0"), "i8"),
    "u16": "i16",
    "u32": "i32",
    "u64": "i64",
    "c64": "f32",
    "c128": "f64",
}

_local = threading.local()


def _compressor() -> zstandard.ZstdCompressor:
    # zstd objects are not thread-safe.
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    compressor: zstandard.ZstdCompressor = _local.compressor
    return compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_LIMIT_BYTES)
    decompressor: zstandard.ZstdDecompressor = _local.decompressor
    return decompressor


def encode_chunk(data: Buffer, element: ElementType = BYTES) -> tuple[Encoding, Buffer]:
    """Return the encoding and the payload for a chunk without a base, never longer than the chunk.

    Floats are split into byte planes; for other types a sample decides.
    """
    encoding, payload = Encoding.RAW, None
    if element.kind == "float" and element.width in _PLANE_WIDTHS:
        encoding, payload = Encoding.PLANES, encode_planes(data, element.width)
    else:
        guess = guess_encoding(data)
        if guess.kind == "planes":
            encoding, payload = Encoding.PLANES, encode_planes(data, guess.width, guess.phase)
        elif guess.kind == "zstd":
            encoding, payload = Encoding.ZSTD, _compressor().compress(data)
    if payload is None or len(payload) > _WORTH_SHARE * len(data):
        return Encoding.RAW, data
    return encoding, payload


def make_entry(chunk_id: bytes, data: Buffer, element: ElementType = BYTES) -> Entry:
    """Encode a chunk without a base, decode it and compare (restic#4523).

    Raises: IntegrityError if it differs, because the compressor or the memory is faulty.
    """
    encoding, payload = encode_chunk(data, element)
    entry = Entry(chunk_id, len(data), encoding, payload)
    if encoding is not Encoding.RAW:
        _prove(entry, None)
    return entry


def _prove(entry: Entry, base: Buffer | None) -> None:
    # By hash: comparing bytes with a memoryview holds the GIL and has a tenth of the speed.
    if blake3(decode_payload(entry, base)).digest() != entry.chunk_id:
        raise IntegrityError("an encoded chunk", why="does not decode to the bytes that were encoded")


def make_delta_entry(
    chunk_id: bytes, data: Buffer, base_id: bytes, base: Buffer, element: ElementType = BYTES
) -> Entry | None:
    """Encode a chunk as a delta against a base chunk and verify it; None if that saves too little.

    Raises: IntegrityError if it does not decode to the chunk.
    """
    encoding, payload = _encode_delta(data, base, element)
    return _delta_entry(Entry(chunk_id, len(data), encoding, payload or b"", base_id), base)


def make_mapped_entry(
    chunk_id: bytes,
    data: Buffer,
    base_id: bytes,
    base: Buffer,
    elements: tuple[ElementType, ElementType],
    plain_bytes: int | None = None,
    *,
    sampled: bool = True,
) -> Entry | None:
    """Encode a chunk as a mapped delta against a base chunk and verify it; None if it saves too little, or,
    if it is `sampled`, if a sample says that it saves less than a delta that is not mapped.

    `elements` are the types of the chunk and of the base; `plain_bytes` is the size of a delta that is not
    mapped, if it is known.  Raises: IntegrityError if it does not decode to the chunk.
    """
    payload = _encode_mapped(data, base, elements, plain_bytes, sampled=sampled)
    return _delta_entry(Entry(chunk_id, len(data), Encoding.DELTA_MAPPED, payload or b"", base_id), base)


def make_deflated_entry(
    chunk_id: bytes, data: Buffer, base_id: bytes, base: Buffer, streams: PairedStreams
) -> Entry | None:
    """Encode a chunk as the difference of what its streams and its base's inflate to, and verify it; None if
    zlib does not make these streams, or if it saves too little.

    Raises: IntegrityError if it does not decode to the chunk.
    """
    from yarnstore.core.deflated_encoder import encode_deflated  # late: few files have such chunks

    payload = encode_deflated(data, base, streams)
    return _delta_entry(Entry(chunk_id, len(data), Encoding.DELTA_DEFLATED, payload or b"", base_id), base)


def encode_difference(data: Buffer, base: Buffer) -> tuple[Encoding, Buffer]:
    """Return the encoding and the payload for bytes of an unknown type that begin with a whole element, with
    or without the base, whatever is smallest; never longer than the bytes.

    A sample of both decides between the types.
    """
    best, smallest = encode_chunk(data)
    element = _likely_element(data, base)
    encoding, payload = _encode_delta(data, base, element)
    plain_bytes = len(data) if payload is None else len(payload)
    if payload is not None and plain_bytes < len(smallest):
        best, smallest = encoding, payload
    payload = _encode_mapped(data, base, (element, element), plain_bytes, sampled=False)
    if payload is not None and len(payload) < len(smallest):
        best, smallest = Encoding.DELTA_MAPPED, payload
    return best, smallest


def _likely_element(data: Buffer, base: Buffer) -> ElementType:
    """Return the type in which the difference of a sample is smallest; BYTES if it is not one of numbers."""
    start = min(len(data), len(base)) // 2 // 8 * 8
    part, of_base = (memoryview(one)[start : start + _TYPE_SAMPLE_BYTES] for one in (data, base))
    if not of_base:
        return BYTES
    payload = encode_delta_zstd(part, of_base)
    smallest, likely = len(part) if payload is None else len(payload), BYTES
    for name in _SAMPLED_TYPES:
        payload = encode_delta_planes(part, of_base, name)
        if payload is not None and len(payload) < smallest:
            smallest, likely = len(payload), ELEMENT_TYPES[name]
    return likely


def _encode_mapped(
    data: Buffer,
    base: Buffer,
    elements: tuple[ElementType, ElementType],
    plain_bytes: int | None,
    *,
    sampled: bool = True,
) -> bytes | None:
    # Late: it needs numpy.
    from yarnstore.core.encodings.mapped import (
        SAMPLE_SHARE,
        SAMPLED,
        SORT_SHARE,
        encode_mapped,
        find_mapping,
        may_pay,
    )

    name, base_name = (
        _delta_element(one, element) for one, element in zip((data, base), elements, strict=True)
    )
    if not name or not base_name:
        return None
    mapping = find_mapping(data, name, base_name)
    if mapping is None and name != base_name:
        return None
    sort = None
    if mapping is None and sampled:
        if plain_bytes is not None and not may_pay(data, base, name, plain_bytes):
            return None
        part, of_base = (bytes(memoryview(one)[SAMPLED]) for one in (data, base))
        plain, ordered, other = (
            len(payload) if payload is not None else len(part)
            for payload in (
                encode_delta_planes(part, of_base, name),
                encode_mapped(part, of_base, name, None, sort=True),
                encode_mapped(part, of_base, name, None, sort=False),
            )
        )
        sort = ordered < SORT_SHARE * other
        if min(ordered, other) > SAMPLE_SHARE * plain:
            return None
    return encode_mapped(data, base, name, mapping, sort=sort)


def _delta_entry(entry: Entry, base: Buffer) -> Entry | None:
    """Verify a delta and return it; None if it has no payload, or one that saves too little."""
    if not entry.payload or len(entry.payload) > _WORTH_SHARE * entry.plain_bytes:
        return None
    _prove(entry, base)
    return entry


def _encode_delta(data: Buffer, base: Buffer, element: ElementType) -> tuple[Encoding, bytes | None]:
    name = _delta_element(data, element)
    if not name:
        return Encoding.DELTA_ZSTD, encode_delta_zstd(data, base)
    payload = encode_delta_planes(data, base, name)
    if payload is None or not _few_changed(data, base):
        return Encoding.DELTA_PLANES, payload
    # Sorted differences are far from each other, and each number that changed is in all planes.
    payload = min(payload, encode_delta_planes(data, base, name, sort=False) or payload, key=len)
    frame = encode_delta_zstd(data, base)
    if frame is not None and len(frame) * _MATCHING_GAIN < len(payload):
        frame = min(frame, encode_delta_zstd(data, base, _MATCHING_LEVEL) or frame, key=len)
    if frame is None or len(payload) <= len(frame):
        return Encoding.DELTA_PLANES, payload
    return Encoding.DELTA_ZSTD, frame


def _few_changed(data: Buffer, base: Buffer) -> bool:
    """Whether most of a chunk is equal to its base, by windows of both."""
    one, other = memoryview(data), memoryview(base)
    starts = range(0, len(one), _WINDOW_STEP_BYTES)
    equal = sum(one[at : at + _WINDOW_BYTES] == other[at : at + _WINDOW_BYTES] for at in starts)
    return equal >= _FEW_CHANGED_SHARE * len(starts)


def _delta_element(data: Buffer, element: ElementType) -> str:
    """Return the type as which the difference of a chunk is computed; empty if it is not numbers."""
    name = _DELTA_AS.get(element.name, element.name)
    if name not in ELEMENTS and name not in BLOCKS:
        name = "i8" if element.kind == "block" else ""
        guess = guess_encoding(data)
        if not name and guess.kind == "planes" and guess.phase == 0:
            name = LIKELY_TYPES[guess.width].name
    return name


def decode_payload(entry: Entry, base: Buffer | None = None) -> Buffer:
    """Return the decoded bytes of an entry without verifying them; a delta needs the bytes of its base.

    Raises: FormatError.
    """
    encoding, payload, plain_bytes = entry.encoding, entry.payload, entry.plain_bytes
    if (encoding in DELTAS) != bool(entry.base):
        raise FormatError("chunk", "has a base but is not a delta, or is a delta without a base")
    if encoding == Encoding.RAW:
        if len(payload) != plain_bytes:
            raise FormatError("raw chunk", "does not have the length that its entry gives")
        return payload
    if encoding == Encoding.ZSTD:
        return decode_zstd(payload, plain_bytes, "zstd chunk")
    if encoding == Encoding.PLANES:
        return decode_planes(payload, plain_bytes)
    if encoding == Encoding.TRANSPOSED:
        raise FormatError("transposed chunk", "needs a whole tensor of another version, and not one base")
    if encoding in DELTAS and base is None:
        raise FormatError("delta", f"needs its base {entry.base.hex()[:12]}…")
    if encoding == Encoding.DELTA_PLANES and base is not None:
        return decode_delta_planes(payload, base, plain_bytes)
    if encoding == Encoding.DELTA_ZSTD and base is not None:
        return decode_delta_zstd(payload, base, plain_bytes)
    if encoding == Encoding.DELTA_MAPPED and base is not None:
        from yarnstore.core.encodings.mapped import decode_mapped  # late: it needs numpy

        return decode_mapped(payload, base, plain_bytes)
    if encoding == Encoding.DELTA_DEFLATED and base is not None:
        from yarnstore.core.deflated import decode_deflated  # late: few files have such chunks

        return decode_deflated(payload, base, plain_bytes)
    raise FormatError("chunk", f"has encoding {encoding}, which this release cannot read")


def pack_zstd(plain: Buffer) -> bytes:
    """Return the zstd frame of some bytes, which states their number."""
    return _compressor().compress(plain)


def decode_zstd(
    frame: Buffer, plain_bytes: int, what: str, *, window_limit_bytes: int = ZSTD_WINDOW_LIMIT_BYTES
) -> bytes:
    """Decode one zstd frame of a known size.

    The sizes in the frame's header are checked before anything is allocated: a frame of thirteen bytes can
    request gigabytes (python-zstandard#332).  Raises: FormatError.
    """
    try:
        claims = zstandard.get_frame_parameters(frame)
        # content_size is 2^64-1 if the frame does not contain it
        if claims.content_size != plain_bytes:
            raise FormatError(what, "declares a size other than the recorded one")
        if claims.window_size > window_limit_bytes or claims.dict_id:
            raise FormatError(what, "needs too large a window, or a dictionary")
        plain = _decompressor().decompress(frame, max_output_size=plain_bytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(what, f"is not a complete zstd frame: {error}") from None
    if len(plain) != plain_bytes:
        raise FormatError(what, "decodes to a size other than the recorded one")
    return plain


def decode_entry(entry: Entry, base: Buffer | None = None) -> Buffer:
    """Return the verified bytes of an entry's chunk; a delta needs the bytes of its base.

    Raises: IntegrityError if their hash is not the entry's id, FormatError if they cannot be decoded.
    """
    return verified(entry.chunk_id, decode_payload(entry, base))


def verified(chunk_id: bytes, data: Buffer) -> Buffer:
    """Return `data` after hashing it.  Raises: IntegrityError if it is not the chunk of that id."""
    digest = blake3(data).digest()
    if digest != chunk_id:
        raise IntegrityError("chunk", expected=f"blake3:{chunk_id.hex()}", got=f"blake3:{digest.hex()}")
    return data
