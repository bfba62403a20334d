"""The Hugging Face cache: imports of its snapshots, and exports that its tools find."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.faults import no_links
from tests.support.tools import add_snapshot, tree
from yarnstore import Store
from yarnstore.errors import IntegrityError, NotFoundError, UsageError

NAME = "org/tiny"
OLD, NEW = "b" * 40, "a" * 40  # the names are not in the order of their dates
WEIGHTS = random.Random(5).randbytes(300_000)
FILES = {
    OLD: {"config.json": b"{}\n", "model.safetensors": WEIGHTS, "onnx/deep/model.onnx": b"x" * 1500},
    NEW: {"config.json": b'{"new": 1}\n', "model.safetensors": WEIGHTS[:200_000] + bytes(100_000)},
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with two commits of a model."""
    folder = tmp_path / "hub"
    for when_s, (commit, files) in enumerate(FILES.items(), 1_700_000_000):
        add_snapshot(folder, NAME, commit, files, when_s=when_s)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def test_each_snapshot_becomes_a_version_once(store: Store, cache: Path) -> None:
    done = store.import_from(f"hf://{NAME}")
    assert [(each.model, each.version, each.present) for each in done] == [
        (NAME, "0.0.1+bbbbbbb", False),
        (NAME, "0.0.2+aaaaaaa", False),
    ]
    assert [each.revision for each in done] == [OLD, NEW]
    again = store.import_from(str(cache / "models--org--tiny"))
    assert [(each.version, each.present, each.stored_bytes) for each in again] == [
        ("0.0.1+bbbbbbb", True, 0),
        ("0.0.2+aaaaaaa", True, 0),
    ]
    later = {**FILES[OLD], "tokenizer.json": b"[]"}  # a tool downloaded one more file of it
    add_snapshot(cache, NAME, "c" * 40, FILES[OLD], when_s=1_800_000_000)
    (cache / "models--org--tiny/snapshots" / OLD / "tokenizer.json").write_bytes(later["tokenizer.json"])
    third = store.import_from(f"hf://{NAME}")
    assert [each.version for each in third] == ["0.0.3+bbbbbbb", "0.0.2+aaaaaaa", "0.0.4+ccccccc"]
    assert store.fsck().problems == []


@pytest.mark.parametrize("hardlink", [False, True])
def test_what_is_exported_equals_what_was_imported(
    store: Store, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardlink: bool
) -> None:
    store.import_from(f"hf://{NAME}")
    if hardlink:
        store.checkout(f"{NAME}@0.0.2+aaaaaaa")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    for version, commit in (("0.0.1+bbbbbbb", OLD), ("0.0.2+aaaaaaa", NEW)):
        done = store.export(f"{NAME}@{version}", f"hf://{NAME}", hardlink=hardlink)
        assert Path(done.path) == tmp_path / "other/models--org--tiny/snapshots" / commit
    assert tree(tmp_path / "other") == tree(cache)
    assert store.export(f"{NAME}@{version}", f"hf://{NAME}").how == "present"
    if hardlink:
        assert done.how == "hardlink"
        stored = Path(store.path(f"{NAME}@0.0.2+aaaaaaa")) / "model.safetensors"
        assert os.path.samefile(stored, Path(done.path) / "model.safetensors")
        assert store.fsck().problems == []


def test_a_version_of_another_source_gets_a_commit_of_its_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    (tmp_path / "m.gguf").write_bytes(WEIGHTS)
    took = store.import_model(tmp_path / "m.gguf", "mine@1.0.0")
    done = store.export("mine@1.0.0", "hf://me/mine@v1")
    commit = took.manifest.removeprefix("sha256:")[:40]
    folder = tmp_path / "hf/hub/models--me--mine"
    assert Path(done.path) == folder / "snapshots" / commit
    assert (folder / "refs/v1").read_text() == commit
    assert (folder / "snapshots" / commit / "m.gguf").read_bytes() == WEIGHTS


def test_one_revision_by_name_or_commit_under_a_name_of_its_own(store: Store, cache: Path) -> None:
    assert store.import_from(f"hf://{NAME}@main", "mine@2.0.0")[0].revision == NEW
    assert store.import_from(f"hf://{NAME}@bbbb", "mine:old")[0].version == "0.0.1+bbbbbbb"
    with pytest.raises(UsageError, match="2 revisions"):
        store.import_from(f"hf://{NAME}", "mine@3.0.0")
    with pytest.raises(NotFoundError, match='no revision "cccc"'):
        store.import_from(f"hf://{NAME}@cccc")
    with pytest.raises(NotFoundError, match="Did you mean org/tiny"):
        store.import_from("hf://org/tini")


