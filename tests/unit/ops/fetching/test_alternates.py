"""Stores that are looked into before anything is downloaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, flip, make_site, remove_tree, tree_hashes
from yarnstore import Store
from yarnstore.errors import ConfigError, YarnstoreError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A registry, and a store that has 1.0.0 installed and 1.1.0 in packs, as the site's own."""
    site = make_site(tmp_path_factory.mktemp("made"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
    return site


@pytest.fixture
def user(made: Site, tmp_path: Path) -> Site:
    """An empty store of a user, of which the site's is an alternate; the registry has lost its packs."""
    site = made.copy(tmp_path / "copy", registry=True)
    home = tmp_path / "user"
    home.mkdir()
    (home / "config.toml").write_text(f'alternates = ["{site.home}"]\n')
    with Store.open(home) as store:
        store.add_registry("made", site.registry)
    return Site(tmp_path, site.registry, home, site.models, site.versions)


@pytest.fixture
def alternate(user: Site, tmp_path: Path) -> Iterator[Path]:
    """The site's store, which nobody may write."""
    home = tmp_path / "copy" / "home"
    yield home
    remove_tree(home)


def everything(home: Path) -> dict[str, tuple[int, int, int]]:
    """Every name of a store, with what changes when it is written."""
    found = {}
    for folder, folders, names in os.walk(home):
        for name in (*folders, *names):
            stat = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    return found


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
def test_what_an_alternate_has_is_not_downloaded(
    user: Site, alternate: Path, version: str, made: Site
) -> None:
    for lost in ("packs", "deltas", "manifests"):
        shutil.rmtree(user.registry / lost, ignore_errors=True)
    before = everything(alternate)
    with user.store() as store:
        found = store.fetch(f"{MODEL}@{version}")
        assert (found.download_bytes, found.chunks_fetched) == (0, 0)
        assert found.alternate_bytes > 700_000
        assert store.checkout(f"{MODEL}@{version}").version == version
        assert tree_hashes(Path(store.path(MODEL))) == made.contents(version)
        assert store.fsck().problems == []
        (check,) = [item for item in store.examine().checks if item.name == f"alternate {alternate}"]
        assert (check.status, check.what) == ("ok", "2 versions to copy from")
    assert everything(alternate) == before


def test_a_forecast_leaves_out_what_an_alternate_has(user: Site, alternate: Path) -> None:
    with user.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        told = store.update_model(MODEL, to="1.1.0", dry_run=True)
        assert (told.version, told.download_bytes) == ("1.1.0", 0)
        more = store.update_model(MODEL, dry_run=True)
        assert more.version == "1.2.0"
        assert (more.download_bytes or 0) > 300_000
    remove_tree(alternate)
    with user.store() as store:  # nothing of the forecasts before is remembered
        told = store.update_model(MODEL, to="1.1.0", dry_run=True)
        assert told.download_bytes is not None
        assert told.download_bytes > 300_000


def test_a_store_that_is_its_own_alternate_is_a_note_of_doctor(user: Site, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(user.home)
    (user.home / "config.toml").write_text(f'alternates = ["{link}"]\n')
    with user.store() as store:
        (check,) = [item for item in store.examine().checks if item.name == f"alternate {link}"]
        assert (check.status, check.what) == ("note", "is this store itself")
        assert store.checkout(f"{MODEL}@1.0.0").version == "1.0.0"


def test_what_is_damaged_there_is_downloaded(user: Site, alternate: Path) -> None:
    for path in [*(alternate / "packs").glob("*.pack"), *(alternate / "files").iterdir()]:
        for offset in range(20_000, path.stat().st_size, 20_000):
            flip(path, offset, 0x55)
    with user.store() as store:
        found = store.checkout(f"{MODEL}@1.0.0")
        assert found.download_bytes > 0
        assert store.fsck().problems == []


@pytest.mark.parametrize("fault", ["absent", "no store", "newer", "index", "unreadable manifests"])
def test_a_broken_alternate_is_a_note_of_doctor_and_no_error(user: Site, alternate: Path, fault: str) -> None:
    if fault == "absent":
        remove_tree(alternate)
    elif fault == "no store":
        (alternate / "format").unlink()
    elif fault == "newer":
        (alternate / "format").write_text("yarnstore-store/77\n")
    elif fault == "index":
        for path in (alternate / "packs").glob("*.idx"):
            path.write_bytes(b"?")
    else:
        shutil.rmtree(alternate / "manifests")
        (alternate / "manifests").write_bytes(b"?")
    with user.store() as store:
        assert store.checkout(f"{MODEL}@1.1.0").changed
        assert store.fsck().problems == []
        (check,) = [item for item in store.examine().checks if item.name == f"alternate {alternate}"]
        assert check.status == "note"
        assert check.mend


def test_a_file_of_the_plain_schema_comes_from_an_alternate(tmp_path: Path) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(os.urandom(300_000))
    with Store.open(tmp_path / "site") as store:
        digest = store.list_versions()
        store.import_model(source, "other-name@9.0.0")
        (row,) = store.list_versions()
    registry = tmp_path / "registry.json"
    registry.write_text(
        '{"models": {"plain": {"name": "plain", "current_version": "1.0.0", "versions": {"1.0.0": '
        f'{{"download_url": "weights.bin", "checksum": "{row.checksum}", "size_bytes": 300000}}}}}}}}}}'
    )
    assert digest == []
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "config.toml").write_text(f'alternates = ["{tmp_path / "site"}"]\n')
    with Store.open(tmp_path / "user") as store:
        store.add_registry("plain", registry)
        content = source.read_bytes()
        source.unlink()  # so that it can come from nowhere else
        found = store.fetch("plain@1.0.0")
        assert (found.download_bytes, found.alternate_bytes) == (0, 300_000)
        store.checkout("plain@1.0.0")
        assert Path(store.path("plain")).read_bytes() == content


@pytest.mark.parametrize("value", ['"/srv"', '["srv/models"]', "[1]", '[""]'])
def test_settings_that_are_no_list_of_paths_are_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "config.toml").write_text(f"alternates = {value}\n")
    with pytest.raises(ConfigError, match="alternates"):
        Store.open(tmp_path)


def test_a_full_disk_is_an_error_of_the_store_itself(user: Site, alternate: Path) -> None:
    with (user.home / "config.toml").open("a") as config:
        config.write('reserve = "100%"\n')
    with user.store() as store, pytest.raises(YarnstoreError) as caught:
        store.fetch(f"{MODEL}@1.0.0")
    assert caught.value.code == "disk-full"
