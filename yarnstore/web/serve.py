"""The service as a process: its socket, its tokens, signals, and the end of its parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

import uvicorn

from yarnstore import Store
from yarnstore.errors import ConflictError, StorageError, UsageError
from yarnstore.settings.load import runtime_folder
from yarnstore.store import folders, fsio, fsread, paths
from yarnstore.store.native import quoted, wait_for_parent
from yarnstore.web.access import Access, new_token
from yarnstore.web.app import guarded, make_app
from yarnstore.web.browser import LoginPage
from yarnstore.web.faces.front import Face
from yarnstore.web.faces.hub import Hub
from yarnstore.web.faces.library import Library
from yarnstore.web.faces.oci import Oci
from yarnstore.web.guard import HEADER_LIMIT_BYTES
from yarnstore.web.log import print_seldom
from yarnstore.web.memory import keep_small
from yarnstore.web.protocol import TimedProtocol
from yarnstore.web.service import Service

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TOKEN_CHARS = 32
_TOKEN_FILE_LIMIT_BYTES = 4096


@dataclass(frozen=True)
class Options:
    """How to reach the service.  With `port` 0 the system chooses."""

    host: str = "127.0.0.1"
    port: int = 0
    allow_hosts: tuple[str, ...] = ()
    token_file: str | None = None
    read_only: bool = False
    parent: int | None = None  # the service ends with this process
    open_browser: bool = False
    tls_certificate: str | None = None
    tls_key: str | None = None
    plain_http: bool = False
    hub: bool = False
    oci: bool = False
    fill: bool = False


@dataclass(frozen=True)
class Ready:
    """What `--ready-json` prints."""

    url: str
    login_url: str
    token: str
    pid: int


def serve(open_store: Callable[[], Store], options: Options, on_ready: Callable[[Ready], None]) -> None:
    """Serve until SIGTERM, SIGINT, on Windows SIGBREAK or, if requested, the end of the parent process.

    Raises: UsageError, ConfigError, StorageError; LockTimeoutError if another service has the jobs;
    ConflictError if the store was removed or replaced meanwhile.
    """
    _check(options)
    keep_small()
    print_seldom()
    listener = _listen(options)
    try:
        port = listener.getsockname()[1]
        secure = options.tls_certificate is not None
        scheme = "https" if secure else "http"
        token = _read_token(options.token_file) if options.token_file else new_token()
        access = Access(token, cookie=f"ystore_session_{port}")
        service = Service(open_store, access, read_only=options.read_only, secure=secure)
        service.jobs.open()
        app = guarded(
            make_app(service),
            service,
            _hosts(options, port),
            scheme=scheme,
            proxied=options.allow_hosts,
            faces=_faces(service, options),
        )
        url = f"{scheme}://{_in_url(options.host)}:{port}/"
        server = _Server(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                date_header=False,  # the guard adds it: uvicorn's is as old as its last tick
                proxy_headers=False,
                ws="none",
                http=TimedProtocol,
                loop="asyncio",
                h11_max_incomplete_event_size=HEADER_LIMIT_BYTES,
                timeout_graceful_shutdown=5,
                ssl_certfile=options.tls_certificate,
                ssl_keyfile=options.tls_key,
            ),
            service,
        )
        service.jobs.keeper.when_replaced = server.end
        if options.parent is not None:
            threading.Thread(target=_follow, args=(options.parent, server.end), daemon=True).start()
        listener.listen(128)
        login = f"{url}login?token={access.new_login()}"
        with _ending_quietly(server), contextlib.ExitStack() as stack:
            on_ready(Ready(url, login, token, os.getpid()))
            if options.open_browser:
                page = LoginPage(runtime_folder() if options.read_only else service.home / "tmp")
                stack.callback(page.remove)
                link = f"{url}login?token={access.new_login()}"
                # A text browser returns when its user leaves it.
                threading.Thread(target=page.open, args=(link,), daemon=True).start()
            server.run(sockets=[listener])
        if service.jobs.keeper.is_replaced():
            service.jobs.keeper.check()
    finally:
        listener.close()


class _Server(uvicorn.Server):
    """A server that sleeps while there are no requests, and ends its streams when it stops."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None

    async def main_loop(self) -> None:
        """Wait for the end without polling; uvicorn's own loop polls ten times a second."""
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        await self.on_tick(0)
        if not self.should_exit:
            await self._ending.wait()
        self._service.end()

    def end(self) -> None:
        """Begin to stop, from any thread or a signal handler."""
        self.should_exit = True
        if self._loop is not None and self._ending is not None:
            self._loop.call_soon_threadsafe(self._ending.set)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        super().handle_exit(sig, frame)
        self.end()


