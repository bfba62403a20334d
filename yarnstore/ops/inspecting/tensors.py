"""Compare pairs of tensors piece by piece, in two threads; results are added in order.

Parts with equal chunks are not read.  A piece is at most 1 MiB, so that memory does not
grow with the model.  Leaves the comparison of numbers to `core/compare`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from yarnstore.core.compare import Tally, Unit, compare_arrays, compare_values, measure_array, unit_of
from yarnstore.core.layouts import Tensor
from yarnstore.core.limits import KIB, MIB
from yarnstore.ops.inspecting.pairs import TensorPair
from yarnstore.ops.inspecting.readers import Content
from yarnstore.progress import Meter
from yarnstore.store.pipeline import ordered_map

Status: TypeAlias = Literal["same", "changed", "added", "removed", "moved"]

# Batches of pieces that are compared ahead.
_WINDOW = 6
_BATCH_BYTES = 2 * MIB
# The length of a chunk of a large tensor; pieces begin at chunks.
_PIECE_BYTES = MIB
# Each block becomes 32 floats; smaller pieces keep them in the CPU cache.
_BLOCK_PIECE_BYTES = 256 * KIB
# Elements compared at once if the types differ.  A multiple of every block.
_VALUE_PIECE = 1 << 18


@dataclass(frozen=True)
class TensorDiff:
    """One tensor on both sides of a comparison; if it was removed, the fields describe the old side."""

    #: `moved`: the same bytes under another name or in another file; at another offset it is `same`.
    status: Status
    name: str  #: The name of the tensor.
    file: str  #: The file that has it.
    dtype: str
    shape: tuple[int, ...]
    offset: int  #: Where it begins in its file, in bytes.
    size_bytes: int  #: Its size in bytes.
    parameters: int
    old_name: str | None  #: The old name; None if it was added, as for all `old_` fields.
    old_file: str | None  #: The old file.
    old_dtype: str | None  #: The old element type.
    old_shape: tuple[int, ...] | None  #: The old shape.
    old_offset: int | None  #: The old offset in bytes.
    unit: Unit  #: What `units` counts: elements, quantised blocks or bytes.
    units: int  #: How many units the tensor has.
    units_changed: int  #: How many units differ.
    bytes_changed: int  #: How many bytes differ.
    parameters_changed: int  #: How many parameters differ.
    #: The mean of abs(new - old) / abs(old), over finite elements with an old value other than 0.
    relative_mean: float | None = None
    #: The largest of these; None like `relative_mean` if nothing could be compared.
    relative_max: float | None = None
    distance: float | None = None  #: norm(new - old) / norm(old) of the tensors as vectors.
    broken: int = 0  #: How many elements became infinite or NaN.

    @property
    def changed_share(self) -> float:
        """`units_changed` divided by `units`, from 0 to 1."""
        return self.units_changed / self.units if self.units else 0.0

    def rank(self) -> tuple[int, float, float]:
        """Return a key that sorts the largest changes first, by distance, else by share.

        Added, moved, removed and equal tensors follow.
        """
        order: tuple[Status, ...] = ("changed", "added", "moved", "removed", "same")
        return order.index(self.status), -(self.distance or 0.0), -self.changed_share


class _Piece(NamedTuple):
    """Ranges `(offset, length)` of a pair of tensors; if both are known to be equal, only the old one."""

    pair: int
    old: tuple[int, int]
    new: tuple[int, int] | None

    @property
    def size_bytes(self) -> int:
        return self.old[1] + (self.new[1] if self.new is not None else 0)


class TensorWork:
    """Pairs of tensors, and the pieces that must be read: `total_bytes` of both sides."""

    def __init__(self, pairs: list[TensorPair]) -> None:
        self._pairs = pairs
        self._pieces: list[_Piece] = []
        self._differing: set[int] = set()
        for n, pair in enumerate(pairs):
            pieces = list(_iter_pieces(n, pair))
            if any(piece.new is not None for piece in pieces):
                self._pieces += pieces
                self._differing.add(n)
        self.total_bytes = sum(piece.size_bytes for piece in self._pieces)

    def run(self, meter: Meter) -> list[TensorDiff]:
        """Return the difference of each pair, in order.  Raises: IntegrityError, StorageError."""
        tallies = {n: Tally() for n in self._differing}
        for counted in ordered_map(self._count, self._batches(), window=_WINDOW):
            for piece, tally in counted:
                tallies[piece.pair].add(tally)
                meter.add(piece.size_bytes)
        return [_describe(pair, tallies.get(n)) for n, pair in enumerate(self._pairs)]

    def _batches(self) -> Iterator[list[_Piece]]:
        batch: list[_Piece] = []
        size = 0
        for piece in self._pieces:
            batch.append(piece)
            size += piece.size_bytes
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _count(self, batch: list[_Piece]) -> list[tuple[_Piece, Tally]]:
        return [(piece, _compare(self._pairs[piece.pair], piece)) for piece in batch]


def _compare(pair: TensorPair, piece: _Piece) -> Tally:
    old, new, _ = pair
    if old is None or new is None:
        return Tally()
    before = old.content.read(*piece.old)
    if piece.new is None:
        return measure_array(before, old.tensor.dtype)
    after = new.content.read(*piece.new)
    if old.tensor.dtype is new.tensor.dtype:
        return compare_arrays(before, after, new.tensor.dtype)
    return compare_values(before, after, old.tensor.dtype, new.tensor.dtype)


def _iter_pieces(n: int, pair: TensorPair) -> Iterator[_Piece]:
    if pair.old is None or pair.new is None:
        return
    (old, one), (new, other) = pair.old, pair.new
    dtype = other.dtype
    units = _shared_units(one, other, new)
    if one.dtype is not dtype:
        for at in range(0, units * dtype.block_elements, _VALUE_PIECE):
            size = min(_VALUE_PIECE, math.prod(other.shape) - at)
            mine = one.offset + one.dtype.bytes_for(at), one.dtype.bytes_for(size)
            yield _Piece(n, mine, (other.offset + dtype.bytes_for(at), dtype.bytes_for(size)))
        return
    length = units * dtype.block_bytes
    if _equal(old, one.offset, new, other.offset, length):
        return
    step = _BLOCK_PIECE_BYTES if dtype.kind == "block" else _PIECE_BYTES
    step = step // dtype.block_bytes * dtype.block_bytes
    for at in range(0, length, step):
        size = min(step, length - at)
        equal = _equal(old, one.offset + at, new, other.offset + at, size)
        yield _Piece(n, (one.offset + at, size), None if equal else (other.offset + at, size))


def _equal(old: Content, offset: int, new: Content, other: int, length: int) -> bool:
    return old.chunks.key(offset, length) == new.chunks.key(other, length)


def _shared_units(one: Tensor, other: Tensor, new: Content) -> int:
    """Return how many units of the new tensor have a counterpart: all, or as many rows as both have."""
    units = other.length // other.dtype.block_bytes
    if one.dtype is not other.dtype:
        return units if one.shape == other.shape else 0
    if one.length == other.length:
        return units
    rows_alike = one.shape[1:] == other.shape[1:] and len(one.shape) == len(other.shape)
    in_order = new.layout is not None and new.layout.format != "npy"  # it may be in Fortran order
    return min(one.length // one.dtype.block_bytes, units) if rows_alike and in_order else 0


def _describe(pair: TensorPair, tally: Tally | None) -> TensorDiff:
    """Return the result for one pair; `tally` is None if no common unit differs."""
    old, new, moved = pair
    place = new or old
    if place is None:
        raise ValueError("a pair has a side")
    content, tensor = place
    dtype = tensor.dtype
    units = tensor.length // dtype.block_bytes
    known = tally or Tally()
    status: Status
    if old is None or new is None:
        status = "added" if old is None else "removed"
        changed, changed_bytes = units, tensor.length
    else:
        alone = units - _shared_units(old.tensor, tensor, content)
        changed = known.units_changed + alone
        changed_bytes = known.bytes_changed + alone * dtype.block_bytes
        alike = old.tensor.dtype is dtype and old.tensor.shape == tensor.shape
        status = "changed" if changed or not alike else "moved" if moved else "same"
    parameters = math.prod(tensor.shape)
    comparable = bool(known.bytes_changed and known.compared)
    return TensorDiff(
        status=status,
        name=tensor.name,
        file=content.path,
        dtype=dtype.name,
        shape=tensor.shape,
        offset=tensor.offset,
        size_bytes=tensor.length,
        parameters=parameters,
        old_name=old.tensor.name if old else None,
        old_file=old.content.path if old else None,
        old_dtype=old.tensor.dtype.name if old else None,
        old_shape=old.tensor.shape if old else None,
        old_offset=old.tensor.offset if old else None,
        unit=unit_of(dtype),
        units=units,
        units_changed=changed,
        bytes_changed=changed_bytes,
        parameters_changed=min(parameters, changed * dtype.block_elements),
        relative_mean=known.relative_mean if comparable else None,
        relative_max=known.relative_max if comparable else None,
        distance=known.distance if comparable else None,
        broken=known.broken,
    )
