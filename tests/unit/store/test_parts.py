"""The parts of fused tensors are found from a few chunks, as they are found by all rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.reshaped import Weights, fine_tuned, made, safetensors
from yarnstore import Store
from yarnstore.core.index import id_bytes
from yarnstore.core.pairing import Pair
from yarnstore.store import parts
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout
from yarnstore.store.matching import find_pairs
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import Refs, VersionName

_WIDTH = 448
_HEADS = 7


def _grouped(weights: Weights) -> Weights:
    """Keys and values of fewer heads than queries, as most models have them."""
    return {
        name: bits[: _WIDTH // _HEADS * 2] if name.endswith((".k.weight", ".v.weight")) else bits
        for name, bits in weights.items()
    }


def _fused(weights: Weights, *names: str) -> Weights:
    """One tensor of these in each layer, in the place of the first."""
    found: Weights = {}
    for name, bits in weights.items():
        part = name.split(".")[-2]
        if part == names[0]:
            rows = [weights[name.replace(f".{part}.", f".{other}.")] for other in names]
            found[name.replace(f".{part}.", ".fused.")] = np.concatenate(rows)
        elif part not in names:
            found[name] = bits
    return found


def _pairs(root: Path, old: Weights, new: Weights) -> tuple[set[Pair], set[Pair]]:
    """What is paired of the older version from a few chunks, and by all rows."""
    for version, content in (("1.0.0", old), ("1.1.0", new)):
        (root / "model.safetensors").write_bytes(safetensors(content))
        Store.publish(root / "model.safetensors", f"m@{version}", registry=root / "registry")
    with Store.open(root / "home") as store:
        store.add_registry("here", root / "registry")
        for version in ("1.0.0", "1.1.0"):
            store.fetch(f"m@{version}")
    layout = StoreLayout(root / "home")
    digests = [Refs(layout).version(VersionName("m", "default", version)) for version in ("1.0.0", "1.1.0")]
    older, newer = (layout.read_manifest(digest) for digest in digests if digest is not None)
    ids, _ = manifest_chunks([older])
    wanted = {id_bytes(ids, n) for n in range(len(ids))}
    with ChunkStore(layout) as chunks:
        few = set(parts.sample_pairs(older, newer, chunks, wanted))
        return few, set(find_pairs(older, newer, chunks, wanted))


@pytest.mark.parametrize("names", [("q", "k", "v"), ("v", "k", "q"), ("k", "v")])
@pytest.mark.parametrize("newer", ["fused", "split"])
def test_parts_of_unequal_length_are_found(tmp_path: Path, newer: str, names: tuple[str, ...]) -> None:
    split = _grouped(made(layers=2, width=_WIDTH, vocabulary=400))
    tuned = fine_tuned(split)
    old, new = (split, _fused(tuned, *names)) if newer == "fused" else (_fused(split, *names), tuned)
    few, all_rows = _pairs(tmp_path, old, new)
    assert few >= all_rows
    assert len(all_rows) > 2 * len(names)


def test_unrelated_tensors_have_no_pairs_and_cost_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = made(layers=4, width=_WIDTH, vocabulary=400)
    other = _fused(made(layers=4, width=_WIDTH, vocabulary=400, seed=5), "q", "k", "v")
    new = {name.replace(".fused.", ".other."): bits for name, bits in other.items()}
    monkeypatch.setattr(parts, "_READS", 5)
    few, all_rows = _pairs(tmp_path, old, new)
    assert {pair.base_id for pair in few} == {pair.base_id for pair in all_rows}
