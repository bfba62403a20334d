"""T6 and T7: real full disks and a read-only store, in a user namespace of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, make_site, quiet_env

_INSIDE = Path(__file__).with_name("full_disk_inside.py")


def _inside(*arguments: str | Path) -> tuple[list[dict[str, object]], dict[str, int]]:
    """Run `full_disk_inside` in a namespace; the faults that it found, and its counts."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("user namespaces are not allowed here")
    done = subprocess.run(
        [*namespace, sys.executable, str(_INSIDE), *map(str, arguments)],
        env={**os.environ, **quiet_env()},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines[:-1], lines[-1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("disk"))


def _check_disks(site: Site, tmp_path: Path, sizes_kib: list[int], what: str = "tmpfs") -> None:
    faults, counts = _inside(what, site.registry, tmp_path, *map(str, sizes_kib))
    assert faults == []
    assert counts["done"] > 0, "every disk was too small: the campaign is broken"
    assert counts["refused"] > 0, "no disk was too small: the campaign is broken"


def test_full_disks_of_some_sizes(site: Site, tmp_path: Path) -> None:
    _check_disks(site, tmp_path, [16, 64, *range(500, 6000, 370)])


@pytest.mark.deep
def test_full_disks_of_two_hundred_sizes(site: Site, tmp_path: Path) -> None:
    _check_disks(site, tmp_path, [*range(4, 404, 20), *range(404, 6164, 32)])


def test_full_disks_while_files_are_the_only_place(site: Site, tmp_path: Path) -> None:
    _check_disks(site, tmp_path, [700, 1100, 1500, 1900, 2300, 2700], "straight")


@pytest.mark.deep
def test_full_disks_of_many_sizes_while_files_are_the_only_place(site: Site, tmp_path: Path) -> None:
    _check_disks(site, tmp_path, list(range(100, 4900, 24)), "straight")


def test_gc_is_a_hint_only_where_it_helps(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "w.bin").write_bytes(os.urandom(1 << 20))
    faults, counts = _inside("hints", tmp_path / "w.bin", tmp_path / "disk")
    assert faults == []
    assert counts["refused"] == 2


def test_a_read_only_store_can_be_read(site: Site, tmp_path: Path) -> None:
    here = site.copy(tmp_path / "copy")
    with here.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0")
        store.import_model(here.source("1.2.0"), "spare@1.0.0")  # for gc
    faults, counts = _inside("read-only", here.home, tmp_path / "out")
    assert faults == []
    assert counts["runs"] > 10


def test_folders_of_a_store_may_be_on_other_disks_or_an_error_says_so(site: Site, tmp_path: Path) -> None:
    here = site.copy(tmp_path / "copy")
    with here.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0")
    faults, counts = _inside("disks", here.home, f"{MODEL}@1.2.0")
    assert faults == []
    assert counts["runs"] == 2
