"""A version is compared with its manifest before it is served, and hashed where it changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import no_links
from tests.support.other_user import NOBODY, require_root, run_as
from tests.support.stores import MODEL, Site, assert_whole, make_site, problems, remove_tree, tree_hashes
from yarnstore import Progress, Store
from yarnstore.core.digest import Sha256
from yarnstore.errors import BackendError

SPEC = f"{MODEL}@1.0.0"
WEIGHTS = "model.bin"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """1.1.0 is installed, and before it 1.0.0 was."""
    site = make_site(tmp_path)
    with site.store() as store:
        store.checkout(SPEC)
        store.checkout(f"{MODEL}@1.1.0")
    return site


def view_of(site: Site, version: str = "1.0.0") -> Path:
    """The folder of a version, found without asking the store to serve it."""
    with site.store() as store:
        found = [item for item in store.list_versions(MODEL) if item.version == version]
    return site.home / "views" / found[0].manifest.removeprefix("sha256:")


def lacks_a_file(view: Path) -> None:
    (view / "config.json").unlink()


def other_size(view: Path) -> None:
    (view / "config.json").unlink()
    (view / "config.json").write_text("longer, or shorter")


def changed_in_place(view: Path) -> None:
    path = view / WEIGHTS
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(0o444)


def changed_with_its_time_set_back(view: Path) -> None:
    before = (view / WEIGHTS).stat()
    changed_in_place(view)
    os.utime(view / WEIGHTS, ns=(before.st_atime_ns, before.st_mtime_ns))


def small_one_changed_with_its_time_set_back(view: Path) -> None:
    path = view / "config.json"
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(bytes(byte ^ 1 for byte in path.read_bytes()))
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link_for_a_file(view: Path) -> None:
    elsewhere = view.parent.parent.parent / "elsewhere.json"
    shutil.copy(view / "config.json", elsewhere)
    (view / "config.json").unlink()
    (view / "config.json").symlink_to(elsewhere)


def link_for_the_view(view: Path) -> None:
    elsewhere = view.parent.parent.parent / "elsewhere"
    shutil.copytree(view, elsewhere)
    remove_tree(view)
    view.symlink_to(elsewhere)


def file_for_the_view(view: Path) -> None:
    remove_tree(view)
    view.write_text("no folder")


DAMAGES = [
    lacks_a_file,
    other_size,
    changed_in_place,
    changed_with_its_time_set_back,
    small_one_changed_with_its_time_set_back,
    link_for_a_file,
    link_for_the_view,
    file_for_the_view,
]
SERVED: list[Callable[[Store], str]] = [
    lambda store: store.path(SPEC),
    lambda store: store.checkout(SPEC).path,
    lambda store: store.rollback_model(MODEL).path,
]


@pytest.mark.parametrize("serve", SERVED, ids=["path", "checkout", "rollback"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_made_anew(
    site: Site, damage: Callable[[Path], None], serve: Callable[[Store], str]
) -> None:
    damage(view_of(site))
    with site.store() as store:
        path = Path(serve(store))
    assert path == view_of(site)
    assert not path.is_symlink()
    assert tree_hashes(path) == site.contents("1.0.0")
    assert_whole(site.home, site)


@pytest.mark.parametrize("serve", SERVED, ids=["path", "checkout", "rollback"])
def test_an_error_of_a_download_names_the_damaged_version(site: Site, serve: Callable[[Store], str]) -> None:
    """Not only a pack of the registry, of which nobody has heard."""
    weights = view_of(site) / WEIGHTS
    weights.chmod(0o644)
    weights.write_bytes(bytes(weights.stat().st_size))
    site.registry.rename(site.registry.with_name("away"))
    with site.store() as store, pytest.raises(BackendError) as caught:
        serve(store)
    assert caught.value.message.startswith(f"{MODEL} 1.0.0 is corrupt in this store and not downloaded: ")
    assert "registry: no such folder" in caught.value.message
    assert caught.value.hint
    said: list[str] = []
    with Store.open(site.home, progress=lambda event: said.append(event.text)) as store:
        assert store.fsck(repair=True).remaining
    assert [text for text in said if text.startswith(f"{MODEL} 1.0.0: ") and "no such folder" in text]


def test_an_update_that_stays_looks_at_what_is_installed(site: Site) -> None:
    with site.store() as store:
        store.update_model(MODEL)
        installed = Path(store.path(MODEL))
    lacks_a_file(installed)
    with site.store() as store:
        assert store.update_model(MODEL).status == "current"
    assert (installed / "config.json").exists()
    assert_whole(site.home, site)


def hashed_bytes(site: Site, act: Callable[[Store], object]) -> int:
    """How many bytes of files were hashed before something was served."""
    seen: list[Progress] = []
    with Store.open(site.home, progress=seen.append) as store:
        act(store)
    return max((event.bytes_done for event in seen if event.phase == "check"), default=0)


def test_only_changes_by_others_cost_a_hash(site: Site) -> None:
    """The store links, moves and removes names itself, which changes the times of files."""
    with site.store() as store:
        store.checkout(f"{MODEL}@1.2.0")
        store.rollback_model(MODEL)
        store.remove(SPEC)
        store.gc(keep=0, grace_s=0)
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == 0
    path = view_of(site, "1.1.0") / WEIGHTS
    path.touch()
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == path.stat().st_size
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == 0, "it is known now"


def test_records_that_are_lost_or_torn_cost_a_hash_and_no_more(site: Site) -> None:
    records = site.home / "logs" / "hashed"
    for record in records.iterdir():
        record.write_bytes(b"1 2 3\n\xff\n12 34")
    assert hashed_bytes(site, lambda store: store.path(MODEL)) > 0
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == 0
    shutil.rmtree(records)
    assert hashed_bytes(site, lambda store: store.path(MODEL)) > 0
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == 0


def test_small_files_have_no_record_and_are_hashed_each_time(site: Site) -> None:
    path = view_of(site, "1.1.0") / "config.json"
    assert path.stat().st_size <= 4096
    records = {record.name for record in (site.home / "logs" / "hashed").iterdir()}
    assert Sha256.of(path.read_bytes()).hex not in records
    path.touch()
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == 0, "as quick as to read a record"


def test_a_record_stays_small(site: Site) -> None:
    path = view_of(site, "1.1.0") / WEIGHTS
    for number in range(120):
        os.utime(path, ns=(number, number))
        with site.store() as store:
            store.path(MODEL)
    assert max(record.stat().st_size for record in (site.home / "logs" / "hashed").iterdir()) <= 4096
    assert hashed_bytes(site, lambda store: store.path(MODEL)) == 0


def test_gc_removes_the_records_of_what_it_removes(site: Site) -> None:
    with site.store() as store:
        store.remove(SPEC)
        store.gc(keep=0, grace_s=0)
    records = {record.name for record in (site.home / "logs" / "hashed").iterdir()}
    large = [file for file in (site.home / "files").iterdir() if file.stat().st_size > 4096]
    assert records == {file.name.removesuffix(".x") for file in large}


def test_without_verify_changed_bytes_pass_and_missing_files_do_not(site: Site) -> None:
    view = view_of(site)
    changed_in_place(view)
    with site.store() as store:
        assert Path(store.path(SPEC, verify=False)) == view
    assert tree_hashes(view) != site.contents("1.0.0")
    lacks_a_file(view)
    with site.store() as store:
        store.path(SPEC, verify=False)
    assert (view / "config.json").exists()


def test_path_stays_that_versions(site: Site) -> None:
    with site.store() as store:
        path = Path(store.path(MODEL))
        store.checkout(f"{MODEL}@1.2.0")
        assert tree_hashes(path) == site.contents("1.1.0")
        assert Path(store.path(MODEL)) != path


# --- files that nobody listed, and folders that are read-only ------------------------------------


def test_fsck_names_what_nobody_listed_and_repair_moves_it_aside(site: Site) -> None:
    view = view_of(site)
    (view / "modeling_m.py").write_text("import os")
    (view / "hooks").mkdir()
    (view / "hooks" / "a.py").write_text("import os")
    (found,) = problems(site.home)
    assert found[:2] == ("view", f"views/{view.name}")
    assert "hooks, modeling_m.py" in found[2]
    with site.store() as store:
        assert store.fsck(repair=True).remaining == []
    assert tree_hashes(view) == site.contents("1.0.0")
    aside = {path.name.split("-")[-1] for path in (site.home / "trash").iterdir()}
    assert {"modeling_m.py", "hooks"} <= aside
    assert stat.S_IMODE(view.stat().st_mode) == 0o555
    assert_whole(site.home, site)


def folder_modes(view: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in (view, *view.rglob("*")) if path.is_dir()}


def test_the_next_look_takes_the_right_to_write_from_a_view(site: Site) -> None:
    view = view_of(site, "1.1.0")
    assert folder_modes(view) == {0o555}
    view.chmod(0o755)  # as a power cut or an earlier version leaves it
    with site.store() as store:
        store.path(MODEL)
    assert folder_modes(view) == {0o555}


def file_modes(view: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in view.rglob("*") if path.is_file()}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("serve", SERVED, ids=["path", "checkout", "rollback"])
def test_modes_that_a_program_changed_are_those_of_the_version_again(
    tmp_path: Path, serve: Callable[[Store], str], links: bool
) -> None:
    with contextlib.nullcontext() if links else no_links.refused():
        source = tmp_path / "source"
        source.mkdir()
        for name in ("run", "weights.bin"):
            (source / name).write_bytes(name.encode() * 5000)
            (source / f"small-{name}").write_bytes(name.encode())
        for name in ("run", "small-run"):
            (source / name).chmod(0o755)
        with Store.open(tmp_path / "home") as store:
            for version in ("1.0.0", "1.1.0"):
                (source / "version").write_text(version)
                store.import_model(source, f"{MODEL}@{version}")
                store.checkout(f"{MODEL}@{version}")
            view = Path(store.path(SPEC))
            right = file_modes(view)
            assert right["run"] == right["small-run"] == 0o555
            assert right["weights.bin"] == right["version"] == 0o444
            for path in view.iterdir():
                path.chmod(0o644)
            serve(store)
            assert file_modes(view) == right
        site = Site(tmp_path, tmp_path / "none", tmp_path / "home", ())
        assert hashed_bytes(site, lambda store: store.path(SPEC)) == 0, "the store's own change costs no hash"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="yarnstore-views-"))
    folder.chmod(0o755)
    yield folder
    remove_tree(folder)


def test_a_user_who_is_not_root_works_with_read_only_views(place: Path) -> None:
    require_root()
    site = make_site(place / "made")
    home = place / "nobody" / "home"
    home.parent.mkdir()
    os.chown(home.parent, NOBODY, NOBODY)

    def run(*words: str | Path, code: int = 0) -> str:
        done = run_as(NOBODY, home, *words)
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout

    run("registry", "add", "made", site.registry)
    view = Path(run("checkout", SPEC).strip())
    assert folder_modes(view) == {0o555}
    (view / "modeling_m.py").write_text("planted by root")
    os.chown(view / "modeling_m.py", NOBODY, NOBODY)
    run("fsck", code=4)
    run("fsck", "--repair")
    assert tree_hashes(view) == site.contents("1.0.0")
    assert folder_modes(view) == {0o555}
    (view / "config.json").unlink()
    assert Path(run("path", MODEL).strip()) == view  # made anew
    assert tree_hashes(view) == site.contents("1.0.0")
    run("checkout", f"{MODEL}@1.1.0")
    run("remove", SPEC)
    run("gc", "--keep", "0", "--grace", "0")
    assert not view.exists()
    run("fsck")


OPENINGS = """
import os, sys
from yarnstore import Store
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event == "open" else None)
with Store.open(sys.argv[1]) as store:
    for model in ("first", "few", "many"):
        before = len(opened)
        ACTION
        print(model, len(opened) - before)
"""


def openings_of_a_file(tmp_path: Path, action: str, *, installed: bool) -> float:
    """How many files and folders an action opens for each file more of a version."""
    for model, count in (("first", 3), ("few", 3), ("many", 53)):
        for number in range(count):
            path = tmp_path / model / "a" / f"{number}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%s %d" % (model.encode(), number))
        with Store.open(tmp_path / "home") as store:
            store.import_model(tmp_path / model, f"{model}@1.0.0")
            if installed:
                store.checkout(f"{model}@1.0.0")
    command = [sys.executable, "-c", OPENINGS.replace("ACTION", action), tmp_path / "home"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    counts = dict(line.split() for line in done.stdout.splitlines())  # the first one imports, too
    return (int(counts["many"]) - int(counts["few"])) / 50


def test_a_file_more_costs_one_opening(tmp_path: Path) -> None:
    """Its own, or that of its record: the folders on the way are opened once for all files."""
    assert openings_of_a_file(tmp_path, "store.path(model)", installed=True) == 1


def test_to_install_a_file_more_costs_few_openings(tmp_path: Path) -> None:
    """The file, to write and to look for code."""
    assert openings_of_a_file(tmp_path, 'store.checkout(f"{model}@1.0.0", wait=False)', installed=False) == 2
