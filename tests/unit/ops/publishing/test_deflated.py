"""Updates of compressed files: as small as those of plain ones, and bit by bit the publisher's."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from tests.support.deflated import floats, gzipped, hdf5, moved, npz, zipped
from tests.support.registries import amend
from yarnstore import Store
from yarnstore.core.codec import NOT_STORED
from yarnstore.core.deflate import compressor_id
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.limits import CHUNK_MAX_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.ops.publishing.deltas import estimate_deltas, reading
from yarnstore.ops.publishing.tree import RegistryFolder
from yarnstore.registry.entries import BASED
from yarnstore.store.packs import iter_entries

KEY = "deflated_deltas"
COUNT = 1_200_000
OLD, NEW = floats(COUNT), moved(floats(COUNT))


def members(values: np.ndarray) -> dict[str, np.ndarray]:
    """One array that is cut, and some that share chunks."""
    return {
        "large": values[:1_000_000],
        **{f"w{n}": part for n, part in enumerate(np.split(values[1_000_000:], 5))},
    }


MADE: dict[str, Callable[[np.ndarray], bytes]] = {
    "m.npz": lambda values: npz(members(values)),
    "m.zip": lambda values: zipped({"model.bin": values.tobytes(), "notes.txt": b"text " * 900}, 9),
    "m.bin.gz": lambda values: gzipped(values.tobytes(), 4),
    "m.h5": lambda values: hdf5(values.tobytes()),
    "shuffled.h5": lambda values: hdf5(values.tobytes(), width=4),
}


def publish(root: Path, name: str, *contents: bytes) -> Path:
    for n, content in enumerate(contents):
        (root / name).write_bytes(content)
        Store.publish(root / name, f"m@1.{n}.0", registry=root / "registry")
    return root / "registry"


def updated(registry: Path, home: Path, wanted: bytes, *, back: bool = False) -> tuple[int, str]:
    """What the update downloads, and what it says; its file is right."""
    said: list[str] = []
    first, second = ("m@1.1.0", "m@1.0.0") if back else ("m@1.0.0", "m@1.1.0")
    with Store.open(home, progress=lambda event: said.append(str(event))) as store:
        store.add_registry("here", registry)
        store.checkout(first)
        came = store.checkout(second).download_bytes
        assert Path(store.path("m")).read_bytes() == wanted
        assert store.fsck().problems == []
    return came, "\n".join(said)


@pytest.mark.parametrize("name", MADE)
def test_an_update_of_a_compressed_file_is_a_difference_of_its_numbers(name: str, tmp_path: Path) -> None:
    old, new = MADE[name](OLD), MADE[name](NEW)
    registry = publish(tmp_path, name, old, new)
    came, _ = updated(registry, tmp_path / "home", new)
    assert came < 0.3 * len(new)
    came, _ = updated(registry, tmp_path / "back", old, back=True)
    assert came < 0.3 * len(old)


def ending_in_noise(values: np.ndarray) -> bytes:
    """A gzip file over several chunks, whose end zlib stores as it is.

    Stored bytes begin with a whole byte (RFC 1951, 3.2.4), so nothing before them can be shifted.
    """
    return gzipped(values.tobytes() + np.random.default_rng(3).bytes(100_000), 6)


def damaged(values: np.ndarray) -> bytes:
    """A zip archive with a stream that does not inflate, beside one that does."""
    content = bytearray(zipped({"a": values[:200_000].tobytes(), "b": values[200_000:400_000].tobytes()}, 6))
    content[31:40] = b"\xff" * 9  # after the header: blocks have no type 3
    return bytes(content)


@pytest.mark.parametrize(("name", "make"), [("m.gz", ending_in_noise), ("m.zip", damaged)])
def test_streams_that_do_not_inflate_by_themselves_are_published_and_updated(
    name: str, make: Callable[[np.ndarray], bytes], tmp_path: Path
) -> None:
    old, new = make(OLD), make(NEW)
    registry = publish(tmp_path, name, old, new)
    came, _ = updated(registry, tmp_path / "home", new)
    assert came < 0.8 * len(new)
    updated(registry, tmp_path / "back", old, back=True)


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    """A registry with two versions of an `.npz`."""
    return publish(tmp_path, "m.npz", MADE["m.npz"](OLD), MADE["m.npz"](NEW))


def packs(registry: Path) -> list[Path]:
    raw = json.loads((registry / "registry.json").read_text())
    listed = raw["models"]["m"]["versions"]["1.1.0"][KEY]
    return [registry / "deltas" / f"{PackId.parse(delta['pack']).hex}.pack" for delta in listed]


def test_a_client_whose_zlib_makes_other_bytes_takes_full_packs_and_says_so(
    compressed: Path, tmp_path: Path
) -> None:
    def other(models: dict[str, Any]) -> None:
        for entry in models["m"]["versions"].values():
            for delta in entry[KEY]:
                assert delta["compressor"].startswith("zlib:")
                delta["compressor"] = "zlib:0123456789abcdef"

    amend(compressed, other)
    new = MADE["m.npz"](NEW)
    came, said = updated(compressed, tmp_path / "home", new)
    assert came > 0.5 * len(new)
    assert "zlib" in said


@pytest.mark.parametrize("damage", ["flipped", "removed"])
def test_without_a_delta_that_can_be_read_full_packs_serve(
    compressed: Path, tmp_path: Path, damage: str
) -> None:
    for pack in packs(compressed):
        content = bytearray(pack.read_bytes())
        content[200::1000] = bytes(byte ^ 0xFF for byte in content[200::1000])
        pack.chmod(0o644)
        pack.write_bytes(content)
        if damage == "removed":
            pack.unlink()
    new = MADE["m.npz"](NEW)
    came, _ = updated(compressed, tmp_path / "home", new)
    assert came > 0.5 * len(new)


def test_a_client_that_does_not_know_these_deltas_goes_on_with_full_packs(
    compressed: Path, tmp_path: Path
) -> None:
    def forget(models: dict[str, Any]) -> None:
        for entry in models["m"]["versions"].values():
            entry.pop(KEY, None)

    amend(compressed, forget)
    new = MADE["m.npz"](NEW)
    assert updated(compressed, tmp_path / "home", new)[0] > 0.5 * len(new)


def test_a_store_contains_no_such_entry(compressed: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", compressed)
        store.fetch("m@1.0.0")
        assert store.fetch("m@1.1.0").download_bytes < 0.3 * len(MADE["m.npz"](NEW))
        assert store.fsck().problems == []
    stored = list((tmp_path / "home" / "packs").glob("*.pack"))
    assert stored
    assert not any(entry.encoding in NOT_STORED for pack in stored for _, entry in iter_entries(pack))


def test_lint_reads_them(compressed: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        assert store.lint_registry(compressed, deep=True, decode=True).errors == 0
        packs(compressed)[0].unlink()
        found = store.lint_registry(compressed, deep=True).findings
    assert any(KEY in finding.path for finding in found if finding.severity == "error")


def test_a_stream_that_zlib_does_not_make_stays_untouched(tmp_path: Path) -> None:
    def other(values: np.ndarray) -> bytes:
        # With the smallest memory for blocks: another stream than each level's.
        compressor = zlib.compressobj(6, zlib.DEFLATED, 31, 1)
        return compressor.compress(values.tobytes()) + compressor.flush()

    old, new = other(OLD), other(NEW)
    registry = publish(tmp_path, "m.gz", old, new)
    raw = json.loads((registry / "registry.json").read_text())
    assert KEY not in raw["models"]["m"]["versions"]["1.1.0"]
    assert updated(registry, tmp_path / "home", new)[0] > 0.5 * len(new)


def test_an_import_does_not_compress_again_what_it_stores(tmp_path: Path) -> None:
    content = MADE["m.bin.gz"](OLD)
    (tmp_path / "m.gz").write_bytes(content)
    with Store.open(tmp_path / "home") as store:
        store.import_model(tmp_path / "m.gz", "m@1.0.0")
        (manifest,) = (tmp_path / "home" / "manifests").glob("*.json")
        (file,) = Manifest.parse(manifest.read_bytes()).files
        assert file.chunk_list()[1].max() <= CHUNK_MAX_BYTES


@pytest.mark.parametrize("name", MADE)
def test_auto_finds_the_compressed_file_that_a_fine_tune_is_of(name: str, tmp_path: Path) -> None:
    registry, file = tmp_path / "registry", tmp_path / name
    for model, values in {"other": np.flip(OLD), "m": OLD}.items():
        file.write_bytes(MADE[name](values))
        Store.publish(file, f"{model}@1.0.0", registry=registry)
    file.write_bytes(MADE[name](NEW))
    Store.publish(file, "tuned@1.0.0", registry=registry, base="auto")
    raw = json.loads((registry / "registry.json").read_text())
    deltas = raw["models"]["tuned"]["versions"]["1.0.0"][BASED]
    assert {item["base_model"] for item in deltas} == {"m"}
    assert sum(item["size_bytes"] for item in deltas) < 0.3 * file.stat().st_size


def test_a_fine_tune_under_another_id_is_a_difference_of_its_numbers_too(tmp_path: Path) -> None:
    old, new = MADE["m.bin.gz"](OLD), MADE["m.bin.gz"](NEW)
    registry = publish(tmp_path, "m.gz", old)
    (tmp_path / "m.gz").write_bytes(new)
    Store.publish(tmp_path / "m.gz", "tuned@1.0.0", registry=registry, base="m@1.0.0")
    raw = json.loads((registry / "registry.json").read_text())
    (delta,) = [item for item in raw["models"]["tuned"]["versions"]["1.0.0"][BASED] if "compressor" in item]
    assert delta["mapped"] is True
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", registry)
        store.checkout("m@1.0.0")
        assert (store.checkout("tuned@1.0.0").download_bytes or 0) < 0.3 * len(new)
        assert Path(store.path("tuned")).read_bytes() == new
        assert store.lint_registry(registry, deep=True, decode=True).errors == 0


def test_the_estimate_of_a_delta_is_about_what_it_takes(tmp_path: Path) -> None:
    registry = publish(tmp_path, "m.npz", MADE["m.npz"](OLD), MADE["m.npz"](NEW))
    raw = json.loads((registry / "registry.json").read_text())
    entries = raw["models"]["m"]["versions"]
    folder = RegistryFolder(registry)
    old, new = (folder.manifest(Sha256.parse(entries[v]["manifest"])) for v in ("1.0.0", "1.1.0"))
    written = sum(delta["size_bytes"] for delta in entries["1.1.0"][KEY])
    with reading(folder.packs) as reader:
        assert 0.8 < estimate_deltas(reader, new, old) / written < 1.25


def test_the_compressor_is_named_only_for_updates_that_need_it(compressed: Path, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", compressed)
        compressor_id.cache_clear()
        store.checkout("m@1.0.0")
        assert compressor_id.cache_info().currsize == 0
        store.checkout("m@1.1.0")
        assert compressor_id.cache_info().currsize == 1


def test_the_name_of_the_compressor_is_what_the_page_says() -> None:
    noise = hashlib.shake_128(b"yarnstore").digest(72 << 10)
    plain = noise[: 64 << 10] + bytes(byte & 3 for byte in noise[64 << 10 :]) + noise[44 << 10 : 48 << 10]
    streams = b""
    for level in range(1, 10):
        one = zlib.compressobj(level, zlib.DEFLATED, -15)
        streams += one.compress(plain) + one.flush()
    assert compressor_id() == f"zlib:{blake3(streams).hexdigest()[:16]}"
