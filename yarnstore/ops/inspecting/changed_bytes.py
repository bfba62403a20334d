"""Count how many bytes of two files differ outside of tensors: texts, headers, unknown formats.

If bytes were inserted there is no single answer, so the smallest of four counts is used: byte by byte, line
by line, between the common beginning and the common end, and by chunk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from yarnstore.core.index import Ids, find_ids, sorted_unique
from yarnstore.core.limits import MIB
from yarnstore.ops.inspecting.readers import Chunks, Content

Ranges = list[tuple[int, int]]

# Both sides in memory at once, and their lines.
_READ_LIMIT_BYTES = 16 * MIB
_LINES_LIMIT = 300_000
_PIECE_BYTES = MIB


def gaps(content: Content) -> Ranges:
    """Return the ranges `(offset, length)` of a file that no tensor covers."""
    found: Ranges = []
    at = 0
    for tensor in content.layout.tensors if content.layout is not None else ():
        if tensor.offset > at:
            found.append((at, tensor.offset - at))
        at = max(at, tensor.end)
    if at < content.size_bytes:
        found.append((at, content.size_bytes - at))
    return found


def count_changed_gaps(old: Content, new: Content) -> int:
    """Return how many bytes outside of tensors are on one side only, for the side with more.

    Raises: IntegrityError, StorageError if they cannot be read.
    """
    ours, theirs = gaps(old), gaps(new)
    if max(_total(ours), _total(theirs)) <= _READ_LIMIT_BYTES:
        return count_changed(old.read_all(ours), new.read_all(theirs))
    if len(ours) != len(theirs):
        return max(_total(ours), _total(theirs))
    pairs = zip(ours, theirs, strict=True)
    return sum(max(a[1], b[1]) for a, b in pairs if old.chunks.key(*a) != new.chunks.key(*b))


def count_changed_file(old: Content, new: Content) -> int:
    """Return how many bytes of a file without tensors are on one side only.

    Counts the side with more.  Raises: IntegrityError, StorageError if they cannot be read.
    """
    if old.sha256 == new.sha256:
        return 0
    ours, theirs = _unshared(old, new.chunks), _unshared(new, old.chunks)
    if max(_total(ours), _total(theirs)) <= _READ_LIMIT_BYTES:
        return count_changed(old.read_all(ours), new.read_all(theirs))
    if old.size_bytes == new.size_bytes:
        return sum(_iter_changed(old, new))
    return max(_total(ours), _total(theirs))


def count_changed(old: bytes, new: bytes) -> int:
    """Return how many bytes are in one text only, for the text with more."""
    if old == new:
        return 0
    least = max(len(old), len(new))
    if len(old) == len(new):
        least = _differing(old, new)
    prefix = _common(old, new)
    suffix = min(_common(old[prefix:][::-1], new[prefix:][::-1]), min(len(old), len(new)) - prefix)
    least = min(least, max(len(old), len(new)) - prefix - suffix)
    if old.count(b"\n") + new.count(b"\n") <= _LINES_LIMIT:
        ours, theirs = Counter(old.splitlines(keepends=True)), Counter(new.splitlines(keepends=True))
        # Moved lines are on both sides.
        least = min(least, max(_weight(ours - theirs), _weight(theirs - ours)) or least)
    return least


def _weight(lines: Counter[bytes]) -> int:
    return sum(len(line) * count for line, count in lines.items())


def _differing(old: bytes, new: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8)))


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes at the beginning are equal."""
    length = min(len(one), len(other))
    if not length:
        return 0
    differs = np.frombuffer(one, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(differs.argmax()) if differs.any() else length


def _total(ranges: Ranges) -> int:
    return sum(length for _, length in ranges)


def _unshared(content: Content, other: Chunks) -> Ranges:
    """Return the chunks of a file that another file does not have."""
    ids: Ids = content.chunks.ids
    starts = [*content.chunks.starts, content.size_bytes]
    known, _ = sorted_unique(other.ids)
    return [(starts[n], starts[n + 1] - starts[n]) for n in np.flatnonzero(find_ids(known, ids) < 0).tolist()]


def _iter_changed(old: Content, new: Content) -> Iterator[int]:
    """Yield how many bytes differ between two files of the same size, block by block."""
    for offset in range(0, new.size_bytes, _PIECE_BYTES):
        length = min(_PIECE_BYTES, new.size_bytes - offset)
        if old.chunks.key(offset, length) != new.chunks.key(offset, length):
            yield _differing(bytes(old.read(offset, length)), bytes(new.read(offset, length)))
