"""Real servers on loopback for tests: Python's, nginx, and one that misbehaves by script.

    with static_server(folder) as url: …                  # http.server: no ranges, HTTP/1.0
    with nginx_server(folder) as nginx: …                 # ranges, keep-alive, an access log; may skip
    with ScriptedServer([Reply(status=503), Reply(body=b"hello")]) as server: …
    with ScriptedServer(files({"registry.json": b"{}"})) as server: …

A script is a list of replies, one for each request in order, or a function from `Seen` to `Reply`:

    good = files(tree)
    bad = lambda seen: replace(good(seen), cut_at=100) if seen.number == 0 else good(seen)

Ports are the kernel's choice, every wait is bounded, and leaving the `with` ends everything at once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import pytest

PATIENCE_S = 10.0
START_S = 60.0  # of a process, on a busy machine


def first_line(stream: IO[bytes]) -> str:
    """The first line of a process's output; empty if there is none within `START_S`."""
    lines: list[bytes] = []  # read by a thread, since Windows cannot wait for a pipe
    reader = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(START_S)
    return lines[0].decode() if lines else ""


@contextlib.contextmanager
def static_server(root: Path) -> Iterator[str]:
    """`python -m http.server` over `root`; yields its URL.  It answers 200 to ranged requests."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", root, "0"]
    with _process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        line = first_line(process.stdout)
        match = re.search(r"port (\d+)", line)
        assert match, f"http.server did not start: {line!r}"
        yield f"http://127.0.0.1:{match[1]}/"


@dataclass(frozen=True)
class Logged:
    """One line of nginx's access log; `sent_bytes` are those of the body."""

    method: str
    path: str
    status: int
    sent_bytes: int
    range: str


@dataclass
class Nginx:
    url: str
    _log: Path

    def requests(self, *, at_least: int = 0) -> list[Logged]:
        """What was asked so far; waits until there are `at_least` that many, as nginx logs late."""
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            text = self._log.read_text() if self._log.exists() else ""
            lines = [line.split("\t") for line in text.splitlines(keepends=True) if line.endswith("\n")]
            if len(lines) >= at_least:
                return [Logged(m, p, int(s), int(b), r.strip()) for m, p, s, b, r in lines]
            assert time.monotonic() < give_up_s, f"nginx logged {len(lines)} requests, not {at_least}"
            time.sleep(0.01)

    def forget(self) -> None:
        """Empty the log."""
        os.truncate(self._log, 0)


_NGINX_CONF = """
daemon off; worker_processes 2; pid {prefix}/pid; error_log {prefix}/error.log;
{user}
events {{ worker_connections 256; }}
http {{
  log_format t '$request_method\t$request_uri\t$status\t$body_bytes_sent\t$http_range';
  access_log {prefix}/access.log t;
  client_body_temp_path {prefix}/t1; proxy_temp_path {prefix}/t2; fastcgi_temp_path {prefix}/t3;
  uwsgi_temp_path {prefix}/t4; scgi_temp_path {prefix}/t5;
  sendfile on; keepalive_timeout 60; default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port}; root {root}; {extra} }}
}}
"""


