"""A handle of a job outlives the connections that it is told through."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import PATIENCE_S, needs_web, serving
from tests.support.stores import MODEL
from yarnstore.client import Client
from yarnstore.errors import TransientError

pytestmark = needs_web
PAUSED = {
    "id": "a" * 16, "kind": "fetch", "state": "paused", "created_ms": 1,
    "arguments": {"model": MODEL, "version": "1.1.0"},
}  # fmt: skip


class Proxy:
    """Passes bytes on to `target`, until its connections are cut."""

    def __init__(self) -> None:
        self.target = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here = self._listener.accept()[0]
                there = socket.create_connection(("127.0.0.1", self.target), PATIENCE_S)
                self._open += [here, there]
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=_pass_on, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        """Close all connections, but accept new ones."""
        while self._open:
            with contextlib.suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with source, contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


def test_a_stream_that_a_proxy_cuts_is_opened_again(tmp_path: Path, proxy: Proxy) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "jobs.json").write_text(json.dumps({"jobs": [PAUSED], "format": 1}))
    with serving(home, "--allow-host", f"127.0.0.1:{proxy.port}") as service:
        proxy.target = service.client.base_url.port or 0
        token = str(service.ready["token"])
        with Client(f"http://127.0.0.1:{proxy.port}/", token, timeout_s=PATIENCE_S) as client:
            states = iter(client.job("a" * 16))
            assert next(states).state == "paused"
            proxy.cut()
            assert next(states).state == "paused"
            service.post(f"/jobs/{'a' * 16}/cancel")
            assert [job.state for job in states] == ["cancelled"]
            service.process.kill()
            proxy.cut()
            with pytest.raises(TransientError):
                client.job("a" * 16)
