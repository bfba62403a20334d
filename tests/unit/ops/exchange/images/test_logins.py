"""Logins as Docker, podman and skopeo keep them: in files, and in credential helpers."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.images import PASSWORD, USER, FakeRegistry
from tests.support.tools import gguf
from yarnstore import Store
from yarnstore.core.oci import IDENTITY_USER
from yarnstore.ops.exchange.images import logins
from yarnstore.ops.exchange.images.logins import find_login

AUTH = base64.b64encode(b"me:a:b").decode()
OTHER = base64.b64encode(b"you:c").decode()
HUB = "registry-1.docker.io"


@pytest.mark.parametrize(
    ("auths", "host", "login"),
    [
        ({"host:5000": {"auth": AUTH}}, "host:5000", ("me", "a:b")),
        ({"https://host/v2/": {"auth": AUTH}}, "host", ("me", "a:b")),
        ({"https://index.docker.io/v1/": {"auth": AUTH}}, HUB, ("me", "a:b")),
        ({"host": {"username": "me", "password": "x"}}, "host", ("me", "x")),
        ({"host:5000": {"auth": AUTH}}, "host", None),
        ({"a.host": {"auth": AUTH}}, "host", None),
        ({"host": {}}, "host", None),  # a credential helper has it
        ({"host": {"auth": "not base64"}}, "host", None),
        ({"host": {"auth": base64.b64encode(b"\xff:x").decode()}}, "host", None),
        ({"host": 1}, "host", None),
        (
            {"host": {"auth": base64.b64encode(b"0000:").decode(), "identitytoken": "x"}},
            "host",
            (IDENTITY_USER, "x"),
        ),
        ({"host/a": {"auth": AUTH}, "host": {"auth": OTHER}}, "host", ("me", "a:b")),
        ({"host/a/b": {"auth": AUTH}, "host/a": {"auth": OTHER}}, "host", ("me", "a:b")),
        ({"host/a/bc": {"auth": AUTH}, "host/c": {"auth": OTHER}}, "host", None),
        ([], "host", None),
    ],
)
def test_a_login_is_found_by_the_host_and_the_name(
    tmp_path: Path, auths: object, host: str, login: tuple[str, str] | None
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": auths}))
    assert find_login([str(path)], host, "a/b") == login


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_file_that_is_no_configuration_has_no_login(tmp_path: Path, data: bytes) -> None:
    path, second = tmp_path / "config.json", tmp_path / "auth.json"
    second.write_text(json.dumps({"auths": {"host": {"auth": AUTH}}}))
    assert find_login([str(path)], "host", "a") is None
    path.write_bytes(data)
    assert find_login([str(path)], "host", "a") is None
    assert find_login([str(path), str(second)], "host", "a") == ("me", "a:b")


def make_helper(folder: Path, name: str, body: str) -> None:
    """Put a credential helper on the path: `server` is what it is given, and `print` its answer."""
    folder.mkdir(exist_ok=True)
    script = folder / f"{name}.py"
    script.write_text(
        f"import json, sys, time\nassert sys.argv[1:] == ['get']\nserver = sys.stdin.read()\n{body}\n"
    )
    if os.name == "nt":
        (folder / f"docker-credential-{name}.bat").write_text(f'@"{sys.executable}" "{script}" %*\n')
        return
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)


ANSWER = "print(json.dumps({'ServerURL': server, 'Username': 'me', 'Secret': 'of ' + server}))"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    return tmp_path / "config.json"


def test_the_helper_of_a_host_comes_before_that_of_all_and_this_before_the_file(config: Path) -> None:
    make_helper(config.parent / "bin", "one", ANSWER)
    make_helper(config.parent / "bin", "most", f"server == 'none' and sys.exit(1)\n{ANSWER}")
    auths = {"none": {"auth": AUTH}, "host": {"auth": AUTH}}
    config.write_text(json.dumps({"credHelpers": {"host": "one"}, "credsStore": "most", "auths": auths}))
    assert find_login([str(config)], "host", "a") == ("me", "of host")
    assert find_login([str(config)], HUB, "library/a") == ("me", "of https://index.docker.io/v1/")
    assert find_login([str(config)], "none", "a") == ("me", "a:b")


def test_a_helper_may_have_an_identity_token(config: Path) -> None:
    make_helper(config.parent / "bin", "one", "print(json.dumps({'Username': '<token>', 'Secret': 's'}))")
    config.write_text(json.dumps({"credHelpers": {"host": "one"}}))
    assert find_login([str(config)], "host", "a") == (IDENTITY_USER, "s")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('secret')", "did not answer as a credential helper does"),
        ("time.sleep(60)", "did not answer within 0.5 s"),
        (None, "is not on PATH"),
    ],
)
def test_a_helper_that_fails_is_named_without_what_it_prints(
    config: Path, monkeypatch: pytest.MonkeyPatch, body: str | None, said: str
) -> None:
    monkeypatch.setattr(logins, "_HELPER_S", 0.5 if body and "sleep" in body else 30.0)
    if body:
        make_helper(config.parent / "bin", "one", body)
    config.write_text(json.dumps({"credHelpers": {"host": "one"}, "auths": {"host": {"auth": AUTH}}}))
    notes: list[str] = []
    assert find_login([str(config)], "host", "a", notes.append) == ("me", "a:b")
    assert len(notes) == 1
    assert said in notes[0]
    assert "secret" not in notes[0]


def test_a_command_asks_a_helper_once(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = config.parent / "calls"
    noted = f"open({str(calls)!r}, 'a').write(server + chr(10))"
    answer = f"print(json.dumps({{'Username': {USER!r}, 'Secret': {PASSWORD!r}}}))"
    make_helper(config.parent / "bin", "one", f"{noted}\n{answer}")
    monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
    (config.parent / "model.gguf").write_bytes(gguf("Tiny", bytes(1000)))
    with FakeRegistry(token="t") as registry:
        config.write_text(json.dumps({"credHelpers": {registry.host: "one"}}))
        Store.open(config.parent / "a").import_model(config.parent / "model.gguf", "tiny@1.0.0")
        for number, home, run in [
            (1, "a", lambda store: store.export("tiny@1.0.0", f"docker://{registry.host}/tiny:1")),
            (2, "b", lambda store: store.import_from(f"docker://{registry.host}/tiny:1")),
            (3, "a", lambda store: store.check_export("tiny@1.0.0", f"docker://{registry.host}/tiny:1")),
        ]:
            run(Store.open(config.parent / home))
            assert calls.read_text().splitlines() == [registry.host] * number


def test_the_name_of_a_helper_is_a_name_and_no_path(config: Path) -> None:
    config.write_text(json.dumps({"credHelpers": {"host": "../x"}, "credsStore": "/bin/x; y"}))
    notes: list[str] = []
    assert find_login([str(config)], "host", "a", notes.append) is None
    assert notes == []
