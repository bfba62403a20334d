"""Bringing a version into the store, where what was known of its registry is out of date."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.small_stores import noise
from yarnstore import Store


def test_packs_that_moved_are_found_by_asking_the_registry_again(tmp_path: Path) -> None:
    source, part = tmp_path / "source", tmp_path / "part"
    for folder, names in ((source, "ab"), (part, "a")):
        folder.mkdir()
        for seed, name in enumerate(names):
            (folder / f"{name}.bin").write_bytes(noise(seed, 400_000))
    Store.publish(source, "m@1.0.0", registry=tmp_path / "registry")
    told: list[str] = []
    with Store.open(tmp_path / "home", progress=lambda event: told.append(event.text)) as store:
        store.add_registry("made", tmp_path / "registry")
        store.fetch("m@1.0.0")
        # Its publisher makes the registry again, with the same content in other packs.
        shutil.rmtree(tmp_path / "registry")
        Store.publish(part, "m@0.1.0", registry=tmp_path / "registry")
        Store.publish(source, "m@1.0.0", registry=tmp_path / "registry")
        shutil.rmtree(tmp_path / "home" / "packs")
        assert store.fetch("m@1.0.0").download_bytes > 0
        assert "m 1.0.0: the registry has changed; trying again" in told
        assert store.fsck().problems == []
