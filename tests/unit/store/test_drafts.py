"""Files that are materialised while their chunks arrive: whatever a draft holds, the file is right."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.support.small_stores import manifest_of, noise, write_packs
from tests.support.stores import assert_whole, make_site
from yarnstore.core.digest import Buffer, ChunkId, Sha256
from yarnstore.core.manifest import Manifest, ManifestFile, pack_chunk_list
from yarnstore.errors import IntegrityError, StorageError
from yarnstore.ops.fetching.fetch import ensure_version
from yarnstore.ops.installing.checkout import make_whole
from yarnstore.ops.session.lookup import lookup
from yarnstore.progress import Progress
from yarnstore.registry.spec import Spec
from yarnstore.store import drafts as drafts_module
from yarnstore.store import fsio
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Draft, Drafts
from yarnstore.store.files import has_file, materialise
from yarnstore.store.layout import StoreLayout

CHUNKS = [noise(n, 40_000 + n) for n in range(6)]
# The third stands twice.
FILE = [*CHUNKS[:4], CHUNKS[2], *CHUNKS[4:]]


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    layout = StoreLayout(tmp_path / "home")
    layout.ensure()
    return layout


def begun(layout: StoreLayout, drafts: Drafts, *, packed: list[bytes]) -> tuple[Manifest, ManifestFile]:
    """A version of one file, of whose chunks the store has those `packed`, begun in `drafts`."""
    manifest = manifest_of({"model.bin": FILE})
    if packed:
        write_packs(layout.pack_folder, packed)
    drafts.begin(manifest)
    return manifest, manifest.files[0]


def finish(layout: StoreLayout, file: ManifestFile, draft: Draft) -> bytes:
    told: list[int] = []
    with ChunkStore(layout) as chunks:
        materialise(layout, chunks, file, told.append, draft.target, draft.placed, draft.hashed)
    assert sum(told) == file.size_bytes
    return layout.file(file).read_bytes()


def leftovers(layout: StoreLayout) -> list[str]:
    return sorted(path.name for path in layout.tmp.iterdir())


def test_chunks_arrive_in_any_order_and_from_several_threads(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        arriving = random.Random(1).sample(CHUNKS, len(CHUNKS))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda data: drafts.put(ChunkId.of(data).raw, data), arriving))
        draft = drafts.find(file)
        assert draft is not None
        assert draft.placed.all()
        # The store has no chunk of it: all of the file comes from the draft.
        assert finish(layout, file, draft) == b"".join(FILE)
    assert leftovers(layout) == []


def test_what_does_not_arrive_comes_from_the_store(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=CHUNKS[:3])
        for data in CHUNKS[3:]:
            drafts.put(ChunkId.of(data).raw, data)
        draft = drafts.find(file)
        assert draft is not None
        assert draft.placed.tolist() == [False, False, False, True, False, True, True]
        assert finish(layout, file, draft) == b"".join(FILE)


def test_a_chunk_that_nobody_has_is_named(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=CHUNKS[1:])
        draft = drafts.find(file)
        assert draft is not None
        with ChunkStore(layout) as chunks, pytest.raises(IntegrityError):
            materialise(layout, chunks, file, lambda _: None, draft.target, draft.placed)
        assert chunks.bad == {ChunkId.of(CHUNKS[0]).raw}
    assert leftovers(layout) == []


def test_a_chunk_of_another_version_or_length_changes_nothing(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        drafts.put(ChunkId.of(b"other").raw, b"other")
        drafts.put(ChunkId.of(CHUNKS[1]).raw, CHUNKS[1] + b"longer")  # as its manifest does not say
        draft = drafts.find(file)
        assert draft is not None
        assert not draft.placed.any()
        draft.target.discard()


def test_a_draft_that_went_wrong_is_no_file(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        for data in CHUNKS:
            drafts.put(ChunkId.of(data).raw, data)
        draft = drafts.find(file)
        assert draft is not None
        draft.target.write_at(100, b"\0wrong\0")
        with ChunkStore(layout) as chunks, pytest.raises(IntegrityError):
            materialise(layout, chunks, file, lambda _: None, draft.target, draft.placed)
        assert not has_file(layout, file)
        draft.check()
        assert draft.placed.tolist() == [False, True, True, True, True, True, True]


def hash_all(layout: StoreLayout, drafts: Drafts, *, coming: list[bytes]) -> None:
    ids = {ChunkId.of(data).raw for data in coming}
    with ChunkStore(layout) as chunks:
        while drafts.hash_next(chunks, ids.__contains__):
            pass


def test_a_draft_is_hashed_as_far_as_it_is_written(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=CHUNKS[4:])
        draft = drafts.find(file)
        assert draft is not None
        counts = []
        for n in (1, 0, 3, 2):  # the third chunk stands twice
            drafts.put(ChunkId.of(CHUNKS[n]).raw, CHUNKS[n])
            hash_all(layout, drafts, coming=CHUNKS)
            counts.append(draft.hashed.count)
        assert counts == [0, 2, 2, 5]
        assert draft.hashed.sha256.digest() == Sha256.of(b"".join(FILE[:5])).raw
        # What was hashed is not read again, the rest comes from the store.
        assert finish(layout, file, draft) == b"".join(FILE)
    assert leftovers(layout) == []


def test_chunks_that_do_not_come_are_taken_from_the_store_meanwhile(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[CHUNKS[0], CHUNKS[2], CHUNKS[5]])
        draft = drafts.find(file)
        assert draft is not None
        counts = []
        for n in (3, 1, 4):
            drafts.put(ChunkId.of(CHUNKS[n]).raw, CHUNKS[n])
            hash_all(layout, drafts, coming=[CHUNKS[n] for n in (1, 3, 4)])
            counts.append(draft.hashed.count)
        assert counts == [1, 5, 7]
        assert draft.placed.all()
        assert finish(layout, file, draft) == b"".join(FILE)


def test_a_chunk_that_nobody_has_does_not_stop_the_others(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        drafts.put(ChunkId.of(CHUNKS[0]).raw, CHUNKS[0])
        hash_all(layout, drafts, coming=[])
        draft = drafts.find(file)
        assert draft is not None
        assert draft.hashed.count == 1
        for data in CHUNKS[1:]:
            drafts.put(ChunkId.of(data).raw, data)
        assert finish(layout, file, draft) == b"".join(FILE)


def test_a_draft_that_is_hashed_can_be_finished_after_a_failure(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        for data in CHUNKS[:-1]:
            drafts.put(ChunkId.of(data).raw, data)
        hash_all(layout, drafts, coming=CHUNKS)
        draft = drafts.find(file)
        assert draft is not None
        assert draft.hashed.count == len(FILE) - 1
        with pytest.raises(IntegrityError):
            finish(layout, file, draft)
        drafts.put(ChunkId.of(CHUNKS[-1]).raw, CHUNKS[-1])
        assert finish(layout, file, draft) == b"".join(FILE)


def test_what_was_hashed_before_it_was_found_damaged_does_not_count(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=CHUNKS)
        for data in CHUNKS:
            drafts.put(ChunkId.of(data).raw, data)
        draft = drafts.find(file)
        assert draft is not None
        draft.target.write_at(100, b"\0wrong\0")
        hash_all(layout, drafts, coming=CHUNKS)
        assert draft.hashed.count == len(FILE)
        with pytest.raises(IntegrityError):
            finish(layout, file, draft)
        draft.check()
        assert draft.hashed.count == 0
        assert finish(layout, file, draft) == b"".join(FILE)


def test_a_draft_that_cannot_be_read_is_hashed_no_further(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=CHUNKS)
        for data in CHUNKS:
            drafts.put(ChunkId.of(data).raw, data)
        draft = drafts.find(file)
        assert draft is not None
        os.truncate(draft.target.path, len(CHUNKS[0]))
        hash_all(layout, drafts, coming=CHUNKS)
        assert draft.hashed.count == 1
        draft.check()
        assert finish(layout, file, draft) == b"".join(FILE)


def test_what_is_empty_is_removed_and_takes_no_more(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        begun(layout, drafts, packed=[])
        assert len(leftovers(layout)) == 1
    assert leftovers(layout) == []
    # A worker that is late writes into no file that has since been given the number of this one.
    with pytest.raises(StorageError):
        drafts.put(ChunkId.of(CHUNKS[0]).raw, CHUNKS[0])


def test_small_files_and_those_there_are_not_begun(
    layout: StoreLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts_module, "_OPEN_DRAFTS", 2)
    sizes = {"tiny": 1000, "a": 70_000, "b": 90_000, "c": 80_000}
    manifest = manifest_of({path: [noise(n, size)] for n, (path, size) in enumerate(sizes.items())})
    with Drafts(layout) as drafts:
        drafts.begin(manifest)
        drafts.begin(manifest)  # once more, as after a delta pack that was bad
        taken = [file.path for file in manifest.files if (draft := drafts.find(file)) and _drop(draft)]
        assert taken == ["b", "c"]
    assert leftovers(layout) == []


def test_what_a_run_wrote_is_hashed_and_used_by_the_next(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        for data in CHUNKS[1:4]:
            drafts.put(ChunkId.of(data).raw, data)
        draft = drafts.find(file)
        assert draft is not None
        draft.target.write_at(len(CHUNKS[0]) + 7, b"\0wrong\0")
        draft.target.path.chmod(0o444)  # as just before it gets its name
    assert leftovers(layout) == [f"{file.sha256.hex}.draft"]
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=[])
        draft = drafts.find(file)
        assert draft is not None
        assert draft.placed.tolist() == [False, False, True, True, True, False, False]
        ids = np.array(sorted(ChunkId.of(data).raw for data in CHUNKS), "S32")
        held = {ChunkId.of(data).raw for data in CHUNKS[2:4]}
        assert set(ids[drafts.held(ids)].tolist()) == held
        for n in (0, 1, 4, 5):
            assert drafts.put(ChunkId.of(CHUNKS[n]).raw, CHUNKS[n])
        assert drafts.held(ids).all()
        assert finish(layout, file, draft) == b"".join(FILE)
    assert leftovers(layout) == []


def test_one_process_writes_a_draft_and_others_use_packs(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts, Drafts(layout) as others:
        _, file = begun(layout, drafts, packed=[])
        begun(layout, others, packed=[])
        assert others.find(file) is None
        wanted = np.array([ChunkId.of(CHUNKS[0]).raw], "S32")
        assert not others.put(ChunkId.of(CHUNKS[0]).raw, CHUNKS[0])
        assert others.for_packs(wanted).all()
        assert drafts.put(ChunkId.of(CHUNKS[0]).raw, CHUNKS[0])
        assert not drafts.for_packs(wanted).any()


def test_a_chunk_of_a_file_without_a_draft_needs_a_pack_too(layout: StoreLayout) -> None:
    small, large = noise(1, 5_000), noise(2, 90_000)
    manifest = manifest_of({"large.bin": [small, large], "small.bin": [small]})
    with Drafts(layout) as drafts:
        drafts.begin(manifest)
        assert drafts.put(ChunkId.of(large).raw, large)
        assert not drafts.put(ChunkId.of(small).raw, small)
    with Drafts(layout, packs_too=True) as drafts:
        drafts.begin(manifest)
        assert not drafts.put(ChunkId.of(large).raw, large)


def same_content(chunks: list[bytes], more: bytes = b"") -> Manifest:
    """A manifest of the bytes of `FILE`, in other chunks, and `more` that are none of them."""
    packed = pack_chunk_list([(ChunkId.of(data).raw, len(data)) for data in [*chunks, more] if data])
    size = sum(map(len, [*chunks, more]))
    file = ManifestFile("model.bin", size, Sha256.of(b"".join(FILE)), packed)
    return Manifest.make("m", "1.0.0", "default", [file])


@pytest.mark.parametrize(
    "before",
    [same_content(FILE, noise(99)), same_content([b"".join(FILE[:3]), b"".join(FILE[3:])])],
    ids=["longer", "cut elsewhere"],
)
def test_a_draft_is_of_one_list_of_chunks(layout: StoreLayout, before: Manifest) -> None:
    """The registry's manifest of the version changes while it is fetched."""
    with Drafts(layout) as drafts:
        drafts.begin(before)
        for data in (*CHUNKS, noise(99), b"".join(FILE[:3]), b"".join(FILE[3:])):
            drafts.put(ChunkId.of(data).raw, data)
        _, file = begun(layout, drafts, packed=CHUNKS)
        assert len(leftovers(layout)) == 1
        draft = drafts.find(file)
        assert draft is not None
        # The content is the same, however it is cut: each chunk was hashed in its place.
        assert draft.placed.all()
        assert finish(layout, file, draft) == b"".join(FILE)


