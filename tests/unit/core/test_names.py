"""Names become file names, so each is of an allow-list before it is used (T14)."""

from __future__ import annotations

import string
import unicodedata
from collections.abc import Callable

import pytest
from semver import Version

from tests.support.hostile_paths import GOOD_PATHS, HOSTILE_PATHS
from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import (
    check_file_paths,
    is_version,
    model_dirname,
    model_from_dirname,
    parse_file_path,
    parse_model_id,
    parse_registry_name,
    parse_variant,
    parse_version,
)
from yarnstore.errors import FormatError, InvalidNameError
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs, VersionName

EMPTY = Sha256.of(b"")


def in_manifest(path: str) -> object:
    return Manifest.make("m", "1.0.0", "default", [ManifestFile(path, 0, EMPTY, "")])


PATH_SINKS: tuple[Callable[[str], object], ...] = (
    parse_file_path,
    lambda path: check_file_paths([path]),
    lambda path: check_file_paths(["good", path]),
    in_manifest,
)


def test_there_are_five_hundred_of_them() -> None:
    assert len(HOSTILE_PATHS) >= 500


@pytest.mark.parametrize("sink", PATH_SINKS)
def test_no_hostile_path_gets_into_a_version(sink: Callable[[str], object]) -> None:
    for path in HOSTILE_PATHS:
        with pytest.raises(FormatError):
            sink(path)


@pytest.mark.parametrize("sink", PATH_SINKS)
def test_good_paths_get_in(sink: Callable[[str], object]) -> None:
    for path in GOOD_PATHS:
        sink(path)


def name_sinks(layout: StoreLayout) -> tuple[Callable[[str], object], ...]:
    """Every function that makes a file name of a name from outside."""
    refs = Refs(layout)
    return (
        parse_model_id,
        parse_variant,
        parse_registry_name,
        parse_version,
        model_dirname,
        layout.model_link,
        layout.registry,
        refs.installed,
        refs.log_path,
        lambda name: refs.version(VersionName(name, "default", "1.0.0")),
        lambda name: refs.version(VersionName("m", name, "1.0.0")),
        lambda name: refs.version(VersionName("m", "default", name)),
        lambda name: refs.set_version(VersionName(name, "default", "1.0.0"), EMPTY),
        lambda name: refs.set_version(VersionName("m", name, "1.0.0"), EMPTY),
        lambda name: refs.set_version(VersionName("m", "default", name), EMPTY),
        lambda name: refs.set_pin(VersionName("m", "default", name), EMPTY),
        lambda name: refs.set_partial(VersionName(name, "default", "1.0.0"), EMPTY),
        lambda name: refs.remove_version(VersionName("m", name, "1.0.0")),
    )


