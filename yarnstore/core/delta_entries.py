"""The entries of a chunk as a delta against another one.  Pure."""

from __future__ import annotations

from typing import Final

from yarnstore.core.codec import (
    MAPPED_PAYS_SHARE,
    make_deflated_entry,
    make_delta_entry,
    make_entry,
    make_mapped_entry,
)
from yarnstore.core.deflated import PairedStreams
from yarnstore.core.digest import Buffer
from yarnstore.core.layouts.limits import SMALL_TENSOR_BYTES
from yarnstore.core.pack import Entry
from yarnstore.core.pairing import Pair

# A delta must be this much smaller than the chunk's entry in the full pack; otherwise reading the base and
# decoding costs more than the bytes saved.
PAYS_SHARE: Final = 0.9


def encode_pair(
    pair: Pair, data: Buffer, base: Buffer, stored_bytes: int, streams: PairedStreams | None = None
) -> tuple[list[Entry], bool]:
    """Return the entries of a pair, decoded and compared, whose difference saves bytes, each smaller than the
    one before: for clients of all releases, one of encoding 5 and one of encoding 6 if they save more.  Also
    return whether any entry, of these or a larger one, decoded to the chunk.

    `data` and `base` are the bytes of the chunks, `stored_bytes` the size of the chunk's entry in a full
    pack.  Raises: IntegrityError.
    """
    chunk_id, base_id, element = pair.chunk.chunk_id, pair.base_id, pair.chunk.element
    found: list[Entry] = []
    most = PAYS_SHARE * stored_bytes
    is_proven = False

    def take(entry: Entry | None) -> None:
        nonlocal is_proven, most
        if entry is not None:
            is_proven = True
            if entry.stored_bytes <= most:
                found.append(entry)
                most = MAPPED_PAYS_SHARE * entry.stored_bytes

    plain_bytes = None
    if _is_like_base(pair):
        entry = make_delta_entry(chunk_id, data, base_id, base, element)
        plain_bytes = len(data) if entry is None else entry.stored_bytes
        take(entry)
    take(make_mapped_entry(chunk_id, data, base_id, base, (element, pair.base_element), plain_bytes))
    if streams is not None:
        take(make_deflated_entry(chunk_id, data, base_id, base, streams))
    return found, is_proven


def _is_like_base(pair: Pair) -> bool:
    """Whether the elements of a pair need no conversion before their difference."""
    element, other = pair.chunk.element, pair.base_element
    return element is other or "float" not in (element.kind, other.kind)


def make_smallest_delta(pair: Pair, data: Buffer, base: Buffer) -> Entry | None:
    """Return the smallest delta of a pair for clients that read encoding 5, proven; None if it saves too
    little.

    `data` and `base` are the bytes of the chunks.  Raises: IntegrityError.
    """
    chunk_id, base_id, element = pair.chunk.chunk_id, pair.base_id, pair.chunk.element
    plain = make_delta_entry(chunk_id, data, base_id, base, element) if _is_like_base(pair) else None
    # Of a small chunk, packed streams save little and take most of the time.
    is_small = plain is not None and len(data) < SMALL_TENSOR_BYTES
    mapped = make_mapped_entry(
        *(chunk_id, data, base_id, base, (element, pair.base_element)),
        plain.stored_bytes if plain is not None else None,
        sampled=is_small,
    )
    found = [entry for entry in (plain, mapped) if entry is not None]
    return min(found, key=lambda entry: entry.stored_bytes, default=None)


def make_stored_delta(pair: Pair, data: Buffer, base: Buffer) -> Entry | None:
    """Return the smallest delta of a pair for a store, proven; None if it saves too little.

    `data` and `base` are the bytes of the chunks.  Raises: IntegrityError.
    """
    entries, _ = encode_pair(pair, data, base, len(data))
    return entries[-1] if entries else None


def make_stored_entry(pair: Pair, data: Buffer, base: Buffer) -> Entry:
    """Return the entry of a pair for a store, proven: a delta or the whole chunk, whatever is smaller.

    `data` and `base` are the bytes of the chunks.  Raises: IntegrityError.
    """
    delta = make_stored_delta(pair, data, base)
    if delta is not None and 2 * delta.stored_bytes <= len(data):
        return delta  # a whole chunk would take more
    whole = make_entry(pair.chunk.chunk_id, data, pair.chunk.element)
    return whole if delta is None or whole.stored_bytes <= delta.stored_bytes else delta
