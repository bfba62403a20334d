"""Refs on disk: one model one id, a line before each move, strays passed over."""

from __future__ import annotations

import itertools
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.small_stores import fill, other_process
from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed
from yarnstore.errors import ConflictError, FormatError, StorageError
from yarnstore.store import fsio
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs, VersionName

A, B, C = (Sha256(letter * 32) for letter in (b"A", b"B", b"C"))
ONE = VersionName("org/m", "default", "1.0.0")


@pytest.fixture
def layout(tmp_path: Path) -> StoreLayout:
    made = StoreLayout(tmp_path / "home")
    made.ensure()
    return made


@pytest.fixture
def refs(layout: StoreLayout) -> Refs:
    return Refs(layout)


def installed(digest: Sha256, version: str = "1.0.0") -> Installed:
    return Installed(digest, "default", version)


def test_a_store_without_refs_has_none(tmp_path: Path) -> None:
    refs = Refs(StoreLayout(tmp_path / "none"))
    assert refs.versions() == refs.pins() == refs.partials() == []
    assert refs.installed_models() == refs.logged_models() == refs.moves("m") == refs.stack("m") == []
    assert refs.version(ONE) is refs.pin(ONE) is refs.installed("m") is refs.current("m") is None
    assert refs.partial(ONE) == (None, 0.0)
    assert refs.version_time_s(ONE) == 0.0
    assert not refs.remove_version(ONE)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("overtaken", ["installed", "_log_bytes"])
def test_a_move_between_the_reads_of_a_ref_and_its_log_is_no_fault(
    refs: Refs, monkeypatch: pytest.MonkeyPatch, overtaken: str
) -> None:
    with refs.moving():
        refs.move("m", installed(A), "checkout", time_ms=1)
    real, version = getattr(refs, overtaken), itertools.cycle((B, A))

    def read(model: str) -> object:
        found = real(model)
        with monkeypatch.context() as patch:
            patch.setattr(refs, overtaken, real)
            with refs.moving():
                refs.move("m", installed(next(version)), "checkout", time_ms=2)
        return found

    monkeypatch.setattr(refs, overtaken, read)
    assert refs.log_fault("m") == ""
    last = refs.last_move("m")
    assert last is not None
    assert refs.moves("m")
    assert refs.stack("m")


