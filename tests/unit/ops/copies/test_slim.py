"""One copy on the disk: what is installed is there once, as its file; older versions cost what changed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from tests.support.fine_tunes import MODEL, SIZE, World, tune, weights
from tests.support.small_stores import fill, manifest_of, noise
from tests.support.stores import copy_tree, flip
from yarnstore import Store
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, LockTimeoutError, NotFoundError
from yarnstore.ops.copies.slim import verify_files
from yarnstore.registry.policies import Retention
from yarnstore.store.kernel import wait_lock
from yarnstore.store.layout import StoreLayout, file_name

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")


def disk_bytes(home: Path) -> int:
    """What the store takes, files that several names lead to once."""
    found = (path.lstat() for path in home.rglob("*") if path.is_file() and not path.is_symlink())
    return sum({item.st_ino: item.st_size for item in found}.values())


def share(home: Path) -> float:
    """The same in multiples of one version."""
    return disk_bytes(home) / SIZE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three versions, installed one after the other; nothing was cleaned up."""
    world = World(tmp_path_factory.mktemp("slim"))
    bits = weights(1)
    for n, version in enumerate(VERSIONS):
        world.publish(version, bits, deltas=1)
        bits = tune(bits, n + 2)
    world.connect()
    for version in VERSIONS:
        world.store.checkout(f"{MODEL}@{version}", wait=False)
    return world


@pytest.fixture
def world(made: World, tmp_path: Path) -> World:
    """A copy of its store."""
    copy_tree(made.store.home, tmp_path / "home")
    copied = World(tmp_path)
    copied.registry, copied.contents = made.registry, made.contents
    return copied


def sound(world: World) -> None:
    assert world.store.fsck().problems == []
    for version in VERSIONS:
        world.check(version)
    world.store.close()  # what `path` gave out stays as long as the store is open


def with_rollback(store: Store, **more: str) -> Store:
    store.settings = msgspec.structs.replace(store.settings, retention=Retention(**more))  # type: ignore[arg-type]
    return store


def test_an_installed_version_is_there_once(tmp_path: Path, made: World) -> None:
    world = World(tmp_path)
    world.registry, world.contents = made.registry, made.contents
    world.connect()
    world.store.checkout(f"{MODEL}@1.0.0")
    world.store.gc()
    assert share(world.store.home) < 1.02
    assert world.store.fsck().problems == []
    assert StoreLayout(world.store.home).relies_on_files
    world.store.checkout(f"{MODEL}@1.1.0")  # a delta finds its base in a file
    assert world.store.fsck().problems == []
    world.check("1.1.0")
    world.store.gc()
    assert share(world.store.home) < 2.03


@pytest.mark.parametrize(("rollback", "most"), [("instant", 2.2), ("thin", 1.35)])
def test_older_versions_are_deltas_against_the_installed_one(
    world: World, rollback: str, most: float
) -> None:
    with_rollback(world.store, rollback=rollback)
    told = world.store.gc(dry_run=True).freed_bytes
    before = disk_bytes(world.store.home)
    freed = world.store.gc().freed_bytes
    assert share(world.store.home) < most
    assert abs(told - freed) < 0.02 * freed
    assert abs(before - disk_bytes(world.store.home) - freed) < 20_000  # and indexes, refs
    assert world.store.gc().freed_bytes == 0
    kept = {"instant": 2, "thin": 1}[rollback]
    assert len(list((world.store.home / "files").iterdir())) == kept
    sound(world)


def test_a_store_goes_back_and_forth(world: World) -> None:
    with_rollback(world.store, rollback="thin")
    for version in (None, "1.0.0", "1.2.0", "1.1.0"):
        if version is None:
            world.store.rollback_model(MODEL)
        else:
            world.store.checkout(f"{MODEL}@{version}")
        world.store.gc(grace_s=0)
        assert share(world.store.home) < 1.4
        sound(world)
    world.store.remove_registry("here")
    world.store.rollback_model(MODEL)
    world.check("1.2.0")


@pytest.mark.parametrize("thin", ["*", MODEL])
def test_a_version_is_made_thin_once(world: World, thin: str) -> None:
    world.store.gc()
    world.store.gc(thin=thin)
    assert share(world.store.home) < 1.35
    sound(world)
    with pytest.raises(NotFoundError):
        world.store.gc(thin="other")


