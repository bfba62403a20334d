"""From an address to a backend."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from yarnstore.backends.base import Backend, Timeouts
from yarnstore.backends.local import LocalBackend, path_from_url
from yarnstore.backends.sources import Retrying, RetryPolicy, Sleep
from yarnstore.backends.urls import check_address, is_loopback, scheme_of
from yarnstore.errors import UsageError

if TYPE_CHECKING:
    from yarnstore.backends.images import ImageRegistry


def connect(
    address: str | os.PathLike[str],
    *,
    token: str | None = None,
    login: tuple[str, str] | None = None,
    ca_bundle: str | None = None,
    require_https: bool = False,
    policy: RetryPolicy | None = None,
    timeouts: Timeouts | None = None,
    sleep: Sleep | None = None,
    check: Callable[[], None] | None = None,
) -> Backend:
    """Return the backend for `address`: an http(s):// URL, a file:// URL or the path of a folder.

    A `policy` of one try adds no retries.  `sleep` waits between tries; see `sources.Sleep`. `check` is
    called while a server is silent, and may raise to end the request.  `ca_bundle` is a file of certificates
    to trust in addition to the usual ones; `require_https` refuses plain http except to this machine. Imports
    httpx only if it is needed.

    Raises: UsageError for another kind of address; ConfigError for an unusable token or bundle.
    """
    text = os.fspath(address)
    check_address(text)
    match scheme_of(text):
        case "http" | "https":
            from yarnstore.backends.http import HttpBackend, trusting

            context = trusting(ca_bundle) if ca_bundle else None
            http = HttpBackend(
                text,
                token=token,
                login=login,
                timeouts=timeouts,
                ssl_context=context,
                require_https=require_https,
                check=check,
            )
            if policy is not None and policy.attempts == 1:
                return http
            return Retrying(http, policy) if sleep is None else Retrying(http, policy, sleep=sleep)
        case "file" | "":
            return LocalBackend(text)
        case other:
            raise _unreadable(other)


def connect_images(
    url: str,
    *,
    accept: str,
    token: str | None = None,
    login: tuple[str, str] | None = None,
    ca_bundle: str | None = None,
    require_https: bool = False,
    timeouts: Timeouts | None = None,
    check: Callable[[], None] | None = None,
) -> ImageRegistry:
    """Return a repository of a registry of images; `accept` are the media types of its manifests.

    The others are as in `connect`.  Raises: UsageError, ConfigError.
    """
    from yarnstore.backends.http import trusting
    from yarnstore.backends.images import ImageRegistry

    return ImageRegistry(
        url,
        accept=accept,
        token=token,
        login=login,
        timeouts=timeouts,
        ssl_context=trusting(ca_bundle) if ca_bundle else None,
        require_https=require_https,
        check=check,
    )


def connect_file(
    url: str,
    *,
    ca_bundle: str | None = None,
    require_https: bool = False,
    policy: RetryPolicy | None = None,
    timeouts: Timeouts | None = None,
    sleep: Sleep | None = None,
    check: Callable[[], None] | None = None,
) -> tuple[Backend, str]:
    """Return a backend without credentials, and the key of the one file at `url` (http, https, file).

    For a `download_url` that the registry's own backend cannot read.  An HttpBackend accepts every http(s)
    URL as a key, so that connections are shared.

    Raises: UsageError.
    """
    match scheme_of(url):
        case "http" | "https":
            origin = re.match(r"[^:]+://[^/?#]*", url)
            base = origin[0] if origin else url
            return connect(
                base,
                ca_bundle=ca_bundle,
                require_https=require_https,
                policy=policy,
                timeouts=timeouts,
                sleep=sleep,
                check=check,
            ), url
        case "file":
            folder, name = os.path.split(path_from_url(url))
            return LocalBackend(folder), name
        case other:
            raise _unreadable(other)


def is_exposed(scheme: str, host: str) -> bool:
    """Whether others on the network can read a request: plain http, except to this machine."""
    return scheme.lower() == "http" and not is_loopback(host)


def _unreadable(scheme: str) -> UsageError:
    return UsageError(
        f"cannot read from {scheme}:// addresses" if scheme else "this is not an absolute address",
        hint="https://…, http://…, file:///… and paths of folders are accepted",
    )
