"""Finds which tensors of a version are transposed ones of an earlier version, by content.

Only tensors that `store/matching` has not found are compared, with those of the reversed shape, by the signs
at the start of the one and of the first column of the other.  Tensors of more than two dimensions are
compared as the matrices that they are when neighbouring dimensions are joined.  A wrong pair costs time and
not correctness.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from yarnstore.core.pairing import Stretch
from yarnstore.core.sketch import HEAD_ELEMENTS, Floats, head_sketch, most_alike
from yarnstore.core.transposed import may_transpose
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store.contents import AnyContent, Numbers
from yarnstore.store.pipeline import ordered_map

_WINDOW: Final = 12


class TransposedPair(NamedTuple):
    """A tensor, and the tensor of the other version whose rows are its columns, both with two dimensions."""

    ours: Numbers
    theirs: Numbers

    def turned(self) -> TransposedPair:
        """The same pair, seen from the other version."""
        return TransposedPair(self.theirs, self.ours)


def find_transposed(ours: AnyContent, theirs: AnyContent, runs: Sequence[Stretch]) -> list[TransposedPair]:
    """Return the pairs of two versions; `runs` are the numbers that correspond as they are.

    What cannot be read is not found.  Raises: StorageError.
    """
    known: dict[str, list[int]] = {}
    for run in sorted(runs):
        known.setdefault(run.path, []).append(run.start)
    kinds: dict[object, list[Numbers]] = {}
    for item in _matrices(theirs.tensors):
        kinds.setdefault(_reversed_kind(item), []).append(item)
    left = [
        item
        for item in _matrices(ours.tensors)
        if item.kind in kinds and not _has_run(known.get(item.path, []), item)
    ]
    heads: dict[object, list[tuple[Numbers, Floats]]] = {}
    for item, sketch in _sketched(ours, left, _head):
        heads.setdefault(item.kind, []).append((item, sketch))
    found: dict[tuple[str, int], TransposedPair] = {}
    for kind, items in heads.items():
        others = list(_sketched(theirs, kinds[kind], _first_columns))
        best = most_alike([sketch for _, sketch in items], [sketch for _, sketch in others])
        for (item, _), n in zip(items, best, strict=True):
            if n >= 0:
                found.setdefault(item.place, TransposedPair(item, others[n][0]))
    return [found[place] for place in sorted(found)]


def _matrices(items: Iterable[Numbers]) -> Iterator[Numbers]:
    """Yield the tensors that may be transposed, of whole numbers of bytes, as matrices.

    One of more dimensions is several of them: its first dimensions are joined, and its last ones.  So a
    kernel of (width, heads, size) is the transposed matrix of (heads × size, width).
    """
    for item in items:
        dtype = item.tensor.dtype
        if dtype.kind not in ("float", "int", "uint") or dtype.block_bytes != dtype.width:
            continue
        for matrix in item.matrices():
            rows, columns = matrix.tensor.shape
            if min(rows, columns) > 1 and may_transpose(rows, columns, dtype.width):
                yield matrix


def _reversed_kind(item: Numbers) -> object:
    name, shape = item.kind
    return name, shape[::-1]


def _has_run(starts: list[int], item: Numbers) -> bool:
    n = bisect_left(starts, item.tensor.offset)
    return n < len(starts) and starts[n] < item.tensor.end


def _sketched(
    content: AnyContent, items: Sequence[Numbers], make: Callable[[AnyContent, Numbers], Floats | None]
) -> Iterator[tuple[Numbers, Floats]]:
    def try_it(item: Numbers) -> Floats | None:
        with contextlib.suppress(IntegrityError, NotFoundError):
            return make(content, item)
        return None

    for item, sketch in zip(items, ordered_map(try_it, items, window=_WINDOW), strict=True):
        if sketch is not None:
            yield item, sketch


def _head(content: AnyContent, item: Numbers) -> Floats | None:
    return content.sketch(item)


def _first_columns(content: AnyContent, item: Numbers) -> Floats | None:
    """Return the sketch of the transposed tensor, for which only the start of some rows is read."""
    tensor = item.tensor
    rows, columns = tensor.shape
    width = tensor.dtype.width
    taken = min(columns, -(-HEAD_ELEMENTS // rows))
    with content.opened(item.path) as source:
        starts = range(tensor.offset, tensor.end, columns * width)[:HEAD_ELEMENTS]
        data = b"".join(source.read(start, taken * width) for start in starts)
    if len(data) != len(starts) * taken * width:
        raise IntegrityError(item.path, why="was truncated while it was read")
    heads = np.frombuffer(data, f"<u{width}").reshape(len(starts), taken)
    return head_sketch(heads.T.tobytes(), tensor.dtype)