@contextlib.contextmanager
def _ending_quietly(server: _Server) -> Iterator[None]:
    """Let a signal stop the server even before it handles signals itself, with exit code 0.

    uvicorn raises the signals that it handled once more when it has ended.
    """
    numbers = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)  # a console sends it when it is closed, and for Ctrl-Break
    before = [signal.signal(number, lambda *_: server.end()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _faces(service: Service, options: Options) -> list[Face]:
    library = Library(service, fill=options.fill)
    return [
        *([Hub(library)] if options.hub else []),
        *([Oci(library, service.access.token)] if options.oci else []),
    ]


def _check(options: Options) -> None:
    if options.fill and options.read_only:
        raise UsageError(
            "--fill downloads into the store, which --read-only refuses", hint="give one of them"
        )
    if options.fill and not (options.hub or options.oci):
        raise UsageError("--fill is for clients of --hub and --oci", hint="add one of them")
    if (options.tls_certificate is None) != (options.tls_key is None):
        raise UsageError("--tls-cert and --tls-key must be given together")
    if options.tls_certificate is not None and options.tls_key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.tls_certificate, options.tls_key)
        except OSError as error:
            raise UsageError(
                f"--tls-cert and --tls-key cannot be used: {error.strerror or error}",
                hint="give the certificate, with its chain, and its private key as PEM files",
            ) from None
    for name in options.allow_hosts:
        if "*" in name or "/" in name or not name.strip():
            raise UsageError(
                f"--allow-host {name!r} is not a host name", hint="give one such as models.example.org"
            )
    if options.host not in LOOPBACK and options.tls_certificate is None and not options.plain_http:
        raise UsageError(
            f"--host {options.host} reaches other machines, and sends the token in plain text",
            hint="give --tls-cert and --tls-key, or --plain-http behind a proxy that adds TLS",
        )


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        raise StorageError(
            f"cannot listen on {options.host} port {options.port}: {error.strerror or error}",
            hint="--port 0 lets the system choose a free port",
        ) from None
    listener.set_inheritable(False)
    return listener


def _hosts(options: Options, port: int) -> list[str]:
    names = [*LOOPBACK[:1], "[::1]", "localhost"]
    if options.host not in (*LOOPBACK, "0.0.0.0", "::"):  # noqa: S104 - which no request names
        names.append(_in_url(options.host))
    usual = "443" if options.tls_certificate else "80"
    found = [f"{name}:{port}" for name in names]
    if str(port) == usual:
        found += names
    for name in options.allow_hosts:
        found += [name, f"{name}:{port}"]
    return found


def _in_url(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104 - all addresses of this machine, of which one is
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104
    return f"[{host}]" if ":" in host else host


def _read_token(name: str) -> str:
    """Return the token in a file, which is created with a new token if it is missing."""
    path = paths.absolute(name)
    if not fsread.is_file(path):
        token = new_token()
        folders.add_root(path.parent)
        fsio.write_atomic(path, f"{token}\n".encode(), tmp_dir=path.parent, mode=0o600)
        return token
    found = os.stat(path)
    if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
        raise ConflictError(f"{path} can be read by other users", hint=f"chmod 600 {quoted(str(path))}")
    try:
        token = fsread.read_bytes(path, _TOKEN_FILE_LIMIT_BYTES).decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if len(token) < _TOKEN_CHARS or not token.isprintable() or " " in token:
        raise UsageError(
            f"{path} has no token: a line of at least {_TOKEN_CHARS} letters and digits",
            hint="delete the file, and `ystore serve` writes a new token into it",
        )
    return token


def _follow(parent: int, end: Callable[[], None]) -> None:
    """Call `end` once the process `parent`, which started this one, has ended."""
    wait_for_parent(parent)
    end()