def test_a_model_may_have_another_policy(world: World) -> None:
    with_rollback(world.store, rollback="thin", rollback_of={MODEL: "instant"})
    world.store.gc()
    assert len(list((world.store.home / "files").iterdir())) == 2


@pytest.mark.parametrize("keep_copy", ["imports", "always", "never"])
def test_what_no_registry_gives_back_keeps_its_packs(tmp_path: Path, keep_copy: str) -> None:
    (tmp_path / "w.bin").write_bytes(weights(1).tobytes())
    with Store.open(tmp_path / "home") as store:
        with_rollback(store, keep_copy=keep_copy)
        store.import_model(tmp_path / "w.bin", "mine@1.0.0")
        store.checkout("mine@1.0.0")
        store.gc()
        assert bool(list((store.home / "packs").iterdir())) == (keep_copy != "never")
        assert store.fsck().problems == []


def test_what_a_registry_dropped_gets_a_second_copy(world: World) -> None:
    world.store.gc()
    assert share(world.store.home) < 2.2
    world.store.remove_registry("here")
    world.store.gc()
    assert share(world.store.home) > 2.6
    flip(max((world.store.home / "files").iterdir()), 5000)
    assert world.store.fsck(repair=True).remaining == []
    sound(world)


@pytest.fixture
def drop(world: World) -> Iterator[Callable[[str], None]]:
    """Removes a version from the registry, and lets the store know."""
    path = world.registry / "registry.json"
    before = path.read_bytes()

    def remove(version: str) -> None:
        registry = json.loads(before)
        del registry["models"][MODEL]["versions"][version]
        path.write_text(json.dumps(registry))
        world.store.refresh_registries()

    yield remove
    path.write_bytes(before)  # other tests use it


def test_doctor_names_what_a_refresh_made_the_only_copy(world: World, drop: Callable[[str], None]) -> None:
    world.store.gc()
    assert "second copies" not in {check.name for check in world.store.examine().checks}
    drop("1.1.0")
    (found,) = (check for check in world.store.examine().checks if check.name == "second copies")
    assert (found.status, found.what) == (
        "note",
        f"no registry has {MODEL}@1.1.0, and this store has only one copy",
    )
    world.store.gc()
    assert "second copies" not in {check.name for check in world.store.examine().checks}
    sound(world)


def test_the_second_copy_is_written_before_anything_is_deleted(
    world: World, drop: Callable[[str], None]
) -> None:
    """Also with a plan that was made before, and where the lock for deleting cannot be had."""
    store = world.store
    store.gc()
    drop("1.1.0")
    (store.home / "files" / ("a" * 64)).write_bytes(b"of no version")
    plan = store.plan_gc()
    store.settings = msgspec.structs.replace(store.settings, lock_timeout_s=0.1)
    reader = os.open(store.home / "lock", os.O_RDWR)
    wait_lock(reader, exclusive=False)
    with pytest.raises(LockTimeoutError):
        store.gc(expected=plan.fingerprint)
    os.close(reader)
    assert (store.home / "files" / ("a" * 64)).exists()
    assert "second copies" not in {check.name for check in store.examine().checks}
    store.gc(expected=store.plan_gc().fingerprint)
    assert not (store.home / "files" / ("a" * 64)).exists()
    sound(world)


def test_a_plan_is_carried_out_although_it_begins_with_a_copy(
    world: World, drop: Callable[[str], None]
) -> None:
    world.store.gc()
    drop("1.1.0")
    world.store.gc(expected=world.store.plan_gc().fingerprint)
    assert "second copies" not in {check.name for check in world.store.examine().checks}
    sound(world)


def test_a_damaged_range_comes_from_the_registry_and_the_rest_from_the_file(world: World) -> None:
    world.store.gc()
    path = os.path.realpath(world.store.path(f"{MODEL}@1.2.0"))
    flip(Path(path), 5000)
    lost = [item for item in world.store.fsck().problems if item.kind == "chunk"]
    # The version before it is whole, the one before that a delta against the damaged chunk.
    assert sorted(name for item in lost for name in item.hurts) == [f"{MODEL} 1.0.0", f"{MODEL} 1.2.0"]
    assert all("1 chunk is not in the store" in item.what for item in lost)
    done = world.store.fsck(repair=True)
    assert done.remaining == []
    assert any("1 chunk downloaded" in text for text in done.repaired)
    sound(world)


