"""The connections of a session to its registries: addresses, rates and credentials.

Owns the backends of one session and the records of failed mirrors.  `backends/sources` orders the mirrors.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from yarnstore.backends import (
    Backend,
    Cancellable,
    Limited,
    Mirror,
    Offline,
    RetryPolicy,
    SourceSet,
)
from yarnstore.backends.connect import connect, connect_file, connect_images, is_exposed
from yarnstore.backends.sources import Fault
from yarnstore.backends.urls import is_remote, origin_of, shown, tidy_address
from yarnstore.backends.wrappers import OneFile, checked_wait, shared_limit
from yarnstore.errors import BackendError, OfflineError, StorageError, TransientError, UsageError
from yarnstore.ops.session.sources import (
    MIRRORS_LIMIT,
    Network,
    RecentFailures,
    RegistrySource,
    with_login,
)
from yarnstore.store import fsread
from yarnstore.store.layout import StoreLayout
from yarnstore.store.registry_cache import MirrorHealth, read_health, write_health

if TYPE_CHECKING:
    from yarnstore.backends.images import ImageRegistry

# Only `SourceSet` retries, since it can use another source; below it there is one try.
_ONE_TRY = RetryPolicy(attempts=1)
# How long corrupt data from a mirror is reported, even if later requests succeed.
_LIE_SHOWN_MS = 30 * 86_400_000
# Shorter waits between two tries are not reported.
_WAIT_TOLD_S = 3.0


class Connections:
    """The backends of one session, made when needed.

    `check` is called before each request and each block, and may raise to end them.
    """

    def __init__(
        self,
        layout: StoreLayout,
        network: Network,
        note: Callable[[str], None],
        now_ms: Callable[[], int],
        put_last: RecentFailures | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._layout = layout
        self._network = network
        self._note = note
        self._now_ms = now_ms
        self._backends: dict[str, SourceSet] = {}
        self._named: dict[str, list[Mirror]] = {}
        self._faults: dict[str, list[Fault]] = {}
        self._adopted: list[Backend] = []
        self._images: dict[str, tuple[ImageRegistry, SourceSet]] = {}
        self._put_last = put_last or RecentFailures()
        self._check = check
        # By registry, the end of the last reported wait, since several connections wait at once.
        self._waits: dict[str, float] = {}

    def backend(self, source: RegistrySource) -> SourceSet:
        """Return the registry with all its mirrors.  Raises: UsageError, ConfigError."""
        if source.name not in self._backends:
            mirrors = [
                Mirror(shown(url, folder=True), partial(self._connect, source, url), True)
                for url in (source.url, *source.mirrors[:MIRRORS_LIMIT])
            ]
            mirrors += self._named.get(source.name, [])
            self._backends[source.name] = SourceSet(
                mirrors,
                sleep=self._sleep,
                on_fault=partial(self._on_fault, source),
                on_wait=partial(self.tell_wait, source),
                put_last=self._put_last.urls(),
            )
        return self._backends[source.name]

    def own(self, source: RegistrySource) -> str:
        """Return the name of the registry's own address among its mirrors."""
        return shown(source.url, folder=True)

    def add_mirrors(self, source: RegistrySource, urls: Iterable[str]) -> None:
        """Add the mirrors that the registry's index names, for files with known hashes.

        Connects to nothing.
        """
        named = [
            Mirror(shown(url, folder=True), partial(self._connect, source, url))
            for url in map(tidy_address, islice(urls, MIRRORS_LIMIT))
            # A registry on the network must not cause reads of local files.
            if origin_of(url) is not None or not (is_remote(url) or is_remote(source.url))
        ]
        self._named[source.name] = named
        if source.name in self._backends:
            for mirror in named:
                self._backends[source.name].add(mirror)

    def addresses(self, source: RegistrySource) -> list[str]:
        """Return the known mirrors of a registry, its own address first; connects to nothing."""
        known = [source.url, *source.mirrors]
        named = [mirror.url for mirror in self._named.get(source.name, [])]
        return list(dict.fromkeys([*(shown(url, folder=True) for url in known), *named]))

    def images(
        self, source: RegistrySource, accept: str, find_login: Callable[[], tuple[str, str] | None]
    ) -> tuple[ImageRegistry, SourceSet]:
        """Return a repository of images for uploads, and the same with retries for all else.

        `find_login` is asked once, for a source without credentials.

        Raises: OfflineError, UsageError, ConfigError.
        """
        if self._network.offline and is_remote(source.url):
            raise OfflineError(shown(source.url), "it")
        if source.url in self._images:
            return self._images[source.url]
        if source.token is None and source.login is None:
            source = msgspec.structs.replace(source, login=find_login())
        self._warn_of_exposed(source)
        registry = connect_images(
            source.url,
            accept=accept,
            token=source.token,
            login=source.login,
            ca_bundle=self._network.ca_bundle,
            require_https=self._network.require_https,
            timeouts=self._network.timeouts,
            check=self._check,
        )
        self._adopted.append(registry)
        backend = Cancellable(_slowed(registry, self._network, self._check), self._check)
        only = Mirror(shown(source.url), lambda: backend, trusted=True)
        found = registry, SourceSet([only], sleep=self._sleep, on_wait=partial(self.tell_wait, source))
        self._images[source.url] = found
        return found

    def for_file(
        self, source: RegistrySource, urls: Iterable[str], on_pass: Callable[[str], None] | None = None
    ) -> SourceSet:
        """Return the addresses of one file with a known hash, which may be relative to the registry.

        Addresses whose server failed come last.  `on_pass` is called for each that did not send the file.

        Raises: UsageError, ConfigError.
        """
        mirrors = [mirror for url in islice(urls, MIRRORS_LIMIT) for mirror in self._of_file(source, url)]
        failed = {origin for url in self._put_last.urls() if (origin := origin_of(url)) is not None}
        return SourceSet(
            mirrors,
            sleep=self._sleep,
            on_fault=partial(self._on_file_fault, source),
            on_pass=on_pass,
            on_wait=partial(self.tell_wait, source),
            put_last=[mirror.url for mirror in mirrors if origin_of(mirror.url) in failed],
        )

    def _of_file(self, source: RegistrySource, url: str) -> list[Mirror]:
        if not urlsplit(url).scheme or (is_remote(url) and origin_of(url) == origin_of(source.url)):
            return self.backend(source).of_file(url, shown(url))  # with credentials, since it is their origin
        return [Mirror(shown(url), partial(self._connect_file, source, url), trusted=True)]

    def _connect_file(self, source: RegistrySource, url: str) -> Backend:
        """Return a backend for one file outside of the registry, without credentials.

        Raises: BackendError.
        """
        if is_remote(url) and self._network.offline:
            return Offline(shown(url))
        if is_remote(source.url) and not is_remote(url):
            why = f"names a file on this machine as a download address: {shown(url)[:120]}"
            raise BackendError(shown(source.url, folder=True), why)
        try:
            backend, key = connect_file(
                url,
                ca_bundle=self._network.ca_bundle,
                require_https=self._network.require_https,
                policy=_ONE_TRY,
                timeouts=self._network.timeouts,
                check=self._check,
            )
        except UsageError as error:
            raise BackendError(shown(url), error.message) from None
        self._adopted.append(backend)
        return OneFile(Cancellable(_slowed(backend, self._network, self._check), self._check), key)

    def _on_file_fault(self, source: RegistrySource, fault: Fault) -> None:
        self._put_last.add(fault.url)
        faults = self._faults.setdefault(source.name, [])
        if all(known.url != fault.url for known in faults):
            faults.append(fault)

    def tell_wait(self, source: RegistrySource, error: TransientError, delay_s: float) -> None:
        """Report a long wait of `delay_s` seconds until the next try."""
        name = source.name or self.own(source)
        now_s = time.monotonic()
        if delay_s < _WAIT_TOLD_S or now_s + delay_s < self._waits.get(name, 0.0) + _WAIT_TOLD_S:
            return
        self._waits[name] = now_s + delay_s
        what = f"{name} is busy" if error.reason == "busy" else error.message
        self._note(f"{what}; retrying in {delay_s:.0f} s")

    def _sleep(self, delay_s: float) -> None:
        checked_wait(delay_s, self._check)

    def close(self) -> None:
        """Close the connections, and record what was learned about the mirrors."""
        for backend in self._backends.values():
            backend.close()
        for name in {*self._backends, *self._faults}:
            # A read-only or full disk has been reported if it mattered.
            with contextlib.suppress(StorageError):
                self._keep_health(name)
        for other in self._adopted:
            other.close()
        self._backends.clear()
        self._adopted.clear()
        self._images.clear()

    def _connect(self, source: RegistrySource, url: str) -> Backend:
        if origin_of(url) == origin_of(source.url) and not self._network.offline:
            self._warn_of_exposed(source)
        return Cancellable(
            connect_source(source, url, self._network, policy=_ONE_TRY, check=self._check), self._check
        )

    def _warn_of_exposed(self, source: RegistrySource) -> None:
        """Warn once of credentials that others can read."""
        exposed = exposed_secret(source)
        if exposed and not self._network.require_https:
            text = f"warning: {source.name or self.own(source)}: {exposed}"
            if self._put_last.is_news(text):
                self._note(text)

    def _on_fault(self, source: RegistrySource, fault: Fault) -> None:
        if len(self._backends[source.name].sources) == 1:
            return
        self._put_last.add(fault.url)
        did = {"lied": "served corrupt data", "stalled": "stalled"}.get(fault.kind, "cannot be reached")
        why = fault.why.removeprefix("stalled: ")
        self._note(f"{fault.url} {did} ({why}); using the other mirrors first")

    def _keep_health(self, name: str) -> None:
        backend = self._backends.get(name)
        faults = self._faults.pop(name, [])
        if backend is not None and len(backend.sources) > 1:
            faults += backend.faults
        before = read_health(self._layout, name)
        if not (before or faults) or fsread.stat_or_none(self._layout.registry(name)) is None:
            return
        now_ms = self._now_ms()
        well = set(backend.served) if backend is not None else set()
        known = {
            item.url: item
            for item in before
            if now_ms - item.at_ms < _LIE_SHOWN_MS and (item.kind == "lied" or item.url not in well)
        }
        for fault in faults:
            count = known[fault.url].count + 1 if fault.url in known else 1
            known[fault.url] = MirrorHealth(fault.url, fault.kind, fault.why[:300], now_ms, count)
        if list(known.values()) != before:
            write_health(self._layout, name, list(known.values()))


