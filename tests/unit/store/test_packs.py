"""Packs on disk: named by their bytes, kept after a crash, rebuilt where an index is bad."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from blake3 import blake3

from tests.support.small_stores import noise, other_process, write_packs
from yarnstore.core.codec import decode_entry, make_entry
from yarnstore.core.digest import ChunkId, PackId
from yarnstore.core.index import id_bytes, parse_index
from yarnstore.core.pack import PACK_HEADER, encode_entry
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import packs
from yarnstore.store.chunks import PackReader, load_indexes
from yarnstore.store.layout import PackFolder
from yarnstore.store.packs import PackWriter, iter_entries, rebuild_index, recover_packs
from yarnstore.store.places import ChunkTable

CHUNKS = [noise(1), b"text " * 500, noise(2, 70_000), b"x"]
ENTRIES = [make_entry(ChunkId.of(data).raw, data) for data in CHUNKS]
TORN = PACK_HEADER + b"".join(b"".join(encode_entry(entry)) for entry in ENTRIES)


@pytest.fixture
def folder(tmp_path: Path) -> PackFolder:
    return PackFolder(tmp_path / "packs", tmp_path / "tmp")


def held(folder: PackFolder) -> set[bytes]:
    """The chunks that the folder's indexes lead to, each read and hashed."""
    table = ChunkTable(load_indexes(folder, rebuild=False).indexes)
    found = set()
    for at in range(len(table)):
        entry = packs_entry(folder, table, at)
        assert entry == id_bytes(table.ids, at)
        found.add(entry)
    return found


def packs_entry(folder: PackFolder, table: ChunkTable, at: int) -> bytes:

    with PackReader(folder, table) as reader:
        return ChunkId.of(decode_entry(reader.read_entry(at))).raw


def names_are_true(folder: PackFolder) -> bool:
    return all(blake3(path.read_bytes()).hexdigest() == path.stem for path in folder.packs.glob("*.pack"))


def ids_of(chunks: list[bytes]) -> set[bytes]:
    return {ChunkId.of(data).raw for data in chunks}


def test_what_is_written_is_found(folder: PackFolder) -> None:
    (pack,) = write_packs(folder, CHUNKS)
    assert folder.pack(pack).read_bytes() == TORN
    assert names_are_true(folder)
    assert held(folder) == ids_of(CHUNKS)
    assert [entry for _, entry in iter_entries(folder.pack(pack))] == ENTRIES
    assert list(folder.tmp.iterdir()) == []


def test_a_writer_that_wrote_nothing_makes_nothing(folder: PackFolder) -> None:
    assert write_packs(folder, []) == []
    assert not folder.packs.exists()