def test_a_checkout_mends_what_is_installed(world: World) -> None:
    world.store.gc()
    flip(Path(os.path.realpath(world.store.path(f"{MODEL}@1.2.0"))), 5000)
    world.store.checkout(f"{MODEL}@1.2.0")
    sound(world)


def test_what_is_lost_is_named_and_nothing_else_suffers(world: World) -> None:
    (world.root / "other.bin").write_bytes(weights(9).tobytes())
    world.store.import_model(world.root / "other.bin", "other@1.0.0")
    with_rollback(world.store, keep_copy="never")
    world.store.checkout("other@1.0.0")
    world.store.gc()
    path = Path(os.path.realpath(world.store.path("other@1.0.0")))
    flip(path, 5000)
    remaining = world.store.fsck(repair=True).remaining
    assert {name for problem in remaining for name in problem.hurts} == {"other 1.0.0"}
    with pytest.raises((IntegrityError, NotFoundError)):
        world.store.checkout("other@1.0.0")
    for version in VERSIONS:
        world.check(version)


def test_a_damaged_file_backs_nothing(world: World) -> None:
    """Its pack stays: a range is hashed before the entry goes for its sake."""
    with_rollback(world.store, keep_copy="always")
    world.store.gc()
    path = Path(os.path.realpath(world.store.path(f"{MODEL}@1.2.0")))
    flip(path, 5000)
    world.store.remove_registry("here")
    with_rollback(world.store, keep_copy="never")
    world.store.gc()
    world.store.fsck(repair=True)
    world.check("1.2.0")


def test_a_version_that_lives_off_a_deleted_ones_file_keeps_its_chunks(world: World) -> None:
    """1.0.0 shares all of its chunks with `twin`, which is fetched when only a file has them."""
    world.store.gc()
    (world.root / "weights.bin").write_bytes(world.contents["1.2.0"])
    Store.publish(world.root / "weights.bin", "twin@1.0.0", registry=world.registry)
    try:
        assert world.store.fetch("twin@1.0.0").download_bytes == 0
        world.store.remove(f"{MODEL}@1.2.0", whole_model=True)
        world.store.gc(keep=3)
        assert world.store.fsck().problems == []
        assert Path(world.store.path("twin@1.0.0")).read_bytes() == world.contents["1.2.0"]
    finally:
        world.store.close()


def test_a_pinned_version_outlives_the_files_that_it_is_a_delta_against(tmp_path: Path) -> None:
    """The version that the deltas were encoded against goes, and no pack ever had its chunks alone."""
    world = World(tmp_path)
    bits = weights(1, 200_000)
    versions = [f"1.{n}.0" for n in range(5)]
    for n, version in enumerate(versions):
        world.publish(version, bits)
        bits = tune(bits, n + 2)
    world.connect()
    world.store.checkout(f"{MODEL}@1.0.0")
    world.store.pin(f"{MODEL}@1.0.0")
    for version in versions[1:]:
        world.store.checkout(f"{MODEL}@{version}")
        world.store.gc(keep=1, grace_s=0)
        assert world.store.fsck().problems == []
    world.store.remove_registry("here")
    world.check("1.0.0")


def test_a_file_goes_only_once_what_it_shares_was_read_in_one_that_stays(tmp_path: Path) -> None:
    """The installed file was changed in place since it was hashed: the other one has the only copy."""
    world = World(tmp_path)
    bits = weights(1)
    world.publish("1.0.0", bits)
    half = bits.size // 2
    bits = np.concatenate([bits[:half], tune(bits[half:], 2)])
    world.publish("1.1.0", bits)
    world.connect()
    for version in ("1.0.0", "1.1.0"):
        world.store.checkout(f"{MODEL}@{version}")
    world.store.gc()
    (installed,) = (path for path in (world.store.home / "files").iterdir()
                    if path.read_bytes() == world.contents["1.1.0"])  # fmt: skip
    flip(installed, 5000)
    world.store.gc(thin="*", grace_s=0)
    world.store.remove_registry("here")
    assert world.store.fsck(repair=True).remaining == []
    for version in ("1.0.0", "1.1.0"):
        world.check(version)


