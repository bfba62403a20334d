"""Files of versions are listed and read by name, from packs and from installed files."""

from __future__ import annotations

import io
import random
import tracemalloc
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.core.limits import MIB
from yarnstore.errors import IntegrityError, NotFoundError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.0.0 installed, 1.1.0 stored, 1.2.0 only in the registry."""
    site = make_site(tmp_path_factory.mktemp("contents"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
    return site


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_a_file_is_read_in_ranges(made: Site, version: str) -> None:
    data = (made.source(version) / "model.bin").read_bytes()
    with made.store() as store, store.open_file(f"{MODEL}@{version}", "model.bin") as file:
        assert file.size_bytes == len(data)
        assert file.read_at(399_990, 20) == data[399_990:400_010]
        assert file.read_at(len(data) - 5, 100) == data[-5:]
        assert file.read_at(len(data), 10) == b""
        assert file.seek(-7, io.SEEK_END) == len(data) - 7
        assert file.read() == data[-7:]
        file.seek(0)
        assert file.readall() == data


def test_the_files_of_a_version_are_listed(made: Site) -> None:
    with made.store() as store:
        found = store.list_files(MODEL)
        assert (found.version, found.registry, found.stored) == ("1.0.0", "made", True)
        assert {file.path: file.sha256 for file in found.files} == made.contents("1.0.0")
        by_commit = store.list_files(MODEL, commit=found.manifest.removeprefix("sha256:")[:40])
        assert by_commit == found


def test_a_version_of_a_registry_is_listed_without_its_download(made: Site) -> None:
    with made.store() as store:
        with pytest.raises(NotFoundError):
            store.list_files(f"{MODEL}@1.2.0")
        found = store.list_files(f"{MODEL}@1.2.0", online=True)
        assert (found.stored, found.registry) == (False, "made")
        assert {file.path: file.sha256 for file in found.files} == made.contents("1.2.0")
        assert store.list_files(MODEL, commit=found.manifest[7:47], online=True) == found
        assert {row.version for row in store.list_versions()} == {"1.0.0", "1.1.0"}


def test_opening_downloads_but_installs_nothing(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    with site.store() as store:
        with store.open_file(f"{MODEL}@1.2.0", "config.json") as file:
            assert file.read() == (site.source("1.2.0") / "config.json").read_bytes()
        assert store.list_files(f"{MODEL}@1.2.0").stored
        (installed,) = store.list_installed_models()
        assert installed.version == "1.0.0"


def test_a_file_or_a_version_that_does_not_exist(made: Site) -> None:
    with made.store() as store:
        with pytest.raises(NotFoundError, match="weights"):
            store.open_file(MODEL, "weights")
        with pytest.raises(NotFoundError, match=r"9\.9\.9"):
            store.open_file(f"{MODEL}@9.9.9", "model.bin")
        with pytest.raises(NotFoundError):
            store.list_files("whisper")
        with pytest.raises(NotFoundError):
            store.list_files(MODEL, commit="f" * 40)


def test_an_imported_model_is_read_without_a_registry(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"weights" * 99)
    with Store.open(tmp_path / "home") as store:
        store.import_model(tmp_path / "w.bin", "own@1.0.0")
        store.import_model(tmp_path / "w.bin", "own@1.1.0-rc.1")
        found = store.list_files("own", online=True)
        assert found.registry is None
        assert store.open_file("own@1.0.0", "w.bin").read() == b"weights" * 99


def test_damaged_bytes_are_not_returned(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    with site.store() as store:
        path = Path(store.path(MODEL)) / "adapter" / "delta.bin"
        store.gc(grace_s=0)
        path.chmod(0o644)
        path.write_bytes(bytes(90_000))
        for pack in (site.home / "packs").glob("*"):
            pack.chmod(0o644)
            pack.unlink()
        with store.open_file(MODEL, "adapter/delta.bin") as file, pytest.raises(IntegrityError):
            file.read()


def test_an_open_file_outlives_an_update_that_moves_its_chunks(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    data = (site.source("1.0.0") / "model.bin").read_bytes()
    with site.store() as store, store.open_file(MODEL, "model.bin") as file:
        assert file.read_at(0, 10) == data[:10]
        store.update_model(MODEL)
        store.gc(grace_s=0, repack=True)
        assert file.read_at(500_000, 50_000) == data[500_000:550_000]


def test_gc_keeps_a_version_until_its_open_file_is_closed(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    with site.store() as store:
        store.fetch(f"{MODEL}@1.2.0")
        with store.open_file(f"{MODEL}@1.1.0", "model.bin") as opened:
            assert store.gc(keep=1).stays[f"{MODEL}@1.1.0"] == "a program has it open"
            assert opened.read() == (site.source("1.1.0") / "model.bin").read_bytes()
        assert store.gc(keep=1).versions == [f"{MODEL}@1.1.0"]


def test_digits_that_several_manifests_begin_with_select_none(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        known: dict[str, list[str]] = {}
        for number in range(17):  # at least two of them begin with the same digit
            (tmp_path / "w.bin").write_bytes(b"weights" * (number + 1))
            done = store.import_model(tmp_path / "w.bin", f"own@1.{number}.0")
            known.setdefault(done.manifest.removeprefix("sha256:")[0], []).append(done.version)
        digit, versions = max(known.items(), key=lambda item: len(item[1]))
        with pytest.raises(NotFoundError) as told:
            store.list_files("own", commit=digit)
        assert told.value.hint == f"{len(versions)} manifests begin with these digits; give more"


def test_another_file_of_an_open_version_is_read_until_the_first_is_closed(made: Site) -> None:
    contents = made.contents("1.1.0")
    with made.store() as store, store.open_file(f"{MODEL}@1.1.0", "model.bin") as first:
        assert first.manifest == store.list_files(f"{MODEL}@1.1.0").manifest
        with pytest.raises(NotFoundError):
            first.other("nothing")
        for path in contents:
            with first.other(path) as other:
                data = other.readall()
            assert data == (made.source("1.1.0") / path).read_bytes()
        assert first.read_at(0, 10) == (made.source("1.1.0") / "model.bin").read_bytes()[:10]
        left = first.other("model.bin")
    with pytest.raises(ValueError, match="closed"):
        left.read_at(0, 10)


def test_a_file_that_is_read_piece_by_piece_keeps_little_of_it(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(12 * MIB)
    (tmp_path / "weights.bin").write_bytes(data)
    with Store.open(tmp_path / "home") as store:
        store.import_model(tmp_path / "weights.bin", "own@1.0.0")
        with store.open_file("own@1.0.0", "weights.bin") as file:
            file.read_at(0, 1)
            tracemalloc.start()
            try:
                for at in range(1, len(data), MIB):
                    assert file.read_at(at, MIB) == data[at : at + MIB]
                kept, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert kept < 4 * MIB  # a service reads for tens of clients at once
