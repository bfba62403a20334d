"""Going thin on a disk that is nearly full: file by file, and only what fits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.full_disks import MODEL, VERSIONS, form_of_the_older, make_parts, nearly_full
from tests.support.reshaped import safetensors
from tests.support.stores import Site, assert_serves, chunks_of, flip, problems
from yarnstore import Store
from yarnstore.progress import Progress
from yarnstore.store.disk import disk_bytes

_COUNT = 400_000
_FILE_BYTES = 2 * _COUNT
_FILES = 4
_SHARED = 1 << 19  # weights, of one chunk


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_parts(tmp_path_factory.mktemp("thinning"), _FILES, _COUNT)


@pytest.fixture
def home(made: Site, tmp_path: Path) -> Path:
    return made.copy(tmp_path).home


def go_thin(home: Path, *, dry_run: bool = False) -> list[str]:
    """Run `gc --thin`; return its notes."""
    notes: list[str] = []

    def hear(event: Progress) -> None:
        notes.extend([event.text] if event.phase == "note" else [])

    with Store.open(home, progress=hear) as store:
        store.gc(thin=MODEL, grace_s=0, dry_run=dry_run)
    return notes


def test_it_goes_file_by_file_if_there_is_no_space_for_all(home: Path) -> None:
    with nearly_full(home, _FILE_BYTES + 200_000):
        assert go_thin(home, dry_run=True) == []
        assert go_thin(home) == []
    assert form_of_the_older(home) == "deltas"
    assert problems(home) == []


def test_a_file_may_be_larger_than_the_free_space_if_its_deltas_are_not(home: Path) -> None:
    with nearly_full(home, _FILE_BYTES // 2):
        (would,) = go_thin(home, dry_run=True)
        (needs,) = go_thin(home)
    assert re.fullmatch(
        r"encoding older versions would need up to 800 kB of free disk space, and (3\d\d|400) kB are free "
        "besides the reserve: files for which that is too little are kept",
        would,
    )
    assert needs.startswith("encoding older versions needs up to 800 kB")
    assert form_of_the_older(home) == "deltas"
    assert problems(home) == []


def test_a_disk_without_space_is_no_fuller_afterwards(home: Path) -> None:
    before = disk_bytes(home)
    with nearly_full(home, 60_000):
        assert len(go_thin(home, dry_run=True)) == 1
        needs, kept = go_thin(home)
    assert needs.startswith("encoding older versions needs")
    assert kept.startswith("some files and packs are kept: not enough space")
    assert disk_bytes(home) <= before + 20_000
    assert form_of_the_older(home) == "file"
    go_thin(home)
    assert form_of_the_older(home) == "deltas"
    assert problems(home) == []


def test_what_installed_files_have_is_not_written_again_in_a_later_step(tmp_path: Path) -> None:
    """Also if one of them is damaged, so that each step looks for its chunks in other files."""
    site = make_parts(tmp_path, _FILES, _SHARED // 2, shared=_SHARED)
    with Store.open(site.home) as store:
        damaged = Path(store.path(MODEL)) / f"part{_FILES - 1}.safetensors"
    damaged.chmod(0o644)
    flip(damaged, _SHARED)
    with nearly_full(site.home, 750_000):  # less than for two files
        go_thin(site.home)
    assert form_of_the_older(site.home) == "deltas"
    tuned, in_the_damaged_file = _FILES, 1
    assert len(chunks_of(site.home / "packs")) <= tuned + in_the_damaged_file
    assert_serves(site.home, site, VERSIONS[0], MODEL)


@pytest.mark.parametrize("fits_afterwards", [True, False])
def test_a_second_copy_that_does_not_fit_is_written_after_going_thin(
    tmp_path: Path, *, fits_afterwards: bool
) -> None:
    site = make_parts(tmp_path, _FILES, _COUNT)
    source = tmp_path / "other.bin"
    source.write_bytes(os.urandom(1_500_000 if fits_afterwards else 10_000_000))
    Store.publish(source, "other@1.0.0", registry=tmp_path / "second")
    with Store.open(site.home) as store:
        store.add_registry("second", tmp_path / "second")
        store.checkout("other@1.0.0")
        store.gc(grace_s=0)
        store.remove_registry("second")
    with nearly_full(site.home, 1_000_000):
        notes = go_thin(site.home)
    assert form_of_the_older(site.home) == "deltas"
    assert [note.partition(":")[0] for note in notes] == [
        "second copies are written after other data is deleted",
        *([] if fits_afterwards else ["second copies are missing"]),
    ]
    with Store.open(site.home) as store:
        named = {check.name for check in store.examine().checks}
    assert ("second copies" in named) is not fits_afterwards
    assert problems(site.home) == []


def test_a_file_that_does_not_fit_waits_for_larger_ones_with_smaller_deltas(tmp_path: Path) -> None:
    home, large = tmp_path / "home", weights(1, 1_500_000)
    home.mkdir()
    (home / "config.toml").write_text('reserve = "0"\n')
    with Store.open(home) as store:
        for version in VERSIONS:
            source = tmp_path / version
            source.mkdir()
            (source / "new.bin").write_bytes(os.urandom(1_000_000))
            (source / "large.safetensors").write_bytes(safetensors({"tuned.weight": large}))
            large = tune(large, 9)
            Store.publish(source, f"{MODEL}@{version}", registry=tmp_path / "registry")
            if version == VERSIONS[0]:
                store.add_registry("made", tmp_path / "registry")
            store.refresh_registries()
            store.checkout(f"{MODEL}@{version}")
    with nearly_full(home, 600_000):
        (needs,) = go_thin(home)
    assert needs.startswith("encoding older versions needs up to")
    assert form_of_the_older(home) == "deltas"
    assert problems(home) == []
