"""Every byte is written whole, through no planted link, or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.small_stores import other_process
from yarnstore.core.sizes import DEFAULT_RESERVE
from yarnstore.errors import DiskFullError, FormatError, NotFoundError, ReadOnlyError, StorageError
from yarnstore.store import batches, folders, fsio, fsread, growing, kernel, lock

UNPRIVILEGED = pytest.mark.skipif(
    os.name == "posix" and os.geteuid() == 0, reason="root may write everywhere"
)


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_a_file_appears_whole_and_only_when_published(tmp_path: Path) -> None:
    target = tmp_path / "out" / "x"
    target.parent.mkdir()
    with fsio.NewFile(tmp_path / "tmp", ".x") as file:
        file.write(b"one", bytearray(b"two"), memoryview(b"three"))
        assert file.size_bytes == 11
        assert not target.exists()
        assert len(list((tmp_path / "tmp").iterdir())) == 1
        file.publish(target, mode=fsio.READ_ONLY_MODE)
    assert target.read_bytes() == b"onetwothree"
    assert stat.S_IMODE(target.stat().st_mode) == 0o444
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_process_that_only_reads_changes_nothing(tmp_path: Path) -> None:
    """As on a disk that is mounted read-only; only root could still write there."""
    root = tmp_path / "store"
    root.mkdir()
    (root / "file").write_bytes(b"x")
    (root / "lock").touch()
    (root / "folder").mkdir()
    folders.only_read(root)
    before = tree(root)
    changes: list[Callable[[], object]] = [
        lambda: fsio.ensure_dir(root / "new" / "folder"),
        lambda: fsio.set_mode(root / "folder", 0o700),
        lambda: fsio.NewFile(root / "tmp", ".x"),
        lambda: fsio.write_atomic(root / "file", b"y", tmp_dir=tmp_path),
        lambda: batches.write_many([("a", b"y", 0o444)], root / "folder", tmp_dir=tmp_path, suffix=".x"),
        lambda: growing.append_line(root / "file", b"y\n"),
        lambda: growing.append_mark(root / "file", b"."),
        lambda: growing.PartialFile(root / "file"),
        lambda: fsio.hard_link(root / "file", root / "link"),
        lambda: fsio.swap_link(root / "link", "file", tmp_dir=tmp_path),
        lambda: fsio.rename(root / "file", tmp_path / "moved"),
        lambda: fsio.remove(root / "file"),
        lambda: fsio.remove_tree(root / "folder"),
        lambda: fsio.remove_tree(root),
        lambda: fsio.set_writable(root / "folder", writable=False),
        lambda: fsio.copy_file(root / "file", root / "copy"),
    ]
    for change in changes:
        with pytest.raises(ReadOnlyError, match="only reads the store"):
            change()
    fsio.remove_empty_dirs(root / "folder", stop=root)
    os.close(lock.open_lock(root / "lock"))
    assert tree(root) == before
    assert (root / "file").read_bytes() == b"x"
    fsio.write_atomic(tmp_path / "elsewhere", b"z", tmp_dir=tmp_path)


def test_what_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    with fsio.NewFile(tmp_path, ".x") as file:
        file.write(b"x")
    file.discard()
    assert tree(tmp_path) == []


def test_what_is_left_stays_as_a_killed_process_leaves_it(tmp_path: Path) -> None:
    with fsio.NewFile(tmp_path, ".x") as file:
        file.write(b"part")
        file.leave()
    assert file.path.read_bytes() == b"part"
    with lock.claimed(file.path) as claimed:
        assert claimed


def test_large_files_are_synced_on_the_way_and_come_out_whole(tmp_path: Path) -> None:
    block = bytes(range(256)) * 4096
    with fsio.NewFile(tmp_path, ".x") as file:
        for _ in range(70):
            file.write(block)
        file.publish(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size == 70 * len(block)
    assert (tmp_path / "x").read_bytes()[-len(block) :] == block


def put_folder(path: Path) -> None:
    (path / "x").mkdir(parents=True)


def put_file_as_parent(path: Path) -> None:
    path.parent.rmdir()
    path.parent.touch()


@pytest.mark.parametrize("obstacle", [put_folder, put_file_as_parent])
def test_write_atomic_leaves_nothing_on_failure(tmp_path: Path, obstacle: Callable[[Path], None]) -> None:
    path = tmp_path / "folder" / "x"
    path.parent.mkdir()
    obstacle(path)
    before = tree(tmp_path)
    with pytest.raises(StorageError):
        fsio.write_atomic(path, b"new", tmp_dir=tmp_path / "tmp")
    assert tree(tmp_path) == sorted([*before, "tmp"])


@UNPRIVILEGED
def test_write_atomic_keeps_the_old_where_it_may_not_write(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "x").write_bytes(b"old")
    folder.chmod(0o555)
    try:
        with pytest.raises(ReadOnlyError):
            fsio.write_atomic(folder / "x", b"new", tmp_dir=tmp_path / "tmp")
    finally:
        folder.chmod(0o755)
    assert (folder / "x").read_bytes() == b"old"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_write_atomic_makes_its_folder_again_if_another_process_removed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, ensure_dir = tmp_path / "model" / "ref", fsio.ensure_dir
    calls: list[Path] = []

    def ensure(path: Path) -> None:
        ensure_dir(path)
        calls.append(path)
        if path == target.parent and calls.count(path) == 1:
            target.parent.rmdir()

    monkeypatch.setattr(fsio, "ensure_dir", ensure)
    fsio.write_atomic(target, b"new", tmp_dir=tmp_path / "tmp")
    assert target.read_bytes() == b"new"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_write_atomic_is_done_if_another_process_removed_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, sync_dir = tmp_path / "model" / "ref", fsio.sync_dir

    def sync(path: Path) -> None:
        if target.exists():
            shutil.rmtree(target.parent)
        sync_dir(path)

    monkeypatch.setattr(fsio, "sync_dir", sync)
    fsio.write_atomic(target, b"new", tmp_dir=tmp_path / "tmp")
    assert not target.exists()


def test_write_atomic_replaces_a_planted_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "x").symlink_to(victim)
    fsio.write_atomic(tmp_path / "x", b"new", tmp_dir=tmp_path / "tmp")
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "x").read_bytes() == b"new"
    assert not (tmp_path / "x").is_symlink()


def test_new_files_are_exclusive_and_never_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where somebody guesses the temporary name."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    monkeypatch.setattr(fsread, "unique_name", lambda: "guessed")
    for plant in (lambda p: p.symlink_to(victim), lambda p: p.symlink_to(tmp_path / "gone"), Path.touch):
        plant(tmp_path / "guessed.x")
        with pytest.raises(StorageError):
            fsio.NewFile(tmp_path, ".x")
        (tmp_path / "guessed.x").unlink()
    assert victim.read_bytes() == b"mine"
    assert tree(tmp_path) == ["victim"]


def through_links(tmp: Path) -> list[Callable[[Path], object]]:
    """All that opens a file by a name that is known before."""
    return [
        lambda path: growing.append_line(path, b"line\n"),
        lambda path: growing.append_mark(path, b"."),
        lambda path: growing.PartialFile(path),
        lambda path: lock.open_lock(path),
        lambda path: fsread.open_folder(path),
        lambda path: fsread.read_bytes(path, 100),
        lambda path: fsread.open_read(path),
    ]


def test_no_planted_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "to-file").symlink_to(victim)
    (tmp_path / "dangling").symlink_to(tmp_path / "made")
    (tmp_path / "loop").symlink_to("loop")
    before = tree(tmp_path)
    for action in through_links(tmp_path):
        for name in ("to-file", "to-folder", "dangling", "loop"):
            with pytest.raises((StorageError, NotFoundError)):
                action(tmp_path / name)
    assert victim.read_bytes() == b"mine\n"
    assert tree(tmp_path) == before


def test_ensure_dir_takes_no_link_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file", "dangling/x", "file/x"):
        with pytest.raises(StorageError):
            fsio.ensure_dir(tmp_path / name)
    fsio.ensure_dir(tmp_path / "a" / "b" / "c")
    fsio.ensure_dir(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("torn", [b"", b"t", b"torn line", b"x" * 5000])
@pytest.mark.parametrize("whole", [b"", b"one\n", b"one\n\ntwo\n"])
def test_append_line_cuts_what_a_crash_left(tmp_path: Path, whole: bytes, torn: bytes) -> None:
    log = tmp_path / "log"
    log.write_bytes(whole + torn)
    growing.append_line(log, b"new\n")
    assert log.read_bytes() == whole + b"new\n"


def test_append_line_makes_the_file(tmp_path: Path) -> None:
    growing.append_line(tmp_path / "log", b"one\n")
    growing.append_line(tmp_path / "log", b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_append_mark_adds_a_byte_each_time(tmp_path: Path) -> None:
    for count in range(1, 4):
        growing.append_mark(tmp_path / "used", b".")
        assert (tmp_path / "used").read_bytes() == b"." * count
    growing.append_mark(tmp_path / "new" / "used", b".")
    assert (tmp_path / "new" / "used").read_bytes() == b"."


def test_a_partial_file_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "tmp" / "x.download"
    with growing.PartialFile(path) as part:
        assert part.locked
        part.write(b"one")
    with growing.PartialFile(path) as part:
        assert part.size_bytes == 3
        part.write(b"two")
        with growing.PartialFile(path) as second:
            assert not second.locked
    assert path.read_bytes() == b"onetwo"
    with growing.PartialFile(path) as part:
        part.truncate(2)
        part.write(b"x")
        assert path.read_bytes() == b"onx"
        part.remove()
        part.remove()
    assert not path.exists()


def test_a_file_of_a_living_writer_is_not_claimed_and_a_dead_ones_is(tmp_path: Path) -> None:
    script = """