@pytest.mark.parametrize("address", ["hf://", "hf://../x", "hf://a//b", "hf://a/b@..", "hf://a\\b"])
def test_an_address_cannot_lead_out_of_the_folder(store: Store, cache: Path, address: str) -> None:
    with pytest.raises(UsageError):
        store.import_from(address)
    with pytest.raises(UsageError):
        store.export("m@1.0.0", address)


def test_a_damaged_copy_is_refused(store: Store, cache: Path) -> None:
    content = (cache / "models--org--tiny/snapshots" / OLD / "model.safetensors").resolve()
    content.write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        store.import_from(f"hf://{NAME}@{OLD}")
    assert store.list_versions() == []


def test_without_links_a_snapshot_has_the_files(store: Store, cache: Path, tmp_path: Path) -> None:
    snapshot = cache / "models--org--plain" / "snapshots" / OLD
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(b"{}")
    done = store.import_from("hf://org/plain")
    assert Path(store.export(f"org/plain@{done[0].version}", tmp_path / "out").path).read_bytes() == b"{}"


def test_an_export_that_fell_behind(store: Store, cache: Path, tmp_path: Path) -> None:
    store.import_from(f"hf://{NAME}")
    store.checkout(f"{NAME}@0.0.1+bbbbbbb")
    store.export(NAME, "hf://me/copy")
    store.export(NAME, tmp_path / "plain")
    for place in ("hf://me/copy", tmp_path / "plain"):
        found = store.check_export(NAME, place)
        assert (found.how, found.behind) == ("present", [])
    store.checkout(f"{NAME}@0.0.2+aaaaaaa")
    behind = {Path(path).name for path in store.check_export(NAME, "hf://me/copy").behind}
    assert {"config.json", "model.safetensors", "main"} <= behind
    assert store.check_export(NAME, tmp_path / "plain").how == "behind"
    assert not (cache / "models--me--copy/snapshots" / NEW).exists()  # nothing was written
    with pytest.raises(NotFoundError):
        store.check_export("other@1.0.0", tmp_path / "plain")


def test_without_symlinks_an_export_is_found_and_kept(store: Store, cache: Path) -> None:
    store.import_from(f"hf://{NAME}")
    with no_links.refused("symlink"):
        for version, commit in (("0.0.1+bbbbbbb", OLD), ("0.0.2+aaaaaaa", NEW)):
            done = store.export(f"{NAME}@{version}", "hf://me/copy")
            snapshot = Path(done.path)
            written = {Path(path).as_posix(): (snapshot / path).read_bytes() for path in tree(snapshot)}
            assert written == FILES[commit]
            found = store.check_export(f"{NAME}@{version}", "hf://me/copy")
            assert (found.how, found.behind) == ("present", [])
            assert store.export(f"{NAME}@{version}", "hf://me/copy").how == "present"
        (snapshot / "config.json").write_bytes(b"other")
        behind = store.check_export(f"{NAME}@{version}", "hf://me/copy").behind
        assert behind == [str(snapshot / "config.json")]
        store.export(f"{NAME}@{version}", "hf://me/copy")
        assert (snapshot / "config.json").read_bytes() == FILES[NEW]["config.json"]


def test_an_export_into_a_folder_with_other_files_is_found_where_it_was_written(
    store: Store, tmp_path: Path
) -> None:
    """A version of one file, in a folder or not, and one of several."""
    for name, paths in (("one", ["a.gguf"]), ("deep", ["sub/a.gguf"]), ("more", ["a.gguf", "sub/b.gguf"])):
        source, place = tmp_path / name, tmp_path / f"{name}-out"
        for path in paths:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(path.encode())
        store.import_model(source, f"{name}@1.0.0")
        place.mkdir()
        (place / "notes.txt").write_text("mine")
        spec = f"{name}@1.0.0"
        assert store.check_export(spec, place).how == "behind"
        written = store.export(spec, place)
        found = store.check_export(spec, place)
        assert (found.how, found.path) == ("present", written.path)
        for path in paths:
            (source / path).write_bytes(b"other")
        store.import_model(source, f"{name}@1.1.0")
        assert store.check_export(f"{name}@1.1.0", place).how == "behind"
