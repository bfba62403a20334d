"""How long a response may take, and the reads of a socket that it limits.

httpx's own read timeout begins again with each byte, so that one byte every 29 s would keep it waiting for
ever; and a loop over the body does not see headers, 1xx responses and chunk extensions that arrive slowly.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpcore

from yarnstore.backends.tunnels import TlsOverTls
from yarnstore.errors import TransientError

# The delay after which a request to a silent server is stopped.
_POLL_S: Final = 0.2
# The size of one read of a socket.  httpcore requests 64 KiB, with a poll and some fifty calls for each.
READ_BYTES: Final = 1 << 20
# A caller that takes longer than this for the data of one read, such as under a rate limit, gets httpcore's
# smaller reads, so that no server waits for minutes until it can send more.
_BUSY_S: Final = 0.1

# A read of a TLS connection returns one record at most (RFC 8446, 5.1), whatever it asks for.
_RECORD_BYTES: Final = 1 << 14
# How long the rest of a record that has arrived in part is waited for, before what is complete is returned.
_REST_S: Final = 0.05

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


class BodyReachedError(Exception):
    """Raised by `PatientStream.read` in place of reading; see `hand_over_at_body`."""


class PatientStream(httpcore.NetworkStream):
    """A connection whose reads are limited by the `Patience` of this thread.

    `heard` tells whether anything was read since the last request was written, and `is_sound` whether all
    writes succeeded.
    """

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self.inner = inner
        self.is_sound = True
        self._is_tls = inner.get_extra_info("ssl_object") is not None
        self._hand_over: Callable[[], None] | None = None
        self._is_handed_over = False
        self._read_s = 0.0  # when the last read ended
        self._reads = 0  # since the last request was written

    @property
    def heard(self) -> bool:
        return self._reads > 0

    def hand_over_at_body(self, hand_over: Callable[[], None]) -> None:
        """Call `hand_over` and raise `BodyReachedError` at the next `read` before the next `write`.

        After that, `close` does nothing.
        """
        self._hand_over = hand_over

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._hand_over is not None:
            self._is_handed_over = True
            self._hand_over()
            raise BodyReachedError
        return self.read_up_to(READ_BYTES, max_bytes, timeout)

    def read_up_to(self, most_bytes: int, usual_bytes: int, timeout: float | None) -> bytes:
        """Return what has arrived, up to `most_bytes`, or `usual_bytes` if the caller is slow; empty at the
        end of the connection.  Raises: as `Patience.clip`; httpcore's errors."""
        # The first brings the headers; how long the caller takes over what comes is known from the third.
        keeps_up = self._reads > 1 and time.monotonic() - self._read_s < _BUSY_S
        self._reads += 1
        try:
            return self._read(most_bytes if keeps_up else min(usual_bytes, most_bytes), timeout)
        finally:
            self._read_s = time.monotonic()

    def _read(self, max_bytes: int, timeout: float | None) -> bytes:
        patience: Patience | None = getattr(_current, "patience", None)
        if patience is None:
            return self._receive(max_bytes, timeout)
        left_s = timeout
        while True:
            bound_s = patience.clip(left_s)
            try:
                data = self._receive(max_bytes, bound_s)
            except httpcore.ReadTimeout:
                # Perhaps ended by the end of a window that received enough: read again.
                if left_s is not None:
                    left_s -= bound_s
                    if left_s <= 0:
                        raise
            else:
                patience.heard(len(data))
                return data

    def _receive(self, max_bytes: int, timeout: float | None) -> bytes:
        """Return what has arrived: on a TLS connection all records, in place of one."""
        if not self._is_tls:
            return self.inner.read(max_bytes, timeout)
        records = [self.inner.read(min(max_bytes, _RECORD_BYTES), timeout)]
        size = len(records[0])
        for _ in range(max_bytes // _RECORD_BYTES):  # a record may be as short as a byte
            if not records[-1] or size >= max_bytes or not self.inner.get_extra_info("is_readable"):
                break
            try:
                records.append(self.inner.read(min(max_bytes - size, _RECORD_BYTES), _REST_S))
            except (httpcore.ReadTimeout, httpcore.ReadError):
                break  # the next read says so again; what has arrived comes first
            size += len(records[-1])
        return b"".join(records)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._reads = 0
        self._hand_over = None
        patience: Patience | None = getattr(_current, "patience", None)
        if patience is not None:
            patience.asked()
        try:
            self.inner.write(buffer, timeout)
        except BaseException:
            self.is_sound = False
            raise

    def close(self) -> None:
        if not self._is_handed_over:
            self.inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        if self._is_tls:
            return PatientStream(TlsOverTls(self.inner, ssl_context, server_hostname, timeout))
        return PatientStream(self.inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 (httpcore's signature)
        return self.inner.get_extra_info(info)
