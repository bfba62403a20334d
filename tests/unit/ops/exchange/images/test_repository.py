"""Logins that Docker's config.json has."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from yarnstore.ops.exchange.address import parse_address
from yarnstore.ops.exchange.images.repository import docker_login
from yarnstore.store.filepath import Path as StorePath

AUTH = base64.b64encode(b"me:a:b").decode()


@pytest.mark.parametrize(
    ("auths", "host", "login"),
    [
        ({"host:5000": {"auth": AUTH}}, "host:5000", ("me", "a:b")),
        ({"https://host/v2/": {"auth": AUTH}}, "host", ("me", "a:b")),
        ({"https://index.docker.io/v1/": {"auth": AUTH}}, "registry-1.docker.io", ("me", "a:b")),
        ({"host": {"username": "me", "password": "x"}}, "host", ("me", "x")),
        ({"host:5000": {"auth": AUTH}}, "host", None),
        ({"a.host": {"auth": AUTH}}, "host", None),
        ({"host": {}}, "host", None),  # a credential helper has it
        ({"host": {"auth": "not base64"}}, "host", None),
        ({"host": {"auth": base64.b64encode(b"\xff:x").decode()}}, "host", None),
        ({"host": 1}, "host", None),
        ({"host": {"auth": base64.b64encode(b"0000:").decode(), "identitytoken": "x"}}, "host", None),
        ([], "host", None),
    ],
)
def test_a_login_is_found_by_the_host(
    tmp_path: Path, auths: object, host: str, login: tuple[str, str] | None
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": auths}))
    assert docker_login(StorePath(str(path)), host) == login


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_file_that_is_no_configuration_has_no_login(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.json"
    assert docker_login(StorePath(str(path)), "host") is None
    path.write_bytes(data)
    assert docker_login(StorePath(str(path)), "host") is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("docker://docker.io/smollm", "https://registry-1.docker.io/v2/library/smollm/"),
        ("docker://docker.io/ai/smollm:1", "https://registry-1.docker.io/v2/ai/smollm/"),
        ("docker://ghcr.io/a/b-c/d__e", "https://ghcr.io/v2/a/b-c/d__e/"),
        ("docker://10.0.0.1:5000/x", "https://10.0.0.1:5000/v2/x/"),
        ("docker+http://10.0.0.1:5000/x", "http://10.0.0.1:5000/v2/x/"),
        ("docker://localhost/x", "http://localhost/v2/x/"),
        ("docker://127.0.0.1:5000/x", "http://127.0.0.1:5000/v2/x/"),
        ("docker://[::1]:5000/x", "http://[::1]:5000/v2/x/"),
        ("docker+https://localhost:5000/x", "https://localhost:5000/v2/x/"),
    ],
)
def test_a_registry_is_asked_over_https_unless_it_is_this_machine(text: str, url: str) -> None:
    address = parse_address(text)
    assert address is not None
    assert address.url == url
    assert str(address) == text
