"""`adopt` and `identify`: which files are copies, what they are, replacing copies, and taking it back."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from tests.support.tools import add_snapshot, add_tag, gguf
from yarnstore import Store
from yarnstore.errors import NotFoundError, UsageError

SIZE = 60_000
# 27 contents in 40 files: 12 files are copies under other names, one is almost a copy.
# The first is of several chunks.
CONTENTS = [gguf(f"Model {n}", random.Random(n).randbytes(SIZE * (1 if n else 50))) for n in range(27)]
ALMOST = CONTENTS[0][:-2000] + bytes(2000)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of 40 model files, and others that are none."""
    root = tmp_path / "disk"
    for number, data in enumerate(CONTENTS):
        put(root / f"app{number % 4}" / f"model-{number}.gguf", data, number)
    for number in range(12):
        put(root / "copies" / f"other-name-{number}.bin", CONTENTS[number % 8], 100 + number)
    put(root / "tuned" / "almost.gguf", ALMOST, 500)
    put(root / "notes" / "readme.txt", b"text" * SIZE, 1)
    return root


def put(path: Path, data: bytes, when_s: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o640)
    os.utime(path, ns=(when_s * 10**9, when_s * 10**9 + 123))


def states(root: Path) -> dict[str, tuple[bytes, int, int]]:
    """The content, mode and time of each file."""
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), stat.S_IMODE(found.st_mode), found.st_mtime_ns)
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for found in [path.stat()]
    }


def inodes(root: Path) -> int:
    return len({path.stat().st_ino for path in root.rglob("*") if path.is_file()})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return Store.open(tmp_path / "home")


def test_what_a_disk_of_copies_says_and_frees(store: Store, disk: Path) -> None:
    before = states(disk)
    found = store.adopt(disk)
    assert (found.paths, len(found.files)) == (40, 28)
    copied = sum(len(CONTENTS[number % 8]) for number in range(12))
    assert len(found.copies) == 8
    assert sum(len(item.paths) - 1 for item in found.copies) == 12
    assert found.copies_bytes == copied
    (similar,) = found.similar
    assert "almost.gguf" in {Path(similar.path).name, Path(similar.like).name}
    assert similar.shared_bytes >= similar.size_bytes // 2
    assert found.store_bytes == sum(map(len, CONTENTS)) + len(ALMOST) - similar.shared_bytes
    assert (found.replaced, states(disk)) == ([], before)

    done = store.adopt(disk, apply=True, hardlink=True)
    assert [item.how for item in done.replaced] == ["hardlink"] * 12
    assert done.freed_bytes == found.copies_bytes
    assert inodes(disk) == 41 - 12
    after = states(disk)
    assert {path: item[0] for path, item in after.items()} == {path: item[0] for path, item in before.items()}
    linked = {path for item in found.copies for path in item.paths}
    assert all(not Path(path).stat().st_mode & 0o222 for path in linked)
    assert store.adopt(disk, apply=True, hardlink=True).replaced == []

    restored = store.undo_adopt()
    assert [item.how for item in restored] == ["restored"] * 12
    assert (states(disk), inodes(disk)) == (before, 41)
    assert store.undo_adopt() == []


def test_copies_become_links_to_the_store_and_back(store: Store, disk: Path) -> None:
    store.import_model(disk / "app0/model-0.gguf", "zero@1.0.0")
    stored = Path(store.checkout("zero@1.0.0").path)
    before = states(disk)
    done = store.adopt(disk / "app0", disk / "copies", apply=True, hardlink=True)
    same = {path for path in disk.rglob("*") if path.is_file() and path.samefile(stored)}
    assert {path.name for path in same} == {"model-0.gguf", "other-name-0.bin", "other-name-8.bin"}
    (copied,) = (item for item in done.copies if item.stored)
    assert (copied.file.known[0].model, len(copied.paths)) == ("zero", 3)
    assert copied.extra_bytes == 3 * len(CONTENTS[0])
    assert store.fsck().problems == []
    store.undo_adopt()
    assert states(disk) == before
    assert store.fsck().problems == []


