"""Stores on file systems without hard links: a view has the only copy of its files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.support.fine_tunes import MODEL, SIZE, World, tune, weights
from tests.support.small_stores import noise
from tests.support.stores import copy_tree, flip, tree_hashes
from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.core.index import id_bytes
from yarnstore.registry.policies import Retention
from yarnstore.store import hashed, held, native
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.disk import content_bytes, disk_bytes
from yarnstore.store.layout import StoreLayout

KILLS = 6
VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("held"))
    bits = weights(1)
    for n, version in enumerate(VERSIONS):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    return world


@pytest.fixture
def world(published: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A store that knows the registry, on a file system without hard links."""
    world = World(tmp_path)
    world.registry, world.contents = published.registry, published.contents
    world.connect()
    without_links(monkeypatch)
    return world


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)


def share(world: World) -> float:
    """What the store takes, in multiples of one version; folders, of whole blocks, are much here."""
    return content_bytes(world.store.home) / SIZE


def layout_of(world: World) -> StoreLayout:
    return StoreLayout(world.store.home)


def sound(world: World, *versions: str) -> None:
    assert world.store.fsck().problems == []
    for version in versions:
        world.check(version)
    world.store.close()


@pytest.mark.parametrize(("rollback", "most"), [("instant", (1.02, 2.03, 2.2)), ("thin", (1.02, 1.16, 1.3))])
def test_each_version_takes_what_it_takes_with_links(
    world: World, rollback: str, most: tuple[float, ...]
) -> None:
    world.store.settings = msgspec.structs.replace(
        world.store.settings,
        retention=Retention(rollback=rollback),  # type: ignore[arg-type]
    )
    for version, limit in zip(VERSIONS, most, strict=True):
        world.store.checkout(f"{MODEL}@{version}")
        world.store.gc(grace_s=0)
        assert share(world) < limit
        total = world.store.storage().total_bytes
        assert abs(total - disk_bytes(world.store.home)) < 0.01 * total
        sound(world, version)
    world.store.rollback_model(MODEL)
    sound(world, *VERSIONS)


def test_an_install_leaves_one_copy(world: World) -> None:
    world.store.checkout(f"{MODEL}@1.0.0")
    assert share(world) < 1.02
    assert [path.suffix for path in (world.store.home / "files").iterdir()] == [held.HELD]
    assert layout_of(world).relies_on_files
    assert world.store.gc(grace_s=0).freed_bytes == 0
    sound(world, "1.0.0")


# --- what shares files -------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A store with two versions of several files, of which one is the same; 1.1.0 is installed."""

    home: Path
    sources: Path

    @property
    def layout(self) -> StoreLayout:
        return StoreLayout(self.home)

    def store(self) -> Store:
        return Store.open(self.home)

    def view(self, version: str) -> Path:
        with self.store() as store:
            return Path(os.path.realpath(store.path(f"m@{version}")))

    def check(self, *versions: str) -> None:
        with self.store() as store:
            assert store.fsck().problems == []
            for version in versions:
                path = Path(store.path(f"m@{version}"))
                assert tree_hashes(path) == tree_hashes(self.sources / version)

    def copy(self, root: Path) -> Pair:
        root.mkdir()
        copy_tree(self.home, root / "home")
        return Pair(root / "home", self.sources)


def _made_pair(root: Path) -> Pair:
    sources = root / "sources"
    for n, version in enumerate(("1.0.0", "1.1.0", "1.2.0")):
        folder = sources / version
        (folder / "deep").mkdir(parents=True)
        (folder / "weights.bin").write_bytes(noise(n, 90_000))
        (folder / "deep" / "tokenizer.bin").write_bytes(noise(100, 30_000))
        (folder / "notes.txt").write_text(version)
        (folder / "run.sh").write_text("# " + "x" * 6000)
        (folder / "run.sh").chmod(0o755)
        Store.publish(folder, f"m@{version}", registry=root / "registry")
    pair = Pair(root / "home", sources)
    with pair.store() as store:
        store.add_registry("here", root / "registry")
        store.checkout("m@1.0.0")
        store.checkout("m@1.1.0")
    return pair


