"""A store says what it is, and what is newer or something else is left alone."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from tests.support.small_stores import manifest_of
from yarnstore.core.digest import Sha256
from yarnstore.errors import (
    FormatError,
    IncompatibleError,
    IntegrityError,
    LockTimeoutError,
    NotFoundError,
    StorageError,
)
from yarnstore.store import registry_cache
from yarnstore.store.layout import STORE_FORMAT, StoreLayout
from yarnstore.store.registry_cache import (
    CachedRegistry,
    read_cached,
    read_record,
    remove_cached,
    write_cached,
)


def test_looking_makes_nothing(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path / "home")
    assert not layout.exists()
    assert layout.manifest_ids() == layout.pack_folder.pack_ids() == []
    assert list(tmp_path.iterdir()) == []
    layout.ensure()
    assert layout.exists()
    assert (layout.root / "format").read_bytes() == STORE_FORMAT == b"yarnstore-store/1\n"


def test_the_format_is_raised_once_and_opens(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path / "home")
    layout.ensure()
    assert not layout.relies_on_files
    layout.rely_on_files()
    assert layout.exists()
    assert layout.relies_on_files
    assert (layout.root / "format").read_bytes() == b"yarnstore-store/2\n"
    layout.ensure()
    assert layout.relies_on_files
    layout.allow_mapped()
    assert layout.exists()
    assert layout.relies_on_files
    layout.rely_on_files()
    assert layout.format == b"yarnstore-store/4\n"


@pytest.mark.parametrize(
    "data", [b"yarnstore-store/5\n", b"yarnstore-store/17", b"yarnstore-store/9999\nmore\n"[:21]]
)
def test_a_newer_store_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "format").write_bytes(data)
    for use in (StoreLayout(tmp_path).exists, StoreLayout(tmp_path).ensure):
        with pytest.raises(IncompatibleError, match="in format"):
            use()
    assert (tmp_path / "format").read_bytes() == data


def test_a_format_that_a_newer_release_sets_meanwhile_stays(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path / "home")
    newer = b"yarnstore-store/5\n"
    with layout.shared():
        (layout.root / "format").write_bytes(newer)
        for change in (layout.rely_on_files, layout.allow_mapped):
            with pytest.raises(IncompatibleError, match="in format 5"):
                change()
    assert layout.format == newer


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("kind", ["shared", "exclusive"])
def test_a_store_that_a_newer_release_has_used_is_not_locked(
    tmp_path: Path, kind: str, *, damaged: bool
) -> None:
    other, held = StoreLayout(tmp_path / "home"), contextlib.ExitStack()
    held.enter_context(other.exclusive())

    def raise_format(*_: object) -> None:
        (other.root / "format").write_bytes(b"yarnstore-store/5\n")
        held.close()

    layout = StoreLayout(tmp_path / "home", on_wait=raise_format)
    for _ in ("it was raised during the wait", "before"):
        with (
            held,
            pytest.raises(IncompatibleError, match="in format 5"),
            getattr(layout, kind)(damaged=damaged),
        ):
            pytest.fail("it is used")
    assert layout.format == b"yarnstore-store/5\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"yarnstore-store/1",
        b"yarnstore-store/1\r\n",
        b"x/2\n",
        b"yarnstore-store/" + b"9" * 200,
        b"\xff",
        b"x" * 300,
    ],
)
def test_what_is_no_store_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "format").write_bytes(data)
    with pytest.raises(FormatError):
        StoreLayout(tmp_path).exists()


def test_a_folder_for_a_format_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "format").mkdir()
    with pytest.raises(StorageError):
        StoreLayout(tmp_path).exists()


def test_gc_and_readers_keep_each_other_out(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path, lock_timeout_s=0)
    with layout.shared(), layout.shared(), pytest.raises(LockTimeoutError), layout.exclusive():
        pass
    with layout.exclusive(), pytest.raises(LockTimeoutError), layout.shared():
        pass


def test_manifests_are_read_by_their_digest_alone(tmp_path: Path) -> None:
    layout = StoreLayout(tmp_path)
    manifest, other = manifest_of({"a": [b"a"]}), manifest_of({"a": [b"b"]})
    with pytest.raises(NotFoundError):
        layout.read_manifest(manifest.digest)
    layout.write_manifest(manifest)
    assert layout.read_manifest(manifest.digest) == manifest
    assert layout.manifest_ids() == [manifest.digest]
    assert len(manifest.data) == len(other.data)
    layout.manifest(manifest.digest).write_bytes(other.data)
    with pytest.raises(IntegrityError, match="expected"):
        layout.read_manifest(manifest.digest)
    layout.write_manifest(manifest)
    assert layout.read_manifest(manifest.digest) == manifest


# --- the cache of a registry ---------------------------------------------------------------------

ONE = CachedRegistry("hub", "https://example.org", b'{"models":{}}', '"e1"', 1)
TWO = CachedRegistry("hub", "https://example.org", b'{"models":{"x":{}}}', '"e2"', 2)


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    return StoreLayout(tmp_path / "home")


def test_a_cached_registry_comes_back(layout: StoreLayout) -> None:
    assert read_cached(layout, "hub") is None
    for cached in (ONE, ONE, TWO):
        write_cached(layout, cached)
        assert read_cached(layout, "hub") == cached
    assert (layout.registry("hub") / "registry.json").read_bytes() == TWO.data
    remove_cached(layout, "hub")
    remove_cached(layout, "hub")
    assert read_cached(layout, "hub") is None


def test_a_crash_between_the_two_files_leaves_the_old_answer_without_its_etag(layout: StoreLayout) -> None:
    write_cached(layout, ONE)
    data = layout.registry("hub") / "registry.json"
    write_cached(layout, TWO)
    data.write_bytes(ONE.data)  # the record is the new one, the data the old
    found = read_cached(layout, "hub")
    assert found is not None
    assert found.data == ONE.data
    assert found.etag == "", "its ETag is not known: it must be asked for without a condition"
    write_cached(layout, TWO)
    assert read_cached(layout, "hub") == TWO


def test_a_crash_in_the_first_fetch_leaves_nothing_to_read(layout: StoreLayout) -> None:
    write_cached(layout, ONE)
    (layout.registry("hub") / "registry.json").unlink()
    assert read_cached(layout, "hub") is None
    write_cached(layout, ONE)
    assert read_cached(layout, "hub") == ONE


def test_a_registry_that_is_not_what_was_fetched_is_refused(layout: StoreLayout) -> None:
    write_cached(layout, ONE)
    (layout.registry("hub") / "registry.json").write_bytes(ONE.data.replace(b"models", b"MODELS"))
    with pytest.raises(IntegrityError, match="expected"):
        read_cached(layout, "hub")
    write_cached(layout, TWO)
    assert read_cached(layout, "hub") == TWO


@pytest.mark.parametrize(
    "record",
    [
        *(
            b"",
            b"{",
            b"[]",
            b"{}",
            b"\xff",
            b'{"url":1,"fetched_ms":1,"sha256":""}',
            b'{"url":"","fetched_ms":"1","sha256":""}',
        ),
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_damaged_record_is_an_error_that_names_it(layout: StoreLayout, record: bytes) -> None:
    write_cached(layout, ONE)
    (layout.registry("hub") / "fetched.json").write_bytes(record)
    for read in (read_record, read_cached):
        with pytest.raises(FormatError, match=r"registries/hub/fetched\.json"):
            read(layout, "hub")
    write_cached(layout, ONE)
    assert read_cached(layout, "hub") == ONE


def test_the_record_says_what_came(layout: StoreLayout) -> None:
    write_cached(layout, ONE)
    write_cached(layout, TWO)
    expected = registry_cache.FetchRecord(
        TWO.url, 2, Sha256.of(TWO.data).hex, '"e2"', Sha256.of(ONE.data).hex
    )
    assert read_record(layout, "hub") == expected.sealed()


def test_two_that_write_at_once_leave_a_whole_cache(layout: StoreLayout) -> None:
    for n in range(30):
        together = threading.Barrier(2)

        def write(cached: CachedRegistry, together: threading.Barrier = together) -> None:
            together.wait()
            write_cached(layout, cached)

        answers = [CachedRegistry("hub", ONE.url, b"%d %d" % (n, m), "", n) for m in range(2)]
        threads = [threading.Thread(target=write, args=(answer,)) for answer in answers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read_cached(layout, "hub") in answers


def test_every_changed_byte_of_a_record_is_seen(layout: StoreLayout) -> None:
    write_cached(layout, ONE)
    path = layout.registry("hub") / "fetched.json"
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(FormatError):
            read_record(layout, "hub")
