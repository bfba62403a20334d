"""Connections below httpx: their peers, their proxies, and how long they may take.

Owns three things that httpx does not provide: refusing a peer by its address before a byte is sent to it,
proxies from the environment, and `Patience`, which sees every read of a socket.  httpx's own read timeout
begins again with each byte, so that one byte every 29 s would keep it waiting for ever; and a loop over the
body does not see headers, 1xx responses and chunk extensions that arrive slowly.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import httpcore
import httpx

from yarnstore.backends.proxies import HINT, environment_proxies, parse_proxy, proxy_for, shown_proxy
from yarnstore.backends.targets import is_refused_address
from yarnstore.backends.trust import usual_trust
from yarnstore.backends.urls import shown
from yarnstore.errors import BackendError, ConfigError, TransientError

# As many as the engine may have threads, so that none waits for another's connection.
CONNECTIONS_LIMIT: Final = 64
# Shorter than common servers keep a connection, so that the race to reuse one they close is rare.
KEEPALIVE_S: Final = 15.0

# The delay after which a request to a silent server is stopped.
_POLL_S: Final = 0.2
# The size of one read of a socket.  httpcore requests 64 KiB, with a poll, a copy in h11 and some fifty calls
# for each.
READ_BYTES: Final = 1 << 20
# A caller that takes longer than this for the data of one read, such as under a rate limit, gets httpcore's
# smaller reads, so that no server waits for minutes until it can send more.
_BUSY_S: Final = 0.1

_SocketOptions = Iterable[Any]
_current = threading.local()


class Patience:
    """How long one response may take, redirects included.

    Only time spent waiting for the server counts, not the caller's work between two blocks. `check` is called
    while the server is silent, and may raise to end the request. Every `window_s` of waiting must bring
    `window_s · floor_bytes_per_s` bytes of payload, and the whole response must end within `deadline_s`.
    Connecting, headers and framing bring no payload.
    """

    def __init__(
        self,
        url: str,
        *,
        window_s: float,
        floor_bytes_per_s: float,
        deadline_s: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> None:
        self._check = check
        self._url = url
        self._window_s = window_s
        self._want_bytes = window_s * floor_bytes_per_s
        self._left_s = deadline_s
        self._waited_s = 0.0
        self._got_bytes = 0
        self._since_s = time.monotonic()
        # Of the last request: how many bytes the server sent, and whether it closed the connection.
        self.heard_bytes = 0
        self.ended = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the reads of this thread while the context lasts; for every call that may block."""
        _current.patience = self
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            _current.patience = None
            self._account()

    def asked(self) -> None:
        """Note that a request is sent."""
        self.heard_bytes, self.ended = 0, False

    def heard(self, size_bytes: int) -> None:
        """Note the size of one read; 0 bytes are the end of the connection."""
        self.heard_bytes += size_bytes
        self.ended = not size_bytes

    def pay(self, size_bytes: int) -> None:
        """Note that payload has arrived."""
        self._got_bytes += size_bytes

    def clip(self, timeout_s: float | None) -> float:
        """Return how long the next read may block.  Raises: TransientError if time is up; as `check`."""
        if self._check is not None:
            self._check()
            timeout_s = _POLL_S if timeout_s is None else min(timeout_s, _POLL_S)
        self._account()
        if self._left_s is not None and self._left_s <= 0:
            raise TransientError(self._url, "stalled: not finished before the deadline", reason="stalled")
        if self._waited_s >= self._window_s:
            if self._got_bytes < self._want_bytes:
                why = f"stalled: {self._got_bytes} bytes in {self._waited_s:.1f} s"
                raise TransientError(self._url, why, reason="stalled")
            self._waited_s, self._got_bytes = 0.0, 0
        bounds = [self._window_s - self._waited_s, self._left_s, timeout_s]
        return max(min(bound for bound in bounds if bound is not None), 0.001)

    def _account(self) -> None:
        now_s = time.monotonic()
        passed_s = now_s - self._since_s
        self._since_s = now_s
        self._waited_s += passed_s
        if self._left_s is not None:
            self._left_s -= passed_s


