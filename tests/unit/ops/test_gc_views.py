"""What a live process has open stays, whatever became of its version."""

from __future__ import annotations

from pathlib import Path

from tests.stores import MODEL, make_site
from yarnstore import Store


def test_a_removed_version_stays_while_a_process_has_it_open(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with site.store() as keeper:
        for version in ("1.0.0", "1.1.0", "1.2.0"):
            keeper.checkout(f"{MODEL}@{version}")
        path = Path(keeper.path(f"{MODEL}@1.0.0"))
        before = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}
        with Store.open(site.home) as other:
            other.remove(f"{MODEL}@1.0.0")
            other.gc(keep=0)
        assert {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    with Store.open(site.home) as other:
        other.gc(keep=0)
    assert not path.exists()