def connect_source(
    source: RegistrySource,
    url: str,
    network: Network,
    *,
    policy: RetryPolicy | None = None,
    check: Callable[[], None] | None = None,
) -> Backend:
    """Return the backend for one address of a registry; credentials are sent only to the registry's origin.

    Raises: UsageError, ConfigError.
    """
    if network.offline and is_remote(url):
        return Offline(shown(url, folder=True))
    own = url == source.url or origin_of(url) == origin_of(source.url)
    backend = connect(
        url,
        token=source.token if own else None,
        login=source.login if own else None,
        ca_bundle=network.ca_bundle,
        require_https=network.require_https,
        policy=policy,
        timeouts=network.timeouts,
        check=check,
    )
    return _slowed(backend, network, check)


def _slowed(backend: Backend, network: Network, check: Callable[[], None] | None) -> Backend:
    return Limited(backend, shared_limit(network.limit_rate), check) if network.limit_rate else backend


def exposed_secret(source: RegistrySource) -> str:
    """Return which credentials are sent to a registry unencrypted, over plain http; empty if none are."""
    origin = origin_of(source.url)
    if origin is None or not (source.token or source.login) or not is_exposed(*origin[:2]):
        return ""
    what = "token is" if source.token else "password is"
    return f"its {what} sent over plain http to {origin[1]}, where others can read it"


def source_at(url: str, sources: Iterable[RegistrySource], network: Network) -> RegistrySource:
    """Return an address as a source, with the credentials of the registry that is configured there.

    If several registries have this origin, the one that contains the address is used, else the first; without
    a registry, the entry of the host in netrc.
    """
    origin = origin_of(url)
    here = [source for source in sources if origin is not None and origin_of(source.url) == origin]
    within = [source for source in here if f"{url}/".startswith(f"{source.url.rstrip('/')}/")]
    if here:
        return msgspec.structs.replace(
            max(within, key=lambda source: len(source.url), default=here[0]), url=url, mirrors=()
        )
    return with_login(RegistrySource("", url), network.netrc)
