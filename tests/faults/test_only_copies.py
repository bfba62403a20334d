"""Damage of installed files that are the only copy of their chunks: found, named, and repaired from whatever
else has the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.stores import Site, copy_tree, flip, problems, tree_hashes, versions_in
from yarnstore import Store
from yarnstore.errors import BackendError, IntegrityError
from yarnstore.store.layout import StoreLayout
from yarnstore.store.packs import iter_entries

MODEL, OTHER, MINE = "tuned", "other", "mine"
_COUNT = 120_000


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two versions of a model, which share the first 3 MiB of a file, and two other models."""
    root = tmp_path_factory.mktemp("published")
    site = Site(root, root / "registry", root / "home", (MODEL, OTHER), ("1.0.0", "1.1.0"))
    bits, fixed = weights(1, _COUNT), weights(2, 3 << 19)
    for n, version in enumerate(site.versions):
        folder = site.source(version, MODEL)
        folder.mkdir(parents=True)
        (folder / "tuned.bin").write_bytes(tune(bits, 5).tobytes() if n else bits.tobytes())
        (folder / f"fixed{n}.bin").write_bytes(np.concatenate([fixed, bits[: n * 1000]]).tobytes())
        (folder / "config.json").write_text(f'{{"version": "{version}"}}\n')
        Store.publish(folder, f"{MODEL}@{version}", registry=site.registry, deltas=1)
    other = site.source("1.0.0", OTHER)
    other.mkdir(parents=True)
    (other / "w.bin").write_bytes(weights(7, _COUNT).tobytes())
    Store.publish(other, f"{OTHER}@1.0.0", registry=site.registry)
    mine = site.source("1.0.0", MINE)
    mine.mkdir(parents=True)
    (mine / "w.bin").write_bytes(weights(8, _COUNT).tobytes())
    return site


@pytest.fixture
def site(published: Site, tmp_path: Path) -> Site:
    """The same, with a registry that a test may remove, and an empty store."""
    registry = tmp_path / "registry"
    copy_tree(published.registry, registry)
    site = Site(published.root, registry, tmp_path / "home", published.models, published.versions)
    with site.store() as store:
        store.add_registry("made", registry)
    return site


def install(site: Site, *specs: str) -> None:
    with site.store() as store:
        for spec in specs:
            store.checkout(spec)


def file_of(site: Site, spec: str, path: str) -> Path:
    """The file in `files/` of a path of a version."""
    layout = StoreLayout(site.home)
    model, _, version = spec.partition("@")
    for manifest in layout.readable_manifests({}):
        if (manifest.model, manifest.version) == (model, version):
            return next(layout.file(file) for file in manifest.files if file.path == path)
    raise AssertionError(spec)


def without_registry(site: Site) -> None:
    site.registry.rename(site.registry.with_name("away"))


def repaired(site: Site) -> None:
    """All is found, repaired and right; nothing was repaired in place."""
    with site.store() as store:
        done = store.fsck(repair=True)
    assert done.problems
    assert done.remaining == []
    assert problems(site.home) == []
    whole(site)


def whole(site: Site, *, but: str = "") -> None:
    for model, version in versions_in(site.home):
        if model != but:
            with site.store() as store:
                assert tree_hashes(Path(store.path(f"{model}@{version}"))) == site.contents(version, model)


def packs(site: Site) -> list[Path]:
    return list((site.home / "packs").glob("*.pack"))


