"""Storages of PyTorch checkpoints as tensors of a layout.

A storage that its tensors fill without gaps becomes those tensors; one with views, transposes or gaps becomes
one tensor of the storage's length under the first of their names.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from yarnstore.core.layouts.model import Tensor, count_elements
from yarnstore.core.layouts.pickled import View
from yarnstore.errors import FormatError

TORCH: Final = "torch"


class Extent(NamedTuple):
    """Where a storage is in the file, in bytes."""

    offset: int
    length: int


def place_views(views: Iterable[View], storages: Mapping[str, Extent]) -> list[Tensor]:
    """Return the tensors of views of storages, which are given by key; others are omitted.

    Raises: FormatError.
    """
    by_key: dict[str, list[View]] = {}
    for view in views:
        by_key.setdefault(view.key, []).append(view)
    tensors = []
    for key, group in by_key.items():
        if key in storages:
            tensors += _place(group, storages[key])
    return tensors


def _place(views: list[View], storage: Extent) -> list[Tensor]:
    """Return the tensors of one storage."""
    placed: dict[tuple[int, int], Tensor] = {}
    tiled = True
    for view in views:
        dtype = view.dtype
        length = dtype.bytes_for(count_elements(view.shape, TORCH))
        offset = view.start * dtype.block_bytes
        if _is_contiguous(view):
            if offset + length > storage.length:
                raise FormatError(TORCH, f"has a tensor beyond the end of the storage {view.key[:80]!r}")
        else:
            tiled = False
        place = storage.offset + offset
        placed.setdefault((offset, length), Tensor(view.name, dtype, view.shape, place, length))
    end = 0
    for offset, length in sorted(placed):
        tiled = tiled and offset == end
        end = offset + length
    if tiled and end == storage.length:
        return list(placed.values())
    first = views[0]
    if storage.length % first.dtype.block_bytes:
        raise FormatError(TORCH, f"has a storage of {storage.length} bytes for {first.dtype.name}")
    count = storage.length // first.dtype.block_bytes
    return [Tensor(first.name, first.dtype, (count,), *storage)]


def _is_contiguous(view: View) -> bool:
    step = 1
    for extent, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True
