"""https through a proxy that speaks TLS itself: right bytes, refused certificates, no endless wait."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.servers import Reply, ScriptedServer, ranged, self_signed
from yarnstore.backends.base import Timeouts
from yarnstore.backends.http import HttpBackend
from yarnstore.errors import BackendError, TransientError

BODY = bytes(range(251)) * 12_000
FAST = Timeouts(connect_s=1.0, stall_s=1.0, window_s=1.0, floor_bytes_per_s=1024.0, get_s=3.0)
OPENED = b"HTTP/1.1 200 OK\r\n\r\n"
# The beginning of a handshake of 16 KiB, whose rest comes in single bytes.
HELLO = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"


@contextlib.contextmanager
def tls_proxy(tls: ssl.SSLContext, target: int) -> Iterator[str]:
    """A proxy that leads every CONNECT to a port of this machine; yields its address."""

    def pass_on(client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            tls.wrap_socket(client, server_side=True) as near,
            socket.create_connection(("127.0.0.1", target)) as far,
        ):
            assert near.recv(4096).startswith(b"CONNECT ")
            near.sendall(OPENED)
            while True:
                ready = [near] if near.pending() else select.select([near, far], [], [], 10)[0]
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=pass_on, args=(listener.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def read(backend: HttpBackend, start: int, length: int) -> bytes:
    with backend.open("x", start=start, length=length) as body:
        return b"".join(body)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("no_proxy", "")
    return monkeypatch


def test_ranges_come_through_a_tunnel_over_one_connection(
    tmp_path: Path, through: pytest.MonkeyPatch
) -> None:
    tls, trust = self_signed(tmp_path / "tls")
    with (
        ScriptedServer(lambda seen: ranged(BODY, seen), tls=tls) as server,
        tls_proxy(tls, server.port) as address,
    ):
        through.setenv("https_proxy", address)
        with closing(HttpBackend(f"https://127.0.0.1:{server.port}/", ssl_context=trust)) as backend:
            for start, length in ((0, 2_000_000), (5, 10), (1_000_000, 1_500_000), (len(BODY) - 7, 7)):
                assert read(backend, start, length) == BODY[start : start + length]
        assert {seen.connection for seen in server.seen} == {0}


def test_a_certificate_within_a_tunnel_is_checked(tmp_path: Path, through: pytest.MonkeyPatch) -> None:
    outer, trust = self_signed(tmp_path / "outer")
    inner, _ = self_signed(tmp_path / "inner")
    with ScriptedServer([Reply(body=b"no")], tls=inner) as server, tls_proxy(outer, server.port) as address:
        through.setenv("https_proxy", address)
        url = f"https://127.0.0.1:{server.port}/"
        with (
            closing(HttpBackend(url, ssl_context=trust, timeouts=FAST)) as backend,
            pytest.raises(BackendError, match="its TLS certificate is not accepted"),
        ):
            read(backend, 0, 2)
        assert not server.seen


def test_a_handshake_within_a_tunnel_that_drips_is_given_up(
    tmp_path: Path, through: pytest.MonkeyPatch
) -> None:
    tls, trust = self_signed(tmp_path / "tls")
    drip = Reply(raw=[OPENED, HELLO, *[b"\0"] * 400], pause_s=0.05)
    with ScriptedServer(lambda _: drip, tls=tls) as proxy:
        through.setenv("https_proxy", proxy.url)
        url = "https://registry.invalid/"
        began_s = time.monotonic()
        with (
            closing(HttpBackend(url, ssl_context=trust, timeouts=FAST)) as backend,
            pytest.raises(TransientError, match="no connection within 1 s"),
        ):
            read(backend, 0, 2)
        assert time.monotonic() - began_s < 5
