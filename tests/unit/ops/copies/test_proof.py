"""A file that goes is kept as long as packs have not what they list of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fine_tunes import tune, weights
from tests.support.stores import flip, tree_hashes
from yarnstore import Store

_COUNT = 120_000


def _import(store: Store, root: Path, spec: str, seed: int, mode: int = 0o644) -> Path:
    """Import a version of one file and install it; its source."""
    source = root / f"{spec}.bin"
    source.write_bytes(tune(weights(1, _COUNT), seed).tobytes())
    source.chmod(mode)
    store.import_model(source, spec)
    store.checkout(spec)
    return source


def _flip_packs(store: Store) -> None:
    """A bit of an entry in each pack, as a disk loses it."""
    for pack in (store.home / "packs").glob("*.pack"):
        flip(pack, pack.stat().st_size // 2)


def _assert_there(store: Store, spec: str, source: Path, out: Path) -> None:
    store.export(spec, f"{out}/")
    assert list(tree_hashes(out).values()) == list(tree_hashes(source).values())


@pytest.mark.parametrize("how", ["thin", "deleted"])
def test_a_sound_file_is_not_deleted_for_a_damaged_pack(how: str, tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        if how == "thin":  # the file of the previous version goes, which its pack has too
            source = _import(store, tmp_path, "mine@1.0.0", 2)
            _import(store, tmp_path, "mine@1.1.0", 3)
        else:  # the file of a deleted version goes, which the pack of another version has too
            source = _import(store, tmp_path, "mine@1.0.0", 2)
            _import(store, tmp_path, "mine@1.1.0", 3)
            store.gc(thin="*", grace_s=0)
            _import(store, tmp_path, "same@1.0.0", 2, 0o755)  # its file has another name
            store.remove("same", whole_model=True)
        _flip_packs(store)
        said: list[str] = []
        store.gc(thin="*", grace_s=0, progress=lambda event: said.append(event.text))
        assert [text for text in said if "the copies in files are kept instead" in text]
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")
        store.fsck(repair=True)
        store.gc(thin="*", grace_s=0)
        assert store.fsck().problems == []
        _assert_there(store, "mine@1.0.0", source, tmp_path / "again")
        assert len(list((store.home / "files").iterdir())) == 1


def test_a_plan_that_was_shown_is_carried_out_although_packs_are_damaged(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        source = _import(store, tmp_path, "mine@1.0.0", 2)
        _import(store, tmp_path, "mine@1.1.0", 3)
        _flip_packs(store)
        store.gc(expected=store.plan_gc(grace_s=0).fingerprint, grace_s=0)
        _assert_there(store, "mine@1.0.0", source, tmp_path / "out")