def test_the_claim_of_another_model_deletes_nothing(tmp_path: Path) -> None:
    """A registry's manifest says that a file, which is in the store, has the chunks of a pinned version."""
    world = World(tmp_path)
    bits = weights(1, 150_000)
    for n, version in enumerate(VERSIONS):
        world.publish(version, tune(bits, n))
    world.connect()
    world.store.checkout(f"{MODEL}@1.0.0")
    world.store.pin(f"{MODEL}@1.0.0")
    world.store.gc()
    (pinned,) = map(read_manifest, (world.store.home / "manifests").iterdir())
    other = tmp_path / "other"
    for n, version in enumerate(VERSIONS[:2]):
        (tmp_path / "x.bin").write_bytes(weights(7 + n, 150_000).tobytes())
        world.store.publish(tmp_path / "x.bin", f"liar@{version}", registry=other)
    honest = {item.version: item for item in map(read_manifest, (other / "manifests").glob("*.json"))}
    (first,), (second,) = honest["1.0.0"].files, honest["1.1.0"].files
    lie = Manifest.make(
        "liar", "1.1.0", pinned.variant, [msgspec.structs.replace(first, chunks=pinned.files[0].chunks)]
    )
    (other / "manifests" / f"{lie.digest.hex}.json").write_bytes(lie.data)
    text = (other / "registry.json").read_text()
    text = text.replace(honest["1.1.0"].digest.hex, lie.digest.hex)
    (other / "registry.json").write_text(text.replace(second.sha256.hex, first.sha256.hex))
    world.store.add_registry("other", other)
    for spec in (f"{MODEL}@1.1.0", f"{MODEL}@1.2.0", "liar@1.0.0", "liar@1.1.0"):
        world.store.checkout(spec)
    world.store.gc(grace_s=0)
    for name in ("here", "other"):
        world.store.remove_registry(name)
    world.check("1.0.0")


def test_a_file_backs_only_what_a_kept_manifest_lists_in_it(tmp_path: Path) -> None:
    """The version that lists these chunks was removed meanwhile; another has the same file, cut elsewhere."""
    with Store.open(tmp_path / "home") as store, store._session() as session:
        parts = [noise(1), noise(2)]
        cut = fill(session.layout, {"w.bin": parts})
        whole = manifest_of({"w.bin": [b"".join(parts)]})
        names = {file_name(cut.files[0])}
        backing = verify_files(session, "never", [cut], names)
        assert len(backing.redundant(session, [cut], names)) == 2
        assert len(backing.redundant(session, [whole], names)) == 0


def test_a_file_that_changed_since_it_was_read_backs_nothing(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store, store._session() as session:
        cut = fill(session.layout, {"w.bin": [noise(1), noise(2)]})
        names = {file_name(cut.files[0])}
        backing = verify_files(session, "never", [cut], names)
        assert len(backing.redundant(session, [cut], names)) == 2
        flip(Path(session.layout.file(cut.files[0])), 10)
        assert len(backing.redundant(session, [cut], names)) == 0


def test_a_store_has_format_2_before_its_first_pack_goes(
    tmp_path: Path, made: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases that know only packs refuse it then."""
    with Store.open(tmp_path / "home") as store:
        store.add_registry("here", made.registry)
        store.fetch(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        layout, formats = StoreLayout(store.home), list[bool]()
        assert not layout.relies_on_files

        def spied(call: Callable[..., None]) -> Callable[..., None]:
            def spy(name: str, *rest: object, **more: object) -> None:
                if str(name).endswith((".idx", ".pack")):
                    formats.append(layout.relies_on_files)
                call(name, *rest, **more)

            return spy

        for name in ("replace", "unlink"):
            monkeypatch.setattr(os, name, spied(getattr(os, name)))
        store.gc(grace_s=0)
        assert formats
        assert all(formats)


def read_manifest(path: Path) -> Manifest:
    return Manifest.parse(path.read_bytes())


def test_going_thin_needs_disk_space_for_the_chunks_beside_the_reserve_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2):
        folder = tmp_path / f"many{n}"
        folder.mkdir()
        for k in range(40):
            (folder / f"{k}.bin").write_bytes(np.random.default_rng(40 * n + k).bytes(10_000))
        Store.publish(folder, f"many@1.{n}.0", registry=tmp_path / "registry")
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text('reserve = "0"\n')
    with Store.open(home) as store:
        store.add_registry("here", tmp_path / "registry")
        for n in range(2):
            store.checkout(f"many@1.{n}.0")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=1_000_000))
        store.gc(thin="many", grace_s=0)
        forms = {row.version: row.form for row in store.storage().models[0].versions}
    assert forms == {"1.0.0": "packed", "1.1.0": "file"}