class _Stream(httpcore.NetworkStream):
    """A connection whose reads are limited by the `Patience` of this thread.

    `heard` tells whether anything was read since the last request was written.
    """

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner
        self._read_s = 0.0  # when the last read ended
        self._reads = 0  # since the last request was written

    @property
    def heard(self) -> bool:
        return self._reads > 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # The first brings the headers; how long the caller takes over what comes is known from the third.
        if self._reads > 1 and time.monotonic() - self._read_s < _BUSY_S:
            max_bytes = max(max_bytes, READ_BYTES)
        self._reads += 1
        try:
            return self._read(max_bytes, timeout)
        finally:
            self._read_s = time.monotonic()

    def _read(self, max_bytes: int, timeout: float | None) -> bytes:
        patience: Patience | None = getattr(_current, "patience", None)
        if patience is None:
            return self._inner.read(max_bytes, timeout)
        left_s = timeout
        while True:
            bound_s = patience.clip(left_s)
            try:
                data = self._inner.read(max_bytes, bound_s)
            except httpcore.ReadTimeout:
                # Perhaps ended by the end of a window that received enough: read again.
                if left_s is not None:
                    left_s -= bound_s
                    if left_s <= 0:
                        raise
            else:
                patience.heard(len(data))
                return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._reads = 0
        patience: Patience | None = getattr(_current, "patience", None)
        if patience is not None:
            patience.asked()
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 (httpcore's signature)
        return self._inner.get_extra_info(info)


class _Network(httpcore.NetworkBackend):
    """Connects, and refuses a peer at a forbidden address."""

    def __init__(self, *, check_peer: bool) -> None:
        self._inner = httpcore.SyncBackend()
        self._check_peer = check_peer

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            if self._check_peer:
                _check_peer(f"{host}:{port}", str(stream.get_extra_info("server_addr")[0]))
        except BaseException:
            stream.close()
            raise
        return _Stream(stream)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


def _check_peer(where: str, address: str) -> None:
    if is_refused_address(address):
        raise BackendError(where, f"is {address}, a link-local or metadata address, which is refused")


class _Bytes(httpx.SyncByteStream):
    def __init__(self, stream: Iterable[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()


class Transport(httpx.BaseTransport):
    """httpcore connection pools, made when needed: one for direct connections and one for each proxy.

    Proxies are those of the environment (see `proxies`).  A proxy resolves names itself, so that peers behind
    it are not checked.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None, trust_env: bool) -> None:
        self._ssl_context = ssl_context
        self._trust_env = trust_env
        self._proxies = environment_proxies() if trust_env else {}
        self._pools: dict[tuple[str, str], httpcore.ConnectionPool] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        reply = self._pool_for(url).handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=cast("Iterable[bytes]", request.stream),
                extensions=request.extensions,
            )
        )
        stream = reply.extensions.get("network_stream")
        if isinstance(stream, _Stream) and not stream.heard:
            # It was in the buffer, after the end of the previous response.
            reply.close()
            raise httpcore.RemoteProtocolError("sent a response before the request")
        return httpx.Response(
            reply.status,
            headers=reply.headers,
            stream=_Bytes(cast("Iterable[bytes]", reply.stream)),
            extensions=reply.extensions,
        )

    def close(self) -> None:
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    def proxy_of(self, url: httpx.URL) -> str:
        """Return the proxy for `url` without user and password, for messages; empty without one."""
        proxy = proxy_for(url, self._proxies)
        try:
            return shown_proxy(proxy) if proxy else ""
        except httpx.InvalidURL:
            return "in the environment"

    def _pool_for(self, url: httpx.URL) -> httpcore.ConnectionPool:
        proxy = proxy_for(url, self._proxies)
        # A certificate store takes 20 ms to read, which plain http need not wait for.
        key = url.scheme, proxy
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._make_pool(proxy, tls=url.scheme == "https")
            return self._pools[key]

    def _make_pool(self, proxy: str, *, tls: bool) -> httpcore.ConnectionPool:
        context = self._ssl_context
        if context is None and (tls or proxy.startswith("https:")):
            context = usual_trust(trust_env=self._trust_env)
        if not proxy:
            return httpcore.ConnectionPool(
                ssl_context=context,
                max_connections=CONNECTIONS_LIMIT,
                keepalive_expiry=KEEPALIVE_S,
                network_backend=_Network(check_peer=True),
            )
        try:
            via = parse_proxy(proxy)
        except httpx.InvalidURL:
            raise ConfigError("the proxy in the environment is not a URL", hint=HINT) from None
        if via.scheme not in ("http", "https") or not via.host:
            raise ConfigError(f"cannot use the proxy {shown(via)}", hint="use an http:// or https:// proxy")
        return httpcore.HTTPProxy(
            proxy_url=httpcore.URL(scheme=via.raw_scheme, host=via.raw_host, port=via.port, target=b"/"),
            proxy_auth=(via.username, via.password) if via.userinfo else None,
            ssl_context=context,
            proxy_ssl_context=context if via.scheme == "https" else None,
            max_connections=CONNECTIONS_LIMIT,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=_Network(check_peer=False),
        )