from yarnstore.store import fsio
file = fsio.NewFile(Path(sys.argv[1]), ".pack")
file.write(b"part")
print("ready", flush=True)
sys.stdin.read()
"""
    with other_process(script, str(tmp_path)) as process:
        (path,) = tmp_path.iterdir()
        with lock.claimed(path) as claimed:
            assert not claimed
        process.kill()
        process.wait(10)
        with lock.claimed(path) as claimed:
            assert claimed
    path.unlink()
    with lock.claimed(path) as claimed:
        assert not claimed


def test_hard_links_share_and_never_replace(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    assert fsio.hard_link(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").stat().st_ino == (tmp_path / "a").stat().st_ino
    with pytest.raises(StorageError):
        fsio.hard_link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"b"


def test_copies_have_their_mode_and_leave_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(5 << 20))
    assert fsio.copy_file(tmp_path / "a", tmp_path / "b", mode=0o444) in ("copy", "reflink")
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o444
    with pytest.raises(NotFoundError):
        fsio.copy_file(tmp_path / "gone", tmp_path / "c")
    assert tree(tmp_path) == ["a", "b"]


def test_a_link_is_swapped(tmp_path: Path) -> None:
    for target in ("one", "two"):
        assert fsio.swap_link(tmp_path / "models" / "m", target, tmp_dir=tmp_path / "tmp")
        assert fsread.read_link(tmp_path / "models" / "m") == target
    assert list((tmp_path / "tmp").iterdir()) == []
    assert fsread.read_link(tmp_path / "gone") is None


def test_removing_never_leaves_the_tree(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").touch()
    doomed = tmp_path / "doomed"
    (doomed / "sub").mkdir(parents=True)
    (doomed / "sub" / "link").symlink_to(tmp_path / "kept")
    fsio.remove_tree(doomed)
    (tmp_path / "link").symlink_to("kept")
    fsio.remove_tree(tmp_path / "link")
    fsio.remove_tree(tmp_path / "gone")
    assert tree(tmp_path) == ["kept", "kept/x"]


def test_remove_says_whether_it_was_there(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert fsio.remove(tmp_path / "x")
    assert not fsio.remove(tmp_path / "x")


def test_empty_folders_go_as_far_as_they_may(tmp_path: Path) -> None:
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    fsio.remove_empty_dirs(tmp_path / "a" / "b" / "c", stop=tmp_path / "a")
    assert tree(tmp_path) == ["a"]
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "x").touch()
    fsio.remove_empty_dirs(tmp_path / "a" / "b" / "c", stop=tmp_path)
    assert tree(tmp_path) == ["a", "a/x"]


def test_reading_is_bounded_and_translated(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert fsread.read_bytes(tmp_path / "x", 5) == b"12345"
    with pytest.raises(FormatError, match="larger than 4"):
        fsread.read_bytes(tmp_path / "x", 4)
    with pytest.raises(NotFoundError):
        fsread.read_bytes(tmp_path / "y", 4)
    with pytest.raises(StorageError):
        fsread.read_bytes(tmp_path, 4)
    with pytest.raises(StorageError):
        fsread.list_names(tmp_path / "x")
    assert fsread.list_names(tmp_path / "gone") == []
    assert fsread.stat_or_none(tmp_path / "x" / "y") is None


def test_sizes_count_a_shared_file_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "own").write_bytes(b"123")
    (tmp_path / "d" / "shared").write_bytes(b"12345")
    os.link(tmp_path / "d" / "shared", tmp_path / "other")
    assert fsread.tree_bytes(tmp_path / "d") == 3
    assert fsread.tree_bytes(tmp_path / "gone") == 0
    assert fsread.sum_sizes([tmp_path / "other", tmp_path / "gone"]) == 5


def test_space_is_asked_for_before_it_is_used(tmp_path: Path) -> None:
    free, reserve = fsread.free_bytes(tmp_path / "not" / "made" / "yet")
    assert 0 < reserve <= DEFAULT_RESERVE.size_bytes
    with pytest.raises(DiskFullError) as caught:
        fsread.require_space(tmp_path, free * 2)
    assert caught.value.fields["needed_bytes"] == free * 2
    fsread.require_space(tmp_path, 0)


def test_an_error_on_a_descriptor_is_told_of_its_path(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)

    def read_the_folder() -> None:
        with fsread.translating(tmp_path), open(fd, "rb", closefd=False) as file:
            file.read()

    try:
        with pytest.raises(StorageError, match=re.escape(str(tmp_path))):
            read_the_folder()
    finally:
        os.close(fd)


def test_a_file_is_claimed_by_its_writer_until_its_temporary_name_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, found = os.replace, []

    def look_first(source: Path, target: Path) -> None:
        with lock.claimed(source) as dead:
            found.append(dead)
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_first)
    fsio.write_atomic(tmp_path / "x", b"x", tmp_dir=tmp_path / "tmp")
    assert found == [False]


@pytest.mark.parametrize("taken", ["before", "after"])
def test_a_small_file_that_was_taken_for_a_dead_one_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    """Whoever tidies up may come between the creation of a file and its lock."""
    try_lock, fsync, found = kernel.try_lock, os.fsync, []
    tmp = tmp_path / "tmp"

    def remove_once() -> None:
        if not found:
            found.extend(tmp.iterdir())
            found[0].unlink()

    def lock_late(fd: int, *, exclusive: bool) -> bool:
        is_first = not found
        remove_once()
        return try_lock(fd, exclusive=exclusive) and not is_first

    def sync_late(fd: int) -> None:
        fsync(fd)
        if tmp.exists() and list(tmp.iterdir()):
            remove_once()

    if taken == "before":
        monkeypatch.setattr(batches, "try_lock", lock_late)
    else:
        monkeypatch.setattr(os, "fsync", sync_late)
    files = [("a", b"one", 0o444), ("b", b"two", 0o555)]
    batches.write_many(files, tmp_path / "files", tmp_dir=tmp, suffix=".x")
    assert found
    for name, data, mode in files:
        assert (tmp_path / "files" / name).read_bytes() == data
        assert stat.S_IMODE((tmp_path / "files" / name).stat().st_mode) == mode
    assert list(tmp.iterdir()) == []


def test_of_small_files_that_cannot_be_written_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    (tmp_path / "files").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageError):
        batches.write_many([("a", b"one", 0o444)], tmp_path / "files", tmp_dir=tmp_path / "tmp", suffix=".x")
    assert list((tmp_path / "files").iterdir()) == list((tmp_path / "tmp").iterdir()) == []


def test_a_number_whose_close_failed_is_not_closed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Network drives tell of lost writes by close; the number is free by then, and soon another file's."""
    other, close = os.open(os.devnull, os.O_RDONLY), os.close
    file = fsio.NewFile(tmp_path, ".tmp")
    fd = file.fileno()

    def failing(number: int) -> None:
        close(number)
        if number == fd:
            monkeypatch.undo()
            os.dup2(other, fd)
            raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "close", failing)
    with file, pytest.raises(StorageError):
        file.publish(tmp_path / "a")
    os.fstat(fd)
    close(fd)
    close(other)


