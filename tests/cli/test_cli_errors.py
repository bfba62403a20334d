"""What went wrong, why, and what next: classes, exit codes, JSON, and hostile text."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import YSTORE, Ystore
from yarnstore import errors
from yarnstore.cli.exitcodes import EXIT_CODES, exit_code

CODES = {
    errors.UsageError: 2,
    errors.NotFoundError: 3,
    errors.IntegrityError: 4,
    errors.BackendError: 5,
    errors.IncompatibleError: 6,
    errors.SelfCheckError: 9,
    errors.StorageError: 7,
    errors.LockTimeoutError: 8,
    errors.CancelledError: 130,
    errors.ConflictError: 1,
}


def every_class(root: type[errors.YarnstoreError]) -> list[type[errors.YarnstoreError]]:
    below = [sub for sub in root.__subclasses__() if sub.__module__ == errors.__name__]
    return [root, *(each for sub in below for each in every_class(sub))]


@pytest.mark.parametrize("cls", every_class(errors.YarnstoreError), ids=lambda cls: cls.__name__)
def test_every_class_of_error_has_its_exit_code(cls: type[errors.YarnstoreError]) -> None:
    if cls is errors.YarnstoreError:
        assert exit_code(errors.YarnstoreError("x")) == 1
        return
    assert any(issubclass(cls, kind) for kind, _ in EXIT_CODES), f"{cls.__name__} is in no row of the table"
    expected = {code for kind, code in CODES.items() if issubclass(cls, kind)}
    assert expected == {exit_code(cls.__new__(cls))}


def write_registry(folder: Path, doc: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = doc if isinstance(doc, str) else json.dumps(doc)
    (folder / "registry.json").write_text(text, encoding="utf-8")
    return folder


def one_version(**fields: object) -> dict[str, Any]:
    version = {"checksum": f"sha256:{'0' * 64}", "download_url": "https://example.org/a", **fields}
    return {"models": {"evil": {"versions": {"1.0.0": version}}}}


@pytest.mark.parametrize(
    ("arguments", "code", "word", "says", "next_step"),
    [
        (
            "fetch phi3-mini",
            3,
            "not-found",
            'no model "phi3-mini" in yarn. Did you mean phi-3-mini?',
            "search",
        ),
        ("checkout phi-3-mini@1.2.0", 3, "not-found", 'no version "1.2.0"', "1.1.0, 1.0.0"),
        ("fetch phi-3-mini@^2", 3, "not-found", 'no version "^2"', "1.1.0, 1.0.0"),
        ("fetch phi-3-mini:cuda", 3, "not-found", '"cuda"', "default"),
        ("fetch phi-3-mini@stabel", 3, "not-found", 'no alias "stabel"', "latest"),
        ("fetch a@b@c", 2, "bad-spec", "cannot read 'a@b@c'", "MODEL[:VARIANT][@VERSION|@RANGE|@ALIAS]"),
        ("fetch ../../etc", 2, "bad-spec", "", "MODEL[:VARIANT][@VERSION|@RANGE|@ALIAS]"),
        ("update phi-3-mini", 3, "not-found", 'no installed model "phi-3-mini"', "ystore checkout"),
        ("rollback phi-3-mini", 3, "not-found", 'no installed model "phi-3-mini"', "ystore checkout"),
        ("path phi-3-mini", 3, "not-found", 'no installed model "phi-3-mini"', "ystore checkout"),
        ("log phi-3-mni", 3, "not-found", "Did you mean phi-3-mini?", "ystore search"),
        ("remove phi-3-mini", 2, "usage", "phi-3-mini does not name one version to remove", "--all"),
        ("registry remove yran", 3, "not-found", 'no registry "yran"', "ystore registry list"),
        ("registry add yarn /elsewhere", 1, "conflict", "already exists", "registry remove yarn"),
        ("import /nowhere a@1.0.0", 3, "not-found", "/nowhere", ""),
        ("import . a", 2, "bad-spec", "exact version", "phi-3-mini@1.1.0"),
        ("fetsch phi", 2, "usage", "Did you mean fetch", "ystore --help"),
        ("fetch", 2, "usage", "SPEC", "ystore fetch --help"),
        ("gc --keep many", 2, "usage", "many", "ystore gc --help"),
        ("gc --keep-within 30", 2, "usage", "such as 30d", "ystore gc --help"),
        ("fsck --quick --repair", 2, "usage", "--quick", ""),
        ("fsck --sample 5% --repair", 2, "usage", "--repair", ""),
        ("fsck --sample 0.05", 2, "usage", "such as 5%", "ystore fsck --help"),
    ],
)
def test_says_what_why_and_what_next(
    ready: Ystore, arguments: str, code: int, word: str, says: str, next_step: str
) -> None:
    told = ready(*arguments.split(), people=True)
    assert (told.code, told.out) == (code, "")
    first, *rest = told.err.splitlines()
    assert first.startswith("error: ")
    assert says in first
    assert next_step in "\n".join(rest)
    assert all(line.startswith("  ") for line in rest)
    as_json = ready(*arguments.split(), "--json")
    assert (as_json.code, as_json.err) == (code, "")
    error = as_json.json["error"]
    assert error["code"] == word
    assert {"message", "hint"} <= set(error)
    assert error["message"].splitlines()[0] == first.removeprefix("error: ")


def test_nothing_to_roll_back_to(installed: Ystore) -> None:
    told = installed("rollback", "phi-3-mini")
    assert told.code == 3
    assert told.err.startswith('error: no version before "1.0.0" in the history of phi-3-mini\n')
    other = installed("rollback", "phi-3-mini", "1.1.0")
    assert (other.code, "ystore checkout phi-3-mini@1.1.0" in other.err) == (3, True)


def test_after_a_rollback_to_the_first_version_the_error_names_the_way_forward(installed: Ystore) -> None:
    assert installed("update", "phi-3-mini").code == 0
    assert installed("rollback", "phi-3-mini").code == 0
    told = installed("rollback", "phi-3-mini")
    (replaced,) = {row[0] for row in installed("log", "phi-3-mini").table} - {"1.0.0"}
    assert told.code == 3
    assert told.err.splitlines()[1:] == [
        f"  `ystore checkout phi-3-mini@{replaced}` installs the version again that was rolled back"
    ]
    assert installed("remove", f"phi-3-mini@{replaced}").code == 0
    assert "ystore log phi-3-mini" in installed("rollback", "phi-3-mini").err, "it is no longer stored"


@pytest.mark.parametrize("command", ["fetch a", "checkout a@1.0.0", "search", "outdated", "registry refresh"])
def test_no_registry_says_how_to_add_one(ystore: Ystore, command: str) -> None:
    told = ystore(*command.split())
    assert told.code == 3
    assert told.err == "error: no registry is configured\n  add one: ystore registry add NAME URL\n"


@pytest.mark.parametrize("command", ["export acme/own out", "checkout acme/own", "show acme/own"])
def test_without_a_registry_the_versions_of_an_imported_model_are_named(
    ystore: Ystore, tmp_path: Path, command: str
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "model.bin").write_bytes(b"weights")
    assert ystore("import", str(tmp_path / "source"), "acme/own@0.1.0").code == 0
    told = ystore(*command.split())
    assert told.code == 3
    assert told.err == (
        "error: no registry is configured\n"
        "  the store has 0.1.0: name the version, as in `ystore checkout acme/own@0.1.0`\n"
    )


@pytest.mark.parametrize(
    ("doc", "says"),
    [
        ("<html>not found</html>", "JSON"),
        ("[]", "$"),
        ({"models": {"a": {"versions": {"1.0.0": {"size_bytes": "big"}}}}}, "size_bytes"),
        ({"models": {"a": {"versions": {"one": {}}}}}, '$.models["a"].versions["one"]'),
        ({"models": {"../a": {"versions": {}}}}, '$.models["../a"]'),
        ({"registry_version": "9.0.0", "models": {}}, "format 9"),
    ],
)
def test_a_bad_registry_is_refused_with_the_path_of_the_fault(
    ystore: Ystore, tmp_path: Path, doc: object, says: str
) -> None:
    folder = write_registry(tmp_path / "bad", doc)
    told = ystore("registry", "add", "bad", folder)
    assert told.code in (4, 6)
    assert says in told.err
    assert str(folder) in told.err, "which registry?"
    assert ystore("registry", "list", "-q").out == "", "it must not stay configured"


def test_an_unreachable_registry_is_a_network_error(ystore: Ystore) -> None:
    told = ystore("registry", "add", "gone", "http://127.0.0.1:9/")
    assert told.code == 5
    assert "http://127.0.0.1:9/" in told.err
    assert ystore("registry", "list", "-q").out == ""


def test_bytes_that_are_not_what_was_promised(ystore: Ystore, registry: Path) -> None:
    for pack in (registry / "packs").glob("*.pack"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
    ystore("registry", "add", "yarn", registry)
    told = ystore("checkout", "phi-3-mini", "--json")
    assert told.code == 4
    assert told.json["error"]["code"] in ("integrity", "bad-format")
    assert ystore("list", "--json").json == []


def test_a_store_of_a_newer_format_is_incompatible(ystore: Ystore, tmp_home: Path, made_models: Path) -> None:
    tmp_home.mkdir()
    (tmp_home / "format").write_text("yarnstore-store/5\n")
    told = ystore("import", made_models / "phi-3-mini" / "1.0.0", "a@1.0.0")
    assert told.code == 6
    assert "update yarnstore" in told.err


def test_commands_in_a_hint_act_on_the_same_store(ystore: Ystore, tmp_path: Path, made_models: Path) -> None:
    home = tmp_path / "a store"
    assert ystore("import", made_models / "phi-3-mini" / "1.0.0", "a@1.0.0", "--home", home).code == 0
    told = ystore("path", "a", "--home", home, "--json")
    hint = told.json["error"]["hint"]
    assert f"`ystore --home '{home}' checkout a@1.0.0` installs it" in hint
    assert ystore(*shlex.split(hint.split("`")[1])[1:]).code == 0
    assert "--home" not in ystore("path", "a", "--json").json["error"]["hint"]


def test_a_home_that_cannot_be_made_is_a_storage_error(
    ystore: Ystore, tmp_path: Path, published: Path
) -> None:
    (tmp_path / "file").write_text("")
    told = ystore("registry", "add", "yarn", published, "--home", tmp_path / "file" / "store")
    assert told.code == 7
    assert str(tmp_path / "file") in told.err


def without_override() -> list[str]:
    """What to put before a command so that permissions hold for root too; may skip."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and setpriv is not installed")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_a_read_only_store_is_a_storage_error(installed: Ystore, tmp_home: Path) -> None:
    assert installed("update", "phi-3-mini").code == 0
    folders = [path for path in (tmp_home, *tmp_home.rglob("*")) if path.is_dir() and not path.is_symlink()]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*without_override(), *YSTORE, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    for folder in folders:
        folder.chmod(0o555)
    (tmp_home / "lock").chmod(0o444)
    try:
        path = run("path", "phi-3-mini")
        listed = run("list", "-q")
        told = run("import", __file__, "mine@1.0.0", "--json")
        moved = run("rollback", "phi-3-mini")
    finally:
        (tmp_home / "lock").chmod(0o644)
        for folder in folders:
            folder.chmod(0o755)
    assert (path.returncode, path.stdout) == (0, f"{(tmp_home / 'models' / 'phi-3-mini').resolve()}\n"), (
        path.stderr
    )
    assert (listed.returncode, listed.stdout) == (0, "phi-3-mini\n")
    assert told.returncode == 7, told.stdout + told.stderr
    error = json.loads(told.stdout)["error"]
    assert (error["code"], str(tmp_home) in error["message"]) == ("read-only", True)
    assert "mounted" in error["hint"]
    assert moved.returncode == 7


