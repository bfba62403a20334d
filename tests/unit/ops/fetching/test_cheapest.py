"""The cheapest entries, however many packs are compared at a time."""

from __future__ import annotations

import numpy as np
import pytest

from yarnstore.core.digest import PackId
from yarnstore.core.index import Ids, PackIndex
from yarnstore.ops.fetching import cheapest
from yarnstore.ops.fetching.cheapest import Best
from yarnstore.ops.fetching.ways import PACKS, RemotePack

_COUNT = 60


def _ids(random: np.random.Generator, count: int) -> Ids:
    return np.sort(np.frombuffer(random.bytes(32 * count), "S32"))


def _index(random: np.random.Generator, ids: Ids) -> PackIndex:
    """A pack with these chunks in any order; sizes of few values, so that many are equal."""
    count = len(ids)
    stored = random.integers(100, 104, count) * 10_000
    order = random.permutation(count)
    offsets = np.empty(count, np.int64)
    offsets[order] = 16 + np.cumsum(stored[order]) - stored[order]
    return PackIndex(
        pack=PackId(random.bytes(32)),
        pack_bytes=16 + int(stored.sum()),
        ids=ids,
        offsets=offsets,
        stored=stored,
        plain=stored + 1,
        encodings=np.ones(count, np.uint8),
        bases=np.zeros(count, "S32"),
    )


@pytest.mark.parametrize("batch_rows", [1, 50, 65_536])
def test_the_first_of_the_smallest_entries_is_chosen(
    monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(cheapest, "_BATCH_ROWS", batch_rows)
    random = np.random.default_rng(7)
    ids = _ids(random, _COUNT)
    missing, absent = ids[: _COUNT - 1], ids[_COUNT - 2]
    best = Best(missing)
    expected: dict[bytes, tuple[int, int, int]] = {}
    for number in range(12):
        some = np.sort(random.choice(ids[ids != absent], 25, replace=False))
        index = _index(random, some)
        usable = None if number % 2 else random.random(len(some)) < 0.7
        best.offer(RemotePack(PACKS, index.pack), index, usable)
        for row in np.flatnonzero(usable) if usable is not None else range(len(some)):
            entry = int(index.stored[row]), number, int(index.offsets[row])
            if bytes(some[row]) in missing:
                expected[bytes(some[row])] = min(expected.get(bytes(some[row]), entry), entry)

    assert best.absent().tolist() == [absent]
    runs = best.runs()
    chosen = {
        bytes(chunk): (int(stored), best.packs.index(run.pack), int(offset))
        for run in runs
        for chunk, stored, offset in zip(run.ids, run.stored, run.offsets, strict=True)
    }
    assert chosen == expected
    assert sum(len(run.ids) for run in runs) == len(expected)
    places = [(best.packs.index(run.pack), int(at)) for run in runs for at in run.offsets]
    assert places == sorted(places)
    for run in runs:
        gaps = run.offsets[1:] - (run.offsets + run.stored)[:-1]
        assert (gaps <= 64 * 1024).all()
