"""The entries of chunks that are parts of transposed tensors of the base version, or deltas against such; and
of chunks that continue numbers in the middle of its chunks, or bytes of several of them, whose parts are
bytes of its files as they lie.

`store/transposed_pairs` and `store/matching` find the numbers, `store/transposing` makes the parts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from yarnstore.core.codec import MAPPED_PAYS_SHARE
from yarnstore.core.delta_entries import PAYS_SHARE, make_smallest_delta
from yarnstore.core.index import id_bytes
from yarnstore.core.layouts import ElementType
from yarnstore.core.limits import CHUNK_LIMIT_BYTES, KIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.core.pairing import Pair, PlacedChunk, PlacedFile, Stretch, iter_displaced, place_chunks
from yarnstore.core.transposed import TensorPart
from yarnstore.store.chunks import PackReader
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import lacking_ids
from yarnstore.store.transposed_pairs import TransposedPair
from yarnstore.store.transposing import Transposer

_WINDOW: Final = 12
# Naming a shorter part costs about as much as it saves.
_LEAST_BYTES: Final = 4 * KIB


class TransposedEntries(NamedTuple):
    """The part of a transposed tensor that a chunk is, or is like, and then the delta against it."""

    length: int  #: Of the chunk.
    part: Entry | None = None  #: None if it does not save enough.
    delta: Entry | None = None

    @property
    def stored_bytes(self) -> int:
        return sum(entry.stored_bytes for entry in (self.part, self.delta) if entry is not None)


class _Task(NamedTuple):
    number: int  # of the tensor
    chunk: PlacedChunk
    element: ElementType  # of the part
    part: TensorPart
    length: int  # of the part


class TransposedDelta:
    """The chunks of one version that transposed tensors of another one have, equal or similar, or the middle
    of its chunks.
    """

    def __init__(
        self,
        reader: PackReader,
        new: Manifest,
        base: Manifest,
        pairs: Sequence[TransposedPair],
        runs: Sequence[Stretch],
    ) -> None:
        """`pairs` are the transposed tensors, `runs` are the numbers that correspond as they are."""
        self._reader = reader
        self._transposer = Transposer(lambda _: base, lambda chunk_id: reader.read_base(chunk_id, depth=0))
        self._tasks = [*_iter_tasks(new, base, pairs), *_iter_displaced_tasks(new, base, runs, len(pairs))]
        # Pairs whose first chunk saves nothing.
        self._useless: set[int] = set()

    @property
    def size_bytes(self) -> int:
        return sum(task.chunk.length for task in self._tasks)

    def iter_entries(self, known: Mapping[bytes, int]) -> Iterator[TransposedEntries]:
        """Yield the entries of each chunk; `known` are the sizes of entries that chunks have already.

        Raises: IntegrityError, NotFoundError if a chunk cannot be read; StorageError.
        """
        yield from ordered_map(lambda task: self._encode(task, known), self._tasks, window=_WINDOW)

    def _encode(self, task: _Task, known: Mapping[bytes, int]) -> TransposedEntries:
        chunk, reader = task.chunk, self._reader
        row = reader.row_of(chunk.chunk_id)
        if row < 0 or task.number in self._useless:
            return TransposedEntries(chunk.length)
        stored_bytes = int(reader.table.stored[row])
        most = PAYS_SHARE * stored_bytes
        if chunk.chunk_id in known:
            most = min(most, MAPPED_PAYS_SHARE * known[chunk.chunk_id])
        like = self._transposer.read(task.part, task.length)
        part_id = blake3(like).digest()
        part = self._transposer.make_entry(task.part, part_id, task.length)
        found = TransposedEntries(chunk.length, part)
        if part_id != chunk.chunk_id:
            pair = Pair(chunk, part_id, task.element)
            delta = make_smallest_delta(pair, reader.read_row(row), like)
            found = found._replace(delta=delta, part=None if delta is None else part)
        if found.part is not None and found.stored_bytes <= most:
            return found
        if task.part.start == 0:
            self._useless.add(task.number)
        return TransposedEntries(chunk.length)


def _iter_tasks(new: Manifest, base: Manifest, pairs: Sequence[TransposedPair]) -> Iterator[_Task]:
    """Yield the chunks of `new`, each once, that are within paired tensors, and not in `base`."""
    if not pairs:
        return
    files = {file.path: file for file in new.files}
    numbers = {file.path: n for n, file in enumerate(base.files)}
    lacking = lacking_ids(new, base)
    left = {id_bytes(lacking, n) for n in range(len(lacking))}
    placed: PlacedFile | None = None
    for number, pair in enumerate(sorted(pairs, key=lambda pair: pair.ours.path)):
        if placed is None or placed.path != pair.ours.path:
            placed = place_chunks(files[pair.ours.path])
        ours, theirs = pair.ours.tensor, pair.theirs.tensor
        width, base_width = ours.dtype.width, theirs.dtype.width
        rows, columns = theirs.shape
        tensor = TensorPart(
            manifest=base.digest,
            file=numbers[pair.theirs.path],
            offset=theirs.offset,
            rows=rows,
            columns=columns,
            width=base_width,
        )
        first, stop = bisect_left(placed.starts, ours.offset), bisect_left(placed.starts, ours.end)
        for chunk in placed.chunks[first:stop]:
            start, rest = divmod(chunk.offset - ours.offset, width)
            is_within = chunk.end <= ours.end and not rest and not chunk.length % width
            length = chunk.length // width * base_width
            if is_within and _LEAST_BYTES <= length <= CHUNK_LIMIT_BYTES and chunk.chunk_id in left:
                left.discard(chunk.chunk_id)
                part = tensor._replace(start=start * base_width)
                yield _Task(number, chunk, pair.theirs.tensor.dtype, part, length)


def _iter_displaced_tasks(
    new: Manifest, base: Manifest, runs: Sequence[Stretch], number: int
) -> Iterator[_Task]:
    """Yield the chunks of `new` that continue numbers of `base` in the middle of a chunk, as they lie there,
    or bytes of several of its chunks.

    Their parts are of tensors of one column: the bytes of the base's chunks.  `number` is that of the first.
    """
    numbers = {file.path: n for n, file in enumerate(base.files)}
    placed: dict[str, PlacedFile] = {}
    found = sorted(
        iter_displaced(new, base, runs), key=lambda item: (numbers[item.base_path], item.base_start)
    )
    for n, item in enumerate(found, number):
        if not _LEAST_BYTES <= item.base_length <= CHUNK_LIMIT_BYTES:
            continue
        if item.base_path not in placed:
            placed = {item.base_path: place_chunks(base.files[numbers[item.base_path]])}
        first = placed[item.base_path].chunk_at(item.base_start)
        last = placed[item.base_path].chunk_at(item.base_start + item.base_length - 1)
        if first is None or last is None:
            continue
        part = TensorPart(
            manifest=base.digest,
            file=numbers[item.base_path],
            offset=first.offset,
            rows=last.end - first.offset,
            columns=1,
            width=1,
            start=item.base_start - first.offset,
        )
        yield _Task(n, item.chunk, item.base_element, part, item.base_length)
