"""A stable order of elements by a one-byte key: the permutation behind sorted delta planes.

Computes the permutation, applies it and undoes it.

The order is that of one stable sort over the whole chunk; it is computed in tiles that fit the
second-level cache, because a single argsort of 512 Ki keys spends half its time on page faults.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from yarnstore.core.encodings.streams import Bytes

# numpy's radix argsort holds two arrays of 8-byte indices: 128 Ki keys make 2 MiB.
_TILE: Final = 1 << 17


class KeyOrder:
    """All elements with key `low` first, then those with `low` + 1 … `high`, each in their old order.

    Every one of `keys` (uint8) lies in `low` … `high`.
    """

    def __init__(self, keys: Bytes, low: int, high: int) -> None:
        borders = np.arange(low, high + 2).clip(max=255).astype(np.uint8)
        self._orders = []
        edges = []
        for start in range(0, keys.size, _TILE):
            tile = keys[start : start + _TILE]
            order = tile.argsort(kind="stable")
            edge = tile.searchsorted(borders, sorter=order)
            edge[-1] = tile.size
            self._orders.append(order)
            edges.append(edge)
        counts = np.diff(np.array(edges, np.int64).reshape(len(edges), borders.size)).T
        ends = counts.ravel().cumsum().reshape(counts.shape)
        self.cuts: list[int] = ends[:-1, -1].tolist() if edges else []
        # Per tile and key: where its run begins and ends within the sorted tile, and begins overall.
        self._runs = [
            [run for run in zip(edge, edge[1:], starts, strict=False) if run[0] < run[1]]
            for edge, starts in zip((e.tolist() for e in edges), (ends - counts).T.tolist(), strict=True)
        ]

    def apply(self, values: NDArray[Any], out: NDArray[Any]) -> None:
        """Write `values` in key order to `out`."""
        for i, (order, runs) in enumerate(zip(self._orders, self._runs, strict=True)):
            tile = values[i * _TILE : (i + 1) * _TILE]
            for low, high, there in runs:
                # "clip", though no index is outside: "raise" would copy the array first.
                tile.take(order[low:high], out=out[there : there + high - low], mode="clip")

    def undo(self, ordered: NDArray[Any], out: NDArray[Any]) -> None:
        """Write to `out` the values whose key order is `ordered`."""
        for i, (order, runs) in enumerate(zip(self._orders, self._runs, strict=True)):
            tile = out[i * _TILE : (i + 1) * _TILE]
            for low, high, there in runs:
                tile[order[low:high]] = ordered[there : there + high - low]