@pytest.mark.parametrize("path", ["tuned.bin", "fixed0.bin", "config.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "grow", "zero", "gone"])
def test_a_file_is_repaired_from_the_registry(path: str, how: str, site: Site) -> None:
    install(site, f"{MODEL}@1.0.0", f"{OTHER}@1.0.0")
    place = file_of(site, f"{MODEL}@1.0.0", path)
    data = place.read_bytes()
    middle = len(data) // 2
    damaged = {
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "cut": data[:middle],
        "grow": data + b"more",
        "zero": bytes(len(data)),
    }.get(how)
    place.chmod(0o644)
    if damaged is None:
        place.unlink()
    else:
        place.write_bytes(damaged)
        place.chmod(0o444)
    with site.store() as store:
        found = store.fsck().problems
    assert any(place.name in f"{item.where} {item.what}" for item in found), found
    assert {spec for item in found for spec in item.hurts} == {f"{MODEL} 1.0.0"}
    inode = place.stat().st_ino if damaged is not None else -1
    repaired(site)
    assert place.stat().st_ino != inode


def test_a_file_is_repaired_from_a_delta(site: Site) -> None:
    """Its chunks are in a pack as deltas against the files of the version before."""
    install(site, f"{MODEL}@1.0.0")
    with site.store() as store:
        store.fetch(f"{MODEL}@1.1.0")
        store.checkout(f"{MODEL}@1.1.0", wait=False)  # so that the deltas are still there
    assert packs(site)
    without_registry(site)
    flip(file_of(site, f"{MODEL}@1.1.0", "tuned.bin"), 1000)
    repaired(site)


def test_a_thin_version_is_given_back_after_its_base_was_repaired(site: Site) -> None:
    install(site, f"{MODEL}@1.0.0", f"{MODEL}@1.1.0")
    with site.store() as store:
        store.gc(keep=2, thin="*", grace_s=0)
    assert len(list((site.home / "files").iterdir())) == 3
    flip(file_of(site, f"{MODEL}@1.1.0", "tuned.bin"), 1000)
    repaired(site)
    without_registry(site)
    with site.store() as store:
        assert store.rollback_model(MODEL).version == "1.0.0"
    whole(site)


def test_a_file_is_repaired_from_another_version(site: Site) -> None:
    install(site, f"{MODEL}@1.0.0", f"{MODEL}@1.1.0")
    without_registry(site)
    flip(file_of(site, f"{MODEL}@1.1.0", "fixed1.bin"), 1000)
    repaired(site)


def test_an_import_is_repaired_from_its_kept_copy(site: Site) -> None:
    with site.store() as store:
        store.import_model(site.source("1.0.0", MINE), f"{MINE}@1.0.0")
        store.checkout(f"{MINE}@1.0.0")
        store.gc()
    flip(file_of(site, f"{MINE}@1.0.0", "w.bin"), 1000)
    repaired(site)


@pytest.mark.parametrize("how", ["flip", "gone"])
def test_a_model_whose_only_copy_is_gone_is_named_and_no_other_suffers(how: str, site: Site) -> None:
    install(site, f"{MODEL}@1.0.0", f"{OTHER}@1.0.0", f"{MODEL}@1.1.0")
    without_registry(site)
    if how == "gone":
        with site.store() as store:
            store.remove_registry("made")
    place = file_of(site, f"{OTHER}@1.0.0", "w.bin")
    if how == "flip":
        flip(place, 1000)
    else:
        place.unlink()
        view = next((site.home / "views").glob("*/w.bin"))
        view.parent.chmod(0o755)
        view.unlink()
    for repair, version in ((False, "1.0.0"), (True, "1.1.0"), (True, "1.0.0")):
        with site.store() as store:
            done = store.fsck(repair=repair)
            assert done.problems
            hurt = {spec for item in done.problems for spec in item.hurts}
            assert hurt == {f"{OTHER} 1.0.0"}, done.problems
            if repair:
                assert {spec for item in done.remaining for spec in item.hurts} == {f"{OTHER} 1.0.0"}
        with site.store() as store:
            assert store.rollback_model(MODEL, version).changed
            store.gc(keep=0)
            with pytest.raises(BackendError if how == "flip" else IntegrityError):
                store.path(f"{OTHER}@1.0.0")
        whole(site, but=OTHER)
        assert (OTHER, "1.0.0") in versions_in(site.home)
    # Once the registry is there again, all is.
    site.registry.with_name("away").rename(site.registry)
    if how == "gone":
        with site.store() as store:
            store.add_registry("made", site.registry)
    repaired(site)


@pytest.mark.parametrize("how", ["repair", "fetch"])
def test_a_version_of_deltas_against_a_lost_import_is_downloaded_whole(how: str, site: Site) -> None:
    (site.home / "config.toml").write_text('keep_copy = "never"\n')
    with site.store() as store:
        store.import_model(site.source("1.1.0", MODEL), f"{MINE}@2.0.0")
        store.checkout(f"{MINE}@2.0.0")
        store.fetch(f"{MODEL}@1.0.0")  # as deltas against the import, which has the chunks of 1.1.0
        store.gc()
    flip(file_of(site, f"{MINE}@2.0.0", "tuned.bin"), 1000)
    with site.store() as store:
        if how == "fetch":
            assert store.fetch(f"{MODEL}@1.0.0").download_bytes
        else:
            done = store.fsck(repair=True)
            hurt = {spec for item in done.problems for spec in item.hurts}
            assert hurt == {f"{MINE} 2.0.0", f"{MODEL} 1.0.0"}
            assert {spec for item in done.remaining for spec in item.hurts} == {f"{MINE} 2.0.0"}
    without_registry(site)
    install(site, f"{MODEL}@1.0.0")
    whole(site, but=MINE)


def test_a_repair_copies_the_sound_part_of_a_file_into_no_pack(site: Site) -> None:
    """It would need the disk space of the file twice."""
    install(site, f"{MODEL}@1.0.0")
    place = file_of(site, f"{MODEL}@1.0.0", "fixed0.bin")
    before = [entry.chunk_id for pack in packs(site) for _, entry in iter_entries(pack)]
    flip(place, place.stat().st_size // 2)
    damaged = place.read_bytes()
    repaired(site)
    after = [entry.chunk_id for pack in packs(site) for _, entry in iter_entries(pack)]
    assert len(after) == len(before) + 1
    assert damaged in [path.read_bytes() for path in (site.home / "trash").rglob("bad-*") if path.is_file()]