def test_a_draft_that_cannot_be_finished_is_removed(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        _, file = begun(layout, drafts, packed=CHUNKS)
        draft = drafts.find(file)
        assert draft is not None
        layout.files.touch()
        with ChunkStore(layout) as chunks, pytest.raises(StorageError, match="is not a folder"):
            materialise(layout, chunks, file, lambda _: None, draft.target, draft.placed)
    assert leftovers(layout) == []


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_makes_is_not(layout: StoreLayout) -> None:
    with Drafts(layout) as drafts:
        begun(layout, drafts, packed=[])
        (mine,) = leftovers(layout)
        (layout.tmp / f"{'0' * 24}.file").write_bytes(b"of a dead one")
        (layout.tmp / f"{'0' * 24}.pack").write_bytes(b"of a dead one")
        with Drafts(layout):
            assert leftovers(layout) == sorted([mine, f"{'0' * 24}.pack"])


def _drop(draft: Draft) -> bool:
    draft.target.discard()
    return True


def test_a_version_whose_draft_went_wrong_gets_those_chunks_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site(tmp_path)
    real, damaged = Draft.put, set()

    def put(draft: Draft, n: int, data: Buffer) -> bool:
        if n == 0 and draft.file.path not in damaged:  # the disk has other bytes than were written
            damaged.add(draft.file.path)
            draft.target.write_at(0, bytes(len(data)))
            draft.placed[0] = True
        return real(draft, n, data)

    monkeypatch.setattr(Draft, "put", put)
    with site.store() as store:
        with contextlib.ExitStack() as stack:
            told: list[Progress] = []
            session = stack.enter_context(store._session(told.append))
            stack.enter_context(session.layout.shared())
            drafts = stack.enter_context(Drafts(session.layout))
            chunks = stack.enter_context(ChunkStore(session.layout))
            offer = lookup(session, Spec.parse("phi-3-mini@1.0.0"))
            found, manifest, brought = ensure_version(session, offer, chunks, drafts=drafts)
            assert brought.chunks
            found_drafts = [draft for file in manifest.files if (draft := drafts.find(file))]
            assert all(draft.placed.all() for draft in found_drafts)
            assert len(found_drafts) == len(damaged) == 2
            make_whole(session, manifest, found, chunks, drafts)
            written = [event.bytes_done for event in told if event.phase == "write"]
            assert written[-1] == max(written) == manifest.size_bytes
        path = Path(store.path("phi-3-mini@1.0.0"))
        assert (path / "model.bin").read_bytes() == (site.source("1.0.0") / "model.bin").read_bytes()
        assert store.fsck().problems == []


@pytest.mark.parametrize(
    ("call", "where"),
    [
        ("pwrite", "MainThread"),
        ("pwrite", "yarnstore-fetch"),
        ("pwrite", "yarnstore-pack"),
        ("fdatasync", "_sync_in_background"),
        ("fsync", "MainThread"),
        ("fsync", "yarnstore-pack"),
    ],
)
def test_the_disk_fails_once_in_any_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, where: str
) -> None:
    """A typed error or none, nothing left in `tmp/`, and the same command succeeds afterwards."""
    monkeypatch.setattr(fsio, "_SYNC_EVERY_BYTES", 200_000)
    made, real = make_site(tmp_path, versions=("1.0.0",)), getattr(os, call)
    for n in range(100):
        site = made.copy(tmp_path / f"{n}")
        failed = False
        count = itertools.count()

        def failing(*arguments: object, n: int = n, count: Iterator[int] = count) -> object:
            nonlocal failed
            if where in threading.current_thread().name and next(count) == n:
                failed = True
                raise OSError(errno.EIO, "lost")
            return real(*arguments)

        monkeypatch.setattr(os, call, failing)
        with site.store() as store, contextlib.suppress(StorageError):
            store.checkout("phi-3-mini@1.0.0")
        monkeypatch.setattr(os, call, real)
        left = [path.name for path in (site.home / "tmp").iterdir()]
        assert [name for name in left if not name.endswith(".draft")] == []
        with site.store() as store:
            store.checkout("phi-3-mini@1.0.0")
        assert list((site.home / "tmp").iterdir()) == []
        assert_whole(site.home, site)
        if not failed:
            break  # it is not called as often as that
    assert 0 < n < 99


def test_a_chunk_costs_the_same_in_a_large_file(layout: StoreLayout) -> None:
    """A file of 50 GB has some 200 000 chunks: what is done for each must not depend on their number."""

    def seconds_each(count: int) -> float:
        data = bytes(1000)
        chunks = [random.Random(n).randbytes(32) for n in range(count)]
        listed = pack_chunk_list([(chunk, len(data)) for chunk in chunks])
        file = ManifestFile("model.bin", count * len(data), Sha256.of(bytes([count % 251])), listed)
        best = 1.0
        with Drafts(layout) as drafts:
            drafts.begin(Manifest.make("m", "1.0.0", "default", [file]))
            assert drafts.find(file) is not None
            for some in (chunks[:100], chunks[100:200], chunks[200:300]):
                started = time.process_time()
                for chunk in some:
                    drafts.put(chunk, data)
                best = min(best, time.process_time() - started)
        return best

    assert seconds_each(100_000) < 6 * seconds_each(1_000)
