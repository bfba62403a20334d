"""T8 and rows 16 to 22: damage of every kind is found, named, never served, and mended."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.faults import no_links
from tests.support.servers import ScriptedServer, files
from tests.support.stores import (
    MODEL,
    Site,
    assert_whole,
    chunks_of,
    flip,
    make_site,
    refs_of,
    remove_tree,
    tree_hashes,
    ystore,
)
from yarnstore import Store
from yarnstore.core.digest import PackId
from yarnstore.core.index import encode_index, parse_index
from yarnstore.core.pack import ENTRY_HEADER_BYTES, PACK_HEADER_BYTES
from yarnstore.errors import IntegrityError, StorageError, YarnstoreError
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout
from yarnstore.store.packs import iter_entries
from yarnstore.store.verify import iter_sound

OTHER = "whisper"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Two models, two versions each, both installed one after the other, one pinned, all used."""
    return _make(tmp_path_factory.mktemp("healthy"), packs=True)


@pytest.fixture(scope="module")
def unlinked(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The same on a file system without hard links, where views have the only copies."""
    with no_links.refused():
        return _make(tmp_path_factory.mktemp("unlinked"), packs=False)


def _make(root: Path, *, packs: bool) -> Site:
    site = make_site(root, models=(MODEL, OTHER), versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        for model in site.models:
            for version in site.versions:
                if packs:
                    store.fetch(f"{model}@{version}")
                store.checkout(f"{model}@{version}", wait=False)
                store.path(model)
        store.pin(f"{MODEL}@1.0.0")
    return site


# --- damage ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """One way to hurt one file of a store."""

    how: str
    place: str
    offset: int = 0
    other: str = ""

    def inflict(self, home: Path) -> None:
        path = home / self.place
        if self.how == "flip":
            flip(path, self.offset, 1 << (self.offset % 8))
        elif self.how == "truncate":
            _rewrite(path, path.read_bytes()[: self.offset])
        elif self.how == "zero":
            data = path.read_bytes()
            _rewrite(
                path,
                data[: self.offset] + b"\0" * min(4096, len(data) - self.offset) + data[self.offset + 4096 :],
            )
        elif self.how == "swap":
            mine, theirs = path.read_bytes(), (home / self.other).read_bytes()
            _rewrite(path, theirs)
            _rewrite(home / self.other, mine)
        else:
            folder, mode = path.parent, path.parent.stat().st_mode & 0o777
            folder.chmod(0o755)  # those of views are read-only
            path.unlink()
            folder.chmod(mode)


def _rewrite(path: Path, data: bytes) -> None:
    mode = path.stat().st_mode & 0o777
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


KINDS = {
    "pack": "packs/*.pack",
    "index": "packs/*.idx",
    "manifest": "manifests/*.json",
    "version ref": "refs/versions/*/*/*",
    "installed ref": "refs/installed/*",
    "pin": "refs/pins/*/*/*",
    "log": "logs/installed/*",
    "file": "files/*",
    "registry": "registries/*/registry.json",
    "registry record": "registries/*/fetched.json",
    "newest state": "registries/*/newest.json",
    "format": "format",
    "uses": "logs/used/*",
    "seen": "logs/seen/*",
}
_WITHOUT_LINKS = {"file in a view": "views/**/*.bin", "record of a file": "files/*.view"}
# What leaves no trace by its nature: a count of uses that is gone is a version never asked for, a
# cache that is gone is asked for again, a version or pin that is gone looks as `remove` and `unpin`
# leave it.
_NO_TRACE = {
    "delete": {"uses", "seen", "registry", "newest state", "pin", "version ref"},
    "truncate": {"uses"},
}


def _places(site: Site, kind: str) -> list[str]:
    pattern = {**KINDS, **_WITHOUT_LINKS}[kind]
    found = sorted(path.relative_to(site.home).as_posix() for path in site.home.glob(pattern))
    assert found, kind
    return found


def _damages(site: Site, kind: str, random_: random.Random, *, flips: int) -> list[Damage]:
    found = []
    for place in _places(site, kind):
        path = site.home / place
        size = path.stat().st_size
        offsets = {0, size - 1, size // 2, *(random_.randrange(size) for _ in range(flips))}
        if kind == "pack":
            entries = [offset for offset, _ in iter_entries(path)]
            offsets |= {PACK_HEADER_BYTES - 1, entries[0] + 32, entries[-1] + 36, entries[-1] + 40}
            offsets |= {entries[-1] + ENTRY_HEADER_BYTES - 1, entries[0] + 1}
        found += [Damage("flip", place, offset) for offset in sorted(offsets)]
        if kind not in _NO_TRACE["truncate"]:
            found += [Damage("truncate", place, size) for size in {0, size // 2, size - 1}]
        if kind not in _NO_TRACE["delete"]:
            found.append(Damage("delete", place))
        found.append(Damage("zero", place, size // 3))
    places = _places(site, kind)
    if len(places) > 1 and kind != "uses":
        found.append(Damage("swap", places[0], other=places[1]))
    return found


@pytest.mark.parametrize("kind", list(KINDS))
def test_damage_is_found_never_served_and_mended(kind: str, healthy: Site, tmp_path: Path) -> None:
    """Quick: a few of each way for each kind of file, chosen anew by the kind's name."""
    random_ = random.Random(kind)
    damages = _damages(healthy, kind, random_, flips=1)
    for n, damage in enumerate(_some(damages, 5, random_)):
        _campaign(healthy, damage, tmp_path / str(n))


@pytest.mark.deep
@pytest.mark.parametrize("kind", list(KINDS))
def test_much_damage_is_found_never_served_and_mended(kind: str, healthy: Site, tmp_path: Path) -> None:
    for n, damage in enumerate(_damages(healthy, kind, random.Random(), flips=150)):
        _campaign(healthy, damage, tmp_path / str(n))


@pytest.mark.parametrize("kind", list(_WITHOUT_LINKS))
def test_damage_without_hard_links_is_found_never_served_and_mended(
    kind: str, unlinked: Site, tmp_path: Path
) -> None:
    random_ = random.Random(kind)
    damages = _damages(unlinked, kind, random_, flips=1)
    with no_links.refused():
        for n, damage in enumerate(_some(damages, 5, random_)):
            _campaign(unlinked, damage, tmp_path / str(n))


@pytest.mark.deep
@pytest.mark.parametrize("kind", list(_WITHOUT_LINKS))
def test_much_damage_without_hard_links_is_found_never_served_and_mended(
    kind: str, unlinked: Site, tmp_path: Path
) -> None:
    with no_links.refused():
        for n, damage in enumerate(_damages(unlinked, kind, random.Random(), flips=40)):
            _campaign(unlinked, damage, tmp_path / str(n))


def test_records_that_lead_to_other_files_cost_nothing(unlinked: Site, tmp_path: Path) -> None:
    """Also where nothing can be downloaded: the files are sound, and no repair moves them aside."""
    with no_links.refused():
        for mend in ("repair", "gc"):
            site = unlinked.copy(tmp_path / mend)
            one, other, *_ = _places(site, "record of a file")
            Damage("swap", one, other=other).inflict(site.home)
            with site.store() as store:
                store.remove_registry("made")
                found = [item for item in store.fsck().problems if item.kind != "chunk"]
                assert [(item.kind, item.where) for item in found] == [("record", one), ("record", other)]
                if mend == "repair":
                    assert store.fsck(repair=True).remaining == []
                else:
                    store.gc(keep=3)
            assert_whole(site.home, site)


def _some(damages: list[Damage], count: int, random_: random.Random) -> list[Damage]:
    """Every way at least once."""
    first = {damage.how: damage for damage in random_.sample(damages, len(damages))}
    rest = [damage for damage in damages if damage not in first.values()]
    return [*first.values(), *random_.sample(rest, min(len(rest), max(0, count - len(first))))]


def _campaign(healthy: Site, damage: Damage, root: Path) -> None:
    site = healthy.copy(root)
    before = chunks_of(site.home / "packs")
    log = _versions_in_log(site)
    damage.inflict(site.home)
    sound = chunks_sound(site.home)
    _assert_nothing_wrong_is_served(healthy.copy(root / "served"), damage)
    with site.store() as store:
        found = store.fsck().problems
        assert found, f"no error found, the checker is broken: {damage}"
        named = Path(damage.place).name
        hit = {named, Path(damage.other).name, Path(damage.place).parent.name}
        assert any(Path(item.where).name in hit or named[:12] in item.what for item in found), (damage, found)
        done = store.fsck(repair=True)
        assert done.remaining == [], (damage, done)
    assert sound <= chunks_sound(site.home, "packs", "trash", "tmp"), damage
    assert_whole(site.home, site)
    assert before <= chunks_of(site.home / "packs"), damage
    assert refs_of(site.home) == refs_of(healthy.home), damage
    if not (
        damage.place.startswith("logs/installed") and damage.how in ("truncate", "delete", "swap", "zero")
    ):
        assert _versions_in_log(site) == log, damage
        with site.store() as store:
            assert store.rollback_model(MODEL).version == "1.0.0", damage
    remove_tree(root)


def chunks_sound(home: Path, *folders: str) -> set[bytes]:
    """The chunks in packs that decode to their names."""
    found: set[bytes] = set()
    chunks = ChunkStore(StoreLayout(home), rebuild=False)
    for folder in folders or ("packs",):
        for path in (home / folder).rglob("*.pack"):
            index = path.with_suffix(".idx")
            parsed = None
            with contextlib.suppress(YarnstoreError):
                parsed = (
                    parse_index(index.read_bytes(), pack=PackId.parse(path.stem)) if index.exists() else None
                )
            found |= {entry.chunk_id for entry in iter_sound(path, parsed, chunks.decode)}
    chunks.close()
    return found


def _versions_in_log(site: Site) -> list[str]:
    """What a rollback leads to, step by step."""
    from yarnstore.store.layout import StoreLayout
    from yarnstore.store.refs import Refs

    refs = Refs(StoreLayout(site.home))
    return [f"{model}@{item.version}" for model in site.models for item in refs.stack(model)]


def _assert_nothing_wrong_is_served(site: Site, damage: Damage) -> None:
    """Before any repair: a version comes out right, or as an error; never otherwise.

    A materialised file was hashed when it was made and is opened by others without us: of those,
    only export's copy is ours to check.
    """
    damage.inflict(site.home)
    for version in site.versions:
        target = site.home.parent / f"out-{version}"
        try:
            with site.store() as store:
                store.export(f"{MODEL}@{version}", target)
        except YarnstoreError:
            continue
        assert tree_hashes(target) == site.contents(version), f"export served wrong bytes: {damage}"
    if damage.place.startswith(("files", "views")):
        return
    for view in (site.home / "views").iterdir():
        remove_tree(view)
    for path in (site.home / "files").iterdir():
        path.unlink()
    for version in site.versions:
        try:
            with site.store() as store:
                path = Path(store.checkout(f"{MODEL}@{version}").path)
        except YarnstoreError:
            continue
        assert tree_hashes(path) == site.contents(version), f"checkout served wrong bytes: {damage}"


def test_no_false_alarm(healthy: Site) -> None:
    with healthy.store() as store:
        for _ in range(10):
            assert store.fsck().problems == []


@pytest.mark.deep
def test_no_false_alarm_in_a_thousand_runs(healthy: Site) -> None:
    with healthy.store() as store:
        for _ in range(1000):
            assert store.fsck().problems == []


def test_fsck_says_so_by_its_exit_code(healthy: Site, tmp_path: Path) -> None:
    site = healthy.copy(tmp_path)
    assert ystore(site.home, "fsck", "--json").returncode == 0
    flip(next((site.home / "packs").glob("*.pack")), 3000)
    assert ystore(site.home, "fsck", "--json").returncode == 4
    assert ystore(site.home, "fsck", "--repair", "--json").returncode == 0
    assert ystore(site.home, "fsck", "--json").returncode == 0


def test_repair_without_a_registry_loses_nothing(healthy: Site, tmp_path: Path) -> None:
    """What cannot be mended stays named, and every sound chunk stays (borg#3444)."""
    site = healthy.copy(tmp_path)
    with site.store() as store:
        store.remove_registry("made")
    for path in (site.home / "packs").glob("*.pack"):
        flip(path, 3000)
    sound = chunks_sound(site.home)
    for path in list((site.home / "files").iterdir()):
        path.unlink()
    for view in (site.home / "views").iterdir():
        remove_tree(view)
    assert ystore(site.home, "fsck", "--repair", "--json").returncode == 4
    assert sound <= chunks_sound(site.home)
    with site.store() as store:
        store.add_registry("made", site.registry)
        assert store.fsck(repair=True).remaining == []
    assert_whole(site.home, site)


# --- gc with a root that cannot be read --------------------------------------------------------

_ROOTS = ("installed ref", "version ref", "pin", "log", "manifest")


@pytest.mark.parametrize("kind", _ROOTS)
@pytest.mark.parametrize("how", ["flip", "truncate", "directory"])
def test_gc_with_an_unreadable_root_deletes_nothing(
    kind: str, how: str, healthy: Site, tmp_path: Path
) -> None:
    for n, place in enumerate(_places(healthy, kind)):
        site = healthy.copy(tmp_path / str(n))
        path = site.home / place
        if how == "directory":
            path.unlink()
            path.mkdir()
        else:
            Damage(how, place, 20).inflict(site.home)
        before = _everything(site.home)
        with site.store() as store, pytest.raises((IntegrityError, StorageError)):
            store.gc(keep=0)
        assert _everything(site.home) == before
        with site.store() as store, pytest.raises((IntegrityError, StorageError)):
            store.gc(keep=0, dry_run=True)


@pytest.mark.parametrize("kind", ["installed ref", "log"])
def test_gc_with_a_lost_root_deletes_nothing(kind: str, healthy: Site, tmp_path: Path) -> None:
    for n, place in enumerate(_places(healthy, kind)):
        site = healthy.copy(tmp_path / str(n))
        (site.home / place).unlink()
        before = _everything(site.home)
        with site.store() as store, pytest.raises(IntegrityError):
            store.gc(keep=0)
        assert _everything(site.home) == before


def _everything(home: Path) -> dict[str, int]:
    return {
        path.relative_to(home).as_posix(): path.lstat().st_size
        for path in home.rglob("*")
        if not path.is_dir() and path.name not in ("lock", "statistics")  # failures are counted, too
    }


# --- the lock ----------------------------------------------------------------------------------


def test_a_symlink_in_place_of_the_lock_is_refused(healthy: Site, tmp_path: Path) -> None:
    site = healthy.copy(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (site.home / "lock").unlink()
    (site.home / "lock").symlink_to(victim)
    done = ystore(site.home, "gc", "--json")
    assert done.returncode == 7
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "precious"


# --- indexes that lie --------------------------------------------------------------------------


def _poison(path: Path) -> None:
    """A well-formed index of the right pack whose rows lead to the wrong entries."""
    index = parse_index(path.read_bytes())
    turned = np.roll(index.offsets, 1), np.roll(index.stored, 1), np.roll(index.plain, 1)
    object.__setattr__(index, "offsets", turned[0])
    object.__setattr__(index, "stored", turned[1])
    object.__setattr__(index, "plain", turned[2])
    _rewrite(path, encode_index(index))
    parse_index(path.read_bytes(), pack=PackId.parse(path.stem))


def test_a_poisoned_index_in_the_store(healthy: Site, tmp_path: Path) -> None:
    site = healthy.copy(tmp_path)
    for path in (site.home / "packs").glob("*.idx"):
        _poison(path)
    for view in (site.home / "views").iterdir():
        remove_tree(view)
    for path in (site.home / "files").iterdir():
        path.unlink()
    served = site.copy(tmp_path / "served")
    with served.store() as store:
        assert tree_hashes(Path(store.checkout(f"{MODEL}@1.1.0").path)) == site.contents("1.1.0")
    with site.store() as store:
        assert {item.kind for item in store.fsck().problems} & {"index", "pack"}
        assert store.fsck(repair=True).remaining == []
    assert_whole(site.home, site)


def _tree(registry: Path) -> dict[str, bytes]:
    return {
        path.relative_to(registry).as_posix(): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }


def _fetch_from(tree: dict[str, bytes], site: Site, home: Path) -> tuple[YarnstoreError | None, int]:
    """Fetch 1.0.0 into a new store from a server of `tree`: the error, and how much was asked."""
    with ScriptedServer(files(tree)) as server:
        store = Store.open(home)
        store.add_registry("made", server.url)
        asked = len(server.seen)
        try:
            store.fetch(f"{MODEL}@1.0.0")
        except YarnstoreError as error:
            return error, len(server.seen) - asked
        _assert_serves(store, site)
        return None, len(server.seen) - asked


def _assert_serves(store: Store, site: Site) -> None:
    assert tree_hashes(Path(store.path(f"{MODEL}@1.0.0"))) == site.contents("1.0.0")


@pytest.mark.parametrize("how", ["flipped", "truncated", "missing", "poisoned"])
def test_a_bad_index_in_the_registry_is_no_obstacle(how: str, tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", versions=("1.0.0",))
    tree = _tree(site.registry)
    for key in [key for key in tree if key.endswith(".idx")]:
        if how == "flipped":
            tree[key] = tree[key][:90] + bytes([tree[key][90] ^ 1]) + tree[key][91:]
        elif how == "truncated":
            tree[key] = tree[key][:-10]
        elif how == "missing":
            del tree[key]
        else:
            _poison(site.registry / key)
            tree[key] = (site.registry / key).read_bytes()
    error, asked = _fetch_from(tree, site, tmp_path / "home")
    assert error is None, error
    assert asked <= 8


@pytest.mark.parametrize("where", ["payload", "id", "length"])
def test_an_altered_pack_in_the_registry_is_an_error_with_both_hashes(where: str, tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", versions=("1.0.0",))
    tree = _tree(site.registry)
    for key in [key for key in tree if key.endswith(".pack")]:
        offset = next(iter_entries(site.registry / key))[0]
        at = offset + {"payload": 3000, "id": 3, "length": 36}[where]
        tree[key] = tree[key][:at] + bytes([tree[key][at] ^ 1]) + tree[key][at + 1 :]
    error, asked = _fetch_from(tree, site, tmp_path / "home")
    assert isinstance(error, IntegrityError), error
    if where != "length":
        assert error.fields["expected"], error
        assert error.fields["got"], error
        assert error.fields["expected"] != error.fields["got"]
    assert asked <= 8, "asked again and again (ollama#8105)"
    assert refs_of(tmp_path / "home") == {}
    with Store.open(tmp_path / "home") as store:
        assert store.fsck().problems == []
