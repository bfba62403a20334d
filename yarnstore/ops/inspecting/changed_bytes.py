"""How much of two files' bytes differs where they are not numbers: texts, headers, anything unknown.

There is no one answer when bytes were inserted, so the least of what can be shown counts: by place, by
line, between the parts that both begin and end with, by chunk.
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
    """The ranges `(offset, length)` of a file that no tensor covers."""
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
    """Bytes outside of tensors that one side has and the other has not, of the side that has more.

    Raises: IntegrityError, StorageError where they cannot be read.
    """
    ours, theirs = gaps(old), gaps(new)
    if max(_total(ours), _total(theirs)) <= _READ_LIMIT_BYTES:
        return count_changed(old.read_all(ours), new.read_all(theirs))
    if len(ours) != len(theirs):
        return max(_total(ours), _total(theirs))
    pairs = zip(ours, theirs, strict=True)
    return sum(max(a[1], b[1]) for a, b in pairs if old.chunks.key(*a) != new.chunks.key(*b))


def count_changed_file(old: Content, new: Content) -> int:
    """Bytes of a file without tensors that one side has and the other has not, of the side that has more.

    Raises: IntegrityError, StorageError where they cannot be read.
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
    """Bytes that one text has and the other has not, of the one that has more."""
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
        # Lines that only changed places are no bytes of either side alone.
        least = min(least, max(_weight(ours - theirs), _weight(theirs - ours)) or least)
    return least


def _weight(lines: Counter[bytes]) -> int:
    return sum(len(line) * count for line, count in lines.items())


def _differing(old: bytes, new: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8)))


def _common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    length = min(len(one), len(other))
    if not length:
        return 0
    differs = np.frombuffer(one, np.uint8, length) != np.frombuffer(other, np.uint8, length)
    return int(differs.argmax()) if differs.any() else length


def _total(ranges: Ranges) -> int:
    return sum(length for _, length in ranges)


def _unshared(content: Content, other: Chunks) -> Ranges:
    """The chunks of a file that are nowhere in another."""
    ids: Ids = content.chunks.ids
    starts = [*content.chunks.starts, content.size_bytes]
    known, _ = sorted_unique(other.ids)
    return [(starts[n], starts[n + 1] - starts[n]) for n in np.flatnonzero(find_ids(known, ids) < 0).tolist()]


def _iter_changed(old: Content, new: Content) -> Iterator[int]:
    """Bytes that differ, place by place, of two files of one size."""
    for offset in range(0, new.size_bytes, _PIECE_BYTES):
        length = min(_PIECE_BYTES, new.size_bytes - offset)
        if old.chunks.key(offset, length) != new.chunks.key(offset, length):
            yield _differing(bytes(old.read(offset, length)), bytes(new.read(offset, length)))