def test_a_file_that_was_killed_read_only_can_be_claimed(tmp_path: Path) -> None:
    left = tmp_path / "left.tmp"
    left.touch(0o444)
    with lock.claimed(left) as dead:
        assert dead


def test_a_partial_file_tells_when_its_name_leads_to_another(tmp_path: Path) -> None:
    with growing.PartialFile(tmp_path / "x.download") as one:
        assert one.is_there()
        one.remove()
        assert not one.is_there()
        with growing.PartialFile(tmp_path / "x.download") as two:
            assert two.locked
            assert two.is_there()
            assert not one.is_there()


def test_a_folder_kept_open_is_the_one_of_its_name(tmp_path: Path) -> None:
    root = tmp_path / "home"
    folders.add_root(root)
    path = root / "a" / "b" / "file"
    fsio.ensure_dir(path.parent)
    with folders.keeping_open():
        growing.append_mark(path, b"1")
        fsio.rename(root / "a", root / "c")  # the folder on the way goes elsewhere
        growing.append_mark(path, b"22")
        assert path.read_bytes() == b"22"
        shutil.rmtree(root / "a")  # by another process
        growing.append_mark(path, b"333")
        assert path.read_bytes() == b"333"
        fsio.remove_tree(root / "a")
        growing.append_mark(path, b"4444")
    assert path.read_bytes() == b"4444"
    assert (root / "c" / "b" / "file").read_bytes() == b"1"


def test_no_more_than_some_folders_are_kept_open(tmp_path: Path) -> None:
    folders.add_root(tmp_path)
    with folders.keeping_open():
        for number in range(100):
            fsio.ensure_dir(tmp_path / str(number))
            growing.append_mark(tmp_path / str(number) / "file", b".")
        here = [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if fd.isdigit() and os.path.lexists(f"/proc/self/fd/{fd}")
        ]
        assert len([place for place in here if place.startswith(str(tmp_path))]) <= 8
    left = [fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")]
    assert not [fd for fd in left if os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path))]
