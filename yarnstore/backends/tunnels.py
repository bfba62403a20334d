"""TLS to a server through a proxy that speaks TLS itself.

httpcore's stream for this begins its timeout again with each byte that comes, so that a handshake or a record
that arrives slowly has no end; here one timeout is for all of it, as with TLS over a socket.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import httpcore

# What is read at once.
_READ_BYTES: Final = 1 << 14

_T = TypeVar("_T")


class TlsOverTls(httpcore.NetworkStream):
    """TLS over a stream.  Raises: as `httpcore.NetworkStream`; nothing is open after a failed handshake."""

    def __init__(
        self,
        inner: httpcore.NetworkStream,
        context: ssl.SSLContext,
        server_hostname: str | None,
        timeout: float | None,
    ) -> None:
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        try:
            self._exchange(self._tls.do_handshake, timeout)
        except httpcore.TimeoutException as error:
            self.close()
            raise httpcore.ConnectTimeout("the handshake timed out") from error
        except (httpcore.NetworkError, OSError) as error:  # ssl.SSLError is an OSError
            self.close()
            raise httpcore.ConnectError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _exchange(self, work: Callable[[], _T], timeout: float | None) -> _T:
        """Return what `work` returns once it has all bytes that it needs."""
        ends_s = None if timeout is None else time.monotonic() + timeout
        while True:
            needs_more = False
            try:
                result = work()
            except ssl.SSLWantReadError:
                needs_more = True
            if data := self._outgoing.read():
                self._inner.write(data, _left(ends_s))
            if not needs_more:
                return result
            if data := self._inner.read(_READ_BYTES, _left(ends_s)):
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._exchange(lambda: self._tls.read(max_bytes), timeout)
        except ssl.SSLError as error:
            raise httpcore.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        left = memoryview(buffer)
        while left:
            try:
                sent = self._exchange(lambda part=left: self._tls.write(part), timeout)  # type: ignore[misc]
            except ssl.SSLError as error:
                raise httpcore.WriteError(str(error)) from error
            left = left[sent:]

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return TlsOverTls(self, ssl_context, server_hostname, timeout)

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 (httpcore's signature)
        return self._tls if info == "ssl_object" else self._inner.get_extra_info(info)


def _left(ends_s: float | None) -> float | None:
    """Return the rest of a timeout.  Raises: httpcore.ReadTimeout if nothing is left."""
    if ends_s is None:
        return None
    left_s = ends_s - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("timed out")
    return left_s
