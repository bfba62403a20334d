"""Damaged chunks are downloaded again by what reads a version, here `export`; faults/ has `checkout`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, flip, make_site, remove_tree, tree_hashes
from yarnstore.errors import IntegrityError


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A store with a version in a damaged pack, and the registry that it came from."""
    site = make_site(tmp_path, versions=("1.0.0",))
    with site.store() as store:
        store.fetch(f"{MODEL}@1.0.0")
    (pack,) = (site.home / "packs").glob("*.pack")
    flip(pack, pack.stat().st_size // 2)
    return site


def test_damaged_chunks_are_downloaded_again_as_for_a_checkout(site: Site, tmp_path: Path) -> None:
    with site.store() as store:
        store.export(f"{MODEL}@1.0.0", tmp_path / "out")
    assert tree_hashes(tmp_path / "out") == site.contents("1.0.0")


def test_damaged_chunks_are_downloaded_again_for_the_layouts_of_other_tools(
    site: Site, tmp_path: Path
) -> None:
    with site.store() as store:
        store.export(f"{MODEL}@1.0.0", f"oci:{tmp_path / 'layout'}:1")
        layers = set(tree_hashes(tmp_path / "layout" / "blobs").values())
    assert set(site.contents("1.0.0").values()) <= layers


def test_without_the_registry_the_error_names_the_version(site: Site, tmp_path: Path) -> None:
    remove_tree(site.registry)
    with site.store() as store, pytest.raises(Exception, match=f"{MODEL} 1.0.0 is corrupt in this store"):
        store.export(f"{MODEL}@1.0.0", tmp_path / "out")


def test_without_any_registry_it_says_so(site: Site, tmp_path: Path) -> None:
    with site.store() as store:
        store.remove_registry("made")
        with pytest.raises(IntegrityError, match="no registry has its chunks"):
            store.export(f"{MODEL}@1.0.0", tmp_path / "out")
