"""A registry over real HTTP on loopback: nginx where it is installed, else `python -m http.server`."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import nginx_server, static_server


@dataclass(frozen=True)
class Server:
    """`sent_bytes` tells how many bytes of bodies it sent since it was last asked; None if it cannot."""

    url: str
    sent_bytes: Callable[[], int | None]


def server_name() -> str:
    return "nginx" if _nginx() else "python -m http.server"


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def serve(root: Path, work: Path) -> Iterator[Server]:
    if _nginx() is None:
        with static_server(root) as url:
            yield Server(url, lambda: None)
        return
    with (
        tempfile.TemporaryDirectory(dir=work, prefix="nginx-") as folder,
        nginx_server(root, Path(folder) / "prefix") as nginx,
    ):

        def sent_bytes() -> int:
            # nginx logs a request just after its client has the answer; one of our own closes the list.
            requests = nginx.requests(at_least=1)
            nginx.forget()
            return sum(request.sent_bytes for request in requests)

        yield Server(nginx.url, sent_bytes)