@pytest.fixture(scope="module")
def made_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    with pytest.MonkeyPatch.context() as patch:
        without_links(patch)
        return _made_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(made_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    without_links(monkeypatch)
    return made_pair.copy(tmp_path / "copy")


def holders(layout: StoreLayout) -> set[str]:
    """The views that records name."""
    return {path.read_text().partition("/")[0] for path in layout.files.glob(f"*{held.HELD}")}


def test_a_record_leads_to_a_file_before_it_moves(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    real, moved = os.replace, []

    def checked(source: str, target: str, **more: int) -> None:
        name = os.path.basename(source)
        if len(name) == 64 and not target.endswith(name) and (pair.layout.files / name).exists():
            moved.append(name)
            assert (pair.layout.files / f"{name}{held.HELD}").exists()
        real(source, target, **more)

    with pair.store() as store:
        monkeypatch.setattr(os, "replace", checked)
        store.checkout("m@1.2.0")
    assert moved, "no file moved: the test says nothing"
    pair.check("1.2.0")


def test_a_view_that_goes_hands_its_files_over(pair: Pair) -> None:
    with pair.store() as store:
        assert len(holders(pair.layout)) == 2
        store.gc(thin="*", grace_s=0)
        installed = Path(os.path.realpath(store.path("m"))).name
    assert holders(pair.layout) == {installed}
    assert {path.name for path in (pair.home / "views").iterdir()} == {installed}
    small = [path for path in pair.layout.files.iterdir() if path.suffix != held.HELD]
    assert [path.read_text() for path in small] == ["1.1.0"]  # no larger than its record
    with pair.store() as store:
        store.rollback_model("m")
    pair.check("1.0.0", "1.1.0")


def test_a_view_loses_its_name_before_its_records(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose files nothing needs: `fsck` would name a view with files that no record leads to."""
    real, removed = native.unlink, []

    def checked(name: str, **more: int) -> None:
        record = pair.layout.files / os.path.basename(name)
        if name.endswith(held.HELD) and record.exists():
            view = record.read_text().partition("/")[0]
            assert not (pair.layout.views / view).exists()
            removed.append(view)
        real(name, **more)

    with pair.store() as store:
        store.checkout("m@1.2.0")
        monkeypatch.setattr(native, "unlink", checked)
        store.gc(thin="*", grace_s=0)
    assert removed, "no record was removed: the test says nothing"
    pair.check("1.1.0", "1.2.0")


def test_a_view_that_a_program_has_open_keeps_its_files(pair: Pair) -> None:
    with pair.store() as store:
        path = Path(store.path("m@1.0.0"))
        store.gc(thin="*", grace_s=0)
        assert tree_hashes(path) == tree_hashes(pair.sources / "1.0.0")
    pair.check("1.0.0", "1.1.0")


def test_a_file_that_only_a_deleted_versions_view_has_is_kept(pair: Pair) -> None:
    with pair.store() as store:
        store.remove("m@1.0.0")
        store.gc(grace_s=0)
        assert store.fsck().problems == []
    pair.check("1.1.0")


@pytest.mark.parametrize("path", ["weights.bin", "deep/tokenizer.bin"])
def test_damage_of_the_only_copy_is_named_and_repaired(pair: Pair, path: str) -> None:
    damaged = pair.view("1.1.0") / path
    flip(damaged, 5000)
    with pair.store() as store:
        found = store.fsck().problems
        named = damaged.relative_to(pair.home).as_posix()
        assert named in {item.where for item in found} or path != "weights.bin"
        assert {name for item in found for name in item.hurts} >= {"m 1.1.0"}
        if path != "weights.bin":  # the view of 1.0.0 has a copy
            store.remove_registry("here")
        assert store.fsck(repair=True).remaining == []
    pair.check("1.1.0", "1.0.0")


def test_a_checkout_restores_the_only_copy(pair: Pair) -> None:
    flip(pair.view("1.1.0") / "weights.bin", 5000)
    with pair.store() as store:
        store.checkout("m@1.1.0")
    pair.check("1.1.0", "1.0.0")


@pytest.mark.parametrize("how", ["gone", "nonsense", "elsewhere"])
def test_a_record_that_is_lost_is_written_again(pair: Pair, how: str) -> None:
    for path in pair.layout.files.glob(f"*{held.HELD}"):
        text = {"nonsense": "\xff", "elsewhere": f"{'0' * 64}/../../lock\n"}.get(how)
        path.write_text(text, "latin-1") if text else path.unlink()
    with pair.store() as store:
        if how == "gone":
            assert store.fsck(repair=True).remaining == []
        else:
            store.gc(thin="*", grace_s=0)
    pair.check("1.1.0", "1.0.0")


def test_a_store_with_two_copies_is_slimmed(pair: Pair) -> None:
    with pair.store() as store:
        store.gc(grace_s=0)
    before = content_bytes(pair.home)
    for record in pair.layout.files.glob(f"*{held.HELD}"):
        place = held.find(pair.layout, record.stem).path
        shutil.copy(place, record.with_suffix(""))
        record.unlink()
    twice = content_bytes(pair.home)
    pair.check("1.0.0", "1.1.0")
    with pair.store() as store:
        told = store.gc(dry_run=True, grace_s=0).freed_bytes
        assert store.gc(grace_s=0).freed_bytes == pytest.approx(told, rel=0.02)
        assert told == pytest.approx(twice - before, rel=0.02)
    pair.check("1.0.0", "1.1.0")


def test_a_copy_that_differs_is_not_taken_for_the_only_one(pair: Pair) -> None:
    place = pair.view("1.1.0") / "weights.bin"
    name = Sha256.of(place.read_bytes()).hex
    shutil.copy(place, pair.layout.files / name)
    (pair.layout.files / f"{name}{held.HELD}").unlink()
    flip(place, 5000)
    with pair.store() as store:
        store.gc(grace_s=0)
        assert (pair.layout.files / name).exists()
        assert store.fsck(repair=True).remaining == []
    pair.check("1.0.0", "1.1.0")


def test_a_copy_that_rots_unseen_is_not_taken_for_the_only_one(pair: Pair) -> None:
    """Its size, times and inode are those at which it was hashed, as on a disk that loses bits."""
    _copy_twice(pair)
    place = pair.view("1.1.0") / "weights.bin"
    name = Sha256.of(place.read_bytes())
    flip(place, 5000)
    hashed.note_hashed(pair.layout, name, os.lstat(place))
    with pair.store() as store:
        store.gc(grace_s=0)
        assert (pair.layout.files / name.hex).exists()
        assert holders(pair.layout), "its neighbours have one copy: else the test says nothing"
        store.remove_registry("here")
        assert store.fsck(repair=True).remaining == []
    pair.check("1.0.0", "1.1.0")


def test_a_killed_install_beside_gc_keeps_what_it_was_moving(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between two steps of gc, which deletes what killed processes left in `tmp/`."""
    bits, victim = weights(7, 100_000), pair.view("1.1.0")
    with pair.store() as store:
        for n, version in enumerate(("1.0.0", "1.1.0")):
            (tmp_path / "w.bin").write_bytes((bits if n == 0 else tune(bits, 8)).tobytes())
            store.publish(tmp_path / "w.bin", f"w@{version}", registry=tmp_path / "registry", deltas=1)
        store.add_registry("tuned", tmp_path / "registry")
        for version in ("1.0.0", "1.1.0"):
            store.fetch(f"w@{version}")
    left = pair.home / "tmp" / f"{victim.name}.view"
    name = Sha256.of((victim / "weights.bin").read_bytes()).hex
    real, killed = os.replace, []

    def then_kill(source: str, target: str, **more: int) -> None:
        real(source, target, **more)
        if str(target).endswith(".idx") and not killed:
            killed.append(target)
            os.rename(victim, left)

    with pair.store() as store:
        monkeypatch.setattr(os, "replace", then_kill)
        store.gc(keep=1, grace_s=0)
        monkeypatch.setattr(os, "replace", real)
        assert killed, "gc encoded nothing again: the test says nothing"
        assert not left.exists()
        assert (pair.layout.files / name).exists()
        store.checkout("m@1.1.0")
    pair.check("1.1.0")


def test_a_reader_follows_a_file_into_a_view_and_back(pair: Pair) -> None:
    with pair.store() as store, store._session() as session:
        digest = session.refs.installed("m")
        assert digest is not None
        manifest = pair.layout.read_manifest(digest)
    file = max(manifest.files, key=lambda item: item.size_bytes)
    ids, _ = file.chunk_list()
    with ChunkStore(pair.layout) as chunks, hashed.changing(pair.layout, []):
        assert chunks.in_files(ids).all()
        held.release(pair.layout, digest)
        assert (pair.layout.files / file.sha256.hex).exists()
        chunks.read(id_bytes(ids, 0), -1)
    with ChunkStore(pair.layout) as chunks:
        assert chunks.in_files(ids).all()
        shutil.copy(pair.layout.files / file.sha256.hex, pair.layout.view(digest) / file.path)
        assert hashed.hashes_to(pair.layout, pair.layout.view(digest) / file.path, file.sha256)
        with hashed.changing(pair.layout, []):
            held.hold(pair.layout, manifest, {file.sha256.hex})
        assert not (pair.layout.files / file.sha256.hex).exists()
        chunks.read(id_bytes(ids, 0), -1)


def test_a_store_moves_to_a_file_system_with_links_and_back(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content_bytes(pair.home)
    with pair.store() as store:
        store.move(tmp_path / "there")
    pair.check("1.0.0", "1.1.0")
    monkeypatch.undo()
    with pair.store() as store:
        store.checkout("m@1.2.0")  # shares a file that the view of 1.1.0 holds
        store.gc(grace_s=0)
    pair.check("1.2.0", "1.1.0")
    assert content_bytes(pair.home) < 1.5 * before
    without_links(monkeypatch)
    once = content_bytes(pair.home)
    with pair.store() as store:
        store.move(tmp_path / "back")
        assert content_bytes(pair.home) < once + 45_000  # also before gc; two views share 36 KB
        assert store.fsck().problems == []
        store.gc(grace_s=0)
    pair.check("1.2.0", "1.1.0")
    assert content_bytes(pair.home) < 1.5 * before


# --- another disk ------------------------------------------------------------------------------


def other_disk(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let nothing be linked or renamed between a folder and what is beside it."""

    def crossing(old: str, new: str, src_dir_fd: int | None, dst_dir_fd: int | None) -> bool:
        places = [
            Path(f"/proc/self/fd/{fd}").resolve() / name if fd is not None else Path(name).absolute()
            for fd, name in ((src_dir_fd, old), (dst_dir_fd, new))
        ]
        return len({place.parent == folder for place in places}) == 2

    def guarded(call: Callable[..., None]) -> Callable[..., None]:
        def checked(
            old: str,
            new: str,
            *,
            src_dir_fd: int | None = None,
            dst_dir_fd: int | None = None,
            **more: bool,
        ) -> None:
            if crossing(old, new, src_dir_fd, dst_dir_fd):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            call(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, **more)

        return checked

    for name in ("link", "replace"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc where a descriptor leads")
def test_files_may_be_on_another_disk(
    made_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(tmp_path / "home", made_pair.sources)
    other_disk(monkeypatch, pair.home / "files")
    with pair.store() as store:
        store.add_registry("here", made_pair.sources.parent / "registry")
        for version in ("1.0.0", "1.1.0"):
            store.checkout(f"m@{version}")
            assert len(holders(pair.layout)) >= 1
        assert content_bytes(pair.home) < 2.1 * 130_000
        store.gc(thin="*", grace_s=0)
        store.rollback_model("m")
    pair.check("1.0.0", "1.1.0")


# --- killed ------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


_CALLS = (
    "open",
    "replace",
    "unlink",
    "mkdir",
    "rmdir",
    "fsync",
    "fchmod",
    "chmod",
    "pwrite",
    "write",
    "symlink",
)


@contextmanager
def killed_at(number: int) -> Iterator[list[int]]:
    """Let the changing system call of this number, and all later ones, be the end."""
    done = [0]
    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(os, name, _counting(getattr(os, name), done, number, name))
        yield done


def _counting(call: Callable[..., object], done: list[int], number: int, name: str) -> Callable[..., object]:
    def counted(*args: object, **more: object) -> object:
        changes = name != "open" or bool(int(args[1]) & os.O_CREAT)  # type: ignore[call-overload]
        done[0] += changes
        if changes and done[0] >= number:
            raise Killed
        return call(*args, **more)

    return counted


@dataclass(frozen=True)
class Step:
    """An operation that is killed, and the damage or the copies that it finds."""

    act: Callable[[Store], object]
    prepare: Callable[[Pair], None] = lambda _: None
    versions: tuple[str, ...] = ("1.0.0", "1.1.0")


def _copy_twice(pair: Pair) -> None:
    for record in pair.layout.files.glob(f"*{held.HELD}"):
        shutil.copy(held.find(pair.layout, record.stem).path, record.with_suffix(""))


STEPS = {
    "checkout": Step(lambda store: store.checkout("m@1.2.0"), versions=("1.0.0", "1.1.0", "1.2.0")),
    "thin": Step(lambda store: store.gc(thin="*", grace_s=0)),
    "slim": Step(lambda store: store.gc(grace_s=0), _copy_twice),
    "repair": Step(
        lambda store: store.fsck(repair=True), lambda pair: flip(pair.view("1.1.0") / "weights.bin", 5000)
    ),
}


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest, pair: Pair) -> Step:
    step = STEPS[request.param]
    step.prepare(pair)
    return step


def _calls(pair: Pair, tmp_path: Path, step: Step) -> int:
    copy = pair.copy(tmp_path / "whole")
    with killed_at(sys.maxsize) as done, copy.store() as store:
        step.act(store)
    return done[0]


def test_kills_lose_nothing(pair: Pair, tmp_path: Path, step: Step) -> None:
    calls = _calls(pair, tmp_path, step)
    for n in range(1, KILLS + 1):
        _kill(pair.copy(tmp_path / str(n)), step, n * calls // (KILLS + 1))


@pytest.mark.deep
def test_a_kill_at_any_call_loses_nothing(pair: Pair, tmp_path: Path, step: Step) -> None:
    for number in range(1, _calls(pair, tmp_path, step) + 1):
        _kill(pair.copy(tmp_path / str(number)), step, number)
        shutil.rmtree(tmp_path / str(number))


def _kill(pair: Pair, step: Step, number: int) -> None:
    with killed_at(number), pair.store() as store, contextlib.suppress(Killed):
        step.act(store)
    if step is not STEPS["repair"]:
        with pair.store() as store:
            assert [item for item in store.fsck().problems if item.kind not in ("link", "state")] == []
    with pair.store() as store:
        step.act(store)
    pair.check(*step.versions)
