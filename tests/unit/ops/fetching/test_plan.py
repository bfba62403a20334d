"""Packs whose indexes cannot be read: nobody knows what a download will come to, and nobody says so."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.stores import make_site, ystore


def test_the_most_that_it_can_be_is_told(tmp_path: Path) -> None:
    site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout("phi-3-mini@1.0.0")
    for index in (site.registry / "packs").glob("*.idx"):
        index.write_bytes(b"not an index")
    with site.store() as store:
        (update,) = store.check_for_updates()
        assert (update.wanted, update.download_bytes) == ("1.1.0", None)
    told = ystore(site.home, "fetch", "phi-3-mini@1.1.0")
    assert told.returncode == 0, told.stderr
    # The chunks that are new are 300 kB and 90 kB of noise, and a configuration; a shared one is cut anew.
    found = re.search(r"up to (\d+) kB of 790 kB to download", told.stderr)
    assert found, told.stderr
    assert 390 <= int(found[1]) <= 790
