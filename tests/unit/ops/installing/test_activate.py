"""The link of a model and its refs change together, whatever other processes do meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from tests.support.stores import MODEL, Site, assert_whole, make_site, problems, remove_tree
from yarnstore import Store
from yarnstore.errors import ConflictError, NotFoundError, StorageError
from yarnstore.store import native
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs, VersionName

V1 = VersionName(MODEL, "default", "1.0.0")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = make_site(tmp_path, versions=("1.0.0", "1.1.0"))
    with site.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.fetch(f"{MODEL}@1.1.0")
    return site


def refs_of(site: Site) -> Refs:
    return Refs(StoreLayout(site.home))


def in_thread(action: object) -> threading.Thread:
    assert callable(action)
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_removal_of_a_model_waits_for_moves_before_it_touches_the_link(site: Site) -> None:
    link = site.home / "models" / MODEL
    with refs_of(site).moving(), site.store() as store:
        thread = in_thread(lambda: store.remove(MODEL, whole_model=True))
        thread.join(0.3)
        assert thread.is_alive()
        assert link.is_symlink()
    thread.join(20)
    assert not link.is_symlink()
    assert problems(site.home) == []


@pytest.mark.parametrize("whole", [True, False])
def test_removal_and_checkout_at_once_leave_a_sound_store(site: Site, whole: bool) -> None:
    for _ in range(12):
        with site.store() as one, site.store() as other:
            start = threading.Barrier(2)

            def install(store: Store = other, start: threading.Barrier = start) -> None:
                start.wait()
                store.checkout(f"{MODEL}@1.1.0")

            thread = in_thread(install)
            start.wait()
            with contextlib.suppress(ConflictError, NotFoundError):
                one.remove(MODEL if whole else f"{MODEL}@1.1.0", whole_model=whole)
            thread.join(20)
            assert problems(site.home) == []
            installed = refs_of(site).current(MODEL)
            if installed is not None:
                assert refs_of(site).has_version(VersionName(MODEL, "default", installed.version))
                assert os.path.lexists(site.home / "models" / MODEL)
            one.gc(keep=0)
    assert_whole(site.home, site)


def test_a_version_removed_during_its_checkout_is_in_the_store_again(site: Site) -> None:
    """The check of a version, and the move to it, have a removal between them."""
    refs = refs_of(site)
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        with refs.moving():
            thread = in_thread(lambda: store.rollback_model(MODEL))
            thread.join(0.3)  # it has seen that 1.0.0 is here
            assert thread.is_alive()
            refs.remove_version(V1)
        thread.join(20)
        assert refs.current(MODEL) is not None
        assert refs.has_version(V1)
        store.gc(keep=0)
    assert_whole(site.home, site)


def test_a_pin_and_a_removal_do_not_both_win(site: Site) -> None:
    name = VersionName(MODEL, "default", "1.1.0")
    refs = refs_of(site)
    with site.store() as store, refs.moving():

        def pin() -> None:
            with pytest.raises(NotFoundError):
                store.pin(f"{MODEL}@1.1.0")

        thread = in_thread(pin)
        thread.join(0.3)
        assert thread.is_alive()
        refs.remove_version(name)
    thread.join(20)
    assert refs.pins() == []


def test_a_link_of_a_removed_model_is_named_and_repaired(site: Site) -> None:
    link = site.home / "models" / MODEL
    target = os.readlink(link)
    with site.store() as store:
        store.remove(MODEL, whole_model=True)
        os.symlink(target, link)
        assert [(item.kind, item.where) for item in store.fsck().problems] == [("link", f"models/{MODEL}")]
        store.gc(keep=0)  # the log says what happened: there is nothing to be careful about
        done = store.fsck(repair=True)
        assert done.remaining == []
        assert done.repaired == [f"models/{MODEL}: removed, because its log says that the model was removed"]
        assert not os.path.lexists(link)


@pytest.mark.parametrize("left", [None, "1.1.0"])
@pytest.mark.parametrize(
    "command",
    [
        *("path", "path without a view", "path of the version", "path of the version without a view"),
        *("path of another version", "checkout", "rollback", "repair"),
    ],
)
def test_a_link_that_a_kill_left_behind_is_named_and_made_again(
    site: Site, command: str, left: str | None
) -> None:
    """The ref moved, and the link did not: it is missing, or leads to the version before."""
    link = site.home / "models" / MODEL
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        before = os.readlink(link)
        store.checkout(f"{MODEL}@1.0.0")
        wanted = os.readlink(link)
        link.unlink()
        if left:
            link.symlink_to(before)
        what = "does not point to the installed version" if left else "is missing"
        found = [(item.kind, item.where, item.what) for item in store.fsck(quick=True).problems]
        assert ("link", f"models/{MODEL}", what) in found
        if command.endswith("without a view"):
            remove_tree(link.parent / wanted)
        if command.startswith("path"):
            version = {"path of the version": "@1.0.0", "path of another version": "@1.1.0"}
            store.path(MODEL + version.get(command.removesuffix(" without a view"), ""))
        elif command == "repair":
            assert store.fsck(repair=True).remaining == []
        elif command == "checkout":
            store.checkout(f"{MODEL}@1.0.0")
        else:
            assert store.rollback_model(MODEL).version == "1.1.0"
            wanted = before
        assert os.readlink(link) == wanted
        assert store.fsck(quick=True).problems == []


def test_a_missing_link_is_no_problem_without_symlinks(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.home / "models" / MODEL).unlink()
    monkeypatch.setattr(native, "symlink", refuse)
    with site.store() as store:
        assert [item for item in store.fsck(quick=True).problems if item.kind == "link"] == []
        store.path(MODEL)
        assert os.listdir(site.home / "models") == []
        assert os.listdir(site.home / "tmp") == []


def test_a_path_is_found_beside_a_link_in_place_of_the_links_folder(site: Site) -> None:
    links = site.home / "models"
    links.rename(site.home / "elsewhere")
    links.symlink_to("elsewhere")
    with site.store() as store:
        assert os.path.exists(store.path(MODEL))


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_an_update_of_what_is_current_keeps_what_is_in_the_place_of_its_link(site: Site) -> None:
    link = site.home / "models" / MODEL
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        link.unlink()
        link.write_bytes(b"mine")
        with pytest.raises(StorageError, match="exists and is not a link"):
            store.update_model(MODEL)
        store.path(MODEL)
    assert link.read_bytes() == b"mine"


def test_a_rollback_does_not_install_what_only_a_view_is_left_of(site: Site) -> None:
    with site.store() as keeper:
        keeper.path(f"{MODEL}@1.0.0")
        keeper.checkout(f"{MODEL}@1.1.0")
        with site.store() as store:
            store.remove(f"{MODEL}@1.0.0")
            store.gc(keep=0)
            assert store.rollback_model(MODEL).version == "1.0.0"
    assert refs_of(site).version(V1) == refs_of(site).installed(MODEL)


@pytest.mark.parametrize("spec", [MODEL, f"{MODEL}@^1.0"])
def test_pin_and_unpin_wait_for_moves(site: Site, spec: str) -> None:
    with site.store() as store:
        for action in (store.pin, store.unpin):
            with refs_of(site).moving():
                thread = in_thread(lambda action=action: action(spec))
                thread.join(0.3)
                assert thread.is_alive()
            thread.join(20)
            assert not thread.is_alive()


def test_a_pin_replaces_no_other_and_names_it(site: Site) -> None:
    with site.store() as store:
        assert store.pin(f"{MODEL}@1.1.0").others == []
        assert store.pin(MODEL).others == [f"{MODEL}:default@1.1.0"]
        assert store.gc(keep=0).versions == []
        assert store.update_model(MODEL).status == "pinned"


def test_a_rollback_leaves_a_pinned_version_and_says_so(site: Site) -> None:
    notes: list[str] = []
    with site.store() as store:
        store.checkout(f"{MODEL}@1.1.0")
        store.pin(MODEL)
        store.rollback_model(MODEL, progress=lambda event: notes.append(event.text))
        assert any(
            f"{MODEL} 1.1.0 stays pinned, but 1.0.0 is not, so updates replace it" in note for note in notes
        )
        assert refs_of(site).pins(MODEL) == [VersionName(MODEL, "default", "1.1.0")]
        # A pin to where it went: nothing to be said.
        store.pin(MODEL)
        notes.clear()
        store.checkout(f"{MODEL}@1.1.0", progress=lambda event: notes.append(event.text))
        assert not any("pinned" in note for note in notes)


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_in_the_place_of_a_link_is_kept_and_nothing_moves(site: Site, folder: bool) -> None:
    link = site.home / "models" / MODEL
    link.unlink()
    if folder:
        link.mkdir()
    mine = link / "mine" if folder else link
    mine.write_bytes(b"mine")
    before = refs_of(site).current(MODEL)
    with site.store() as store:
        for action in (
            lambda: store.checkout(f"{MODEL}@1.1.0"),
            lambda: store.update_model(MODEL),
            lambda: store.remove(MODEL, whole_model=True),
        ):
            with pytest.raises(StorageError, match="exists and is not a link"):
                action()
            assert refs_of(site).current(MODEL) == before
        assert mine.read_bytes() == b"mine"
        found = [(item.kind, item.where, item.what) for item in store.fsck().problems]
        assert found == [("link", f"models/{MODEL}", "is not a link")]
        assert store.fsck(repair=True).remaining == []
        assert link.is_symlink()
        assert [path.read_bytes() for path in (site.home / "trash").rglob("*") if path.is_file()] == [b"mine"]
        assert store.checkout(f"{MODEL}@1.1.0").version == "1.1.0"
