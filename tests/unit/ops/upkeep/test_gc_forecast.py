"""A dry run of gc announces what the run frees, whatever is combined with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.stores import copy_tree
from yarnstore import Store


def used_bytes(home: Path) -> int:
    """What the store has in packs, files and manifests."""
    folders = ("packs", "files", "manifests", "tmp", "trash")
    return sum(
        path.stat().st_size
        for folder in folders
        for path in (home / folder).rglob("*")
        if path.is_file() and not path.is_symlink()
    )


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three fine-tunes, each whole, the newest installed; and many small versions."""
    root = tmp_path_factory.mktemp("forecast")
    with Store.open(root / "home") as store:
        bits = weights(1)
        for minor in range(3):
            (root / "w.bin").write_bytes(bits.tobytes())
            store.import_model(root / "w.bin", f"tuned@1.{minor}.0")
            bits = tune(bits, minor + 2)
        for n in range(6):
            (root / "w.bin").write_bytes(np.random.default_rng(n).bytes(300_000))
            store.import_model(root / "w.bin", f"small@1.{n}.0")
        store.checkout("tuned@1.2.0", wait=False)
    return root / "home"


@pytest.mark.parametrize("repacked", [False, True], ids=["whole", "as deltas"])
@pytest.mark.parametrize("repack", [False, True], ids=["plain", "repack"])
@pytest.mark.parametrize("keep", [0, 1, 2, 9])
def test_a_dry_run_announces_what_the_run_frees(
    filled: Path, tmp_path: Path, keep: int, repack: bool, repacked: bool
) -> None:
    home = tmp_path / "home"
    copy_tree(filled, home)
    with Store.open(home) as store:
        if repacked:  # then what is kept may hang on what goes
            store.checkout("tuned@1.0.0", wait=False)
            store.gc(keep=9, repack=True)
        before = used_bytes(home)
        told = store.gc(keep=keep, repack=repack, dry_run=True)
        assert used_bytes(home) == before
        done = store.gc(keep=keep, repack=repack)
    freed = before - used_bytes(home)
    assert abs(done.freed_bytes - freed) <= 4096
    assert abs(told.freed_bytes - freed) <= max(4096, 0.02 * freed), (told, done)
    assert told.versions == done.versions


def test_what_a_repair_moved_aside_is_not_announced(filled: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_tree(filled, home)
    with Store.open(home) as store:
        store.gc(keep=9)
        (pack, *_) = sorted((home / "packs").glob("*.pack"), key=lambda path: path.stat().st_size)
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
        store.fsck(repair=True)
        assert list((home / "trash").iterdir())
        told = store.gc(keep=9, dry_run=True).freed_bytes
        before = used_bytes(home)
        store.gc(keep=9)
    assert abs(told - (before - used_bytes(home))) <= 4096


@pytest.mark.parametrize("dry_run", [True, False])
def test_where_no_store_is_none_is_made(tmp_path: Path, dry_run: bool) -> None:
    with Store.open(tmp_path / "none") as store:
        result = store.gc(dry_run=dry_run)
    assert (result.dry_run, result.freed_bytes, result.versions) == (dry_run, 0, [])
    assert not (tmp_path / "none").exists()