def test_no_hostile_name_reaches_the_file_system(tmp_path) -> None:
    home = tmp_path / "home"
    for sink in name_sinks(StoreLayout(home)):
        for name in HOSTILE_PATHS:
            with pytest.raises(InvalidNameError):
                sink(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["-rf", ".hidden", "_a", "a~b", "a b", "a/b/c", "é", "a" * 97, "org/", "/name", "x/con"]
)
def test_what_a_path_may_be_and_a_model_id_may_not(name: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_model_id(name)


@pytest.mark.parametrize(
    "name", ["phi-3-mini", "org/name", "a", "0", "A.b_c-d", "a" * 96, f"{'o' * 96}/{'n' * 96}"]
)
def test_model_ids_come_back_from_their_folder_names(name: str) -> None:
    assert parse_model_id(name) == name
    folder = model_dirname(name)
    assert "/" not in folder
    assert len(folder) <= 255
    assert model_from_dirname(folder) == name


def test_every_ascii_character_is_allowed_or_refused_by_the_grammar() -> None:
    inner = set(string.ascii_letters + string.digits + "._-")
    for code in range(128):
        char = chr(code)
        if char in inner:
            assert parse_variant(f"a{char}b") == f"a{char}b"
        else:
            with pytest.raises(InvalidNameError):
                parse_variant(f"a{char}b")
    for char in "._-":
        with pytest.raises(InvalidNameError):
            parse_variant(f"{char}a")


@pytest.mark.parametrize(
    "version",
    ["0.0.0", "1.2.3", "1.0.0-rc.1", "1.0.0-0a.-", "1.0.0+b.01", "1.0.0--+-", "10.20.30", "1.0.0-x.7.z.92"],
)
def test_versions_of_semver(version: str) -> None:
    assert parse_version(version) == version


@pytest.mark.parametrize(
    "version",
    [
        *(
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "v1.0.0",
            "01.0.0",
            "1.0.00",
            "1.0.0-",
            "1.0.0+",
            "1.0.0-01",
            "1.0.0-a..b",
            "1.0.0+a+b",
        ),
        *(
            "1.0.0\n",
            " 1.0.0",
            "1.0.0-é",
            "١.0.0",
            "1.0.0/..",
            "1.0.0-" + "a" * 128,
            "latest",
            "1.0.x",
            "1.0.0-a_b",
        ),
    ],
)
def test_what_is_no_version(version: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_version(version)


@pytest.mark.parametrize(
    "pair",
    [
        *(
            ("a", "A"),
            ("a/B", "a/b"),
            ("straße", "STRASSE"),
            ("é", "É"),
            ("ﬁ", "fi"),
            ("K", "\u212a"),
            ("a", "a"),
        ),
        *(
            ("a", "a/b"),
            ("A", "a/b"),
            ("x/a", "x/A/b"),
            ("d/x", "D/y"),
            ("d/e/x", "d/E/y"),
            ("ſ", "s"),
            ("Σ", "ς"),
        ),
    ],
)
def test_two_paths_that_some_file_system_takes_for_one(pair: tuple[str, str]) -> None:
    for paths in (pair, pair[::-1]):
        with pytest.raises(FormatError):
            check_file_paths(paths)


def test_paths_that_are_different_everywhere() -> None:
    check_file_paths(["a", "b", "a.b", "a-b/c", "d/x", "d/y", "d/e/x", "ab/c", "i", "ı"])


def test_a_check_for_every_invisible_character() -> None:
    refused = [
        c for c in map(chr, range(0x110000)) if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]
    assert len(refused) > 2000
    for char in refused:
        with pytest.raises(FormatError):
            parse_file_path(f"a{char}b")


def test_names_in_errors_are_short_and_printable() -> None:
    with pytest.raises(InvalidNameError) as caught:
        parse_model_id("\x1b[2J" + "x" * 10_000)
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()


def test_paths_have_a_depth() -> None:
    assert parse_file_path("/".join("a" * 32))
    with pytest.raises(FormatError, match="32 parts"):
        parse_file_path("/".join("a" * 33))


def test_folders_that_were_climbed_before_are_checked_all_the_same() -> None:
    deep = "/".join("a" * 30)
    check_file_paths([f"{deep}/{n}" for n in range(100)])
    for other in ("a/A/x", "A/x", "a/a"):
        with pytest.raises(FormatError, match=r"the same path on some file systems|both a file"):
            check_file_paths([f"{deep}/1", f"{deep}/2", other])


@pytest.mark.parametrize(
    "text",
    [
        *("1.2.3", "0.0.0", "1.2.3-rc.1", "1.2.3-0", "1.2.3-0a", "1.2.3--", "1.2.3+01", "1.2.3-a.b+c.d-e"),
        *("1.2", "1.2.3.4", "01.2.3", "1.02.3", "1.2.3-01", "1.2.3-", "1.2.3+", "1.2.3-a..b", "1.2.3+a+b"),
        *("", " 1.2.3", "1.2.3\n", "v1.2.3", "1.2.3-ä", "1.2.3-a_b", "１.2.3", "1.2.-3", "1.2.3-1a.01"),
    ],
)
def test_a_version_is_what_semver_says_it_is(text: str) -> None:
    assert is_version(text) == (text.isascii() and not text.endswith("\n") and Version.is_valid(text))
