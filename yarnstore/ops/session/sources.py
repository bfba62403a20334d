"""The settings of registries and of the network, without connecting.

Owns the records made from settings.  `backends/urls` formats addresses.  `ops/session/connections` connects;
commands that do not use the network do not import it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from yarnstore.backends.base import Timeouts

# More than any registry has; each costs a request if the ones before it fail.
MIRRORS_LIMIT = 16
# How long a failed mirror is tried after the others.
_PUT_LAST_S = 600.0


class RegistrySource(msgspec.Struct, frozen=True):
    """A configured registry: its local name, its address, and credentials if it needs any.

    `token` is a bearer token, `login` a user and password; either is sent only to the origin of `url`.
    `mirrors` are further addresses, which are trusted as much as `url`.
    """

    name: str
    url: str
    token: str | None = None
    login: tuple[str, str] | None = None
    mirrors: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Omit the credentials, which must not be logged."""
        from yarnstore.backends.urls import shown

        mirrors = tuple(map(shown, self.mirrors))
        return f"RegistrySource(name={self.name!r}, url={shown(self.url)!r}, mirrors={mirrors!r})"


class Network(msgspec.Struct, frozen=True):
    """Settings for all requests.  `limit_rate` is in bytes per second over all of them, 0 for no limit;
    `ca_bundle` is a file of certificates to trust in addition to the usual ones, `netrc` a file of logins by
    host, `login_files` those of Docker, podman and skopeo; `require_https` refuses plain http
    except to this machine.
    """

    offline: bool = False
    limit_rate: float = 0.0
    ca_bundle: str | None = None
    netrc: str | None = None
    login_files: tuple[str, ...] = ()
    require_https: bool = False
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)


class RecentFailures:
    """The addresses that failed recently, shared by the sessions of one process.

    A command that fetches ten versions has a session for each, and must not wait ten times for a stalled
    mirror; a long-running process tries each again after a while.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed_s: dict[str, float] = {}
        self._told: set[str] = set()

    def is_news(self, text: str) -> bool:
        """Whether this process has not given a warning before."""
        told = text in self._told
        self._told.add(text)
        return not told

    def add(self, url: str) -> None:
        """Note that an address has just failed."""
        self._failed_s.pop(url, None)
        self._failed_s[url] = self._clock()

    def urls(self) -> list[str]:
        """Return the addresses that failed, the latest last."""
        now_s = self._clock()
        return [url for url, at_s in list(self._failed_s.items()) if now_s - at_s < _PUT_LAST_S]


def with_login(source: RegistrySource, path: str | None) -> RegistrySource:
    """Return the registry with the user and password that the netrc file has for its host.

    A token has priority, the `default` entry is not used, and a file that cannot be read counts as empty.
    """
    if source.token or not path or not os.path.exists(path):
        return source
    from yarnstore.backends.urls import origin_of

    origin = origin_of(source.url)
    if origin is None:
        return source
    import netrc  # late: few registries need a login

    try:
        found = netrc.netrc(path).hosts.get(origin[1])
    except (OSError, ValueError, netrc.NetrcParseError):
        return source
    if found is None or not found[2]:
        return source
    return msgspec.structs.replace(source, login=(found[0], found[2]))
