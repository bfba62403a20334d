"""Sketches: a few bits of numbers that tell whether two arrays are versions of the same one.

A bit is the top bit of an element, which is the sign of floats and signed integers: training moves weights by
small steps, so nearly all signs stay, while those of unrelated weights agree by chance.  Of a tensor whose
elements have one sign, a bit says whether an element is larger than the median of those compared; rows of one
sign say nothing.  A wrong answer costs bytes and not correctness.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.digest import Buffer
from yarnstore.core.index import Ints
from yarnstore.core.layouts import ElementType

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.uint32]

# Elements at the start of a tensor by which whole tensors are compared.
HEAD_ELEMENTS: Final = 512
# The correlation of the signs from which two heads are alike: 0.3 is 65 % of equal signs.  That of unrelated
# weights has a standard deviation of 0.044.
_ALIKE: Final = 0.3
# A shorter head may be like any other by chance: its correlations have a standard deviation of 0.0625.
_LEAST_ELEMENTS: Final = 256
# With fewer elements of the rarer sign, a head says nothing.
_RARER_SIGN: Final = 16
# Words of 32 signs at the start of a row by which rows are found; one equal word is enough.
_ROW_WORDS: Final = 8
_WORD_BITS: Final = 32
# A word with fewer or more bits set may be equal by chance.
_SET_BITS: Final = (4, 28)
_BITS_OF_BYTE: Final = np.array([n.bit_count() for n in range(256)], np.uint8)
# Heads compared at once: 1024 × 10 000 products are 40 MB.
_HEADS_AT_ONCE: Final = 1024


class RowRun(NamedTuple):
    """Rows `start` to `stop` of one array, and the row of the other that corresponds to the first."""

    start: int
    stop: int
    base_start: int


def head_bytes(element: ElementType) -> int:
    """Return how many bytes at the start of a tensor `head_sketch` uses."""
    return HEAD_ELEMENTS * element.width


def head_sketch(data: Buffer, element: ElementType) -> Floats | None:
    """Return the sketch of the start of a tensor, its signs as a vector of length 1; None if it has none.

    If nearly all elements have one sign, those that are larger than the median count as the other one.
    """
    bits = _signs(np.frombuffer(data, np.uint8), element)[:HEAD_ELEMENTS]
    if len(bits) < _LEAST_ELEMENTS:
        return None
    if _rarer(bits) < _RARER_SIGN:
        # Numbers of one sign are in the order of their bits.
        words = np.frombuffer(data, f"<u{element.width}", len(bits))
        bits = (words > np.sort(words)[len(words) // 2]).view(np.uint8)
        if _rarer(bits) < _RARER_SIGN:
            return None
    signs = bits.astype(np.float32)
    signs -= signs.mean()
    sketch = np.zeros(HEAD_ELEMENTS, np.float32)
    sketch[: len(signs)] = signs / np.sqrt(np.dot(signs, signs))
    return sketch


def are_alike(one: Floats, other: Floats) -> bool:
    """Whether two sketches are of versions of the same numbers."""
    return float(np.dot(one, other)) >= _ALIKE


def most_alike(ours: list[Floats], theirs: list[Floats]) -> list[int]:
    """Return for each of `ours` the index of the sketch in `theirs` that is most alike; -1 if none is."""
    if not theirs:
        return [-1] * len(ours)
    there = np.stack(theirs).T
    found: list[int] = []
    for n in range(0, len(ours), _HEADS_AT_ONCE):
        products = np.stack(ours[n : n + _HEADS_AT_ONCE]) @ there
        best = products.argmax(1)
        alike = products[np.arange(len(best)), best] >= _ALIKE
        found += np.where(alike, best, -1).tolist()
    return found


def row_head_bytes(row_bytes: int, element: ElementType) -> int:
    """Return how many bytes at the start of each row `row_words` uses; 0 if rows are too short."""
    words = min(_ROW_WORDS, row_bytes // element.width // _WORD_BITS)
    return words * _WORD_BITS * element.width


def row_words(rows: NDArray[np.uint8], element: ElementType) -> Words:
    """Return the signs at the start of each row, as words; a word that says nothing is 0.

    `rows` has one row of bytes for each row of the tensor, of the length that `row_head_bytes` returns.
    """
    packed = np.packbits(_signs(rows, element), axis=1)
    count = len(packed[0]) * 8 // _WORD_BITS if len(packed) else 0
    bits = _BITS_OF_BYTE[packed].reshape(len(packed), count, -1).sum(2, dtype=np.uint8)
    words = np.zeros((len(packed), _ROW_WORDS), np.uint32)
    words[:, :count] = np.ascontiguousarray(packed).view(np.uint32)
    low, high = _SET_BITS
    words[:, :count][(bits < low) | (bits > high)] = 0
    return words


def match_rows(ours: Words, theirs: Words) -> Ints:
    """Return for each row of `ours` the row of `theirs` with most equal words; -1 if none has one."""
    votes = np.full(ours.shape, -1, np.int64)
    for n in range(ours.shape[1]):
        rows = np.flatnonzero(theirs[:, n])
        if not len(rows):
            continue
        rows = rows[np.argsort(theirs[rows, n], kind="stable")]
        words = theirs[rows, n]
        at = np.minimum(np.searchsorted(words, ours[:, n]), len(words) - 1)
        equal = (words[at] == ours[:, n]) & (ours[:, n] != 0)
        votes[equal, n] = rows[at[equal]]
    support = np.zeros(votes.shape, np.int8)
    for n in range(_ROW_WORDS):
        support += votes == votes[:, n : n + 1]
    support[votes < 0] = 0
    found: Ints = votes[np.arange(len(votes)), support.argmax(1)]
    return found


def row_runs(matched: Ints, owners: Ints, least_rows: int) -> Iterator[RowRun]:
    """Yield the runs of at least `least_rows` rows that correspond in order, without overlaps.

    `matched` is what `match_rows` returned, `owners` the tensor, as a number, of each row of the base.  A run
    stays within one tensor; in it, at least every second row is matched.  It is extended over rows without a
    match, as far as its tensor goes.
    """
    rows = np.flatnonzero(matched >= 0)
    if not len(rows):
        return
    tensors = int(owners[-1]) + 1
    lines = (matched[rows] - rows) * tensors + owners[matched[rows]]
    _, which, counts = np.unique(lines, return_inverse=True, return_counts=True)
    common = 2 * counts[which] >= least_rows
    rows, lines = rows[common], lines[common]
    edges = np.flatnonzero(np.diff(lines)) + 1
    found = []
    for first, end in zip([0, *edges.tolist()], [*edges.tolist(), len(rows)], strict=True):
        if first == end:
            continue
        start, stop = int(rows[first]), int(rows[end - 1]) + 1
        if stop - start >= least_rows and 2 * (end - first) >= stop - start:
            found.append(RowRun(start, stop, int(matched[start])))
    yield from _extended(found, len(matched), owners)


def _extended(runs: list[RowRun], rows: int, owners: Ints) -> Iterator[RowRun]:
    done = 0
    for n, (start, stop, base_start) in enumerate(runs):
        owner = owners[base_start]
        first, last = np.searchsorted(owners, [owner, owner + 1]).tolist()
        back = min(start - done, base_start - first)
        limit = runs[n + 1].start if n + 1 < len(runs) else rows
        # The next run may begin earlier than its first match; rows before it are its own if they can be.
        if n + 1 < len(runs):
            following = runs[n + 1]
            begins = int(np.searchsorted(owners, owners[following.base_start]))
            limit = max(stop, limit - (following.base_start - begins))
        length = min(limit - (start - back), last - (base_start - back))
        yield RowRun(start - back, start - back + length, base_start - back)
        done = start - back + length


def _rarer(bits: NDArray[np.uint8]) -> int:
    ones = int(np.count_nonzero(bits))
    return min(ones, len(bits) - ones)


def _signs(data: NDArray[np.uint8], element: ElementType) -> NDArray[np.uint8]:
    return np.right_shift(data[..., element.width - 1 :: element.width], 7, dtype=np.uint8)
