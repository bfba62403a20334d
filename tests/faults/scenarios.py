"""The commands that the fault campaigns disturb, each on a store in the state that it needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.reshaped import as_type, fine_tuned, made, renamed, safetensors
from tests.support.stores import (
    MODEL,
    VERSIONS,
    Site,
    assert_serves,
    command,
    flip,
    install_packed,
    make_site,
    make_version,
)
from yarnstore import Store
from yarnstore.errors import NotFoundError
from yarnstore.store.packs import iter_entries

_OTHER = "other"
_RESHAPED = "reshaped"


@dataclass(frozen=True)
class Scenario:
    """One command: how its store comes to be, its words, and the same through the API."""

    name: str
    prepare: Callable[[Site], None]
    words: Callable[[Site], list[str]]
    again: Callable[[Site], object]
    in_registry: bool = False
    # Whether a chunk that arrived before a fault must not be asked for again.
    downloads: bool = False
    # Whether only the long campaigns run it.
    deep: bool = False

    def command(self, site: Site) -> list[str]:
        words = self.words(site)
        if words[0] == "auto-update":  # whose options follow its second word
            return [*command(site.home, *words[:1])[:4], *words[1:], "--home", str(site.home)]
        return command(site.home, *words)


def _installed(*versions: str) -> Callable[[Site], None]:
    def prepare(site: Site) -> None:
        with site.store() as store:
            for version in versions:
                store.checkout(f"{MODEL}@{version}", wait=False)

    return prepare


def _packed(site: Site) -> None:
    """Two versions whose files repeat what packs have."""
    with site.store() as store:
        install_packed(store, "1.0.0", "1.1.0")


def _automatic(site: Site) -> None:
    _installed("1.0.0")(site)
    with site.store() as store:
        store.set_auto_update(enabled=True, policy="minor")


def _damaged(site: Site) -> None:
    """Two versions, with wrong bytes in a pack, in a file, in a ref and in the log's first line."""
    _packed(site)
    pack = max((site.home / "packs").glob("*.pack"), key=lambda path: path.stat().st_size)
    entries = list(iter_entries(pack))
    flip(pack, entries[0][0] + 1000)
    # Without hard links the only copy of a file is in its view.
    files = [path for name in ("files", "views") for path in (site.home / name).rglob("*") if path.is_file()]
    flip(max(files, key=lambda path: path.stat().st_size), 5000)
    flip(site.home / "refs" / "versions" / MODEL / "default" / "1.0.0", 20)
    flip(site.home / "logs" / "installed" / MODEL, 20)


def set_rollback(home: Path, model: str, how: str) -> None:
    """Set the rollback policy of a model, and no other setting, in `config.toml`."""
    (home / "config.toml").write_text(f'[models."{model}"]\nrollback = "{how}"\n')


def _with_another(site: Site) -> None:
    """Three versions of the model, and two of another one, which stays as it is."""
    _installed(*VERSIONS)(site)
    with site.store() as store:
        for version in VERSIONS[:2]:
            source = make_version(site.source(version, _OTHER), version, model=_OTHER)
            store.import_model(source, f"{_OTHER}@{version}")
            store.checkout(f"{_OTHER}@{version}")


def _thin_policy(*versions: str) -> Callable[[Site], None]:
    def prepare(site: Site) -> None:
        _installed(*versions)(site)
        set_rollback(site.home, MODEL, "thin")

    return prepare


def _reshaped(site: Site) -> None:
    """Two versions, each with its files, whose weights have other names, another order and another type."""
    weights = made(layers=1, width=192, vocabulary=600)
    newer = as_type(renamed(fine_tuned(weights)), "<f2")
    with site.store() as store:
        for version, content in (("1.0.0", weights), ("1.1.0", newer)):
            source = site.source(version, _RESHAPED)
            source.mkdir(parents=True)
            (source / "model.safetensors").write_bytes(safetensors(content))
            Store.publish(source, f"{_RESHAPED}@{version}", registry=site.registry)
            store.checkout(f"{_RESHAPED}@{version}", wait=False)


def _thin_reshaped(site: Site) -> object:
    """The same through the API, after which the older version is small."""
    with site.store() as store:
        done = store.gc(keep=3, thin=_RESHAPED, grace_s=0)
    assert views(site) == 1
    size = sum(path.stat().st_size for path in (site.home / "views").rglob("*.safetensors"))
    assert (site.home / "format").read_text() == "yarnstore-store/4\n"
    assert sum(path.stat().st_size for path in (site.home / "packs").iterdir()) < 0.3 * size
    for version in VERSIONS[:2]:
        assert_serves(site.home, site, version, _RESHAPED)
    return done


def _back_to_instant(site: Site) -> None:
    """Thinned by its policy, which is `instant` again."""
    _thin_policy(*VERSIONS)(site)
    with site.store() as store:
        store.gc(keep=3, grace_s=0)
    assert views(site) == 1
    set_rollback(site.home, MODEL, "instant")


