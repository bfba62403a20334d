"""Plain http: credentials that others can read are warned of, and `require_https` refuses it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.servers import Reply, ScriptedServer, Seen
from yarnstore import Store
from yarnstore.backends.connect import is_exposed
from yarnstore.errors import BackendError, ConfigError

FAR = "http://models.example/"
TOKEN = "s3cret-token"
DATA = b"weights" * 99


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A host that is not this machine, reached by a proxy that answers for it."""
    with ScriptedServer(answer) as server:
        monkeypatch.setenv("http_proxy", server.url)
        yield server


def answer(seen: Seen) -> Reply:
    path = urlsplit(seen.path).path
    checksum = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
    entry = {"download_url": f"{FAR}m.bin", "checksum": checksum, "size_bytes": len(DATA)}
    document = {"models": {"m": {"versions": {"1.0.0": entry}}}}
    if path == "/moved/registry.json":
        return Reply(status=302, headers={"Location": f"{FAR}registry.json"})
    found = {"/registry.json": json.dumps(document).encode(), "/m.bin": DATA}.get(path)
    return Reply(status=404) if found is None else Reply(body=found)


def open_store(home: Path, url: str, notes: list[str], config: str = "") -> Store:
    home.mkdir()
    (home / "config.toml").write_text(f'{config}\n[[registries]]\nname = "far"\nurl = "{url}"\n')
    return Store.open(home, progress=lambda event: notes.append(event.text))


def warnings(notes: list[str]) -> list[str]:
    return [note for note in notes if note.startswith("warning: ")]


def test_a_token_over_plain_http_is_warned_of_once(
    far: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YSTORE_TOKEN_FAR", TOKEN)
    notes: list[str] = []
    store = open_store(tmp_path / "home", FAR, notes)
    store.refresh_registries()
    store.fetch("m@1.0.0")
    (warning,) = warnings(notes)
    assert "token" in warning
    assert "models.example" in warning
    assert TOKEN not in "".join(notes)
    checks = {check.name: check for check in store.examine().checks}
    assert (checks["registry far"].status, "plain http" in checks["registry far"].what) == ("note", True)


def test_nothing_is_warned_of_without_credentials_or_on_this_machine(
    far: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    open_store(tmp_path / "home", FAR, notes).refresh_registries()
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("YSTORE_TOKEN_FAR", TOKEN)
    open_store(tmp_path / "other", far.url, notes).refresh_registries()
    assert warnings(notes) == []


def test_plain_http_is_refused_where_https_is_required(far: ScriptedServer, tmp_path: Path) -> None:
    store = open_store(tmp_path / "home", FAR, [], "require_https = true")
    with pytest.raises(BackendError, match="require_https") as caught:
        store.fetch("m@1.0.0")
    assert "config.toml" in caught.value.message + caught.value.hint
    assert far.seen == []


@pytest.mark.parametrize("way", ["redirect", "download_url", "mirror"])
def test_no_way_leads_around_it(
    way: str, far: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    here = {"redirect": f"{far.url}moved/", "download_url": far.url, "mirror": f"{far.url}gone/"}[way]
    store = open_store(tmp_path / "home", here, [], "require_https = true")
    if way == "mirror":
        with (tmp_path / "home/config.toml").open("a") as file:
            file.write(f'mirrors = ["{FAR}"]\n')
        store = Store.open(tmp_path / "home")
    with pytest.raises(BackendError) as caught:
        store.fetch("m@1.0.0")
    assert way == "mirror" or "require_https" in caught.value.message
    assert not [seen for seen in far.seen if "models.example" in seen.headers["host"]]


@pytest.mark.parametrize(
    ("address", "exposed"),
    [
        ("http models.example", True),
        ("HTTP 10.0.0.1", True),
        ("http 127.0.0.1.models.example", True),
        ("http localhost.models.example", True),
        ("https models.example", False),
        ("http localhost", False),
        ("http LOCALHOST.", False),
        ("http app.localhost", False),
        ("http 127.8.9.1", False),
        ("http ::1", False),
        ("http [::1]", False),
        ("http ::2", True),
        ("file ", False),
    ],
)
def test_what_others_can_read(address: str, exposed: bool) -> None:
    assert is_exposed(*address.split(" ")) is exposed


def test_the_setting_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="require_https"):
        open_store(tmp_path / "home", FAR, [], 'require_https = "yes"')
