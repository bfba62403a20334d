"""`gc` frees no pack of which it cannot tell what it holds; `fsck --repair` loses none that it mends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fine_tunes import World, tune, weights
from tests.support.small_stores import write_packs
from tests.support.stores import flip
from yarnstore import Store
from yarnstore.core.digest import PackId
from yarnstore.core.pack import PACK_HEADER_BYTES
from yarnstore.errors import DiskFullError, IntegrityError, StorageError
from yarnstore.ops.checking import repair
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep import gc_plan, repack
from yarnstore.store import chunks, fsio
from yarnstore.store.layout import PackFolder, StoreLayout
from yarnstore.store.refs import Refs, VersionName


class Home:
    """A store with versions of a file of noise, each imported into a pack of its own."""

    def __init__(self, root: Path, versions: int = 1) -> None:
        self.root = root
        self.store = Store.open(root / "home")
        self.bodies = [random.Random(n).randbytes(400_000) for n in range(versions)]
        self.packs: list[Path] = []
        for n, body in enumerate(self.bodies):
            (root / "m.bin").write_bytes(body)
            self.store.import_model(root / "m.bin", f"m@1.0.{n}")
            self.packs += [path for path in self.pack_files() if path not in self.packs]

    def files(self) -> list[Path]:
        """Every file of the store but the statistics, in which failures are counted."""
        found = (path for path in self.store.home.rglob("*") if path.is_file())
        return sorted(path for path in found if path.name != "statistics")

    def pack_files(self) -> list[Path]:
        return sorted((self.store.home / "packs").glob("*.pack"))

    def serves(self, n: int) -> bool:
        self.store.export(f"m@1.0.{n}", self.root / f"out{n}")
        return (self.root / f"out{n}").read_bytes() == self.bodies[n]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def fail(*_: object) -> None:
    raise DiskFullError("no space left")


# --- indexes ------------------------------------------------------------------------------------


def test_a_lost_index_is_made_anew_before_gc(home: Home) -> None:
    home.packs[0].with_suffix(".idx").unlink()
    home.store.gc(keep=3)
    assert home.pack_files() == home.packs
    assert home.serves(0)


@pytest.mark.parametrize("index", ["lost", "bad"])
def test_gc_stops_at_a_pack_that_nobody_can_list(home: Home, index: str) -> None:
    (pack,) = home.packs
    flip(pack, 3)
    flip(pack.with_suffix(".idx"), 100)
    if index == "lost":
        pack.with_suffix(".idx").unlink()
    (home.root / "n.bin").write_bytes(b"garbage soon")
    home.store.import_model(home.root / "n.bin", "n@1.0.0")
    home.store.remove("n@1.0.0")
    before = home.files()
    with pytest.raises(IntegrityError, match=pack.name):
        home.store.gc(keep=3)
    assert home.files() == before


def test_gc_stops_at_a_pack_that_the_disk_does_not_give(home: Home) -> None:
    (pack,) = home.packs
    flip(pack.with_suffix(".idx"), 100)
    moved = pack.rename(home.root / "elsewhere")
    pack.symlink_to(moved)  # which is not followed: an error of the system's
    with pytest.raises(StorageError):
        home.store.gc(keep=3)
    assert pack.is_symlink()


def test_gc_on_a_full_disk_reads_packs_whose_index_is_bad(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(home.packs[0].with_suffix(".idx"), 100)
    monkeypatch.setattr(chunks, "write_index", fail)
    home.store.gc(keep=3)
    assert home.pack_files() == home.packs
    assert home.serves(0)


def test_a_pack_whose_index_went_bad_is_not_dropped(home: Home) -> None:
    flip(home.packs[0].with_suffix(".idx"), 100)
    repack.drop_packs(
        Session.without_registries(StoreLayout(home.store.home)), {PackId.parse(home.packs[0].stem)}
    )
    assert home.pack_files() == home.packs
    assert home.serves(0)


def test_a_repair_that_ends_early_leaves_the_index_in_its_place(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(home.packs[0].with_suffix(".idx"), 100)
    monkeypatch.setattr(repair, "rebuild_index", fail)
    with pytest.raises(DiskFullError):
        home.store.fsck(repair=True)
    assert home.packs[0].with_suffix(".idx").exists()


# --- beside commands that share the lock with its first plan ------------------------------------


def test_a_pack_that_a_download_publishes_while_gc_plans_is_no_damage(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the indexes were read, and before the packs are listed."""
    read = gc_plan.load_indexes
    arriving = [random.Random(9).randbytes(1000)]

    def overtaken(folder: PackFolder, *, rebuild: bool) -> chunks.FoundIndexes:
        found = read(folder, rebuild=rebuild)
        if arriving:
            write_packs(folder, [arriving.pop()])
        return found

    monkeypatch.setattr(gc_plan, "load_indexes", overtaken)
    home.store.gc(keep=9)
    assert not arriving
    assert home.store.fsck().problems == []
    assert home.serves(0)


