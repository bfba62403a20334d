"""What was written by the first release of each format stays readable (T17).

The bytes in `fixtures/golden/` are data, never made again; `fixtures/make_golden.py` says how they
came about.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fixtures.make_golden import MODEL, REGISTRY, SUMS, URL, sums, version_files
from tests.support.models import REPO
from yarnstore.api import Store
from yarnstore.core.codec import decode_entry
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import PackIndex, encode_index, parse_index
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import PACK_HEADER, EntryStream, encode_entry
from yarnstore.core.reflog import format_move, format_ref, parse_ref, parse_reflog
from yarnstore.registry.schema import parse_registry
from yarnstore.store.layout import StoreLayout
from yarnstore.store.registry_cache import read_cached

GOLDEN = sorted((REPO / "fixtures" / "golden").glob("v*"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of one format version's store and registry; to be copied, never changed."""
    return request.param


def test_the_first_format_is_there() -> None:
    assert (REPO / "fixtures/golden/v1/store/format").read_bytes() == b"yarnstore-store/1\n"
    assert GOLDEN[0].name == "v1"


def test_nobody_changed_it(golden: Path) -> None:
    assert sums(golden) == (golden / SUMS).read_text()


def test_packs_and_indexes_are_written_as_they_were(golden: Path) -> None:
    for folder in ("registry", "store"):
        found = list((golden / folder / "packs").glob("*.pack"))
        assert len(found) == 2
        for path in found:
            data = path.read_bytes()
            pack = PackId.parse(path.stem)
            stream = EntryStream()
            entries = list(stream.feed(data))
            stream.finish()
            assert {entry.encoding for _, entry in entries} >= {0}
            for _, entry in entries:
                decode_entry(entry)
            assert PACK_HEADER + b"".join(b"".join(encode_entry(entry)) for _, entry in entries) == data
            index = path.with_suffix(".idx").read_bytes()
            assert encode_index(parse_index(index, pack=pack)) == index
            assert encode_index(PackIndex.build(pack, len(data), entries)) == index


def test_manifests_refs_and_logs_are_written_as_they_were(golden: Path) -> None:
    manifests = list((golden / "store" / "manifests").iterdir())
    assert len(manifests) == 2
    for path in manifests:
        manifest = Manifest.parse(path.read_bytes(), expected=Sha256.parse(path.stem))
        made = Manifest.make(manifest.model, manifest.version, manifest.variant, manifest.files)
        assert made.data == path.read_bytes()
        files = version_files(manifest.version)
        assert {file.path: file.sha256 for file in manifest.files} == {
            name: Sha256.of(data) for name, data in files.items()
        }
    refs = [path for path in (golden / "store" / "refs").rglob("*") if path.is_file()]
    assert len(refs) == 4
    for path in refs:
        assert format_ref(parse_ref(path.read_bytes())) == path.read_bytes()
    log = (golden / "store" / "logs" / "installed" / "org~golden").read_bytes()
    moves, faults = parse_reflog(log)
    assert faults == []
    assert [move.operation for move in moves] == ["checkout", "checkout", "rollback"]
    assert b"".join(map(format_move, moves)) == log


def opened(golden: Path, tmp_path: Path) -> Store:
    home = tmp_path / "home"
    shutil.copytree(golden / "store", home, symlinks=True)
    return Store.open(home)


def contents(folder: Path) -> dict[str, bytes]:
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def test_the_store_opens_and_is_sound(golden: Path, tmp_path: Path) -> None:
    with opened(golden, tmp_path) as store:
        checked = store.fsck()
        assert checked.problems == []
        assert (checked.models, checked.versions) == (1, 2)
        assert checked.chunks >= 5
        (installed,) = store.list_installed_models()
        assert (installed.model, installed.version, installed.variant) == (MODEL, "1.0.0", "cpu")
        history = store.get_version_history(MODEL)
        assert len(history.moves) == 3
        assert contents(Path(store.path(MODEL))) == version_files("1.0.0")


def test_fsck_would_see_it_if_it_were_not(golden: Path, tmp_path: Path) -> None:
    with opened(golden, tmp_path) as store:
        pack = max((store.home / "packs").glob("*.pack"), key=lambda path: path.stat().st_size)
        data = bytearray(pack.read_bytes())
        data[-1] ^= 1
        pack.write_bytes(data)
        assert store.fsck().problems, "checker is broken"


def test_the_store_can_be_worked_with(golden: Path, tmp_path: Path) -> None:
    """Without any network: both versions are there whole."""
    with opened(golden, tmp_path) as store:
        done = store.checkout(f"{MODEL}:cpu@1.1.0")
        assert (done.version, done.previous, done.download_bytes) == ("1.1.0", "1.0.0", 0)
        assert contents(Path(done.path)) == version_files("1.1.0")
        assert store.rollback_model(MODEL).version == "1.0.0"
        for view in (store.home / "views").iterdir():
            shutil.rmtree(view)
        shutil.rmtree(store.home / "files")
        (store.home / "models" / "org~golden").unlink()
        assert contents(Path(store.checkout(f"{MODEL}:cpu@1.1.0").path)) == version_files("1.1.0")
        store.gc(keep=1)
        assert contents(Path(store.path(MODEL))) == version_files("1.1.0")
        assert store.fsck().problems == []


def test_the_cached_registry_is_read(golden: Path) -> None:
    cached = read_cached(StoreLayout(golden / "store"), REGISTRY)
    assert cached is not None
    assert (cached.url, cached.etag) == (URL, '"golden"')
    assert cached.data == (golden / "registry" / "registry.json").read_bytes()
    assert list(parse_registry(cached.data).models) == [MODEL]


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_the_registry_is_installed_from(golden: Path, tmp_path: Path, version: str) -> None:
    shutil.copytree(golden / "registry", tmp_path / "registry")
    with Store.open(tmp_path / "home") as store:
        store.add_registry("golden", tmp_path / "registry")
        done = store.checkout(f"{MODEL}:cpu@{version}")
        assert done.download_bytes > 0
        assert contents(Path(done.path)) == version_files(version)
        assert store.fsck().problems == []


def test_publishing_what_it_holds_changes_nothing(golden: Path, tmp_path: Path) -> None:
    from fixtures.make_golden import write_version

    shutil.copytree(golden / "registry", tmp_path / "registry")
    before = contents(tmp_path / "registry")
    done = Store.publish(
        write_version(tmp_path, "1.1.0"), f"{MODEL}:cpu@1.1.0", registry=tmp_path / "registry"
    )
    assert done.new_bytes == 0
    after = contents(tmp_path / "registry")
    assert before.keys() == after.keys()
    # What zstd makes of a manifest differs between its releases; what is published does not.
    kept = [
        name for name in before if name.startswith(("packs/", "manifests/")) and not name.endswith(".zst")
    ]
    assert len(kept) == 6
    assert [name for name in kept if before[name] != after[name]] == []
