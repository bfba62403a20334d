"""A removal is taken back: versions, what was installed, pins; also of a model that no registry lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, flip, make_site, refs_of
from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError, UsageError

OWN = "own-model"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """1.0.0 installed and pinned, 1.1.0 stored; a model of this machine's own with a range."""
    site: Site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    store = site.store()
    store.checkout(f"{MODEL}@1.0.0")
    store.fetch(f"{MODEL}@1.1.0")
    store.pin(f"{MODEL}@1.0.0")
    weights = tmp_path / "own.bin"
    weights.write_bytes(b"weights" * 9000)
    store.import_model(weights, f"{OWN}@1.0.0")
    store.checkout(f"{OWN}@1.0.0")
    store.pin(f"{OWN}@^1.0")
    return store


@pytest.mark.parametrize("model", [MODEL, OWN])
def test_a_whole_model_is_restored_as_it_was(store: Store, model: str) -> None:
    before = refs_of(store.home)
    path = Path(store.path(model))
    removed = store.remove(model, whole_model=True)
    assert removed.uninstalled
    assert not any(model in name for name in refs_of(store.home))
    store.remove_registry("made")  # nothing is asked
    restored = store.restore(removed)
    assert (restored.versions, restored.installed) == (removed.versions, "1.0.0")
    assert refs_of(store.home) == before
    assert path.exists()
    assert store.fsck().problems == []
    assert store.restore(removed) == restored, "twice changes nothing more"


def test_one_version_is_restored_and_is_not_installed(store: Store) -> None:
    removed = store.remove(f"{MODEL}@1.1.0")
    assert [(item.version, item.installed) for item in removed.removed] == [("1.1.0", False)]
    restored = store.restore(removed)
    assert (restored.versions, restored.installed) == (["1.1.0"], "1.0.0")


def test_another_version_that_was_installed_since_stays(store: Store) -> None:
    removed = store.remove(MODEL, whole_model=True)
    store.checkout(f"{MODEL}@1.1.0")
    assert store.restore(removed).installed == "1.1.0"
    assert {row.version for row in store.list_versions(MODEL)} == {"1.0.0", "1.1.0"}


def test_what_gc_deleted_is_downloaded_again_or_not_found(store: Store) -> None:
    removed, own = store.remove(MODEL, whole_model=True), store.remove(OWN, whole_model=True)
    store.gc(grace_s=0)
    assert store.restore(removed).installed == "1.0.0"
    assert store.fsck().problems == []
    with pytest.raises(NotFoundError):
        store.restore(own)
    assert OWN not in [item.model for item in store.list_installed_models()]


def test_a_version_that_was_stored_again_with_other_content_stays(store: Store, tmp_path: Path) -> None:
    removed = store.remove(OWN, whole_model=True)
    other = tmp_path / "other.bin"
    other.write_bytes(b"other" * 5000)
    store.import_model(other, f"{OWN}@1.0.0")
    with pytest.raises(ConflictError, match="stored again with different content"):
        store.restore(removed)


def test_damage_since_then_is_found(store: Store) -> None:
    """A manifest that cannot be read counts as deleted: the registry has it."""
    removed = store.remove(MODEL, whole_model=True)
    manifests = [path for path in (store.home / "manifests").rglob("*") if MODEL in path.read_text()]
    assert len(manifests) == 2
    for path in manifests:
        flip(path, 0)
    assert store.restore(removed).installed == "1.0.0"
    assert [problem for problem in store.fsck().problems if MODEL in str(problem.hurts)] == []


def test_a_spec_names_what_was_removed(store: Store) -> None:
    store.remove(f"{MODEL}@1.1.0")
    for wrong, error in ((f"{MODEL}@1.0.0", NotFoundError), (f"{MODEL}@^1.0", UsageError)):
        with pytest.raises(error):
            store.restore(wrong)
    store.remove(MODEL, whole_model=True)
    restored = store.restore(f"{MODEL}@1.1.0")
    assert (restored.versions, restored.installed) == (["1.1.0"], None)
    restored = store.restore(MODEL)
    assert (restored.versions, restored.installed) == (["1.0.0"], "1.0.0")
    assert store.fsck().problems == []


def test_what_was_never_whole_was_not_removed(store: Store) -> None:
    """A manifest without its data, as an interrupted download leaves it."""
    store.remove(MODEL, whole_model=True)
    for file in [*(store.home / "packs").iterdir(), *(store.home / "files").iterdir()]:
        file.unlink()
    with pytest.raises(NotFoundError, match="removed version"):
        store.restore(MODEL)
