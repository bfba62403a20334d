"""What nobody may lose: a download in part, a version that comes while gc works, what a repair replaces,
and a file that changes while it is read."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen, files
from tests.support.stores import MODEL, chunks_of, flip, make_site, problems, tree_hashes
from yarnstore import Store
from yarnstore.errors import BackendError, ConflictError, IntegrityError


def noise(seed: int, size: int = 60_000) -> bytes:
    return random.Random(seed).randbytes(size)


# --- gc -----------------------------------------------------------------------------------------


def test_gc_leaves_what_came_of_a_version_that_is_being_fetched(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0",))
    tree = {
        path.relative_to(site.registry).as_posix(): path.read_bytes()
        for path in site.registry.rglob("*")
        if path.is_file()
    }
    serve = files(tree)
    asked: list[Seen] = []
    broken = True

    def answer(seen: Seen) -> Reply:
        """The pack comes in half, and then not at all."""
        if not broken or not seen.path.endswith(".pack"):
            return serve(seen)
        asked.append(seen)
        return Reply(status=404) if len(asked) > 1 else replace(serve(seen), cut_at=500_000)

    with ScriptedServer(answer) as server, Store.open(tmp_path / "other") as store:
        store.add_registry("made", server.url)
        with pytest.raises((BackendError, IntegrityError)):
            store.fetch(f"{MODEL}@1.0.0")
        arrived = chunks_of(store.home / "packs", store.home / "tmp")
        assert arrived, "nothing came: the test says nothing"
        store.gc(keep=0)
        assert chunks_of(store.home / "packs", store.home / "tmp") == arrived
        broken = False
        (size,) = (len(data) for key, data in tree.items() if key.endswith(".pack"))
        assert store.fetch(f"{MODEL}@1.0.0").download_bytes < size - 100_000, "it was downloaded again"


def test_gc_drops_no_chunk_that_a_version_needs_which_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The garbage of a pack that gc rewrites is what another process has just counted on."""
    home, both, one = tmp_path / "home", tmp_path / "both", tmp_path / "one"
    for folder, names in ((both, "ab"), (one, "a")):
        folder.mkdir()
        for name in names:
            (folder / name).write_bytes(noise(ord(name)))
    with Store.open(home) as store:
        store.import_model(both, "both@1.0.0")
        store.import_model(one, "one@1.0.0")
        store.remove("both@1.0.0")
        real = os.replace
        added = []

        def then_import(source: Any, target: Any, **more: Any) -> None:
            real(source, target, **more)
            if not added and str(target).endswith(".idx") and not str(source).endswith(".idx"):
                added.append(target)  # gc's new pack is there, the old one still
                with Store.open(home) as other:
                    assert other.import_model(both, "both@1.0.0").chunks_new == 0

        monkeypatch.setattr(os, "replace", then_import)
        store.gc(keep=3)
        monkeypatch.undo()
        assert added, "gc rewrote no pack: the test says nothing"
        store.export("both@1.0.0", tmp_path / "out")
    assert tree_hashes(tmp_path / "out") == tree_hashes(both)
    assert problems(home) == []


# --- repair -------------------------------------------------------------------------------------


def damage(path: Path) -> bytes:
    """Change a bit, of JSON the first, so that it is none; the bytes that are there then."""
    flip(path, 0 if path.suffix == ".json" else path.stat().st_size // 2)
    return path.read_bytes()


_DAMAGED = {
    "pack": "packs/*.pack",
    "index": "packs/*.idx",
    "manifest": "manifests/*.json",
    "file": "files/*",
    "version": "refs/versions/*/*/*",
    "installed": "refs/installed/*",
    "held range": "refs/holds/*",
    "log": "logs/installed/*",
    "local state": "local-state.json",
}


@pytest.mark.parametrize("kind", list(_DAMAGED))
def test_what_a_repair_replaces_is_kept_also_after_gc(kind: str, tmp_path: Path) -> None:
    """A day, to be looked at; nobody waits that long here."""
    site = make_site(tmp_path, versions=("1.0.0",))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        store.pin(f"{MODEL}@^1")
        path = max(site.home.glob(_DAMAGED[kind]), key=lambda item: item.stat().st_size)
        damaged = damage(path)
        done = store.fsck(repair=True)
        assert done.problems
        assert done.remaining == []
        assert damaged in kept(site.home), "the repair did not keep it"
        store.gc(keep=3)
        assert damaged in kept(site.home), "gc did not keep it"


def kept(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in (home / "trash").rglob("*") if path.is_file()]


# --- sources ------------------------------------------------------------------------------------


def change_a_byte(path: Path) -> None:
    flip(path, path.stat().st_size - 1)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


@pytest.mark.parametrize("change", [change_a_byte, grow, cut])
@pytest.mark.parametrize("command", ["import", "publish"])
def test_a_source_that_changes_while_it_is_read_is_refused(
    command: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    source = tmp_path / "w.bin"
    source.write_bytes(noise(1, 40 << 20))  # more than is read ahead
    changed = []

    def once(event: Any) -> None:
        if not changed and event.phase == "read" and event.bytes_done:
            changed.append(event)
            change(source)

    home, registry = tmp_path / "home", tmp_path / "registry"
    if command == "import":
        run = partial(Store.open(home).import_model, source, "m@1.0.0", progress=once)
    else:
        run = partial(Store.publish, source, "m@1.0.0", registry=registry, progress=once)
    with pytest.raises(ConflictError, match="changed"):
        run()
    assert changed
    assert not (registry / "registry.json").exists()
    assert not list(home.glob("refs/versions/*/*/*"))
