"""Files that share blocks, on file systems that can: mounted from an image where this machine allows it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.small_stores import noise
from yarnstore import Store
from yarnstore.store import fsio, held
from yarnstore.store.kernel import reflink_range
from yarnstore.store.layout import StoreLayout

MIB = 1 << 20
SIZE = 12 * MIB


@pytest.fixture(params=["xfs", "btrfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty file system that shares blocks."""
    make = shutil.which(f"mkfs.{request.param}", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if make is None or os.name != "posix" or os.getuid() != 0:
        pytest.skip(f"needs mkfs.{request.param} and root")
    image, folder = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    folder.mkdir()
    subprocess.run([make, "-q", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no images")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-R", folder], check=True)


def used_bytes(disk: Path) -> int:
    os.sync()
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def published(root: Path) -> Path:
    """Two versions of one file, whose second half differs."""
    same = noise(1, SIZE // 2)
    for n, version in enumerate(("1.0.0", "1.1.0")):
        (root / "model.bin").write_bytes(same + noise(n + 2, SIZE // 2))
        Store.publish(root / "model.bin", f"m@{version}", registry=root / "registry")
    return root / "registry"


def test_versions_share_blocks_of_the_ranges_that_are_the_same(disk: Path, tmp_path: Path) -> None:
    with Store.open(disk / "home") as store:
        store.add_registry("here", published(tmp_path))
        before = used_bytes(disk)
        store.checkout("m@1.0.0")
        assert used_bytes(disk) - before < 1.1 * SIZE
        store.checkout("m@1.1.0")
        assert used_bytes(disk) - before < 1.7 * SIZE
        assert store.fsck().problems == []
        assert "reflinks" in _links(store) or "blocks" in _links(store)


def _links(store: Store) -> str:
    return next(check.what for check in Store.doctor(store.home).checks if check.name == "hard links")


def test_what_cannot_be_linked_shares_its_blocks(disk: Path, tmp_path: Path) -> None:
    home = disk / "home"
    home.mkdir()
    if subprocess.run(
        ["btrfs", "subvolume", "create", home / "files"], capture_output=True, check=False
    ).returncode:
        pytest.skip("has no subvolumes, which no hard link crosses")
    with Store.open(home) as store:
        store.add_registry("here", published(tmp_path))
        before = used_bytes(disk)
        store.checkout("m@1.0.0")
        assert used_bytes(disk) - before < 1.1 * SIZE
        store.checkout("m@1.1.0")
        assert used_bytes(disk) - before < 1.7 * SIZE
        assert held.recorded(StoreLayout(home))
        assert store.fsck().problems == []


@pytest.mark.parametrize(("offset", "begin"), [(0, 0), (100, 4196), (4096, 0), (5, 0)])
def test_what_is_not_shared_is_written(tmp_path: Path, offset: int, begin: int) -> None:
    data = noise(1, 300_000)
    (tmp_path / "source").write_bytes(bytes(begin) + data)
    with fsio.NewFile(tmp_path, ".new") as new, (tmp_path / "source").open("rb") as source:
        new.write(bytes(offset))
        new.write_shared(offset, data, source.fileno(), begin)
        new.publish(tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == bytes(offset) + data


def test_whole_blocks_are_shared_and_the_rest_is_written(disk: Path) -> None:
    data = noise(1, 4 * MIB)
    (disk / "source").write_bytes(bytes(4196) + data)
    before = used_bytes(disk)
    with fsio.NewFile(disk, ".new") as new, (disk / "source").open("rb") as source:
        new.write(bytes(100))
        new.write_shared(100, data, source.fileno(), 4196)
        assert not reflink_range(source.fileno(), 1, new.fileno(), 0, 4096)  # no whole block
        new.publish(disk / "target")
    assert (disk / "target").read_bytes() == bytes(100) + data
    assert used_bytes(disk) - before < MIB
