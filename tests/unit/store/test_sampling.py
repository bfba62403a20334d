"""A sample reads its share, finds what it reads, and reads all of what it finds damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, flip, make_site
from yarnstore import Store
from yarnstore.errors import UsageError

MIB = 1 << 20
PART_BYTES = 4 * MIB


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A store of several parts: 24 MiB in packs, and the same again as a file."""
    root = tmp_path_factory.mktemp("large")
    source = root / "model.bin"
    source.write_bytes(random.Random(1).randbytes(24 * MIB))
    site = Site(root, root / "registry", root / "home")
    with site.store() as store:
        store.import_model(source, f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.0.0")
    return site


def test_it_reads_its_share_and_says_which(large: Site) -> None:
    with large.store() as store:
        whole = store.fsck()
        assert (whole.sample, whole.checked_bytes) == (None, whole.stored_bytes)
        for share in (0.05, 0.5):
            found = store.fsck(sample=share)
            assert (found.problems, found.sample, found.quick) == ([], share, False)
            assert found.stored_bytes == whole.stored_bytes
            assert 0 <= found.checked_bytes - share * found.stored_bytes <= PART_BYTES
            assert (found.versions, found.chunks) == (whole.versions, whole.chunks)


@pytest.mark.parametrize("folder", ["packs", "files"])
def test_samples_find_damage_in_time(large: Site, tmp_path: Path, folder: str) -> None:
    site = large.copy(tmp_path)
    damaged = max((site.home / folder).iterdir(), key=lambda path: path.stat().st_size)
    flip(damaged, damaged.stat().st_size // 2)
    with site.store() as store:
        for _ in range(200):  # a part of a dozen is in a sample of a tenth more often than not
            found = store.fsck(sample=0.1)
            if found.problems:
                break
        assert [problem.where for problem in found.problems] == [f"{folder}/{damaged.name}"]
        assert found.problems == store.fsck().problems
        assert found.checked_bytes >= damaged.stat().st_size  # it was read whole then


def test_a_damaged_base_is_found_through_what_was_made_against_it(tmp_path: Path) -> None:
    """Each sample of a whole finds what the whole check finds, in packs of deltas too."""
    site = make_site(tmp_path)
    with site.store() as store:
        for version in site.versions:
            store.fetch(f"{MODEL}@{version}")
        store.gc(repack=True)
        for pack in sorted((site.home / "packs").glob("*.pack")):
            flip(pack, pack.stat().st_size // 2)
            expected = store.fsck().problems
            assert expected
            assert store.fsck(sample=1.0).problems == expected
            flip(pack, pack.stat().st_size // 2)
        assert store.fsck(sample=0.01).problems == []


def test_what_is_no_content_is_checked_in_every_sample(large: Site, tmp_path: Path) -> None:
    site = large.copy(tmp_path)
    ref = next(path for path in (site.home / "refs" / "versions").rglob("*") if path.is_file())
    ref.write_text("nonsense\n")
    with site.store() as store:
        assert [problem.kind for problem in store.fsck(sample=0.01).problems][:1] == ["ref"]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_that_is_none(tmp_path: Path, share: float) -> None:
    with Store.open(tmp_path) as store, pytest.raises(UsageError, match="sample"):
        store.fsck(sample=share)
    with Store.open(tmp_path) as store, pytest.raises(UsageError, match="sample"):
        store.fsck(sample=0.5, repair=True)
    with Store.open(tmp_path) as store, pytest.raises(UsageError, match="sample"):
        store.fsck(sample=0.5, quick=True)
    with Store.open(tmp_path / "none") as store:
        assert store.fsck(sample=0.5).problems == []