def test_a_model_that_is_installed_between_the_reads_is_no_fault(
    refs: Refs, layout: StoreLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = refs._log_bytes

    def read(model: str) -> bytes:
        found = real(model)
        with monkeypatch.context() as patch:
            patch.setattr(refs, "_log_bytes", real)
            with refs.moving():
                refs.move("m", installed(A), "checkout", time_ms=1)
        fsio.ensure_dir(layout.model_link("m").parent)
        assert fsio.swap_link(layout.model_link("m"), "there", tmp_dir=layout.tmp)
        return found

    monkeypatch.setattr(refs, "_log_bytes", read)
    assert refs.log_fault("m") == ""


def test_versions_pins_and_partials_come_back_and_go(refs: Refs, layout: StoreLayout) -> None:
    refs.set_version(ONE, A)
    refs.set_pin(ONE, B)
    refs.set_partial(ONE, C)
    assert (refs.version(ONE), refs.pin(ONE), refs.partial(ONE)[0]) == (A, B, C)
    assert refs.versions() == refs.pins("org/m") == refs.partials() == [ONE]
    assert refs.versions("m") == []
    assert refs.version_time_s(ONE) > 1_600_000_000
    assert (layout.root / "refs/versions/org~m/default/1.0.0").read_bytes() == f"{A}\n".encode()
    assert refs.remove_version(ONE)
    assert refs.remove_pin(ONE)
    assert refs.remove_partial(ONE)
    assert list(layout.refs.iterdir()) == []


@pytest.mark.parametrize("second", ["ORG/m", "org/M", "Org/M"])
def test_ids_that_differ_only_in_case_are_one(refs: Refs, second: str) -> None:
    refs.set_version(ONE, A)
    with pytest.raises(ConflictError, match="differs only in case") as caught:
        refs.set_version(VersionName(second, "default", "1.0.0"), B)
    assert "org/m" in caught.value.hint
    assert refs.versions() == [ONE]
    refs.set_version(VersionName("org/m", "default", "1.1.0"), B)
    refs.set_version(VersionName("orgm", "default", "1.1.0"), B)


@pytest.mark.parametrize(("variant", "version"), [("Default", "1.0.0"), ("default", "1.0.0-RC")])
def test_variants_and_versions_that_differ_only_in_case_are_one(
    refs: Refs, variant: str, version: str
) -> None:
    refs.set_version(ONE, A)
    refs.set_version(VersionName(ONE.model, "default", "1.0.0-rc"), A)
    with pytest.raises(ConflictError, match="differs only in case"):
        refs.set_version(VersionName(ONE.model, variant, version), B)
    assert refs.twins() == []


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have one name for both")
def test_an_existing_pair_stays_usable_and_is_named(refs: Refs, layout: StoreLayout) -> None:
    """Earlier releases made them on Linux, from two registries."""
    refs.set_version(ONE, A)
    shutil.copytree(layout.refs / "versions/org~m", layout.refs / "versions/ORG~m")
    other = VersionName("ORG/m", "default", "1.0.0")
    assert refs.version(other) == A
    refs.set_version(other, B)
    assert (refs.version(ONE), refs.version(other)) == (A, B)
    assert refs.twins() == [(str(other), str(ONE))]
    with pytest.raises(ConflictError, match="differs only in case"):
        refs.set_version(VersionName("Org/m", "default", "1.0.0"), A)


def test_an_installed_id_counts_for_case_too(refs: Refs) -> None:
    with refs.moving():
        refs.move("Phi", installed(A), "checkout", time_ms=1)
    with pytest.raises(ConflictError):
        refs.check_case("phi")


@pytest.mark.parametrize("kind", ["versions", "pins", "partial"])
def test_stray_files_are_passed_over(refs: Refs, layout: StoreLayout, kind: str) -> None:
    """A file manager leaves `.DS_Store` and the like in every folder that it shows."""
    for put in (refs.set_version, refs.set_pin, refs.set_partial):
        put(ONE, A)
    for folder in ("", "org~m", "org~m/default"):
        (layout.refs / kind / folder / ".DS_Store").touch()
    assert refs.versions() == refs.pins() == refs.partials() == [ONE]


def test_stray_files_among_the_installed_are_passed_over(refs: Refs, layout: StoreLayout) -> None:
    with refs.moving():
        refs.move("org/m", installed(A), "checkout", time_ms=1)
    for folder in ("refs/installed", "logs/installed"):
        (layout.root / folder / ".DS_Store").touch()
    assert refs.installed_models() == refs.logged_models() == ["org/m"]


@pytest.mark.parametrize("data", [b"", b"\0" * 72, f"{A}".encode(), f"{A}\n".encode()[:40], b"x" * 5000])
def test_a_damaged_ref_is_an_error_that_names_it(refs: Refs, layout: StoreLayout, data: bytes) -> None:
    refs.set_version(ONE, A)
    (layout.root / "refs/versions/org~m/default/1.0.0").write_bytes(data)
    with pytest.raises(FormatError, match=r"refs.versions.org~m.default.1\.0\.0"):
        refs.version(ONE)


def test_a_ref_that_is_a_folder_or_a_link_is_an_error(
    refs: Refs, layout: StoreLayout, tmp_path: Path
) -> None:
    (tmp_path / "planted").write_bytes(f"{B}\n".encode())
    place = layout.root / "refs/versions/org~m/default"
    place.mkdir(parents=True)
    (place / "1.0.0").symlink_to(tmp_path / "planted")
    (place / "1.1.0").mkdir()
    for version in ("1.0.0", "1.1.0"):
        with pytest.raises(StorageError):
            refs.version(VersionName("org/m", "default", version))


def test_moves_are_logged_before_they_are_made(refs: Refs, layout: StoreLayout) -> None:
    with refs.moving():
        refs.move("org/m", installed(A), "checkout", time_ms=1)
        refs.move("org/m", installed(B, "2.0.0"), "update", time_ms=2)
    assert refs.installed("org/m") == B
    assert refs.current("org/m") == installed(B, "2.0.0")
    assert refs.stack("org/m") == [installed(A), installed(B, "2.0.0")]
    # The state after a crash between the line and the ref: the ref says what holds.
    fsio.write_atomic(layout.refs / "installed" / "org~m", f"{A}\n".encode(), tmp_dir=layout.tmp)
    assert [move.time_ms for move in refs.moves("org/m")] == [1]
    assert refs.current("org/m") == installed(A)
    with refs.moving():
        move = refs.move("org/m", installed(C, "3.0.0"), "update", time_ms=3)
    assert move.old == installed(A)
    assert [move.time_ms for move in refs.moves("org/m")] == [1, 3]
    with refs.moving():
        refs.move("org/m", None, "remove", time_ms=4)
    assert refs.installed("org/m") is None
    assert refs.stack("org/m") == []
    assert len(refs.moves("org/m")) == 3


def test_a_torn_line_is_cut_off_by_the_next_move(refs: Refs, layout: StoreLayout) -> None:
    with refs.moving():
        refs.move("m", installed(A), "checkout", time_ms=1)
    log = refs.log_path("m")
    whole = log.read_bytes()
    for torn in (b"1", whole[: len(whole) // 2], whole[:-1]):
        log.write_bytes(whole + torn)
        assert refs.read_log("m")[1] == []
        assert refs.stack("m") == [installed(A)]
    with refs.moving():
        refs.move("m", installed(B), "update", time_ms=2)
    assert refs.read_log("m")[1] == []
    assert [move.time_ms for move in refs.moves("m")] == [1, 2]


def test_without_its_log_an_installed_version_has_its_manifests_names(
    refs: Refs, layout: StoreLayout
) -> None:
    manifest = fill(layout, {"a": [b"a"]}, version="1.2.3")
    with refs.moving():
        refs.move("m", Installed(manifest.digest, "default", "1.2.3"), "checkout", time_ms=1)
    refs.log_path("m").unlink()
    assert refs.current("m") == Installed(manifest.digest, "default", "1.2.3")


def test_a_damaged_installed_ref_can_be_removed_and_not_moved_from(refs: Refs, layout: StoreLayout) -> None:
    with refs.moving():
        refs.move("m", installed(A), "checkout", time_ms=1)
    (layout.refs / "installed" / "m").write_bytes(b"")
    with refs.moving():
        with pytest.raises(FormatError):
            refs.move("m", installed(B), "update", time_ms=2)
        refs.move("m", None, "remove", time_ms=3)
    assert refs.installed("m") is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_moves_are_one_at_a_time(refs: Refs, layout: StoreLayout) -> None:
    mover = """
from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs
refs = Refs(StoreLayout(Path(sys.argv[1])))
print("ready", flush=True)
sys.stdin.read()
for n in range(25):
    with refs.moving():
        new = Installed(Sha256(f"{sys.argv[2]}{n:31}".encode()), "default", "1.0.0")
        refs.move("m", new, "checkout", time_ms=n)
"""
    root = str(layout.root)
    with other_process(mover, root, "x") as one, other_process(mover, root, "y") as two:
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.close()
            process.stdin = None  # closed: `communicate` need not
        assert (one.wait(30), two.wait(30)) == (0, 0)
    moves, faults = refs.read_log("m")
    assert faults == []
    assert len(moves) == 50
    assert refs.moves("m") == moves
    assert all(after.old == before.new for before, after in itertools.pairwise(moves))
