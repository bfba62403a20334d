"""`ystore serve` in a process of its own.

with serving(home) as service:
    service.get("/models").json()
    job = service.finished(service.post("/models/phi-3-mini/update", json={}).json())
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

API = "/api/v1"
PATIENCE_S = 120.0
HAS_WEB = importlib.util.find_spec("litestar") is not None and importlib.util.find_spec("uvicorn") is not None
needs_web = pytest.mark.skipif(not HAS_WEB, reason="needs the extra: pip install 'yarnstore[web]'")

# On Windows only a console sends signals: a thread raises the same one when its connection to the test ends.
_RAISING = """
import signal, socket, threading
from yarnstore.cli import main
line = socket.create_connection(("127.0.0.1", {port}))
def end():
    line.recv(1)
    signal.raise_signal(signal.{name})
threading.Thread(target=end, daemon=True).start()
main()
"""


class Bell:
    """Lets a process of `ystore` raise a signal in itself, which elsewhere a service manager sends."""

    def __init__(self, name: str) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(PATIENCE_S)
        # The arguments of Python, in place of `-m yarnstore`.
        self.program = ["-c", _RAISING.format(name=name, port=self._server.getsockname()[1])]

    def ring(self) -> None:
        with self._server:
            self._server.accept()[0].close()

    def close(self) -> None:
        self._server.close()


@dataclass
class Running:
    """A service, and a client that has its token."""

    process: subprocess.Popen[str]
    ready: Mapping[str, Any]
    client: httpx.Client
    bell: Bell | None = None

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request of the API, by its path below `/api/v1`."""
        return self.client.request(method, API + path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def wait_for(self, identity: str, *states: str) -> dict[str, Any]:
        """A job once it has one of the states."""
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            job: dict[str, Any] = self.get(f"/jobs/{identity}").json()
            if job["state"] in states:
                return job
            assert time.monotonic() < give_up_s, job
            time.sleep(0.02)

    def until(self, seen: Callable[[], object]) -> None:
        """Wait until something is true, such as what a click on the page leads to."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not seen():
            assert time.monotonic() < give_up_s, "it did not become true"
            time.sleep(0.05)

    def finished(self, answer: httpx.Response) -> dict[str, Any]:
        """The job of a 202 answer, once it has ended."""
        assert answer.status_code == 202, answer.text
        return self.wait_for(answer.json()["id"], "done", "failed", "cancelled")

    def done(self, answer: httpx.Response) -> dict[str, Any]:
        """The result of the job of a 202 answer."""
        job = self.finished(answer)
        assert job["state"] == "done", job
        result: dict[str, Any] = job["result"]
        return result

    def stop(self) -> int:
        """End it as a service manager does; its exit code."""
        if self.bell is None:
            self.process.terminate()
        else:
            self.bell.ring()
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def serving(home: Path, *options: str, **settings: Any) -> Iterator[Running]:
    """`ystore serve` over a store, on a port of the system's choice; `settings` are Popen's."""
    if not HAS_WEB:
        pytest.skip("needs the extra: pip install 'yarnstore[web]'")
    bell = Bell("SIGBREAK") if os.name == "nt" else None
    program = bell.program if bell else ["-m", "yarnstore"]
    command = [sys.executable, *program, "serve", "--ready-json", "--home", str(home), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **settings) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"ystore serve ended with {process.wait(PATIENCE_S)}"
            ready = json.loads(line)
            headers = {"Authorization": f"Bearer {ready['token']}"}
            with httpx.Client(base_url=ready["url"], headers=headers, timeout=PATIENCE_S) as client:
                yield Running(process, ready, client, bell)
        finally:
            process.kill()
            if bell:
                bell.close()
