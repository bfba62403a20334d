"""Bytes that are well formed and not what they are said to be: each is refused by its digest.

A check of form cannot see them.  Registries: a version's entry names the manifest of another, another
checksum, or other content than before; an index points at another chunk; a delta makes another chunk.
Stores: the same of their own packs.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.stores import refs_of, tree_hashes
from yarnstore import Store
from yarnstore.core.codec import decode_entry, make_delta_entry, make_entry
from yarnstore.core.digest import ChunkId, PackId
from yarnstore.core.index import encode_index, parse_index
from yarnstore.core.pack import Entry
from yarnstore.errors import ConflictError, IntegrityError
from yarnstore.store.layout import PackFolder
from yarnstore.store.packs import PackWriter, iter_entries

# A file of one chunk each.
_SMALL_BYTES = 60_000


def body(seed: int) -> bytes:
    return random.Random(seed).randbytes(_SMALL_BYTES)


def source(root: Path, **contents: bytes) -> Path:
    """A folder with these files."""
    root.mkdir(parents=True)
    for name, data in contents.items():
        (root / name).write_bytes(data)
    return root


class World:
    """A registry with m 1.0.0 and 1.1.0, and a store that does not know it yet."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = root / "registry"
        self.sources = {
            "1.0.0": source(root / "s1", a=body(1), b=body(2)),
            "1.1.0": source(root / "s2", a=body(1), c=body(3)),
        }
        for version, folder in self.sources.items():
            Store.publish(folder, f"m@{version}", registry=self.registry)
        self.store = Store.open(root / "home")

    def connect(self) -> None:
        self.store.add_registry("made", self.registry)

    def rewrite(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the entries of the versions, as a publisher's mistake does."""
        path = self.registry / "registry.json"
        doc = json.loads(path.read_bytes())
        change(doc["models"]["m"]["versions"])
        path.write_text(json.dumps(doc))

    def serves(self, spec: str, version: str) -> bool:
        out = self.root / f"out-{spec}"
        self.store.export(spec, out)
        return tree_hashes(out) == tree_hashes(self.sources[version])

    def forget_files(self) -> None:
        """So that every read goes through the packs."""
        for name in ("files", "views"):
            shutil.rmtree(self.store.home / name, ignore_errors=True)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def swap_places(folder: Path, one: bytes, other: bytes) -> None:
    """Make the index of the pack that holds both chunks point at each for the other."""
    for path in folder.glob("*.idx"):
        index = parse_index(path.read_bytes(), pack=PackId.parse(path.stem))
        names = np.array([ChunkId.of(data).raw for data in (one, other)], "S32")
        rows = np.flatnonzero(np.isin(index.ids, names))
        if len(rows) != 2:
            continue
        order = np.arange(len(index))
        order[rows] = order[rows[::-1]]
        moved = {name: getattr(index, name)[order] for name in ("offsets", "stored", "plain", "encodings")}
        path.chmod(0o644)
        path.write_bytes(encode_index(replace(index, **moved)))


def forge(folder: Path, fake: Callable[[Entry], Entry]) -> dict[str, str]:
    """Write each pack of a folder anew with other entries, named and indexed as it should be; old name →
    new name."""
    names = {}
    root = folder.parent
    for path in sorted(folder.glob("*.pack")):
        entries = [fake(entry) for _, entry in iter_entries(path)]
        with PackWriter(PackFolder(folder, root / "forging")) as writer:
            for entry in entries:
                writer.add(entry)
        (made,) = writer.packs
        if made.hex != path.stem:
            path.unlink()
            path.with_suffix(".idx").unlink()
        names[path.stem] = made.hex
    shutil.rmtree(root / "forging", ignore_errors=True)
    return names


# --- what a registry says of a version ----------------------------------------------------------


def test_the_manifest_of_another_version_is_refused(world: World) -> None:
    def change(versions: dict[str, Any]) -> None:
        for key in ("manifest", "checksum", "packs", "size_bytes"):
            versions["1.1.0"][key] = versions["1.0.0"][key]
        versions["1.1.0"].pop("deltas", None)

    world.rewrite(change)
    world.connect()
    with pytest.raises(IntegrityError, match=r"m.*1\.0\.0"):
        world.store.fetch("m@1.1.0")
    assert refs_of(world.store.home) == {}


def test_a_checksum_that_is_not_the_manifests_is_refused(world: World) -> None:
    world.rewrite(lambda versions: versions["1.1.0"].update(checksum="sha256:" + "7" * 64))
    world.connect()
    with pytest.raises(IntegrityError, match="7777"):
        world.store.fetch("m@1.1.0")
    assert refs_of(world.store.home) == {}
    world.store.fetch("m@1.0.0")


def test_other_content_under_a_version_that_is_here_is_refused(world: World) -> None:
    """Also where the version is damaged here, so that its registry is asked again."""
    world.connect()
    world.store.fetch("m@1.0.0")
    before = refs_of(world.store.home)
    shutil.rmtree(world.registry)
    Store.publish(source(world.root / "s3", a=body(7)), "m@1.0.0", registry=world.registry)
    for path in (world.store.home / "packs").iterdir():
        path.unlink()
    world.forget_files()
    with pytest.raises((ConflictError, IntegrityError), match=r"content|digest"):
        world.store.fetch("m@1.0.0")
    assert refs_of(world.store.home) == before


# --- chunks and their places --------------------------------------------------------------------


def test_an_index_that_points_at_another_chunk_costs_a_request_and_no_more(world: World) -> None:
    swap_places(world.registry / "packs", body(1), body(2))
    world.store.import_model(source(world.root / "half", b=body(2)), "half@1.0.0")  # so that one is wanted
    world.connect()
    world.store.fetch("m@1.0.0")
    assert world.serves("m@1.0.0", "1.0.0")
    assert world.store.fsck().problems == []


def test_a_chunk_whose_place_holds_another_counts_as_absent_when_it_is_imported(world: World) -> None:
    world.store.import_model(world.sources["1.0.0"], "m@1.0.0")
    swap_places(world.store.home / "packs", body(1), body(2))
    world.store.import_model(world.sources["1.0.0"], "again@1.0.0")
    assert world.serves("again@1.0.0", "1.0.0")


# --- deltas -------------------------------------------------------------------------------------


class Tuned:
    """A registry with two fine-tunes of a file, of which the second has a delta; both chunk by chunk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        one = weights(1, 1 << 19)
        self.contents = {"1.0.0": one.tobytes(), "1.1.0": tune(one, 2).tobytes()}
        for version, data in self.contents.items():
            self.write(data)
            Store.publish(root / "w.bin", f"t@{version}", registry=root / "registry")
        self.store = Store.open(root / "home")

    def write(self, data: bytes) -> Path:
        (self.root / "w.bin").write_bytes(data)
        return self.root / "w.bin"

    def check(self, spec: str, version: str) -> None:
        out = self.root / f"out-{spec}"
        self.store.export(spec, out)
        assert out.read_bytes() == self.contents[version]


def false_deltas(packs: Path) -> Callable[[Entry], Entry]:
    """Deltas that decode well, against their own bases in `packs`, to other chunks of the same length."""
    bases = {entry.chunk_id: decode_entry(entry) for entry in entries_of(packs) if not entry.base}

    def fake(entry: Entry) -> Entry:
        if not entry.base:
            return entry
        base = bases[entry.base]
        data = bytearray(decode_entry(entry, base))
        data[-1] ^= 1
        made = make_delta_entry(ChunkId.of(data).raw, data, entry.base, base)
        assert made is not None
        return made._replace(chunk_id=entry.chunk_id)

    return fake


def entries_of(packs: Path) -> list[Entry]:
    return [entry for path in packs.glob("*.pack") for _, entry in iter_entries(path)]


def test_a_delta_that_makes_another_chunk_is_replaced_by_full_packs(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path)
    registry = tmp_path / "registry"
    names = forge(registry / "deltas", false_deltas(registry / "packs"))
    text = (registry / "registry.json").read_text()
    for old, new in names.items():
        assert old != new
        text = text.replace(old, new)
    (registry / "registry.json").write_text(text)
    tuned.store.add_registry("made", registry)
    tuned.store.fetch("t@1.0.0")
    done = tuned.store.fetch("t@1.1.0")
    assert done.chunks_fetched == done.chunks_total
    assert tuned.store.fsck().problems == []
    tuned.check("t@1.1.0", "1.1.0")


def test_a_stored_delta_that_makes_another_chunk_counts_as_absent_when_it_is_imported(tmp_path: Path) -> None:
    tuned = Tuned(tmp_path)
    tuned.store.add_registry("made", tmp_path / "registry")
    tuned.store.fetch("t@1.0.0")
    assert tuned.store.fetch("t@1.1.0").delta_from == "1.0.0"
    forge(tuned.store.home / "packs", false_deltas(tuned.store.home / "packs"))
    tuned.store.import_model(tuned.write(tuned.contents["1.1.0"]), "again@1.0.0")
    tuned.check("again@1.0.0", "1.1.0")


def test_repack_makes_no_delta_against_a_base_that_is_another_chunk(tmp_path: Path) -> None:
    """Else what is whole today could be read no more once its base is mended."""
    tuned = Tuned(tmp_path)
    for version in tuned.contents:
        tuned.store.import_model(tuned.write(tuned.contents[version]), f"t@{version}")
    with Store.open(tmp_path / "alone") as alone:
        alone.import_model(tuned.write(tuned.contents["1.1.0"]), "t@1.1.0")
        newest = {entry.chunk_id for entry in entries_of(alone.home / "packs")}

    def false_base(entry: Entry) -> Entry:
        if entry.chunk_id not in newest:
            return entry
        data = bytearray(decode_entry(entry))
        data[-1] ^= 1
        return make_entry(ChunkId.of(data).raw, data)._replace(chunk_id=entry.chunk_id)

    forge(tuned.store.home / "packs", false_base)
    tuned.store.gc(repack=True)
    tuned.store.fsck(repair=True)
    tuned.store.import_model(tuned.write(tuned.contents["1.1.0"]), "t@1.1.0")
    assert tuned.store.fsck().problems == []
    for version in tuned.contents:
        tuned.check(f"t@{version}", version)
