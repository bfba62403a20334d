"""Find where the numbers of a version are in an earlier one, by content: tensors with another name, in
another order or file, with rows in front of them, several in one.

Tensors are compared by the sketches of `core/sketch`, of which each takes one chunk of a tensor: with the one
of their name, and then with those of their type and shape.  All rows are compared only for large tensors that
no whole tensor of the earlier version is like.  Small tensors, as adapters have, that follow one another in
both versions are a run.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from itertools import groupby
from typing import TypeAlias

import numpy as np

from yarnstore.core.layouts.limits import GROUP_GAP_LIMIT_BYTES, GROUP_MIN_BYTES, SMALL_TENSOR_BYTES
from yarnstore.core.limits import KIB, MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import Pair, Stretch, iter_pairs
from yarnstore.core.sketch import (
    Floats,
    Words,
    are_alike,
    head_bytes,
    match_rows,
    most_alike,
    row_head_bytes,
    row_runs,
    row_words,
)
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.store.chunks import PackReader
from yarnstore.store.contents import AnyContent, Numbers, Place, StoredContent
from yarnstore.store.pipeline import ordered_map

# A tensor, and the one of the other version that has its name.
_Named: TypeAlias = tuple[Numbers, Numbers | None]

# Tensors or chunks that are read ahead.
_WINDOW = 12
# Rows of either version that are compared: 32 bytes each, and their votes 64.
_ROWS_LIMIT = 1 << 20
# A run of fewer rows is one by chance, if it is not of SMALL_TENSOR_BYTES.
_RUN_ROWS = 4
_BLOCK_BYTES = 1 * MIB
# Small tensors of either version that are compared: 2 KiB for each sketch.
_SMALL_LIMIT = 16_384
# Of longer rows, only the start is read.
_LONG_ROW_BYTES = 64 * KIB


def find_pairs(
    new: Manifest, base: Manifest, reader: PackReader, wanted: Collection[bytes]
) -> Iterator[Pair]:
    """Yield those of `wanted` chunks of a version that are not in `base`, each once, with the chunk of `base`
    that has the same or similar numbers.

    Reads one chunk of each large tensor that has such chunks, and all rows of those that are not found by
    that.  Raises: StorageError.
    """
    runs = find_runs(StoredContent(new, reader, wanted), StoredContent(base, reader))
    return (pair for pair in iter_pairs(new, base, runs) if pair.chunk.chunk_id in wanted)


def find_runs(ours: AnyContent, theirs: StoredContent, *, by_rows: bool = True) -> list[Stretch]:
    """Return runs of numbers that both versions have, equal or similar, whatever their tensors are named.

    A tensor is compared with the one of its name first.  What cannot be read is not found.

    Raises: StorageError.
    """
    return sorted([*_find_large(ours, theirs, by_rows=by_rows), *_find_small(ours, theirs)])


def _find_large(ours: AnyContent, theirs: StoredContent, *, by_rows: bool) -> Iterator[Stretch]:
    names = Names(theirs.tensors)
    named = [(item, names.find(item)) for item in ours.tensors]
    found, left = _check_names(ours, theirs, named)
    found |= _match_wholes(ours, theirs, left, theirs.tensors)
    yield from found.values()
    if by_rows:
        yield from _match_rows(ours, theirs, [item for item in left if item.place not in found])


def _find_small(ours: AnyContent, theirs: StoredContent) -> Iterator[Stretch]:
    """Yield the runs of small tensors that follow one another in both versions.

    Those between two that correspond count too: biases and norms say too little to be compared.
    """
    groups = list(_named_groups(ours.small, Names(theirs.small)))
    if len(groups) <= _SMALL_LIMIT:
        # In the order of their files, of which each chunk is then read once.
        others = [other for group in groups for _, other in _ends(group) if other is not None]
        deque(_sketches(theirs, sorted(others, key=lambda other: other.place)), maxlen=0)
    found: dict[Place, Stretch] = {}
    doubtful: list[_Named] = []
    for group in groups:
        named, left = _check_names(ours, theirs, _ends(group))
        if left:
            doubtful += group
        else:
            found |= {item.place: _run(item, other) for item, other in group if other is not None}
    if max(len(doubtful), len(theirs.small)) <= _SMALL_LIMIT:
        named, left = _check_names(ours, theirs, doubtful)
        found |= named | _match_wholes(ours, theirs, left, theirs.small)
    for run in _joined(ours.small, found):
        # What is before the first chunk of the base in it needs one of its own.
        first = theirs.next_chunk_start(run.base_path, run.base_start) - run.base_start
        skipped = first if first < GROUP_MIN_BYTES else 0
        if run.length - skipped >= GROUP_MIN_BYTES:
            places = run.start + skipped, run.length - skipped, run.base_path, run.base_start + skipped
            yield Stretch(run.path, *places, is_group=True)


def _named_groups(items: list[Numbers], names: Names) -> Iterator[list[_Named]]:
    """Yield tensors that follow one another as their namesakes of the same shape do, or that have none."""

    def find(item: Numbers) -> _Named:
        other = names.find(item)
        return item, other if other is not None and other.kind == item.kind else None

    def distance(named: _Named) -> tuple[str, str, int]:
        item, other = named
        if other is None:
            return "", "", 0
        return item.path, other.path, item.tensor.offset - other.tensor.offset

    for _, group in groupby(map(find, items), distance):
        yield list(group)


def _ends(group: list[_Named]) -> list[_Named]:
    """Return the first and the last tensor that are long enough to be compared: if names lie, as after a
    layer was inserted, the last one is another than its namesake.
    """
    long = [named for named in group if named[0].tensor.length >= head_bytes(named[0].tensor.dtype)]
    return [long[0], long[-1]] if long else group[:1]


def _check_names(
    ours: AnyContent, theirs: StoredContent, named: list[_Named]
) -> tuple[dict[Place, Stretch], list[Numbers]]:
    """Return the runs of tensors that are versions of their namesakes, by place, and the other tensors."""

    def check(one: _Named) -> Stretch | None:
        item, other = one
        return _run(item, other) if other is not None and _is_version_of(ours, theirs, item, other) else None

    found: dict[Place, Stretch] = {}
    left: list[Numbers] = []
    for (item, _), run in zip(named, ordered_map(check, named, window=_WINDOW), strict=True):
        if run is not None:
            found[item.place] = run
        else:
            left.append(item)
    return found, left


def _joined(items: list[Numbers], found: dict[Place, Stretch]) -> Iterator[Stretch]:
    """Yield the runs of tensors, `found` by file and offset, that are at one distance from their bases."""
    run: Stretch | None = None
    end = 0
    for item in items:
        one = found.get(item.place)
        if run is not None and (item.path != run.path or item.tensor.offset - end > GROUP_GAP_LIMIT_BYTES):
            yield run
            run = None
        end = item.tensor.end
        if one is None or one.width != one.base_width:
            continue
        if run is not None and (run.base_path, run.base_at(one.start)) == (one.base_path, one.base_start):
            run = run._replace(length=end - run.start)
            continue
        if run is not None:
            yield run
        run = one._replace(width=1, base_width=1)
    if run is not None:
        yield run


class Names:
    """Tensors by file and name, or by name alone."""

    def __init__(self, tensors: list[Numbers]) -> None:
        self._placed = {(item.path, item.tensor.name): item for item in tensors}
        self._named: dict[str, Numbers] = {}
        for item in tensors:
            self._named.setdefault(item.tensor.name, item)

    def find(self, item: Numbers) -> Numbers | None:
        """Return the tensor with the name of another, if their types fit."""
        name = item.tensor.name
        other = self._placed.get((item.path, name)) or self._named.get(name)
        if other is None or (other.tensor.dtype is not item.tensor.dtype and other.kind != item.kind):
            return None
        return other


def _run(item: Numbers, other: Numbers) -> Stretch:
    ours, theirs = item.tensor, other.tensor
    places = item.path, ours.offset, min(ours.length, theirs.length), other.path, theirs.offset
    if ours.dtype is theirs.dtype:
        return Stretch(*places)
    return Stretch(*places, ours.dtype.width, theirs.dtype.width)._replace(length=ours.length)


def _is_version_of(ours: AnyContent, theirs: StoredContent, item: Numbers, other: Numbers) -> bool:
    """Whether a tensor begins like the one of its name; of another length, also whether it goes on like it.

    A tensor without a sketch counts as a version of the other.
    """
    chunk = theirs.chunk_at(other.path, other.tensor.offset)
    length = min(item.tensor.length, other.tensor.length)
    size = min(head_bytes(item.tensor.dtype), length)
    places = [] if item.tensor.shape == other.tensor.shape else [length - size]
    with contextlib.suppress(IntegrityError, NotFoundError):
        if chunk is None or not ours.has_chunk(chunk, item.path, item.tensor.offset):
            places.append(0)
        for at in places:
            one, two = ours.sketch(item, at), theirs.sketch(other, at)
            if one is not None and two is not None and not are_alike(one, two):
                return False
    return True


def _match_wholes(
    ours: AnyContent, theirs: StoredContent, left: list[Numbers], others: list[Numbers]
) -> dict[Place, Stretch]:
    """Return the runs of tensors that are like one of `others` of the same type and shape, by file and
    offset."""
    kinds = {item.kind for item in left}
    there: dict[object, list[tuple[Numbers, Floats]]] = {}
    for other, sketch in _sketches(theirs, [item for item in others if item.kind in kinds]):
        there.setdefault(other.kind, []).append((other, sketch))
    here: dict[object, list[tuple[Numbers, Floats]]] = {}
    for item, sketch in _sketches(ours, [item for item in left if item.kind in there]):
        here.setdefault(item.kind, []).append((item, sketch))
    found = {}
    for kind, items in here.items():
        candidates = there[kind]
        best = most_alike([sketch for _, sketch in items], [sketch for _, sketch in candidates])
        for (item, _), n in zip(items, best, strict=True):
            if n >= 0:
                found[item.place] = _run(item, candidates[n][0])
    return found


def _sketches(content: AnyContent, items: list[Numbers]) -> Iterator[tuple[Numbers, Floats]]:
    def make(item: Numbers) -> Floats | None:
        with contextlib.suppress(IntegrityError, NotFoundError):
            return content.sketch(item)
        return None

    for item, sketch in zip(items, ordered_map(make, items, window=_WINDOW), strict=True):
        if sketch is not None:
            yield item, sketch


def _match_rows(ours: AnyContent, theirs: StoredContent, left: list[Numbers]) -> Iterator[Stretch]:
    """Yield the runs of rows of tensors that are in tensors with rows of the same type and length; of tensors
    of more than two dimensions, the longest rows that are in others.
    """
    groups = _by_rows(left)
    there = _by_rows(theirs.tensors) if groups else {}
    done: set[Place] = set()
    for kind in sorted(groups.keys() & there.keys(), key=lambda kind: kind[1], reverse=True):
        items = _first_rows([item for item in groups[kind] if item.place not in done])
        for item, run in _match_equal_rows(ours, theirs, items, _first_rows(there[kind])):
            done.add(item.place)
            yield run


def _by_rows(items: list[Numbers]) -> dict[tuple[str, int], list[Numbers]]:
    """Return tensors by the type and the bytes of their rows, as the matrices that they are when their first
    dimensions are joined: experts of a layer are one tensor or many.
    """
    groups: dict[tuple[str, int], list[Numbers]] = {}
    for item in items:
        for matrix in item.matrices():
            if matrix.row_bytes and row_head_bytes(matrix.row_bytes, item.tensor.dtype):
                groups.setdefault((item.tensor.dtype.name, matrix.row_bytes), []).append(matrix)
    return groups


def _match_equal_rows(
    ours: AnyContent, theirs: StoredContent, items: list[Numbers], others: list[Numbers]
) -> Iterator[tuple[Numbers, Stretch]]:
    """Yield the runs of rows, of one type and length, with the tensor that they are in."""
    if not items or not others:
        return
    row_bytes = items[0].row_bytes
    there = np.concatenate(list(_all_words(theirs, others)))
    owners = np.repeat(np.arange(len(others)), [item.tensor.shape[0] for item in others])
    begins = np.cumsum([0, *(item.tensor.shape[0] for item in others)])
    least = _least_rows(row_bytes)
    for item, words in zip(items, _all_words(ours, items), strict=True):
        for start, stop, base in row_runs(match_rows(words, there), owners, least):
            n = int(owners[base])
            yield (
                item,
                Stretch(
                    item.path,
                    item.tensor.offset + start * row_bytes,
                    (stop - start) * row_bytes,
                    others[n].path,
                    others[n].tensor.offset + (base - int(begins[n])) * row_bytes,
                ),
            )


def _least_rows(row_bytes: int) -> int:
    """Return the number of rows from which a run pays and is hardly one by chance."""
    return max(-(-GROUP_MIN_BYTES // row_bytes), min(_RUN_ROWS, -(-SMALL_TENSOR_BYTES // row_bytes)))


def _first_rows(items: list[Numbers]) -> list[Numbers]:
    """Return the first tensors, as far as their rows are few enough to be compared."""
    rows = np.cumsum([item.tensor.shape[0] for item in items])
    return items[: int(np.searchsorted(rows, _ROWS_LIMIT, side="right"))]


def _all_words(content: AnyContent, items: list[Numbers]) -> Iterator[Words]:
    """Yield the words of each tensor's rows; those that cannot be read are 0."""

    def make(item: Numbers) -> Words:
        rows = item.tensor.shape[0]
        try:
            with content.opened(item.path) as source:
                return _read_words(source.read, item)
        except (IntegrityError, NotFoundError):
            return np.zeros((rows, 8), np.uint32)

    return ordered_map(make, items, window=_WINDOW)


def _read_words(read: Callable[[int, int], bytes], item: Numbers) -> Words:
    tensor, row_bytes = item.tensor, item.row_bytes
    head = row_head_bytes(row_bytes, tensor.dtype)
    step = 1 if row_bytes > _LONG_ROW_BYTES else _BLOCK_BYTES // row_bytes
    found = []
    for first in range(0, tensor.shape[0], step):
        count = min(step, tensor.shape[0] - first)
        wanted = head if step == 1 else count * row_bytes
        data = read(tensor.offset + first * row_bytes, wanted)
        if len(data) < wanted:
            raise IntegrityError(item.path, why="was truncated while it was read")
        found.append(row_words(np.frombuffer(data, np.uint8).reshape(count, -1)[:, :head], tensor.dtype))
    return np.concatenate(found)
