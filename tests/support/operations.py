"""Every operation of a store, to be run one after the other over a store in which something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.stores import MODEL, Site, make_site, make_version
from yarnstore import Store

VERSION = f"{MODEL}@1.1.0"


def site_in_use(root: Path) -> Site:
    """A site with two versions installed one after the other, one pinned, and a source to import."""
    site = make_site(root)
    make_version(site.root / "import", "9.0.0", model="imported")
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0", wait=False)
        store.checkout(VERSION, wait=False)
        store.path(MODEL)
        store.pin(f"{MODEL}@1.0.0")
    return site


def operations(site: Site) -> list[Callable[[Store], object]]:
    """Operations on a site that has versions 1.0.0 and 1.1.0 of `MODEL`; the last ones remove them."""
    out = site.home.parent / "export"
    return [
        lambda store: store.list_installed_models(),
        lambda store: store.list_versions(),
        lambda store: store.status(),
        lambda store: store.path(MODEL),
        lambda store: store.get_version_history(MODEL),
        lambda store: store.inspect(VERSION),
        lambda store: store.check_for_updates(),
        lambda store: store.refresh_registries(),
        lambda store: store.fsck(),
        lambda store: store.fsck(quick=True),
        lambda store: store.fetch(f"{MODEL}@1.2.0"),
        lambda store: store.checkout(f"{MODEL}@1.2.0"),
        lambda store: store.rollback_model(MODEL),
        lambda store: store.update_model(MODEL),
        lambda store: store.export(VERSION, out),
        lambda store: store.import_model(site.root / "import", "imported@9.0.0"),
        lambda store: store.pin(VERSION),
        lambda store: store.unpin(VERSION),
        lambda store: store.remove(f"{MODEL}@1.0.0"),
        lambda store: store.gc(keep=0, dry_run=True),
        lambda store: store.gc(keep=0),
        lambda store: store.fsck(repair=True),
        lambda store: store.gc(keep=0, repack=True),
        lambda store: store.remove(MODEL, whole_model=True),
        lambda store: store.remove_registry("made"),
        lambda store: store.gc(keep=0),
    ]
