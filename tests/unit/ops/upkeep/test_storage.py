"""What fills the disk."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.stores import MODEL, make_site


def disk_bytes(folder: Path) -> int:
    """The files below a folder, each once whatever it is called."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(place, name))
            found[stat.st_ino] = stat.st_size
    return sum(found.values())


def test_the_parts_are_what_is_on_the_disk(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.checkout(f"{MODEL}@1.1.0")
        store.fetch(f"{MODEL}@1.2.0")
        store.pin(f"{MODEL}@1.2.0")
        found = store.storage()
        (model,) = found.models
        assert [(row.version, row.reason_kept, row.installed) for row in model.versions] == [
            ("1.2.0", "pinned", False),
            ("1.1.0", "installed", True),
            ("1.0.0", "rollback", False),
        ]
        assert found.total_bytes == model.own_bytes + sum(item.bytes for item in found.other)
        assert "shared" in {item.kind for item in found.other}
        # Indexes, manifests, refs and logs are small.
        assert 0 <= disk_bytes(site.home) - found.total_bytes < 30_000


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    from yarnstore import Store

    with Store.open(tmp_path / "home") as store:
        found = store.storage()
    assert (found.total_bytes, found.models, found.other) == (0, [], [])
    assert not (tmp_path / "home").exists()