@pytest.mark.parametrize("command", ["gc", "list"])
def test_a_version_that_is_removed_while_others_read_the_refs_is_no_damage(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path, versions=3)
    listed, going = Refs.versions, [Store.open(home.store.home)]

    def overtaken(refs: Refs, model: str | None = None) -> list[VersionName]:
        found = listed(refs, model)
        if going:
            going.pop().remove("m@1.0.1")
        return found

    monkeypatch.setattr(Refs, "versions", overtaken)
    if command == "gc":
        home.store.gc(keep=9)
    else:
        assert [item.version for item in home.store.list_versions()] == ["1.0.2", "1.0.0"]
    assert not going
    assert home.store.fsck().problems == []
    assert home.serves(0)
    assert home.serves(2)


# --- rewriting ----------------------------------------------------------------------------------


def test_two_gc_at_once_rewrite_the_same_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path, versions=5)
    batches = repack._batches
    others = [Store.open(home.store.home)]

    def overtaken(session: Session, packs: list[PackId]) -> Iterator[list[PackId]]:
        if others:
            others.pop().gc(keep=9)
        yield from batches(session, packs)

    monkeypatch.setattr(repack, "_batches", overtaken)
    home.store.gc(keep=9)
    assert home.store.fsck().problems == []
    assert len(home.pack_files()) == 1
    assert all(home.serves(n) for n in range(5))


def test_a_damaged_chunk_keeps_its_own_pack_alone_from_being_rewritten(tmp_path: Path) -> None:
    home = Home(tmp_path, versions=5)
    flip(home.packs[2], PACK_HEADER_BYTES + 300)
    home.store.gc(keep=9)
    left = home.pack_files()
    assert home.packs[2] in left
    assert len(left) == 2
    assert all(home.serves(n) for n in (0, 1, 3, 4))
    home.store.gc(keep=9)
    assert home.pack_files() == left


def test_a_damaged_chunk_is_taken_from_a_file_where_its_pack_is_rewritten(tmp_path: Path) -> None:
    home = Home(tmp_path, versions=5)
    home.store.checkout("m@1.0.2")
    flip(home.packs[2], PACK_HEADER_BYTES + 300)
    home.store.gc(keep=9)
    assert len(home.pack_files()) == 1
    assert home.store.fsck().problems == []


def test_a_pack_without_garbage_is_not_rewritten_however_small(tmp_path: Path) -> None:
    """Its index may be larger than it is."""
    (tmp_path / "m.bin").write_bytes(b"a few bytes")
    store = Store.open(tmp_path / "home")
    store.import_model(tmp_path / "m.bin", "m@1.0.0")
    done = store.gc(keep=3)
    assert (done.packs_removed, done.packs_rewritten, done.freed_bytes) == (0, 0, 0)


# --- mending packs ------------------------------------------------------------------------------


def test_a_pack_with_bytes_at_its_end_is_mended_in_its_place(home: Home) -> None:
    (pack,) = home.packs
    good = pack.read_bytes()
    pack.write_bytes(good + bytes(100))
    result = home.store.fsck(repair=True)
    assert result.remaining == []
    assert pack.read_bytes() == good
    (bad,) = (home.store.home / "trash").glob("*.pack")
    assert bad.read_bytes() == good + bytes(100)
    assert home.serves(0)


def test_deltas_outlive_the_damage_of_their_base(tmp_path: Path) -> None:
    world = World(tmp_path)
    one = weights(1)
    world.publish("1.0.0", one)
    world.publish("1.1.0", tune(one, 2))
    world.connect()
    world.store.fetch("tuned@1.0.0")
    (base,) = (world.store.home / "packs").glob("*.pack")
    world.store.fetch("tuned@1.1.0")
    world.registry.rename(tmp_path / "gone")
    (delta,) = set((world.store.home / "packs").glob("*.pack")) - {base}
    for at in range(PACK_HEADER_BYTES + 100, base.stat().st_size, 1 << 16):
        flip(base, at)
    with delta.open("ab") as file:  # so that its name is not its hash
        file.write(b"x")
    assert world.store.fsck(repair=True).remaining
    (tmp_path / "weights.bin").write_bytes(world.contents["1.0.0"])
    world.store.import_model(tmp_path / "weights.bin", "tuned@1.0.0")
    assert world.store.fsck(repair=True).remaining == []
    world.check("1.1.0")


# --- temporary files ----------------------------------------------------------------------------


def test_gc_leaves_a_file_that_is_being_written(home: Home) -> None:
    tmp = home.store.home / "tmp"
    with fsio.NewFile(tmp, ".tmp") as living:  # as a refreshed registry: without the store's lock
        living.write(b"half")
        (tmp / "dead.tmp").write_bytes(b"left")
        home.store.gc(keep=3)
        assert list(tmp.iterdir()) == [living.path]
        living.publish(home.root / "whole")
    assert (home.root / "whole").read_bytes() == b"half"
