"""Which proxy a request uses: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`.

Names them without user and password.  Connecting to one is `transport`'s.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.request
from collections.abc import Mapping
from typing import Final

import httpx

from yarnstore.backends.urls import shown

HINT: Final = "see http_proxy, https_proxy and no_proxy in the environment"

_PORTS: Final = {"http": 80, "https": 443}
# [::1], [::1]:8080, host:8080; an IPv6 address without brackets has more than one colon, and no port.
_BRACKETED: Final = re.compile(r"\[([^\[\]]*)\](?::([0-9]{1,5}))?")
_WITH_PORT: Final = re.compile(r"([^:]*):([0-9]{1,5})")


def environment_proxies() -> Mapping[str, str]:
    """Proxies by scheme, and `no_proxy` under `no`, as the standard library reads them."""
    return urllib.request.getproxies()


def proxy_for(url: httpx.URL, proxies: Mapping[str, str]) -> str:
    """The address of the proxy for `url`, credentials included; empty for a direct connection."""
    proxy = proxies.get(url.scheme) or proxies.get("all", "")
    if not proxy or is_exempt(url.host, url.port or _PORTS[url.scheme], proxies.get("no", "")):
        return ""
    # Elsewhere than on Linux, the system's own settings may exempt a host as well.
    return "" if "no" not in proxies and urllib.request.proxy_bypass(url.host) else proxy


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether an entry of `no_proxy` covers a host.

    An entry is `*`, a host name, which covers the names below it as well (a leading `.` or `*.` changes
    nothing), an IP address, or a network such as 10.0.0.0/8; `:PORT` narrows it to one port.
    """
    return any(
        _covers(entry.lower(), host.lower().rstrip("."), port) for entry in re.split(r"[,\s]+", no_proxy)
    )


def _covers(entry: str, host: str, port: int) -> bool:
    match = _BRACKETED.fullmatch(entry) or _WITH_PORT.fullmatch(entry)
    if match is not None:
        if match[2] and int(match[2]) != port:
            return False
        entry = match[1]
    if entry == "*":
        return True
    address, network = _address(host), _network(entry)
    if address is not None:
        return network is not None and address in network
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """The network that an entry names; one address is a network of one.  None for names."""
    bare, slash, bits = entry.partition("/")
    try:
        return ipaddress.ip_network(bare.strip("[]") + slash + bits, strict=False)
    except ValueError:
        return None


def shown_proxy(proxy: str) -> str:
    """A proxy's address for messages.  Raises: httpx.InvalidURL."""
    return shown(parse_proxy(proxy)).rstrip("/")


def parse_proxy(proxy: str) -> httpx.URL:
    """A proxy's address; one without a scheme is an http proxy.  Raises: httpx.InvalidURL."""
    return httpx.URL(proxy if "://" in proxy else f"http://{proxy}")
