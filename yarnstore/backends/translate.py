"""The translation of what httpx, httpcore and sockets raise into this package's errors.

An error is transient if the same request may succeed later: no connection, a reset, a timeout, a response
that is cut or garbled.  A refused certificate, address or proxy is not.  Classes and attributes decide which
error it is; texts of other libraries are only shown.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from socket import gaierror
from typing import Final

import httpcore
import httpx

from yarnstore.backends import proxies
from yarnstore.backends.base import Timeouts
from yarnstore.backends.patience import Patience
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

# The number that Python puts before the text of an OSError.
_ERRNO: Final = re.compile(r"^\[(Errno|WinError) -?\d+\] ")

# OpenSSL's reasons for an answer that is not TLS, which differ between releases.
_NOT_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "UNKNOWN_PROTOCOL",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
    }
)


@contextmanager
def translating(url: str, wait: Timeouts, patience: Patience, proxy: str = "") -> Iterator[None]:
    """Translate what a call into httpx raises; `patience` saw its reads, and `proxy` is shown in messages.

    Raises: BackendError, TransientError.
    """
    try:
        yield
    except FOREIGN as error:
        raise _translated(url, error, wait, patience, proxy) from error


def _translated(url: str, error: Exception, wait: Timeouts, patience: Patience, proxy: str) -> BackendError:
    why = _ERRNO.sub("", str(error))[:200] or type(error).__name__
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        # The transport raises none of these: httpx could not parse a Location header.
        return BackendError(url, "redirects to an invalid URL")
    if isinstance(error, UnicodeError):
        return BackendError(url, "its host name is invalid")
    if isinstance(error, httpx.StreamError):
        return BackendError(url, "the body was read twice, or after its end")
    if isinstance(error, httpcore.UnsupportedProtocol | httpcore.LocalProtocolError):
        return BackendError(url, f"the request cannot be sent: {why}")
    if isinstance(error, httpcore.ProxyError):
        refused = why.startswith("4")
        login = "; it needs a user name and password" if why.startswith("407") else ""
        why = f"the proxy {proxy} answered {why}{login}"
        if refused:
            return BackendError(url, why, hint=proxies.HINT)
        return TransientError(url, why, hint=proxies.HINT, reason="unreachable")
    if isinstance(error, httpcore.PoolTimeout):
        return TransientError(url, "timed out waiting for a free connection", reason="unreachable")
    through = f" (through the proxy {proxy})" if proxy else ""
    if (certificate := _cause_of(error, ssl.SSLCertVerificationError)) is not None:
        reason = getattr(certificate, "verify_message", "") or why
        return BackendError(
            url,
            f"its TLS certificate is not accepted: {reason}{through}",
            hint="YSTORE_CA_BUNDLE can name additional certificates to trust",
        )
    broken = _cause_of(error, ssl.SSLError)
    if isinstance(error, httpcore.ConnectError) and getattr(broken, "reason", "") in _NOT_TLS:
        return BackendError(
            url,
            f"cannot connect: this port speaks plain http, not https{through}",
            hint=f"use http://{url.partition('://')[2]} if the server has no https",
        )
    unreached = (
        isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout) and not patience.heard_bytes
    )
    if proxy and unreached and broken is None:
        why = f"the proxy {proxy} cannot be reached: {why}"
        return TransientError(url, why, hint=proxies.HINT, reason="unreachable")
    if isinstance(error, httpcore.ConnectTimeout):
        why = f"no connection within {wait.connect_s:g} s{through}"
        return TransientError(url, why, reason="unreachable")
    if isinstance(error, httpcore.TimeoutException):
        return TransientError(url, f"stalled: no byte for {wait.stall_s:g} s{through}", reason="stalled")
    if _cause_of(error, gaierror) is not None:
        why = "its host name cannot be resolved"
        return TransientError(
            url, why, hint="check the network connection of this machine", reason="unreachable"
        )
    if isinstance(error, httpcore.ConnectError):
        return TransientError(url, f"cannot connect: {why}{through}", reason="unreachable")
    # The server did not close the connection, so that what it sent is wrong.
    garbled = isinstance(error, httpcore.RemoteProtocolError) and not patience.ended
    hint = ""
    if url.startswith("http://") and (garbled or (patience.ended and not patience.heard_bytes)):
        hint = f"{https_hint(url)} if this port speaks https"
    broke = "the response is not valid HTTP" if garbled else "the connection was lost"
    return TransientError(url, f"{broke}: {why}{through}", hint=hint)


def https_hint(url: str) -> str:
    """Suggest the https address of a port that was asked over http."""
    return f"use https://{url.partition('://')[2]}"


def _cause_of(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return `error` or the first of its causes that is a `kind`."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None or isinstance(seen, kind):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