def test_a_bad_config_says_where(ystore: Ystore, tmp_home: Path) -> None:
    tmp_home.mkdir()
    (tmp_home / "config.toml").write_text("[[registries]]\nname = 3\n")
    told = ystore("list")
    assert told.code == 2
    assert "config.toml: registries[0] needs a name and a url" in told.err


STEER = "\x1b]0;owned\x07\x1b[2J\x1b[1;31mred\u202egnp.exe\u2028\x9b31m\x08\x7f"
FORBIDDEN = set(STEER) - set("]0;owned[2J1;31mredgnp.exe")


def test_hostile_text_cannot_steer_the_terminal(ystore: Ystore, tmp_path: Path) -> None:
    evil = f"nice\nerror: {STEER}"
    doc = one_version(changelog=evil, release_date=evil, deprecated=True, deprecated_reason=evil)
    model = doc["models"]["evil"]
    model |= {"name": evil, "description": evil, "tags": [evil], "license": evil, "homepage": evil}
    model |= {"current_version": "1.0.0", "aliases": {evil: "1.0.0"}}
    model["versions"]["1.0.0"]["compatibility"] = [evil]
    doc["last_updated"] = evil
    doc["models"][f"e\u202e{STEER}"] = {"versions": {}}
    bad = ystore("registry", "add", "evil", write_registry(tmp_path / "bad", doc), people=True)
    assert bad.code == 4
    del doc["models"][f"e\u202e{STEER}"]
    added = ystore("registry", "add", "evil", write_registry(tmp_path / "bad", doc), people=True)
    told = [bad, added]
    for people in (True, False):
        told += [
            ystore(*arguments.split(), people=people)
            for arguments in (
                "search",
                "show evil",
                "log evil",
                "log -v evil",
                "registry list",
                "registry refresh",
                "fetch evil@stabel",
                "fetch evil@^9",
                "outdated",
            )
        ]
    assert any("nice" in ran.out for ran in told)
    for ran in told:
        assert not FORBIDDEN & set(ran.out + ran.err)
        assert not [line for line in ran.out.splitlines() if line.startswith("error: ")]
    assert ystore("show", "evil", "--json").json["changelog"] == evil


def test_an_update_tells_a_hostile_changelog_harmlessly(
    ystore: Ystore, registry: Path, made_models: Path
) -> None:
    ystore("registry", "add", "yarn", registry)
    ystore("checkout", "phi-3-mini@1.0.0")
    doc = json.loads((registry / "registry.json").read_text())
    doc["models"]["phi-3-mini"]["versions"]["1.1.0"]["changelog"] = f"fine\nerror: {STEER}"
    (registry / "registry.json").write_text(json.dumps(doc))
    told = ystore("update", "phi-3-mini", people=True)
    assert told.code == 0
    assert not FORBIDDEN & set(told.out + told.err)
    assert "\n  error: " in told.err, "a line of the registry's must not look like ours"
