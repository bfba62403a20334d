"""A folder of the store that is a link: nothing behind it is listed, used, written or removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tests.support.operations import operations, site_in_use
from tests.support.stores import MODEL, Site, assert_serves, tree_hashes, ystore
from yarnstore import Store
from yarnstore.errors import StorageError, YarnstoreError

TOP = ("packs", "manifests", "files", "views", "models", "registries", "tmp", "trash", "refs", "logs")
NESTED = (
    *("refs/versions", "refs/installed", "refs/pins", "refs/holds", "refs/partial"),
    *("logs/installed", "logs/used", "logs/origins", "logs/seen"),
)
DEEP = (
    *(f"refs/versions/{MODEL}", f"refs/versions/{MODEL}/default", f"refs/pins/{MODEL}", "refs/installed/org"),
    *("registries/made", "registries/made/models", "views/<installed>", "views/<other>"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_in_use(tmp_path_factory.mktemp("made"))


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Each entry below a folder, with its mode and size."""
    found = {}
    for base, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            path = Path(base) / name
            seen = path.lstat()
            found[path.relative_to(folder).as_posix()] = seen.st_mode, seen.st_size
    return found


def plant(site: Site, place: str, kind: str) -> Path:
    """Put a link in the place of a folder; returns what is behind it."""
    views = sorted((site.home / "views").iterdir())
    installed = (site.home / "models" / MODEL).resolve()
    place = place.replace("<installed>", installed.name)
    place = place.replace("<other>", next(view.name for view in views if view.name != installed.name))
    path = site.home / place
    outside = site.home.parent / "outside"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.rename(outside)  # all of it looks like the store's own
    else:
        outside.mkdir()
    (outside / "thesis").mkdir()
    (outside / "thesis" / "chapter").write_text("mine")
    (outside / "notes.txt").write_text("mine")
    if kind == "dangling":
        path.symlink_to(outside.with_name("gone"))
    elif kind == "sibling":
        path.symlink_to(site.home / "elsewhere")
        outside.rename(site.home / "elsewhere")
        outside = site.home / "elsewhere"
    else:
        path.symlink_to(outside)
    return outside


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, "outside") for place in (*TOP, *NESTED, *DEEP)),
        *((place, kind) for place in (*TOP, "logs/used", *DEEP) for kind in ("dangling", "sibling")),
    ],
)
def test_no_command_goes_through_a_linked_folder(made: Site, tmp_path: Path, place: str, kind: str) -> None:
    site = made.copy(tmp_path)
    outside = plant(site, place, kind)
    before = everything(outside)
    hashes = tree_hashes(outside)
    for number, command in enumerate(operations(site)):
        with contextlib.suppress(YarnstoreError), site.store() as store:
            command(store)
        assert everything(outside) == before, number
        assert not outside.with_name("gone").exists(), number
    assert tree_hashes(outside) == hashes


@pytest.mark.parametrize("place", [*TOP, *NESTED])
def test_a_linked_folder_is_refused_before_anything_is_begun(made: Site, tmp_path: Path, place: str) -> None:
    site = made.copy(tmp_path)
    plant(site, place, "outside")
    before = everything(site.home)
    for begin in (
        lambda store: store.gc(keep=0),
        lambda store: store.fsck(repair=True),
        lambda store: store.checkout(f"{MODEL}@1.2.0"),
        lambda store: store.import_model(site.root / "import", "imported@9.0.0"),
    ):
        with site.store() as store, pytest.raises(StorageError) as caught:
            begin(store)
        assert str(site.home / place) in caught.value.message
        assert "mount" in caught.value.hint
        assert "YSTORE_HOME" in caught.value.hint
    after = everything(site.home)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # That it failed is counted, where `logs` is a folder.
    assert {path for path in changed - {"logs/statistics"} if not path.startswith("registries/")} == set()
    assert ystore(site.home, "gc").returncode == 7


def test_versions_behind_a_link_are_not_listed(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path)
    plant(site, f"refs/versions/{MODEL}", "outside")
    with site.store() as store, pytest.raises(StorageError, match="is a link"):
        store.list_versions()


def test_the_root_and_what_leads_to_it_may_be_links(made: Site, tmp_path: Path) -> None:
    site = made.copy(tmp_path / "disk")
    (tmp_path / "link").symlink_to("disk")
    (tmp_path / "store").symlink_to(Path("link") / "home")
    with Store.open(tmp_path / "store") as store:
        store.checkout(f"{MODEL}@1.2.0")
        store.unpin(f"{MODEL}@1.0.0")
        store.add_registry("second", site.registry)
        store.gc(keep=0)
        assert store.fsck().problems == []
    assert_serves(tmp_path / "store", site, "1.2.0")
