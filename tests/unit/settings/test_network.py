"""What the environment and config.toml say of the network, and to whom credentials are sent."""

from __future__ import annotations

import base64
import os
import select
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, files, self_signed
from yarnstore import Store
from yarnstore.backends import urls
from yarnstore.backends.connect import connect
from yarnstore.errors import BackendError, ConfigError
from yarnstore.ops.session.connections import Connections, source_at
from yarnstore.ops.session.sources import Network, RegistrySource, with_login
from yarnstore.settings import load_settings
from yarnstore.settings.network import parse_network
from yarnstore.store.layout import StoreLayout

EMPTY = b'{"registry_version": "1.0.0", "models": {}}'
BASIC = "Basic " + base64.b64encode(b"ada:secret").decode()


def links(home: Path, network: Network | None = None) -> Connections:
    return Connections(StoreLayout(home), network or Network(), lambda _: None, lambda: 0)


def test_defaults() -> None:
    assert parse_network({}, {}) == Network()


def test_the_file_counts_and_the_environment_more(tmp_path: Path) -> None:
    config = {"offline": True, "limit_rate": "5M", "stall_timeout": 5, "ca_bundle": "/etc/ca.pem"}
    found = parse_network(config, {})
    assert (found.offline, found.limit_rate, found.ca_bundle) == (True, 5e6, os.path.abspath("/etc/ca.pem"))
    assert (found.timeouts.stall_s, found.timeouts.window_s) == (5.0, 10.0)
    environ = {"YSTORE_OFFLINE": "0", "YSTORE_LIMIT_RATE": "1k", "YSTORE_STALL_TIMEOUT": "7"}
    more = parse_network(config, environ)
    assert (more.offline, more.limit_rate, more.timeouts.stall_s) == (False, 1000.0, 7.0)
    assert parse_network({"limit_rate": 2000}, {}).limit_rate == 2000.0


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        ({"offline": "yes"}, {}),
        ({}, {"YSTORE_OFFLINE": "perhaps"}),
        ({"limit_rate": "fast"}, {}),
        ({"limit_rate": True}, {}),
        ({}, {"YSTORE_LIMIT_RATE": "-1"}),
        ({"stall_timeout": 0}, {}),
        ({"stall_timeout": "nan"}, {}),
        ({"ca_bundle": 3}, {}),
    ],
)
def test_what_cannot_be_meant_is_refused(config: dict[str, object], environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        parse_network(config, environ)


def test_mirrors_of_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        '[[registries]]\nname = "a"\nurl = "https://a.test/"\nmirrors = ["https://b.test/", "/mnt"]\n'
    )
    assert load_settings(tmp_path, {}).registries[0].mirrors == ("https://b.test/", "/mnt")
    path.write_text('[[registries]]\nname = "a"\nurl = "https://a.test/"\nmirrors = "https://b.test/"\n')
    with pytest.raises(ConfigError, match="not a list"):
        load_settings(tmp_path, {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@M.test/a?token=1", "https://m.test/a/"),
        ("http://m.test", "http://m.test/"),
        ("/srv/registry", "/srv/registry"),
        ("https://[::1]:8/a/", "https://[::1]:8/a/"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, shown: str) -> None:
    assert urls.shown(url, folder=True) == shown


# --- netrc -----------------------------------------------------------------------------------------


def netrc(tmp_path: Path, text: str) -> str:
    path = tmp_path / "netrc"
    path.write_text(text)
    return str(path)


def test_netrc_is_for_the_registrys_host_alone(tmp_path: Path) -> None:
    path = netrc(tmp_path, "machine a.test login ada password secret\ndefault login eve password all\n")
    assert with_login(RegistrySource("a", "https://a.test:8443/x/"), path).login == ("ada", "secret")
    assert with_login(RegistrySource("b", "https://b.test/"), path).login is None, "default is for nobody"
    assert with_login(RegistrySource("a", "https://a.test/", "token"), path).login is None
    assert with_login(RegistrySource("a", "/srv/a.test"), path).login is None
    assert "secret" not in repr(with_login(RegistrySource("a", "https://a.test/"), path))


@pytest.mark.parametrize("text", ["machine", "machine a.test login", "\x00", "machine a.test login ada\n"])
def test_a_netrc_that_cannot_be_used_gives_nothing(tmp_path: Path, text: str) -> None:
    assert with_login(RegistrySource("a", "https://a.test/"), netrc(tmp_path, text)).login is None
    assert with_login(RegistrySource("a", "https://a.test/"), str(tmp_path / "none")).login is None


def test_the_login_goes_to_the_registry_and_not_along_with_a_redirect(tmp_path: Path) -> None:
    """Nor to mirrors, nor to download addresses elsewhere, nor back again after a redirect."""
    with ScriptedServer([]) as own, ScriptedServer(files({"packs/a": b"a", "f.bin": b"f"})) as other:
        back = {"Location": f"{own.url}packs/back"}
        away = {"Location": f"{other.url}packs/a"}

        def script(seen: object) -> Reply:
            path = seen.path  # type: ignore[attr-defined]
            if path == "/packs/a":
                return Reply(status=302, headers=away)
            return Reply(body=EMPTY) if path == "/registry.json" else Reply(status=404)

        own.rescript(script)
        source = RegistrySource("a", own.url, login=("ada", "secret"), mirrors=(other.url,))
        mine = links(tmp_path)
        backend = mine.backend(source)
        assert backend.get("registry.json", limit_bytes=100)
        assert backend.get("packs/a", limit_bytes=10)
        assert backend.get("packs/a", limit_bytes=10, avoid={own.url}), "the mirror"
        assert mine.for_file(source, [f"{other.url}f.bin"]).get("f.bin", limit_bytes=10)
        same_backend = mine.for_file(source, [f"{own.url}registry.json"])
        assert same_backend.get("registry.json", limit_bytes=100), (
            "an absolute address of the registry's own origin"
        )
        other.rescript(lambda _: Reply(status=302, headers=back))
        with pytest.raises(BackendError):
            backend.get("packs/a", limit_bytes=10)
        mine.close()
        assert all("authorization" not in seen.headers for seen in other.seen)
        assert len(other.seen) >= 4
        for seen in own.seen:
            sent = seen.headers.get("authorization")
            assert sent == (None if seen.path == "/packs/back" else BASIC), seen.path
            assert "secret" not in seen.path


def test_netrc_from_the_environment_opens_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def guarded(seen: object) -> Reply:
        known = seen.headers.get("authorization") == BASIC  # type: ignore[attr-defined]
        return Reply(body=EMPTY) if known else Reply(status=401)

    with ScriptedServer(guarded) as server:
        store = Store.open(tmp_path / "home")
        with pytest.raises(BackendError, match="401") as caught:
            store.add_registry("a", server.url)
        assert "token" in caught.value.hint
        monkeypatch.setenv("NETRC", netrc(tmp_path, "machine 127.0.0.1 login ada password secret\n"))
        assert Store.open(tmp_path / "home").add_registry("a", server.url).models == 0
    for path in (tmp_path / "home").rglob("*"):
        assert not path.is_file() or b"secret" not in path.read_bytes()


def test_a_password_in_a_mirrors_address_is_neither_used_nor_shown(tmp_path: Path) -> None:
    with ScriptedServer(files({"registry.json": EMPTY})) as own:
        mine = links(tmp_path)
        source = RegistrySource("a", own.url, mirrors=("http://ada:secret@127.0.0.1:9/",))
        with pytest.raises(BackendError) as caught:
            mine.backend(source).get("packs/a", limit_bytes=10)
        mine.close()
    assert "secret" not in caught.value.message


# --- certificates ----------------------------------------------------------------------------------


def test_a_bundle_of_ones_own_is_trusted(tmp_path: Path) -> None:
    server_context, _ = self_signed(tmp_path / "tls")
    bundle = str(tmp_path / "tls" / "cert.pem")
    with ScriptedServer(files({"registry.json": EMPTY}), tls=server_context) as server:
        strange = connect(server.url)
        with pytest.raises(BackendError, match="certificate is not accepted"):
            strange.get("registry.json", limit_bytes=100)
        strange.close()
        mine = links(tmp_path, parse_network({"ca_bundle": bundle}, {}))
        assert mine.backend(RegistrySource("a", server.url)).get("registry.json", limit_bytes=100)
        mine.close()


@contextmanager
def tunnels() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that makes tunnels (RFC 9110 §9.3.6): its address, and the heads of what it was asked."""
    heads: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.rfile.readline()
            heads.append(head)
            host, _, port = head.split()[1].decode().rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as there:
                self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                ends = {self.request: there, there: self.request}
                while True:
                    for end in select.select(list(ends), [], [], 5)[0]:
                        data = end.recv(65536)
                        if not data:
                            return
                        ends[end].sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        try:
            yield f"http://ada:secret@127.0.0.1:{proxy.server_address[1]}", heads
        finally:
            proxy.shutdown()


def test_https_goes_through_a_proxy_that_sees_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server_context, _ = self_signed(tmp_path / "tls")
    with (
        ScriptedServer(files({"registry.json": EMPTY}), tls=server_context) as server,
        tunnels() as (proxy, heads),
    ):
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("https_proxy", proxy)
        backend = connect(server.url, token="geheim", ca_bundle=str(tmp_path / "tls" / "cert.pem"))
        got = backend.get("registry.json", limit_bytes=100)
        backend.close()
        assert got is not None
        assert got.data == EMPTY
        (seen,) = server.seen
        assert seen.headers["authorization"] == "Bearer geheim"
        assert "proxy-authorization" not in seen.headers
    (head,) = heads
    assert head.startswith(b"CONNECT 127.0.0.1:")
    assert BASIC.encode() in head  # its own, of the environment
    assert b"geheim" not in head


def test_a_bundle_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("none.pem", "empty.pem"):
        with pytest.raises(ConfigError, match="cannot be read"):
            connect("https://a.test/", ca_bundle=str(tmp_path / name))


def test_an_address_that_is_named_has_the_credentials_of_the_registry_there() -> None:
    sources = (
        RegistrySource("a", "https://h.test/a/", "token-a"),
        RegistrySource("b", "https://h.test/b", "token-b"),
        RegistrySource("here", "/srv/registry", "token-here"),
    )
    found = {
        url: source_at(url, sources, Network()).token
        for url in (
            "https://h.test/a/", "https://h.test/b", "https://h.test/b/c/", "https://h.test/bb/",
            "https://h.test:444/a/", "http://h.test/a/", "https://i.test/a/", "/srv/registry", "/srv/other",
        )
    }  # fmt: skip
    assert list(found.values()) == ["token-a", "token-b", "token-b", "token-a", None, None, None, None, None]
