"""Commands of publishers and pipelines: lint, deprecate, yank, alias, set-current, lock, --locked."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ystore
from tests.support.servers import Reply, ScriptedServer, Seen, files


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `ystore.lock` is written."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def model(registry: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((registry / "registry.json").read_text())
    assert json.loads((registry / "models" / "phi-3-mini.json").read_text()) == raw["models"]["phi-3-mini"]
    entry: dict[str, Any] = raw["models"]["phi-3-mini"]
    return entry


def test_lint_says_where_and_what(ystore: Ystore, registry: Path) -> None:
    clean = ystore("registry", "lint", registry, "--deep", people=True)
    assert (clean.code, clean.out) == (0, "1 model, 2 versions: no problems found\n")
    assert ystore("registry", "lint", registry).out == ""
    raw = json.loads((registry / "registry.json").read_text())
    raw["models"]["phi-3-mini"]["versions"]["1.0.0"]["changelog"] = ""
    raw["models"]["phi-3-mini"]["versions"]["1.1.0"]["release_date"] = "yesterday"
    (registry / "registry.json").write_text(json.dumps(raw))
    faulty = ystore("registry", "lint", registry / "registry.json")
    assert faulty.code == 4
    assert faulty.out.splitlines() == [
        '$.models["phi-3-mini"].versions["1.1.0"].release_date: is not an RFC 3339 time, such as '
        "2024-01-01T00:00:00Z: 'yesterday'",
        '$.models["phi-3-mini"].versions["1.0.0"].changelog: warning: is missing; users read it before they '
        "update",
    ]
    told = ystore("registry", "lint", registry / "registry.json", "--json")
    assert told.code == 4
    assert (told.json["errors"], told.json["warnings"], told.json["versions"]) == (1, 1, 2)
    assert told.json["findings"][0]["severity"] == "error"
    people = ystore("registry", "lint", registry / "registry.json", people=True)
    assert people.out.endswith("1 model, 2 versions: 1 error, 1 warning\n")
    assert ystore("registry", "lint", registry / "nothing").code == 3


def test_lint_reaches_a_url_as_registries_are_reached(
    ystore: Ystore, registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = {
        path.relative_to(registry).as_posix(): path.read_bytes()
        for path in registry.rglob("*")
        if path.is_file()
    }
    good = files(tree)
    wanted = ""

    def guarded(seen: Seen) -> Reply:
        return good(seen) if seen.headers.get("authorization", "") == wanted else Reply(status=401)

    with ScriptedServer(guarded) as server:
        assert ystore("registry", "add", "yarn", server.url).code == 0
        wanted = "Bearer s3cret"
        assert ystore("registry", "lint", server.url, "--deep").code == 5
        monkeypatch.setenv("YSTORE_TOKEN_YARN", "s3cret")
        for what in (server.url, f"{server.url}registry.json", f"{server.url}models/phi-3-mini.json"):
            assert (what, ystore("registry", "lint", what).code) == (what, 0)
        assert ystore("registry", "lint", server.url, "--deep").code == 0
        monkeypatch.delenv("YSTORE_TOKEN_YARN")
        wanted = "Basic " + base64.b64encode(b"ada:pw").decode()
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password pw\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert ystore("registry", "lint", server.url).code == 0
        assert ystore("registry", "remove", "yarn").code == 0
        assert ystore("registry", "lint", server.url).code == 0
        asked = len(server.seen)
        for what in (server.url, f"{server.url}registry.json", f"{server.url}registry.json?a=1"):
            ran = ystore("registry", "lint", what, "--offline")
            assert (ran.code, "s3cret" in ran.err) == (5, False)
        assert len(server.seen) == asked


def test_a_secret_in_an_address_is_never_shown(ystore: Ystore, tmp_home: Path) -> None:
    tmp_home.mkdir()
    for url in ("http://ada:s3cret@127.0.0.1:9/", "http://127.0.0.1:9/?key=s3cret"):
        (tmp_home / "config.toml").write_text(f'[[registries]]\nname = "yarn"\nurl = "{url}"\n')
        for line in ("list", "list --json", "refresh", "refresh --json", "add yarn http://other.test/"):
            ran = ystore("registry", *line.split())
            assert (line, "s3cret" in ran.out + ran.err) == (line, False)
        ran = ystore("doctor")
        assert "s3cret" not in ran.out + ran.err


def test_lint_cannot_be_made_to_steer_a_terminal(ystore: Ystore, tmp_path: Path) -> None:
    bad = tmp_path / "registry.json"
    bad.write_text(json.dumps({"models": {"a\x1b[2J\nb": 1}}))
    ran = ystore("registry", "lint", bad)
    assert ran.code == 4
    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 2


def test_deprecate_and_take_it_back(ystore: Ystore, registry: Path) -> None:
    words = ("registry", "deprecate", "phi-3-mini@1.0.0", "--registry", registry)
    ran = ystore(*words, "--reason", "Repeats itself", "--replaced-by", "1.1.0", people=True)
    assert (ran.code, ran.out, ran.err) == (0, "phi-3-mini@1.0.0: deprecated\n", "")
    entry = model(registry)["versions"]["1.0.0"]
    assert (entry["deprecated"], entry["deprecated_reason"], entry["replaced_by"]) == (
        True,
        "Repeats itself",
        "1.1.0",
    )
    again = ystore(*words, "--replaced-by", "1.1.0", people=True)
    assert again.out == "phi-3-mini@1.0.0: deprecated (unchanged)\n"
    assert ystore("registry", "lint", registry).code == 0
    assert ystore(*words, "--undo", "--reason", "x").code == 2
    assert ystore(*words, "--undo").table == [["phi-3-mini", "changed", "no longer deprecated", "1.1.0"]]
    assert "replaced_by" not in model(registry)["versions"]["1.0.0"]


def test_yank_alias_and_set_current(ystore: Ystore, registry: Path) -> None:
    there = ("--registry", registry)
    assert ystore("registry", "alias", "phi-3-mini", "stable", "1.1.0", *there).code == 0
    yanked = ystore("registry", "yank", "phi-3-mini@1.1.0", *there, people=True)
    assert yanked.out == "phi-3-mini@1.1.0: withdrawn\n"
    assert yanked.err.splitlines() == [
        "current_version is now 1.0.0",
        "stable points to 1.1.0, which is now withdrawn",
    ]
    assert model(registry)["current_version"] == "1.0.0"
    assert ystore("registry", "set-current", "phi-3-mini", "1.1.0", *there).code == 2
    assert ystore("registry", "yank", "phi-3-mini@1.1.0", "--undo", *there).code == 0
    done = ystore("registry", "set-current", "phi-3-mini", "1.1.0", *there, "--json").json
    assert (done["changed"], done["current_version"], done["notes"]) == (True, "1.1.0", [])
    assert ystore("registry", "alias", "phi-3-mini", "stable", "--remove", *there).code == 0
    assert model(registry)["aliases"] == {}
    assert ystore("registry", "alias", "phi-3-mini", "stable", *there).code == 2
    assert ystore("registry", "alias", "phi-3-mini", "v1", "1.0.0", *there).code == 2
    assert ystore("registry", "yank", "phi-3-mini@3.0.0", *there).code == 3
    assert ystore("registry", "yank", "phi-3-mini@1.0.0", "--registry", registry / "no").code == 3


def test_lock_and_fetch_what_is_locked(ready: Ystore, tmp_path: Path) -> None:
    locked = ready("lock", "phi-3-mini@^1.0", people=True)
    assert locked.code == 0
    assert locked.out.splitlines()[0].split() == [
        *("MODEL", "VERSION", "VARIANT", "SIZE", "REQUESTED", "BEFORE"),
    ]
    digest = ready("lock", "--digest").out.strip()
    assert digest == ready("lock", "--json").json["digest"]
    assert digest in locked.out
    assert ready("lock").table[0][:3] == ["phi-3-mini", "1.1.0", "default"]
    assert ready("lock", "--update", people=True).out.splitlines()[-1].endswith(f"unchanged, {digest}")
    fetched = ready("fetch", "--locked")
    assert fetched.table[0][:2] == ["phi-3-mini", "1.1.0"]
    assert ready("fetch", "--locked", "--json").json[0]["download_bytes"] == 0
    installed = ready("checkout", "--locked")
    assert Path(installed.out.strip()).exists()
    assert ready("checkout", "--locked", "--json").json[0]["version"] == "1.1.0"
    shutil.move("ystore.lock", tmp_path / "other.lock")
    assert ready("fetch", "--locked").code == 3
    assert ready("fetch", "--locked", "--file", tmp_path / "other.lock").code == 0


def test_locked_and_a_spec_do_not_go_together(ready: Ystore) -> None:
    for words in (["fetch"], ["checkout"]):
        assert ready(*words).code == 2
        assert ready(*words, "--locked", "phi-3-mini").code == 2
    assert ready("lock").code == 3
    assert ready("lock", "--digest").code == 3


def test_another_manifest_than_is_locked_exits_with_4(ready: Ystore) -> None:
    ready("lock", "phi-3-mini@1.0.0")
    path = Path("ystore.lock")
    raw = json.loads(path.read_text())
    raw["models"][0]["manifest"] = "sha256:" + "ab" * 32
    path.write_text(json.dumps(raw))
    refused = ready("fetch", "--locked")
    assert refused.code == 4
    assert "does not match the lock file" in refused.err


def test_publish_split(ystore: Ystore, registry: Path, made_models: Path) -> None:
    source = made_models / "phi-3-mini" / "1.0.0"
    assert (
        ystore(
            "publish", source, "org/new@1.0.0", "--registry", registry, "--split", "--changelog", "New"
        ).code
        == 0
    )
    raw = json.loads((registry / "registry.json").read_text())
    assert (raw["split"], raw["models"]) == (True, {})
    assert (
        ystore("registry", "add", "big", registry, people=True).out
        == "big: one file per model, updated just now\n"
    )
    assert ystore("registry", "lint", registry, "--deep").code == 0
    assert ystore("fetch", "org/new@1.0.0").code == 0
    assert ystore("search", "org/new", "-q").out == "org/new\n"
