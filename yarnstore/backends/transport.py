"""A transport for httpx: its pools of connections, and its proxies.

Owns what httpx does not provide: proxies from the environment, and connections that refuse a peer by its
address before a byte is sent to it (`connections`), and whose reads are limited (`patience`).
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Iterator
from typing import cast

import httpcore
import httpx

from yarnstore.backends.connections import CONNECTIONS_LIMIT, KEEPALIVE_S, Connector, DirectPool
from yarnstore.backends.patience import PatientStream
from yarnstore.backends.proxies import HINT, environment_proxies, parse_proxy, proxy_for, shown_proxy
from yarnstore.backends.trust import usual_trust
from yarnstore.backends.urls import shown
from yarnstore.errors import ConfigError


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
        if isinstance(stream, PatientStream) and not stream.heard:
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
            return DirectPool(context)
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
            network_backend=Connector(check_peer=False),
        )
