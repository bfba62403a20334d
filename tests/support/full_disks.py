"""A store with two versions of several files, and disks with little free space for going thin."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.reshaped import safetensors
from tests.support.stores import Site
from yarnstore import Store
from yarnstore.store.disk import disk_bytes

MODEL = "parts"
VERSIONS = ("1.0.0", "1.1.0")


def make_parts(root: Path, files: int, weights_each: int, *, shared: int = 0) -> Site:
    """Two installed versions of files with so many weights, of which the first `shared` are in both."""
    site = Site(root, root / "registry", root / "home", (MODEL,), VERSIONS)
    site.home.mkdir(parents=True)
    (site.home / "config.toml").write_text('reserve = "0"\n')
    parts = [weights(n, shared + weights_each) for n in range(files)]
    for version in VERSIONS:
        source = site.source(version, MODEL)
        source.mkdir(parents=True)
        for n, bits in enumerate(parts):
            same, own = bits[:shared], bits[shared:]
            tensors = {"same.weight": same, "tuned.weight": own} if shared else {"tuned.weight": own}
            (source / f"part{n}.safetensors").write_bytes(safetensors(tensors))
            own[:] = tune(own, 9)
        Store.publish(source, f"{MODEL}@{version}", registry=site.registry)
    with Store.open(site.home) as store:
        store.add_registry("made", site.registry)
        for version in VERSIONS:
            store.checkout(f"{MODEL}@{version}")
    return site


@contextmanager
def nearly_full(home: Path, free_bytes: int) -> Iterator[None]:
    """A disk with so many free bytes at first, for this process and its forks; it must never be over-full."""
    total = disk_bytes(home) + free_bytes

    def usage(_: object) -> SimpleNamespace:
        free = total - disk_bytes(home)
        assert free >= 0
        return SimpleNamespace(total=total, free=free)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shutil, "disk_usage", usage)
        yield


def form_of_the_older(home: Path) -> str:
    """The form in which the store has the older version."""
    with Store.open(home) as store:
        (model,) = [item for item in store.storage().models if item.model == MODEL]
        (row,) = [row for row in model.versions if row.version == VERSIONS[0]]
    return row.form
