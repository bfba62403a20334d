"""Direct connections: their peers, and bodies of a known length, which are read without httpcore.

httpcore copies each byte of a body three times on its way through h11, which takes as much processor time as
receiving it.  A `DirectConnection` leaves everything to httpcore's `HTTP11Connection`, but for two things:
what has not arrived yet of a body with a `Content-Length` when h11 has handed on all that came with the
headers; and whether bytes follow a response, after which its connection is not used again.
docs/decisions/0042-bodies-past-h11.md has the reasons.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

import httpcore

from yarnstore.backends.patience import READ_BYTES, BodyReachedError, PatientStream
from yarnstore.backends.targets import is_refused_address
from yarnstore.errors import BackendError

# As many as the engine may have threads, so that none waits for another's connection.
CONNECTIONS_LIMIT: Final = 64
# Shorter than common servers keep a connection, so that the race to reuse one they close is rare.
KEEPALIVE_S: Final = 15.0
# What httpcore reads at once.
_READ_BYTES: Final = httpcore.HTTP11Connection.READ_NUM_BYTES

_SocketOptions = Iterable[Any]


class Connector(httpcore.NetworkBackend):
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
        return PatientStream(stream)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


def _check_peer(where: str, address: str) -> None:
    if is_refused_address(address):
        raise BackendError(where, f"is {address}, a link-local or metadata address, which is refused")


class DirectPool(httpcore.ConnectionPool):
    """A pool of connections without a proxy.  `ssl_context` may be None if all of them are plain http."""

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._context = ssl_context
        self._network = Connector(check_peer=True)
        super().__init__(
            ssl_context=ssl_context,
            max_connections=CONNECTIONS_LIMIT,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=self._network,
        )

    def create_connection(self, origin: httpcore.Origin) -> httpcore.ConnectionInterface:
        return DirectConnection(origin, self._network, self._context)


class DirectConnection(httpcore.ConnectionInterface):
    """A connection to one origin, for one request at a time; see `httpcore.ConnectionInterface`.

    `_http` does the current request and those before it, up to the first body that is read here.
    """

    def __init__(
        self, origin: httpcore.Origin, network: httpcore.NetworkBackend, ssl_context: ssl.SSLContext | None
    ) -> None:
        self._origin = origin
        self._network = network
        self._ssl_context = ssl_context
        self._lock = threading.Lock()
        self._stream: PatientStream | None = None
        self._http: _Http | None = None
        self._is_starting = False  # a request, until its response has headers
        self._is_reading = False  # a body, here
        self._is_closed = False
        self._expires_s = 0.0  # if it is idle after a body that was read here

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        with self._lock:
            if self._is_starting or self._is_reading or self._is_closed:
                raise httpcore.ConnectionNotAvailable
            self._is_starting = True
        try:
            if self._stream is None:
                try:
                    self._stream = self._connect(request)
                except BaseException:
                    self._is_closed = True
                    raise
            if self._http is None:
                self._http = _Http(self._origin, self._stream, KEEPALIVE_S)
            http, stream = self._http, self._stream
            response = http.handle_request(request)
        finally:
            self._is_starting = False
        want = _counted_bytes(request, response)
        if want is None:
            return response
        stream.hand_over_at_body(self._take)
        body = _Body(self, response, stream, want, _read_timeout(request))
        return httpcore.Response(
            response.status, headers=response.headers, content=body, extensions=response.extensions
        )

    def _connect(self, request: httpcore.Request) -> PatientStream:
        timeout = request.extensions.get("timeout", {}).get("connect")
        host = self._origin.host.decode("ascii")
        stream = self._network.connect_tcp(host, self._origin.port, timeout=timeout)
        if self._origin.scheme == b"https":
            context = self._ssl_context or httpcore.default_ssl_context()
            context.set_alpn_protocols(["http/1.1"])
            stream = stream.start_tls(context, server_hostname=host, timeout=timeout)
        return cast("PatientStream", stream)

    def _take(self) -> None:
        self._is_reading = True
        self._http = None

    def put_back(self, stream: PatientStream) -> None:
        """Note that the body was read to its end, and that the connection can be used again."""
        self._stream = PatientStream(stream.inner)
        self._expires_s = time.monotonic() + KEEPALIVE_S
        self._is_reading = False

    def close(self) -> None:
        self._is_closed = True
        if self._stream is not None:
            self._stream.inner.close()

    def can_handle_request(self, origin: httpcore.Origin) -> bool:
        return origin == self._origin

    def is_available(self) -> bool:
        http = self._http
        return not self._is_starting and (self._is_idle_here() if http is None else http.is_available())

    def has_expired(self) -> bool:
        # The pool closes one that has expired, also if it has just given it to another request; that finds it
        # closed before it sends anything, and gets another.
        with self._lock:
            if not self._is_starting and self._is_stale():
                self._is_closed = True
            return self._is_closed

    def _is_stale(self) -> bool:
        http, stream = self._http, self._stream
        if http is not None:
            return http.has_expired()
        # An idle server has nothing to say but that it closes the connection.
        return (
            self._is_idle_here()
            and stream is not None
            and (time.monotonic() > self._expires_s or bool(stream.get_extra_info("is_readable")))
        )

    def is_idle(self) -> bool:
        http = self._http
        return not self._is_starting and (self._is_idle_here() if http is None else http.is_idle())

    def is_closed(self) -> bool:
        http = self._http
        return self._is_closed or (http is not None and http.is_closed())

    def info(self) -> str:
        http = self._http
        return "reading a body, or idle" if http is None else http.info()

    def _is_idle_here(self) -> bool:
        return self._stream is not None and not self._is_reading and not self._is_closed


class _Http(httpcore.HTTP11Connection):
    """A connection that is not used again if bytes follow a response, which h11 takes for the next one."""

    def has_expired(self) -> bool:
        # httpcore sees only what is still in the socket, and not what h11 has of it.
        return super().has_expired() or (self.is_idle() and bool(self._h11_state.trailing_data[0]))


class _Body:
    """A body of `want` bytes.  h11 hands on what came with the headers; the rest is read here."""

    def __init__(
        self,
        connection: DirectConnection,
        response: httpcore.Response,
        stream: PatientStream,
        want: int,
        timeout_s: float | None,
    ) -> None:
        self._connection = connection
        self._response = response
        self._stream = stream
        self._want = want
        self._timeout_s = timeout_s
        self._is_taken = False

    def __iter__(self) -> Iterator[bytes]:
        got = 0
        try:
            for block in cast("Iterable[bytes]", self._response.stream):
                got += len(block)
                yield block
        except BodyReachedError:  # h11 has handed on all that it has, or it would not read
            self._is_taken = True
        while self._is_taken:
            left = self._want - got
            block = self._stream.read_up_to(min(left, READ_BYTES), _READ_BYTES, self._timeout_s)
            if not block:
                why = f"closed the connection after {got} of {self._want} bytes of the body"
                raise httpcore.RemoteProtocolError(why)
            got += len(block)
            if got == self._want:
                self._end()
            yield block

    def close(self) -> None:
        self._response.close()
        if self._is_taken:
            self._connection.close()

    def _end(self) -> None:
        if self._is_reusable():
            self._connection.put_back(self._stream)
        else:
            self._connection.close()
        self._is_taken = False

    def _is_reusable(self) -> bool:
        options = b",".join(_header_values(self._response, b"connection")).lower().split(b",")
        tls = self._stream.get_extra_info("ssl_object")
        return (
            self._response.extensions["http_version"] == b"HTTP/1.1"
            and b"close" not in map(bytes.strip, options)
            and self._stream.is_sound
            # What follows the body is not the next response; a pool sees only what is still in the socket.
            and not (tls is not None and tls.pending())
        )


def _counted_bytes(request: httpcore.Request, response: httpcore.Response) -> int | None:
    """Return how many bytes follow the headers, if nothing but their number says where they end.

    h11 has checked that several lengths are equal (RFC 9112, 6.3).
    """
    if request.method != b"GET" or response.status not in (200, 206):
        return None
    if _header_values(response, b"transfer-encoding"):
        return None
    lengths = _header_values(response, b"content-length")
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


def _header_values(response: httpcore.Response, name: bytes) -> list[bytes]:
    return [value for key, value in response.headers if key.lower() == name]


def _read_timeout(request: httpcore.Request) -> float | None:
    timeout_s: float | None = request.extensions.get("timeout", {}).get("read")
    return timeout_s
