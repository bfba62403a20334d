"""Deltas from versions whose chunks are damaged in the registry's packs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fine_tunes import MODEL, tune, weights
from tests.support.reshaped import safetensors
from yarnstore import Store
from yarnstore.core.pack import Entry, encode_entry
from yarnstore.errors import IntegrityError
from yarnstore.store.filepath import Path as StorePath
from yarnstore.store.layout import PackFolder
from yarnstore.store.packs import PackWriter, iter_entries

OLD = weights(1)
WEIGHTS = {"1.0.0": OLD, "1.1.0": tune(OLD, 2), "1.2.0": tune(OLD, 3)}


def publish(folder: Path, version: str) -> dict[str, int]:
    source = folder / version
    source.mkdir(exist_ok=True)
    content = {"w": WEIGHTS[version].reshape(-1, 1024)}
    (source / "model.safetensors").write_bytes(safetensors(content))
    return Store.publish(source, f"{MODEL}@{version}", registry=folder / "registry").deltas


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    publish(tmp_path, "1.0.0")
    return tmp_path


def full_packs(folder: Path) -> list[Path]:
    return sorted((folder / "registry" / "packs").glob("*.pack"))


def entries_of(pack: Path) -> list[tuple[int, Entry]]:
    return list(iter_entries(StorePath(pack)))


def alter(pack: Path, chunk_id: bytes, *, decodes: bool) -> None:
    """Alter a chunk in a pack, so that it decodes to other bytes, or cannot be decoded."""
    ((at, entry),) = [found for found in entries_of(pack) if found[1].chunk_id == chunk_id]
    content = bytearray(pack.read_bytes())
    # The first plane of bf16 is random, and stored as it is.
    content[at + len(encode_entry(entry)[0]) + (4096 if decodes else 0)] ^= 0x55
    pack.write_bytes(content)


def last_chunk(pack: Path) -> bytes:
    """The id of a chunk in the middle of a tensor."""
    return entries_of(pack)[-1][1].chunk_id


@pytest.mark.parametrize("decodes", [True, False])
def test_a_damaged_chunk_of_the_base_is_named_and_no_delta_of_it_is_listed(
    folder: Path, decodes: bool
) -> None:
    (pack,) = full_packs(folder)
    alter(pack, last_chunk(pack), decodes=decodes)
    before = (folder / "registry" / "registry.json").read_bytes()
    with pytest.raises(IntegrityError, match="chunk"):
        publish(folder, "1.1.0")
    assert (folder / "registry" / "registry.json").read_bytes() == before


def test_a_damaged_base_is_noticed_where_no_delta_leads_back_to_it(folder: Path) -> None:
    """Such a delta would decode to the right bytes, with the damaged base."""
    (pack,) = full_packs(folder)
    publish(folder, "1.1.0")
    alter(pack, last_chunk(pack), decodes=True)
    with pytest.raises(IntegrityError, match="chunk"):
        publish(folder, "1.2.0")


@pytest.mark.parametrize("decodes", [True, False])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_chunk_of_the_base_is_read_from_another_pack(
    folder: Path, which: int, decodes: bool
) -> None:
    (pack,) = full_packs(folder)
    registry = folder / "registry"
    with Store.open(folder / "home") as store:
        store.add_registry("here", registry)
        store.checkout(f"{MODEL}@1.0.0")
        with PackWriter(PackFolder(StorePath(registry / "packs"), StorePath(registry / ".tmp"))) as writer:
            for _, entry in reversed(entries_of(pack)):
                writer.add(entry)
        alter(full_packs(folder)[which], last_chunk(pack), decodes=decodes)
        deltas = publish(folder, "1.1.0")
        assert 0 < deltas["1.0.0"] < 0.3 * OLD.nbytes
        store.checkout(f"{MODEL}@1.1.0")
        found = Path(store.path(MODEL))
        assert found.read_bytes() == (folder / "1.1.0" / "model.safetensors").read_bytes()
