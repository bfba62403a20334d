"""Delta packs: a version's chunks as deltas against another version's.

A delta pack is optional: the full packs contain all chunks, and a chunk whose delta saves nothing is not in
it.  `store/matching` finds corresponding numbers, `core/pairing` pairs chunks, `core/codec` encodes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from yarnstore.core.codec import Encoding, decode_payload, verified
from yarnstore.core.deflate import compressor_id
from yarnstore.core.deflated import PairedStreams
from yarnstore.core.delta_entries import encode_pair
from yarnstore.core.digest import Buffer, PackId, Sha256
from yarnstore.core.index import Ids, find_ids
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry
from yarnstore.core.pairing import Pair, Stretch, iter_pairs
from yarnstore.errors import IntegrityError, NotFoundError, StorageError
from yarnstore.ops.publishing.deflated import DeflatedPair, iter_deflated_pairs
from yarnstore.progress import Meter, OnProgress
from yarnstore.registry.entries import BASED, DEFLATED, MAPPED, PLAIN, TRANSPOSED
from yarnstore.store.chunks import PackReader, load_indexes
from yarnstore.store.contents import StoredContent
from yarnstore.store.layout import PackFolder
from yarnstore.store.matching import find_runs
from yarnstore.store.packs import PackWriter
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.places import ChunkTable, lacking_ids
from yarnstore.store.transposed_entries import TransposedDelta, TransposedEntries
from yarnstore.store.transposed_pairs import TransposedPair, find_transposed

_WINDOW = 12
_KEY_OF = {Encoding.DELTA_MAPPED: MAPPED, Encoding.DELTA_DEFLATED: DEFLATED}
# How many pairs of chunks tell how large a delta would be.
_SAMPLED = 32


# Deltas as a registry lists them, by key.
Listed: TypeAlias = dict[str, list[dict[str, Any]]]


def join_listed(parts: Iterable[Listed]) -> Listed:
    """Return the deltas of several versions as one entry lists them."""
    joined: Listed = {}
    for part in parts:
        for key, items in part.items():
            joined.setdefault(key, []).extend(items)
    return joined


def listed_bytes(listed: Listed) -> int:
    """Return the size of the packs of deltas, in bytes."""
    return sum(item["size_bytes"] for items in listed.values() for item in items)


@dataclass(frozen=True)
class WrittenDeltas:
    """The delta packs from one version to another, with the bytes of each, by the key that lists them.

    Those of keys other than `PLAIN` have entries that older clients cannot read; because of them, entries of
    the keys before that have `replaced_bytes` are not downloaded.  `model` is the one that they lead to,
    `parts` are the packs with parts of transposed tensors.
    """

    model: str
    base: Manifest
    packs: dict[str, list[tuple[PackId, int]]]
    replaced_bytes: dict[str, int]
    parts: list[tuple[PackId, int]]

    def listed(self) -> Listed:
        """Return them as the entry of the version that they lead to lists them, by key."""
        base = {"base": self.base.version, "base_manifest": str(self.base.digest)}
        if self.base.model != self.model:
            base = {"base_model": self.base.model, **base}
        found = {
            key: [{**base, "pack": str(pack), "size_bytes": size} for pack, size in packs]
            for key, packs in self.packs.items()
            if packs
        }
        if self.parts:
            found.setdefault(TRANSPOSED, []).extend(
                {**base, "pack": str(pack), "size_bytes": size, "transposes": True}
                for pack, size in self.parts
            )
        for key, size in self.replaced_bytes.items():
            found[key][0]["replaced_bytes"] = size
        for item in found.get(DEFLATED, ()):
            item["compressor"] = compressor_id()
        if self.base.model == self.model or not found:
            return found
        # One list for all encodings.
        for key in found.keys() - {PLAIN}:
            for item in found[key]:
                item["mapped"] = True
        return {BASED: [item for items in found.values() for item in items]}


class _Writers:
    """The packs of the deltas from one version to another.

    Between versions of one model, each chunk has an entry that all releases can read.
    """

    def __init__(self, folder: PackFolder, stack: ExitStack, base: Manifest, new: Manifest) -> None:
        self._folder = folder
        self._base, self._model = base, new.model
        self._replaced_bytes: dict[str, int] = {}
        keys = (PLAIN, MAPPED, DEFLATED, TRANSPOSED)
        self._writers = {key: stack.enter_context(PackWriter(folder)) for key in keys}
        self._parts = stack.enter_context(PackWriter(folder))
        self._part_ids: set[bytes] = set()
        # The size of the smallest entry of each chunk.
        self.smallest: dict[bytes, int] = {}

    def add(self, entries: list[Entry]) -> None:
        """Write the entries of one chunk, each smaller than the one before."""
        if self._base.model != self._model:
            entries = entries[-1:]
        last: Entry | None = None
        for entry in entries:
            key = _KEY_OF.get(Encoding(entry.encoding), PLAIN)
            self._writers[key].add(entry)
            if last is not None:
                self._replaced_bytes[key] = self._replaced_bytes.get(key, 0) + last.stored_bytes
            last = entry
        if last is not None:
            self.smallest[last.chunk_id] = last.stored_bytes

    def add_transposed(self, found: TransposedEntries) -> None:
        """Write what makes one chunk of a transposed tensor, smaller than the entries that it has."""
        part, delta = found.part, found.delta
        if part is None:
            return
        if part.chunk_id not in self._part_ids:
            self._part_ids.add(part.chunk_id)
            self._parts.add(part)
        if delta is not None:
            self._writers[TRANSPOSED].add(delta)
        replaced = self.smallest.get((delta or part).chunk_id, 0)
        if replaced:
            self._replaced_bytes[TRANSPOSED] = self._replaced_bytes.get(TRANSPOSED, 0) + replaced

    def written(self) -> WrittenDeltas:
        packs = {key: self._sized(writer) for key, writer in self._writers.items()}
        parts = self._sized(self._parts)
        return WrittenDeltas(self._model, self._base, packs, self._replaced_bytes, parts)

    def _sized(self, writer: PackWriter) -> list[tuple[PackId, int]]:
        return [(pack, self._folder.pack(pack).stat().st_size) for pack in writer.packs]


class _Task(NamedTuple):
    """Two chunks that are read once: the newer one as a delta, the older one as a delta, or both.

    `streams` are given for two chunks with deflate streams, as the newer one's.
    """

    forward: Pair | None
    back: Pair | None
    streams: PairedStreams | None = None

    @property
    def length(self) -> int:
        return self.forward.chunk.length if self.forward is not None else 0


class DeltaReader(PackReader):
    """Reads full packs, and finds which numbers of two versions correspond, once for each pair."""

    def __init__(self, folder: PackFolder, table: ChunkTable) -> None:
        super().__init__(folder, table)
        self._runs: dict[tuple[Sha256, Sha256], list[Stretch]] = {}
        self._newer: tuple[Sha256, StoredContent] | None = None

    def know_runs(self, new: Manifest, base: Sha256, runs: list[Stretch]) -> None:
        """Take the runs of two versions that were found while the newer one was read."""
        self._runs[new.digest, base] = runs

    def find_runs(self, new: Manifest, base: Manifest) -> list[Stretch]:
        """Return the runs of two versions.  Raises: StorageError."""
        pair = new.digest, base.digest
        if pair not in self._runs:
            self._runs[pair] = find_runs(self._content(new), StoredContent(base, self))
        return self._runs[pair]

    def find_transposed(self, new: Manifest, base: Manifest) -> list[TransposedPair]:
        """Return the pairs of transposed tensors of two versions.  Raises: StorageError."""
        runs = self.find_runs(new, base)
        return find_transposed(self._content(new), StoredContent(base, self), runs)

    def _content(self, new: Manifest) -> StoredContent:
        """Return the content of a newer version: several bases of one follow one another."""
        if self._newer is None or self._newer[0] != new.digest:
            self._newer = new.digest, StoredContent(new, self)
        return self._newer[1]


def reading(folder: PackFolder) -> DeltaReader:
    """Return a reader of the full packs that exist now."""
    return DeltaReader(folder, ChunkTable(load_indexes(folder, rebuild=False).indexes))


def write_deltas(
    reader: DeltaReader,
    deltas: PackFolder,
    new: Manifest,
    base: Manifest,
    on_progress: OnProgress,
    *,
    back: bool = False,
) -> tuple[WrittenDeltas, WrittenDeltas | None]:
    """Write the delta packs that lead from `base` to `new`, both in the packs of `reader`; with `back`, also
    those from `new` to `base`.

    Raises: IntegrityError, NotFoundError if a chunk of either version cannot be read; StorageError.
    """
    with ExitStack() as stack:
        ahead, behind = _Writers(deltas, stack, base, new), _Writers(deltas, stack, new, base)

        def encode(task: _Task) -> tuple[int, list[Entry], list[Entry]]:
            try:
                ours, others = _encode_both(task, _Chunks(reader, hashed=False))
            except (IntegrityError, NotFoundError, StorageError):
                # Hashed, a damaged chunk is read from another pack, or the error says which one it is.
                ours, others = _encode_both(task, _Chunks(reader, hashed=True))
            return task.length, ours, others

        runs = reader.find_runs(new, base)
        tasks = list(_iter_tasks(new, base, runs, back=back))
        older = base.version if base.model == new.model else base.label
        further: list[tuple[_Writers, TransposedDelta]] = []
        if base.model == new.model:  # a part names a version of the same model
            turned = reader.find_transposed(new, base)
            further.append((ahead, TransposedDelta(reader, new, base, turned, runs)))
            if back:
                pairs_back = [pair.turned() for pair in turned]
                runs_back = [run.turned() for run in runs]
                further.append((behind, TransposedDelta(reader, base, new, pairs_back, runs_back)))
        total = sum(task.length for task in tasks) + sum(delta.size_bytes for _, delta in further)
        meter = Meter(on_progress, "delta", f"{older} → {new.version}", total)
        pairs = iter_deflated_pairs(new, base, reader)
        for length, entries, others in ordered_map(encode, _with_streams(tasks, pairs), window=_WINDOW):
            meter.add(length)
            ahead.add(entries)
            behind.add(others)
        for writers, delta in further:
            for found in delta.iter_entries(writers.smallest):
                meter.add(found.length)
                writers.add_transposed(found)
    return ahead.written(), behind.written() if back else None


def estimate_deltas(reader: DeltaReader, new: Manifest, base: Manifest) -> int:
    """Return about how many bytes the delta packs from `base` to `new` would have, from a sample.

    Raises: as `write_deltas`.
    """
    return _estimate(reader, new, base, list(iter_pairs(new, base, reader.find_runs(new, base))))


def estimate_update(reader: DeltaReader, new: Manifest, base: Manifest) -> int:
    """Return about how many bytes an update from `base` to `new` would download over their deltas: these,
    and whole the chunks that have no counterpart.

    Raises: as `write_deltas`.
    """
    pairs = list(iter_pairs(new, base, reader.find_runs(new, base)))
    lacking = lacking_ids(new, base)
    paired = np.array(sorted(pair.chunk.chunk_id for pair in pairs), "S32")
    whole = lacking[find_ids(paired, lacking) < 0]
    return _estimate(reader, new, base, pairs) + stored_bytes(reader, whole)


def stored_bytes(reader: PackReader, ids: Ids) -> int:
    """Return what full packs take for chunks, as far as they have them."""
    rows = reader.table.find(ids)
    return int(reader.table.stored[rows[rows >= 0]].sum())


def _estimate(reader: DeltaReader, new: Manifest, base: Manifest, pairs: list[Pair]) -> int:
    """Return about how many bytes pairs take, as deltas or whole."""
    step = max(1, len(pairs) // _SAMPLED)
    tasks = _with_streams([_Task(pair, None) for pair in pairs], iter_deflated_pairs(new, base, reader))
    forward = ((task.forward, task.streams) for task in tasks if task.forward is not None)
    sample = islice(forward, step // 2, None, step)

    def stored(item: tuple[Pair, PairedStreams | None]) -> tuple[int, int]:
        pair, streams = item
        length = pair.chunk.length
        if entries := _encode(pair, _Chunks(reader, hashed=True), streams):
            return length, min(entry.stored_bytes for entry in entries)
        row = reader.row_of(pair.chunk.chunk_id)
        return length, int(reader.table.stored[row]) if row >= 0 else length

    plain = sizes = 0
    for length, size in ordered_map(stored, sample, window=_WINDOW):
        plain, sizes = plain + length, sizes + size
    return sizes * sum(pair.chunk.length for pair in pairs) // plain if plain else 0


def _iter_tasks(new: Manifest, base: Manifest, runs: list[Stretch], *, back: bool) -> Iterator[_Task]:
    turned = [run.turned() for run in runs]
    pairs = iter_pairs(base, new, turned) if back else ()
    backward = {(pair.base_id, pair.chunk.chunk_id): pair for pair in pairs}
    for pair in iter_pairs(new, base, runs):
        yield _Task(pair, backward.pop((pair.chunk.chunk_id, pair.base_id), None))
    for pair in backward.values():
        yield _Task(None, pair)


def _with_streams(tasks: list[_Task], pairs: Iterable[DeflatedPair]) -> Iterator[_Task]:
    """Yield the tasks; those of chunks with streams first, since these have another base.

    Only one pair at a time is made: it has plain bytes of its streams.
    """
    ahead = {task.forward.chunk.chunk_id for task in tasks if task.forward is not None}
    behind = {task.back.chunk.chunk_id for task in tasks if task.back is not None}
    for chunk, other, streams in pairs:
        forward = Pair(chunk, other.chunk_id, other.element) if chunk.chunk_id in ahead else None
        backward = Pair(other, chunk.chunk_id, chunk.element) if other.chunk_id in behind else None
        ahead.discard(chunk.chunk_id)
        if backward is not None:
            behind.discard(other.chunk_id)
        if forward is not None or backward is not None:
            yield _Task(forward, backward, streams)
    for forward, backward, _ in tasks:
        if forward is not None and forward.chunk.chunk_id not in ahead:
            forward = None
        if backward is not None and backward.chunk.chunk_id not in behind:
            backward = None
        yield _Task(forward, backward)


class _Chunks:
    """The chunks of one task, each read once.

    An entry is proven by decoding it and hashing the result, which proves too that its chunk was read right:
    so a chunk is hashed here only if it is `hashed` from the start, or nothing else proves it.
    """

    def __init__(self, reader: PackReader, *, hashed: bool) -> None:
        self.reader = reader
        self._hashed = hashed
        self._read: dict[bytes, Buffer] = {}
        self._proven: set[bytes] = set()

    def get(self, chunk_id: bytes, row: int) -> Buffer:
        """Raises: IntegrityError, NotFoundError, StorageError."""
        if chunk_id not in self._read:
            entry = None if self._hashed else self.reader.read_entry(row)
            if entry is None or entry.base:
                self._read[chunk_id] = self.reader.read_row(row)
                self._proven.add(chunk_id)
            else:
                self._read[chunk_id] = decode_payload(entry)
        return self._read[chunk_id]

    def note_proven(self, chunk_id: bytes) -> None:
        self._proven.add(chunk_id)

    def prove_others(self) -> None:
        """Hash those that nothing else proved.  Raises: IntegrityError."""
        for chunk_id in self._read.keys() - self._proven:
            verified(chunk_id, self._read[chunk_id])


def _encode_both(task: _Task, chunks: _Chunks) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of both pairs of a task, proven, and made of proven chunks.

    Raises: IntegrityError, NotFoundError, StorageError.
    """
    turned = task.streams.turned() if task.streams is not None else None
    both = _encode(task.forward, chunks, task.streams), _encode(task.back, chunks, turned)
    chunks.prove_others()
    return both


def _encode(pair: Pair | None, chunks: _Chunks, streams: PairedStreams | None = None) -> list[Entry]:
    """Read a pair and return its entries, as `encode_pair`.

    Raises: IntegrityError, NotFoundError, StorageError.
    """
    if pair is None:
        return []
    reader = chunks.reader
    chunk_id, base_id = pair.chunk.chunk_id, pair.base_id
    row, base_row = reader.row_of(chunk_id), reader.row_of(base_id)
    if row < 0 or base_row < 0:
        return []
    data, base = chunks.get(chunk_id, row), chunks.get(base_id, base_row)
    found, is_proven = encode_pair(pair, data, base, int(reader.table.stored[row]), streams)
    if is_proven:
        chunks.note_proven(chunk_id)
    return found
