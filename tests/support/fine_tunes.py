"""Chains of fine-tuned models, small, with a registry that holds them and a store beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.support.stores import Site
from yarnstore import Store
from yarnstore.store.chunks import load_indexes
from yarnstore.store.layout import StoreLayout
from yarnstore.store.places import ChunkTable

MODEL = "tuned"
SIZE = 3 << 20


def weights(seed: int, count: int = SIZE // 2) -> np.ndarray:
    """Gaussian weights as bf16 bits."""
    values = np.random.default_rng(seed).normal(0, 0.05, count).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def tune(bits: np.ndarray, seed: int) -> np.ndarray:
    """What a fine-tune does to bf16 bits: most move by a step or few."""
    steps = np.rint(np.random.default_rng(seed).normal(0, 1.0, bits.size)).astype(np.int16)
    return (bits.view(np.int16) + steps).view(np.uint16)


class World:
    """A registry with a chain of fine-tunes of a headerless bf16 file, and a store beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / "registry"
        self.contents: dict[str, bytes] = {}
        self.store = Store.open(root / "home")

    def publish(self, version: str, bits: np.ndarray, *, deltas: int = 3) -> dict[str, int]:
        source = self.root / "weights.bin"
        source.write_bytes(bits.tobytes())
        self.contents[version] = bits.tobytes()
        done = self.store.publish(source, f"{MODEL}@{version}", registry=self.registry, deltas=deltas)
        return done.deltas

    def connect(self) -> None:
        self.store.add_registry("here", self.registry)

    def check(self, version: str) -> None:
        path = Path(self.store.path(f"{MODEL}@{version}"))
        assert path.read_bytes() == self.contents[version]

    def forget_files(self) -> None:
        """So that every read goes through the packs."""
        for name in ("files", "views"):
            shutil.rmtree(self.store.home / name, ignore_errors=True)

    def table(self) -> ChunkTable:
        return ChunkTable(load_indexes(StoreLayout(self.store.home).pack_folder, rebuild=False).indexes)


def publish_tuned(site: Site, tuned: int, fixed: int) -> None:
    """Publish the versions of a site: of `tuned` weights that change a little, `fixed` that do not, and a
    small file that is wholly another."""
    bits, same = weights(1, tuned), weights(2, fixed)
    for n, version in enumerate(site.versions):
        folder = site.source(version, MODEL)
        folder.mkdir(parents=True)
        (folder / "tuned.bin").write_bytes(bits.tobytes())
        (folder / "fixed.bin").write_bytes(same.tobytes())
        (folder / "config.json").write_text(f'{{"version": "{version}"}}\n')
        Store.publish(folder, f"{MODEL}@{version}", registry=site.registry, deltas=1)
        bits = tune(bits, n + 3)
