"""What httpx, httpcore and sockets raise, as this package's errors.  Nothing of theirs gets past here.

A failure is transient if the same request may do better later: no connection, a reset, a timeout, an
answer broken off or garbled.  A certificate, an address or a proxy that refuses stays as it is.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror
from typing import Final

import httpcore

from yarnstore.backends.base import Timeouts
from yarnstore.backends.lean import httpx
from yarnstore.errors import BackendError, TransientError

FOREIGN: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    UnicodeError,  # getaddrinfo, on labels that no DNS name has
    httpcore.ConnectionNotAvailable,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


@contextmanager
def translating(url: str, wait: Timeouts) -> Iterator[None]:
    """Around every call into httpx.  Raises: BackendError, TransientError."""
    try:
        yield
    except FOREIGN as error:
        raise _translated(url, error, wait) from error


def _translated(url: str, error: Exception, wait: Timeouts) -> BackendError:
    why = str(error)[:200] or type(error).__name__
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        # The transport raises none of these: httpx could not read a Location header.
        return BackendError(url, "redirects to what is not a URL")
    if isinstance(error, UnicodeError):
        return BackendError(url, "its host name cannot be one")
    if isinstance(error, httpx.StreamError):
        return BackendError(url, "the body was read twice, or after its end")
    if isinstance(error, httpcore.UnsupportedProtocol | httpcore.LocalProtocolError):
        return BackendError(url, f"cannot be asked for: {why}")
    if isinstance(error, httpcore.ProxyError) and why.startswith("4"):
        return BackendError(url, f"the proxy answered {why}", hint="see http_proxy, https_proxy, no_proxy")
    if isinstance(error, httpcore.PoolTimeout):
        return TransientError(url, "no connection came free")
    if isinstance(error, httpcore.ConnectTimeout):
        return TransientError(url, f"no connection within {wait.connect_s:g} s")
    if isinstance(error, httpcore.TimeoutException):
        return TransientError(url, f"stalled: no byte for {wait.stall_s:g} s")
    if (certificate := _cause_of(error, ssl.SSLCertVerificationError)) is not None:
        reason = getattr(certificate, "verify_message", "") or why
        return BackendError(
            url,
            f"its TLS certificate is not accepted: {reason}",
            hint="YSTORE_CA_BUNDLE names more certificates to trust, if this server has its own",
        )
    if _cause_of(error, gaierror) is not None:
        return TransientError(url, "its host name cannot be resolved", hint="is this machine online?")
    if isinstance(error, httpcore.ConnectError):
        return TransientError(url, f"cannot connect: {why}")
    return TransientError(url, f"the connection broke: {why}")


def _cause_of(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """The first of `error` and what led to it that is a `kind`."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None or isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