def test_packs_end_at_their_size(folder: PackFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_TARGET_BYTES", 12_000)
    written = write_packs(folder, [noise(n) for n in range(5)])
    assert len(written) == 3
    assert all(folder.pack(pack).stat().st_size <= 12_000 for pack in written)
    assert len(held(folder)) == 5
    assert names_are_true(folder)


def test_an_error_elsewhere_keeps_what_arrived(folder: PackFolder) -> None:
    def fail_after_one() -> None:
        with PackWriter(folder) as writer:
            writer.add(ENTRIES[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail_after_one()
    assert held(folder) == ids_of(CHUNKS[:1])
    assert names_are_true(folder)


@pytest.mark.parametrize("delay_ms", range(2, 42, 8))
def test_an_interrupt_leaves_no_torn_pack_under_a_name(folder: PackFolder, delay_ms: int) -> None:
    """Ctrl-C comes between any two instructions, most often when a write returns."""
    entries = [make_entry(ChunkId.of(data).raw, data) for data in (noise(n, 1 << 20) for n in range(4))]

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay_ms / 1000, interrupt)
    written = 0

    def write_and_wait() -> None:
        nonlocal written
        with PackWriter(folder) as writer:
            writer.add(ENTRIES[0])
            timer.start()
            # Less than ends a pack: where the interrupt comes later, it finds a whole one.
            for entry in itertools.islice(itertools.cycle(entries), 60):
                writer.add(entry)
                written += 1
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        write_and_wait()
    timer.join()
    assert names_are_true(folder)
    deadline = time.monotonic() + 10
    while recover_packs(folder) == 0 and list(folder.tmp.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)  # a sync under way keeps the file's lock for as long as it lasts
    assert names_are_true(folder)
    assert held(folder) == {entry.chunk_id for entry in [ENTRIES[0], *entries[:written]]} | (
        held(folder) & {entry.chunk_id for entry in entries}
    )
    assert list(folder.tmp.iterdir()) == []


def test_a_full_disk_publishes_nothing_torn(folder: PackFolder) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_the_disk() -> None:
        with PackWriter(folder) as writer:
            writer.add(ENTRIES[0])
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            writer.add(ENTRIES[2])

    try:
        with pytest.raises(StorageError):
            fill_the_disk()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert not folder.packs.exists()
    assert list(folder.tmp.iterdir()) == []


def entry_ends() -> list[int]:
    ends, at = [], len(PACK_HEADER)
    for entry in ENTRIES:
        at += entry.stored_bytes
        ends.append(at)
    return ends


@pytest.mark.parametrize(
    "cut", [0, 1, 15, 16, 17, 60, *(end + by for end in entry_ends() for by in (-1, 0, 1))]
)
def test_whole_entries_of_a_torn_pack_are_kept(folder: PackFolder, cut: int) -> None:
    folder.tmp.mkdir()
    (folder.tmp / "left.pack").write_bytes(TORN[:cut])
    whole = sum(end <= cut for end in entry_ends())
    assert recover_packs(folder) == whole
    assert held(folder) == ids_of(CHUNKS[:whole])
    assert names_are_true(folder)
    assert list(folder.tmp.iterdir()) == []
    assert recover_packs(folder) == 0


def test_a_damaged_entry_is_never_kept(folder: PackFolder) -> None:
    folder.tmp.mkdir()
    data = bytearray(TORN)
    data[entry_ends()[0] - 1] ^= 1
    (folder.tmp / "left.pack").write_bytes(data)
    assert recover_packs(folder) == 0
    assert held(folder) == set()


def test_other_files_in_tmp_and_links_are_left_alone(folder: PackFolder, tmp_path: Path) -> None:
    folder.tmp.mkdir()
    (tmp_path / "elsewhere").write_bytes(TORN)
    (folder.tmp / "x.pack").symlink_to(tmp_path / "elsewhere")
    (folder.tmp / "y.download").write_bytes(TORN)
    assert recover_packs(folder) == 0
    assert (tmp_path / "elsewhere").read_bytes() == TORN
    assert len(list(folder.tmp.iterdir())) == 2


def test_the_pack_of_a_living_writer_is_left_to_it(folder: PackFolder) -> None:
    script = """
from yarnstore.core.codec import make_entry
from yarnstore.core.digest import ChunkId
from yarnstore.store.layout import PackFolder
from yarnstore.store.packs import PackWriter
root = Path(sys.argv[1])
with PackWriter(PackFolder(root / "packs", root / "tmp")) as writer:
    writer.add(make_entry(ChunkId.of(b"x").raw, b"x"))
    print("ready", flush=True)
    sys.stdin.read()
"""
    with other_process(script, str(folder.packs.parent)) as process:
        assert recover_packs(folder) == 0
        process.kill()
        process.wait(10)
        assert recover_packs(folder) == 1
    assert held(folder) == ids_of([b"x"])


def test_an_index_is_rebuilt_from_its_pack(folder: PackFolder) -> None:
    (pack,) = write_packs(folder, CHUNKS)
    good = folder.index(pack).read_bytes()
    for bad in (b"", b"\0" * len(good), good[:-1], good[:40] + b"\xff" + good[41:]):
        folder.index(pack).write_bytes(bad)
        assert len(load_indexes(folder, rebuild=False).faults) == 1
        found = load_indexes(folder, rebuild=True)
        assert [fault for fault, _ in found.faults] == [pack]
        assert len(found.indexes) == 1
        assert folder.index(pack).read_bytes() == good


def test_a_rebuilt_index_has_only_what_is_sound(folder: PackFolder) -> None:
    (pack,) = write_packs(folder, CHUNKS)
    data = bytearray(TORN)
    data[entry_ends()[0] - 1] ^= 1
    folder.pack(pack).write_bytes(data)
    assert len(rebuild_index(folder, pack)) == 3
    folder.pack(pack).write_bytes(TORN[: entry_ends()[2] - 1])
    assert len(rebuild_index(folder, pack)) == 2
    assert len(parse_index(folder.index(pack).read_bytes(), pack=pack)) == 2
    before = folder.index(pack).read_bytes()
    folder.pack(pack).write_bytes(b"nonsense")
    with pytest.raises(IntegrityError):  # an index without rows would say that the pack is garbage
        rebuild_index(folder, pack)
    assert folder.index(pack).read_bytes() == before


def test_an_index_without_its_pack_is_passed_over(folder: PackFolder) -> None:
    (pack,) = write_packs(folder, CHUNKS)
    folder.pack(pack).unlink()
    found = load_indexes(folder, rebuild=True)
    assert found.indexes == []
    assert isinstance(found.faults[0][1], NotFoundError)
    with pytest.raises(NotFoundError):
        rebuild_index(folder, pack)


def test_a_good_index_under_anothers_name_is_a_bad_one(folder: PackFolder) -> None:
    """A poisoned index with the right name (inspect_ai#5443)."""
    (one,) = write_packs(folder, CHUNKS[:2])
    (two,) = write_packs(folder, CHUNKS[2:])
    shutil.copyfile(folder.index(one), folder.index(two))
    found = load_indexes(folder, rebuild=True)
    assert [fault for fault, _ in found.faults] == [two]
    assert held(folder) == ids_of(CHUNKS)


def test_names_that_are_no_packs_are_passed_over(folder: PackFolder) -> None:
    (pack,) = write_packs(folder, CHUNKS)
    for name in (".DS_Store", "x.idx", f"{pack.hex.upper()}.idx", f"{pack.hex}.idx.tmp"):
        (folder.packs / name).touch()
    assert folder.pack_ids() == [pack]
    assert folder.pack_ids(".pack") == [pack]
    assert PackId.parse(pack.hex) == pack


def test_a_file_that_is_no_pack_is_an_error(folder: PackFolder, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"YSTOREPK" + bytes(8))
    with pytest.raises(FormatError):
        list(iter_entries(tmp_path / "x"))