@contextlib.contextmanager
def nginx_server(root: Path, prefix: Path, *, extra: str = "") -> Iterator[Nginx]:
    """nginx over `root`, its own files in the new folder `prefix`; `extra` goes into `server {}`.

    Skips the test where nginx is not installed.
    """
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("nginx is not installed (Debian: apt install nginx-light)")
    prefix.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # nginx leaves an adopted socket as it is, and would hang in accept
        port = listener.getsockname()[1]
        conf = prefix / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # else its workers could not read tmp_path
        conf.write_text(_NGINX_CONF.format(prefix=prefix, port=port, root=root, extra=extra, user=user))
        # nginx adopts a listening socket named in $NGINX, as in its own upgrades: no race for the port.
        process = _process(
            [binary, "-p", prefix, "-c", conf, "-e", prefix / "error.log"],
            pass_fds=[listener.fileno()],
            env={"PATH": os.defpath, "NGINX": f"{listener.fileno()};"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with process as running:
            # The socket takes connections already; only the log tells whether anybody will answer.
            _wait_for_answer(port, running, prefix / "error.log")
            nginx = Nginx(f"http://127.0.0.1:{port}/", prefix / "access.log")
            nginx.requests(at_least=1)
            nginx.forget()
            yield nginx


def _wait_for_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as probe:
        probe.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        answer = probe.recv(64)
    assert answer.startswith(b"HTTP/1.1"), f"nginx did not start ({process.poll()}): {log.read_text()}"


@contextlib.contextmanager
def _process(command: Sequence[str | Path], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, **options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(frozen=True)
class Seen:
    """One request as it arrived; `headers` has lower-case names, `path` is the raw target.

    `number` counts all requests of this server from 0, `connection` the connections they came by.
    """

    number: int
    connection: int
    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> tuple[int, int | None] | None:
        """(first, last) of `Range: bytes=first-last`; last is None for an open end."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) if match[2] else None) if match else None


@dataclass(frozen=True)
class Reply:
    """One answer.  Content-Length is added unless `length` is False or `headers` has one of its kind.

    `delay_s` passes before the first byte and `pause_s` between the pieces of `body`, until `hurry` is set.
    `cut_at`: close the connection after that many bytes of the body; `reset`: and do so with a TCP RST.
    `raw`: send these bytes instead of status line, headers and body (pieces with `pause_s` between).
    `close`: close afterwards, without saying so.
    """

    status: int = 200
    body: bytes | Sequence[bytes] = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: bool = True
    delay_s: float = 0.0
    pause_s: float = 0.0
    hurry: threading.Event | None = None
    cut_at: int | None = None
    reset: bool = False
    close: bool = False
    raw: bytes | Sequence[bytes] | None = None


Script = Callable[[Seen], Reply] | Sequence[Reply]


def chunked(pieces: Iterable[bytes]) -> list[bytes]:
    """Pieces of a body for `Transfer-Encoding: chunked`, the end included."""
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]


def ranged(data: bytes, seen: Seen) -> Reply:
    """The right answer of a server that knows ranges."""
    headers = {"Accept-Ranges": "bytes"}
    if seen.range is None:
        return Reply(body=data, headers=headers)
    first, last = seen.range[0], min(len(data) - 1 if seen.range[1] is None else seen.range[1], len(data) - 1)
    if first >= len(data):
        return Reply(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Reply(status=206, body=data[first : last + 1], headers=headers)


def files(tree: Mapping[str, bytes]) -> Callable[[Seen], Reply]:
    """A script that serves `tree` (relative paths) as a good server does; 404 for all else."""

    def script(seen: Seen) -> Reply:
        data = tree.get(unquote(seen.path.partition("?")[0]).lstrip("/"))
        return Reply(status=404) if data is None else ranged(data, seen)

    return script


_LARGE = 100_000


# How much of a body a slow server sends between two pauses.
_PIECE_BYTES = 16 * 1024


def throttled(tree: dict[str, bytes], *, pause_s: float) -> Callable[[Seen], Reply]:
    """A good server that sends packs and downloads slowly."""
    good = files(tree)

    def script(seen: Seen) -> Reply:
        reply = good(seen)
        body = reply.body
        if not isinstance(body, bytes) or len(body) < _PIECE_BYTES or "registry.json" in seen.path:
            return reply
        pieces = [body[at : at + _PIECE_BYTES] for at in range(0, len(body), _PIECE_BYTES)]
        return replace(reply, body=pieces, pause_s=pause_s)

    return script


def trickling(root: Path, hurry: threading.Event) -> Callable[[Seen], Reply]:
    """A script that serves a registry's folder; the last bytes of long answers come with `hurry`.

    Until it is set a few bytes come now and then, so that no client takes it for stalled.
    """
    good = files(
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    )

    def script(seen: Seen) -> Reply:
        reply = good(seen)
        if not seen.path.endswith(".pack") or not isinstance(reply.body, bytes) or len(reply.body) < _LARGE:
            return reply
        most = len(reply.body) - 1000
        rest = [reply.body[at : at + 5] for at in range(most, len(reply.body), 5)]
        return replace(reply, body=[reply.body[:most], *rest], pause_s=0.2, hurry=hurry)

    return script


class ScriptedServer:
    """An HTTP/1.1 server in this process that does what its script says.

    `url` is its address, `seen` the requests so far.  When a list of replies has ended, further
    requests get a 599, which no client takes for anything good.  With `tls` it speaks https.
    """

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = script
        self._tls = tls
        self._host = host
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._connections = 0
        self.seen: list[Seen] = []
        self.errors: list[BaseException] = []

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}/"

    def rescript(self, script: Script) -> None:
        """Another script, for replies that need the address of this server or another."""
        self._script = script

    def __enter__(self) -> ScriptedServer:
        self._listener = socket.create_server((self._host, 0))
        self.port: int = self._listener.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a server thread hangs"
        assert not self.errors, f"the script failed: {self.errors}"

    def wait_until_closed(self) -> None:
        """Wait until the server has closed all connections."""
        limit = time.monotonic() + PATIENCE_S
        while True:
            with self._lock:
                if not self._open:
                    return
            assert time.monotonic() < limit, "a connection stays open"
            time.sleep(0.01)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopping.is_set():
                self._spawn(self._serve, self._listener.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            number, self._connections = self._connections, self._connections + 1
            self._open.add(connection)
        raw = connection
        try:
            if self._tls is None and connection.recv(1, socket.MSG_PEEK) == b"\x16":
                # A TLS hello, whose bytes may look like a request or not: answered as plain servers do.
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                return
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._open.add(connection)
            with connection.makefile("rb") as stream:
                while not self._stopping.is_set() and self._exchange(connection, stream, number):
                    pass
        except OSError:
            pass  # The client has left, or we are stopping.
        except Exception as error:  # noqa: BLE001 (a defect of the script; told in __exit__)
            self.errors.append(error)
        finally:
            with self._lock:
                self._open -= {raw, connection}
                connection.close()
                raw.close()

    def _exchange(self, connection: socket.socket, stream: Iterable[bytes], number: int) -> bool:
        """One request and its answer; whether the connection goes on."""
        lines = iter(stream)
        words = next(lines, b"").decode("latin-1").split()
        if len(words) < 2:
            return False
        headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.decode("latin-1").strip().partition(":")
            if not colon:
                break
            headers[name.lower()] = value.strip()
        with self._lock:
            seen = Seen(len(self.seen), number, words[0], words[1], headers)
            self.seen.append(seen)
        if callable(self._script):
            reply = self._script(seen)
        else:
            reply = self._script[seen.number] if seen.number < len(self._script) else Reply(status=599)
        if self._stopping.wait(reply.delay_s):
            return False
        return self._send(connection, reply)

    def _send(self, connection: socket.socket, reply: Reply) -> bool:
        pieces = _pieces(reply.body)
        if reply.raw is not None:
            pieces = _pieces(reply.raw)
        else:
            connection.sendall(_head(reply, sum(map(len, pieces))))
        left = sum(map(len, pieces)) if reply.cut_at is None else reply.cut_at
        for index, piece in enumerate(pieces):
            in_time = reply.hurry is not None and reply.hurry.is_set()
            if index and not in_time and self._stopping.wait(reply.pause_s):
                return False
            connection.sendall(piece[:left])
            left -= len(piece[:left])
        if reply.reset:
            time.sleep(0.02)  # Let what was sent arrive; an RST overtakes it otherwise.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return not (reply.reset or reply.close or reply.cut_at is not None)


def _pieces(body: bytes | Sequence[bytes]) -> list[bytes]:
    return [body] if isinstance(body, bytes) else list(body)


def _head(reply: Reply, size: int) -> bytes:
    lines = [
        f"HTTP/1.1 {reply.status} Scripted",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    names = {name.lower() for name in reply.headers}
    if reply.length and not names & {"content-length", "transfer-encoding"} and reply.status != 304:
        lines.append(f"Content-Length: {size}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def self_signed(folder: Path, *, host: str = "127.0.0.1") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server context, client context that trusts it) for a new certificate of `host`; may skip."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder.mkdir()
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test"
    )
    extra = ["-addext", f"subjectAltName=IP:{host}", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *extra], check=True, capture_output=True, timeout=PATIENCE_S)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))
