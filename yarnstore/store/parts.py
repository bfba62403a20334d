"""Find tensors that are a part of one of another version, or have it as a part, from a few chunks: for
estimates.

Fused tensors have the rows of several after one another, as queries, keys and values.  So a part usually
begins a multiple of its own length from the start or the end of the fused tensor, and a sketch of the numbers
there tells.  `store/matching` compares all rows instead, which reads all of both tensors.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator

from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import Pair, Stretch, iter_pairs
from yarnstore.core.sketch import are_alike
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store.chunks import PackReader
from yarnstore.store.contents import Numbers, Place, StoredContent
from yarnstore.store.matching import find_runs

# Sketches of the base version that are read in all, of one chunk each: 64 take about 50 ms.
_READS = 64
# Tensors that each one is compared with, and places in each.
_TENSORS = 6
_PLACES = 8


def sample_pairs(
    new: Manifest, base: Manifest, reader: PackReader, wanted: Collection[bytes]
) -> Iterator[Pair]:
    """Yield as `matching.find_pairs`, without reading all rows.  Raises: StorageError."""
    ours, theirs = StoredContent(new, reader, wanted), StoredContent(base, reader)
    runs = find_runs(ours, theirs, by_rows=False)
    found = {(run.path, run.start) for run in runs}
    left = [item for item in ours.tensors if item.place not in found]
    runs = sorted([*runs, *_find_parts(ours, theirs, left)])
    return (pair for pair in iter_pairs(new, base, runs) if pair.chunk.chunk_id in wanted)


def _find_parts(ours: StoredContent, theirs: StoredContent, left: list[Numbers]) -> Iterator[Stretch]:
    read: set[Place] = set()
    for item in left:
        if len(read) == _READS:
            return
        for other in _nearest(item, theirs.tensors):
            found = _find_in(other, item, ours, theirs, read)
            if found is not None:
                yield found
                if item.tensor.length <= other.tensor.length:  # all of it is found
                    break


def _find_in(
    other: Numbers, item: Numbers, ours: StoredContent, theirs: StoredContent, read: set[Place]
) -> Stretch | None:
    """Return which numbers of `item` are like ones of `other`, in which few places are `read`."""
    for at, base_at, length in _places(item, other):
        place = other.path, other.tensor.offset + base_at
        if place not in read and len(read) == _READS:
            return None
        read.add(place)
        if _is_alike(ours, theirs, item, at, other, base_at):
            return Stretch(item.path, item.tensor.offset + at, length, *place)
    return None


def _nearest(item: Numbers, others: list[Numbers]) -> list[Numbers]:
    """Return tensors with rows like those of another one, but more or fewer: first those with the same
    numbers in their names, as of a layer, then those nearest in the file.
    """
    if not item.row_bytes:
        return []
    numbers = re.findall(r"\d+", item.tensor.name)

    def distance(other: Numbers) -> tuple[bool, int]:
        is_near = re.findall(r"\d+", other.tensor.name) == numbers
        return not is_near, abs(other.tensor.offset - item.tensor.offset)

    fitting = [
        other
        for other in others
        if other.row_bytes == item.row_bytes
        and other.tensor.dtype is item.tensor.dtype
        and other.tensor.length != item.tensor.length
    ]
    return sorted(fitting, key=distance)[:_TENSORS]


def _places(item: Numbers, other: Numbers) -> list[tuple[int, int, int]]:
    """Return where one of two tensors may be in the other: an offset in each in bytes, and the length."""
    short, long = sorted((item.tensor.length, other.tensor.length))
    from_start, from_end = range(0, long - short + 1, short), range(long - short, -1, -short)
    both = zip(from_start, from_end, strict=True)
    found = list(dict.fromkeys(at for pair in both for at in pair))[:_PLACES]
    return [(0, at, short) if item.tensor.length == short else (at, 0, short) for at in found]


def _is_alike(
    ours: StoredContent, theirs: StoredContent, item: Numbers, at: int, other: Numbers, base_at: int
) -> bool:
    with contextlib.suppress(IntegrityError, NotFoundError):
        one, two = ours.sketch(item, at), theirs.sketch(other, base_at)
        return one is not None and two is not None and are_alike(one, two)
    return False