def test_what_changed_since_is_not_undone(store: Store, disk: Path) -> None:
    store.adopt(disk / "app0", disk / "copies", apply=True, hardlink=True)
    changed, gone = disk / "copies/other-name-0.bin", disk / "copies/other-name-8.bin"
    changed.unlink()
    changed.write_bytes(b"mine" * SIZE)
    gone.unlink()
    whys = {Path(item.path).name: item.why for item in store.undo_adopt() if item.how == "skipped"}
    assert whys == {changed.name: "it was changed since", gone.name: "it no longer exists"}
    assert changed.read_bytes() == b"mine" * SIZE
    assert store.undo_adopt() == []


def test_a_file_that_is_open_for_writing_is_not_replaced(store: Store, disk: Path) -> None:
    folder = disk / "copies"
    with open(folder / "other-name-8.bin", "r+b"):
        done = store.adopt(folder, apply=True, hardlink=True)
    whys = {Path(item.path).name: item.why for item in done.replaced if item.how == "skipped"}
    assert whys == {"other-name-8.bin": "a program has it open for writing"}
    assert (folder / "other-name-8.bin").stat().st_nlink == 1
    assert (folder / "other-name-9.bin").stat().st_nlink == 2


def test_reflinks_where_the_file_system_has_them(store: Store, disk: Path) -> None:
    before = states(disk)
    done = store.adopt(disk / "copies", apply=True)
    assert states(disk) == before
    ways = {(item.how, item.why) for item in done.replaced}
    assert ways in ({("reflink", "")}, {("skipped", "the file system has no reflinks")})
    assert not list(disk.rglob("*.part"))


def test_identify_knows_a_file_by_its_content(store: Store, disk: Path, tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    Store.publish(disk / "app0/model-0.gguf", "zero@1.2.0", registry=folder)
    store.add_registry("made", folder)
    store.import_model(disk / "app0/model-0.gguf", "mine@0.1.0")
    add_snapshot(tmp_path / "HF_HUB_CACHE", "org/zero", "a" * 40, {"sub/z.gguf": CONTENTS[0]}, when_s=1)
    add_tag(tmp_path / "OLLAMA_MODELS", "registry.ollama.ai/library/zero/1b", {"model": CONTENTS[0]})
    found = store.identify(disk / "copies/other-name-0.bin")
    assert (found.format, found.title, found.parameters) == ("gguf", "Model 0", 50 * SIZE)
    assert [(item.where, item.model, item.version, item.path, item.registry) for item in found.known] == [
        ("store", "mine", "0.1.0", "model-0.gguf", None),
        ("registry", "zero", "1.2.0", "", "made"),
        ("hf", "org/zero", "a" * 40, "sub/z.gguf", None),
        ("ollama", "registry.ollama.ai/library/zero", "1b", "model", None),
    ]
    unknown = store.identify(disk / "notes/readme.txt")
    assert (unknown.format, unknown.known) == (None, [])
    with pytest.raises(UsageError, match="is a folder"):
        store.identify(disk)
    with pytest.raises(NotFoundError):
        store.identify(disk / "none")


def test_a_store_is_not_searched(store: Store, disk: Path) -> None:
    store.import_model(disk / "app0/model-0.gguf", "zero@1.0.0")
    with pytest.raises(UsageError, match="is a store"):
        store.adopt(store.home)
    store.checkout("zero@1.0.0")
    assert all(str(store.home) not in path for item in store.adopt(disk.parent).copies for path in item.paths)


def test_a_copy_without_a_name_or_headers_is_found(store: Store, tmp_path: Path) -> None:
    data = random.Random(99).randbytes(SIZE)
    put(tmp_path / "a/model.bin", data, 1)
    put(tmp_path / "hub/blobs/0123abcd", data, 2)  # as in the caches of tools
    put(tmp_path / "hub/blobs/4567abcd", data[1:], 3)
    (copied,) = store.adopt(tmp_path / "a", tmp_path / "hub").copies
    assert {Path(path).name for path in copied.paths} == {"model.bin", "0123abcd"}


def test_no_copy_of_a_file_that_is_open_for_writing_is_made(store: Store, disk: Path) -> None:
    with open(disk / "app0" / "model-0.gguf", "r+b"):
        done = store.adopt(disk, apply=True)
    whys = {item.why for item in done.replaced if item.like.endswith("model-0.gguf")}
    assert whys == {"a program has it open for writing"}