def views(site: Site) -> int:
    """How many versions have files."""
    return len(list((site.home / "views").iterdir()))


def _then(views_after: int, run: Callable[[Store], object]) -> Callable[[Site], object]:
    """The same through the API, after which so many versions have files."""

    def again(site: Site) -> object:
        with site.store() as store:
            done = run(store)
        assert views(site) == views_after
        return done

    return again


def new_source(site: Site) -> Path:
    """A version that no registry has yet."""
    folder = site.root / "sources" / "new"
    return folder if folder.exists() else make_version(folder, "2.0.0")


SCENARIOS = {
    item.name: item
    for item in (
        Scenario(
            "fetch",
            _installed("1.0.0"),
            lambda _: ["fetch", f"{MODEL}@1.1.0"],
            lambda site: site.store().fetch(f"{MODEL}@1.1.0"),
            downloads=True,
        ),
        Scenario(
            "checkout",
            lambda _: None,
            lambda _: ["checkout", f"{MODEL}@1.1.0"],
            lambda site: site.store().checkout(f"{MODEL}@1.1.0"),
            downloads=True,
        ),
        Scenario(
            "update",
            _installed("1.0.0"),
            lambda _: ["update", MODEL],
            lambda site: site.store().update_model(MODEL),
            downloads=True,
        ),
        Scenario(
            "rollback",
            _installed("1.0.0", "1.1.0"),
            lambda _: ["rollback", MODEL, "1.0.0"],
            lambda site: site.store().rollback_model(MODEL, "1.0.0"),
        ),
        Scenario(
            "gc",
            _installed("1.0.0", "1.1.0", "1.2.0"),
            lambda _: ["gc", "--keep", "0", "--thin"],
            lambda site: site.store().gc(keep=0, thin="*"),
        ),
        Scenario(
            "slim",
            _packed,
            lambda _: ["gc", "--keep", "3"],
            lambda site: site.store().gc(keep=3),
            deep=True,
        ),
        Scenario(
            "thin-by-name",
            _with_another,
            lambda _: ["gc", "--keep", "3", "--thin", MODEL, "--grace", "0"],
            _then(3, lambda store: store.gc(keep=3, thin=MODEL, grace_s=0)),
        ),
        Scenario(
            "thin-reshaped",
            _reshaped,
            lambda _: ["gc", "--keep", "3", "--thin", _RESHAPED, "--grace", "0"],
            _thin_reshaped,
        ),
        Scenario(
            "thin-by-policy",
            _thin_policy(*VERSIONS),
            lambda _: ["gc", "--keep", "3", "--grace", "0"],
            _then(1, lambda store: store.gc(keep=3, grace_s=0)),
            deep=True,
        ),
        Scenario(
            "update-thin",
            _thin_policy("1.0.0", "1.1.0"),
            lambda _: ["update", MODEL],
            _then(1, lambda store: (store.update_model(MODEL), store.gc(keep=3, grace_s=0))[0]),
            downloads=True,
            deep=True,
        ),
        Scenario(
            "back-to-instant",
            _back_to_instant,
            lambda _: ["rollback", MODEL, "1.1.0"],
            _then(2, lambda store: store.rollback_model(MODEL, "1.1.0")),
            deep=True,
        ),
        Scenario(
            "auto-update",
            _automatic,
            lambda _: ["auto-update", "run", "--now"],
            lambda site: site.store().run_auto_update(now=True),
            deep=True,
        ),
        Scenario(
            "import",
            _installed("1.0.0"),
            lambda site: ["import", str(new_source(site)), "mine@2.0.0"],
            lambda site: site.store().import_model(new_source(site), "mine@2.0.0"),
        ),
        Scenario(
            "remove",
            _installed("1.0.0", "1.1.0"),
            lambda _: ["remove", f"{MODEL}@1.0.0"],
            lambda site: _remove(site.store()),
        ),
        Scenario(
            "repair",
            _damaged,
            lambda _: ["fsck", "--repair"],
            lambda site: site.store().fsck(repair=True),
        ),
        Scenario(
            "publish",
            lambda _: None,
            lambda site: [
                "publish", str(new_source(site)), f"{MODEL}@2.0.0", "--registry", str(site.registry),
            ],
            lambda site: Store.publish(new_source(site), f"{MODEL}@2.0.0", registry=site.registry),
            in_registry=True,
        ),
    )
}  # fmt: skip


def _remove(store: Store) -> None:
    with contextlib.suppress(NotFoundError):  # the killed run had done it
        store.remove(f"{MODEL}@1.0.0")


def prepared_site(root: Path, scenario: Scenario) -> Site:
    """A site in the state that the scenario begins with."""
    site = make_site(root)
    new_source(site)
    scenario.prepare(site)
    return site
