"""An operation opens the chunk store once: each index is read once, and each manifest parsed once.

The work at an install's end opens it again, since it deletes under another lock, but only if there is
something to delete.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.small_stores import noise
from tests.support.stores import MODEL, Site, make_site
from yarnstore import Store
from yarnstore.core.codec import make_entry
from yarnstore.core.digest import ChunkId
from yarnstore.core.manifest import Manifest
from yarnstore.store import chunks as chunks_module
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout


class Counts:
    """How often indexes of the store were read, by pack, and manifests parsed, by digest; and how often the
    folder of packs was looked through."""

    def __init__(self) -> None:
        self.indexes: Counter[str] = Counter()
        self.manifests: Counter[str] = Counter()
        self.openings = 0

    @property
    def most(self) -> tuple[int, int, int]:
        """Openings, and the most that one index and one manifest was read."""
        return self.openings, max(self.indexes.values(), default=0), max(self.manifests.values(), default=0)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Counts what is read while a context lasts; the functions themselves run as they are."""
    parse, load, read = Manifest.parse, chunks_module.load_indexes, chunks_module._load_index

    @contextmanager
    def count() -> Iterator[Counts]:
        counts = Counts()

        def parse_counted(data: bytes, **more: Any) -> Manifest:
            manifest = parse(data, **more)
            counts.manifests[manifest.label] += 1
            return manifest

        def load_counted(*args: Any, **more: Any) -> Any:
            counts.openings += 1
            return load(*args, **more)

        def read_counted(folder: Any, pack: Any) -> Any:
            counts.indexes[pack.hex] += 1
            return read(folder, pack)

        with monkeypatch.context() as patched:
            patched.setattr(Manifest, "parse", staticmethod(parse_counted))
            patched.setattr(chunks_module, "load_indexes", load_counted)
            patched.setattr(chunks_module, "_load_index", read_counted)
            yield counts

    return count


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path)


def test_a_version_that_is_new_here(site: Site, counting: Callable[[], Any]) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        with counting() as counts:
            store.fetch(f"{MODEL}@1.1.0")
        assert counts.most == (1, 1, 1)
        assert set(counts.manifests) == {f"{MODEL} 1.0.0", f"{MODEL} 1.1.0"}


def test_a_checkout_that_fetches(site: Site, counting: Callable[[], Any]) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        with counting() as counts:
            store.checkout(f"{MODEL}@1.1.0", wait=False)
        assert counts.most == (1, 1, 1)


def test_a_checkout_of_what_is_in_the_store(site: Site, counting: Callable[[], Any]) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        store.fetch(f"{MODEL}@1.1.0")
        with counting() as counts:
            store.checkout(f"{MODEL}@1.1.0", wait=False)
        assert counts.most == (1, 1, 1)


@pytest.mark.parametrize("spec", [MODEL, f"{MODEL}@1.1.0"])
def test_an_update(site: Site, counting: Callable[[], Any], spec: str) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        with counting() as counts:
            done = store.update_model(spec, wait=False)
        assert (done.status, done.previous) == ("updated", "1.0.0")
        assert counts.most == (1, 1, 1)


def test_inspecting(site: Site, counting: Callable[[], Any]) -> None:
    with site.store() as store:
        store.fetch(f"{MODEL}@1.0.0")
        with counting() as counts:
            assert store.inspect(f"{MODEL}@1.0.0").in_store
        assert counts.most[:2] == (1, 1)


def test_taking_over_a_model(tmp_path: Path, counting: Callable[[], Any]) -> None:
    data = noise(1, 300_000)
    (tmp_path / "w.onnx").write_bytes(data)
    entry = {"version": "1.0.0", "file_path": "w.onnx", "checksum": hashlib.sha256(data).hexdigest()}
    (tmp_path / "local-state.json").write_text(json.dumps({"installed_models": {"m": entry}}))
    with Store.open(tmp_path / "home") as store, counting() as counts:
        assert store.import_local_state(tmp_path / "local-state.json").failed == 0
    assert counts.openings == 1


def test_a_move_to_what_was_installed_before_opens_nothing(site: Site, counting: Callable[[], Any]) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        store.checkout(f"{MODEL}@1.1.0", wait=False)
        for move in (
            lambda: store.rollback_model(MODEL),
            lambda: store.checkout(f"{MODEL}@1.1.0", wait=False),
        ):
            with counting() as counts:
                move()
            assert counts.most[:2] == (0, 0)


def test_a_move_between_installed_versions_looks_for_nothing_to_free(
    site: Site, counting: Callable[[], Any]
) -> None:
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0")
        store.fetch(f"{MODEL}@1.2.0")  # into packs
        for version in ("1.0.0", "1.1.0"):
            with counting() as counts:
                done = store.checkout(f"{MODEL}@{version}")
            assert (done.changed, done.leaves_copies) == (True, False)
            assert counts.most[:2] == (0, 0)


def test_a_download_into_files_leaves_nothing_to_free(site: Site, counting: Callable[[], Any]) -> None:
    (site.root / "large.bin").write_bytes(noise(1, 3_000_000))
    Store.publish(site.root / "large.bin", "large@1.0.0", registry=site.registry)
    with site.store() as store:
        store.fetch(f"{MODEL}@1.2.0")  # packs of another model
        with counting() as counts:
            done = store.checkout("large@1.0.0")
        assert (done.changed, done.leaves_copies, counts.openings) == (True, False, 1)


def test_what_was_fetched_before_is_freed_in_packs_once_it_is_installed(site: Site) -> None:
    with site.store() as store:
        store.fetch(f"{MODEL}@1.0.0")
        done = store.checkout(f"{MODEL}@1.0.0", wait=False)
        assert done.leaves_copies
        packs = site.home / "packs"
        assert list(packs.iterdir())
        assert store.slim_after(done) > 0
        assert list(packs.iterdir()) == []


def test_the_second_copy_of_an_import_is_nothing_to_free(tmp_path: Path, counting: Callable[[], Any]) -> None:
    (tmp_path / "m.bin").write_bytes(noise(1, 50_000))
    with Store.open(tmp_path / "home") as store:
        store.import_model(tmp_path / "m.bin", "m@1.0.0")
        with counting() as counts:
            done = store.checkout("m@1.0.0")
        assert (done.changed, done.leaves_copies, counts.openings) == (True, False, 1)


def test_what_was_written_is_known_without_reading(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    layout.ensure()
    wanted = noise(1, 5000)
    chunk_id = ChunkId.of(wanted).raw

    def write_and_fail(chunks: ChunkStore) -> None:
        with chunks.writing() as writer:
            writer.add(make_entry(chunk_id, wanted))
            raise ZeroDivisionError

    with ChunkStore(layout) as chunks:
        assert chunks.row_of(chunk_id) == -1
        with pytest.raises(ZeroDivisionError):
            write_and_fail(chunks)
        assert bytes(chunks.read(chunk_id, chunks.row_of(chunk_id))) == wanted
        before = chunks.table
        chunks.reload()
        assert (chunks.table is before, chunks.row_of(chunk_id)) == (False, 0)
