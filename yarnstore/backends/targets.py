"""Where a request may go: checks of URLs from registries, and addresses that no registry may name.

Refuses credentials in URLs, and requests to link-local and cloud metadata addresses.  `transport` checks the
address again after connecting, because a name can resolve to any address.  Uses httpx, so that the same
parser reads the URL for the check and for the connection.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final
from urllib.parse import quote

import httpx

from yarnstore.backends.urls import PORTS

# Underscores are no part of host names, and in use.
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_V4_REFUSED: Final = (
    ipaddress.ip_network("169.254.0.0/16"),  # link-local, RFC 3927; the metadata service of most clouds
    ipaddress.ip_network("100.100.100.200/32"),  # metadata, Alibaba Cloud
    ipaddress.ip_network("168.63.129.16/32"),  # metadata, Azure's wire server
    ipaddress.ip_network("192.0.0.192/32"),  # metadata, Oracle Cloud
)
_V6_REFUSED: Final = (
    ipaddress.ip_network("fe80::/10"),  # link-local, RFC 4291
    ipaddress.ip_network("fd00:ec2::254/128"),  # metadata, AWS
    ipaddress.ip_network("fd20:ce::254/128"),  # metadata, Google Cloud
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
_V4_COMPATIBLE: Final = ipaddress.ip_network("::/96")  # RFC 4291 2.5.5.1, deprecated


class UserinfoError(ValueError):
    """A URL that has a user name or password."""


def parse_url(text: str | httpx.URL, *, base: httpx.URL | None = None) -> httpx.URL:
    """Parse an absolute http(s) URL without user, password or fragment, and refuse forbidden addresses.

    Raises: ValueError, whose message gives the reason and shows no credentials.
    """
    try:
        url = base.join(text) if base is not None else httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        raise ValueError("is not a URL") from None
    if url.scheme not in PORTS:
        raise ValueError(f"has the scheme {url.scheme[:20]!r}; only http and https are followed")
    if url.userinfo:
        raise UserinfoError("has a user name or password")
    if not _is_host(url.raw_host.decode("ascii")):
        raise ValueError("has no host")
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError("has an invalid port")
    if is_refused_address(url.host):
        raise ValueError("is a link-local or metadata address, which is refused")
    return url.copy_with(fragment=None)


def _is_host(host: str) -> bool:
    if ":" in host:  # httpx took the brackets off
        return "%" not in host  # a zone makes sense for link-local addresses only
    return all(_LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))


def join_key(base: httpx.URL, key: str) -> httpx.URL:
    """Return the URL of a checked relative key below `base`, whose path ends in a slash."""
    return base.copy_with(raw_path=base.raw_path + quote(key, safe="/:").encode("ascii"))


def is_refused_address(host: str) -> bool:
    """Whether `host` is a literal link-local or metadata address, in any notation a resolver takes."""
    bare = host.strip("[]").partition("%")[0].rstrip(".")
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        try:
            # 0xa9fea9fe, 2852039166, 0251.0376.0251.0376, 169.254.43518
            address = ipaddress.IPv4Address(socket.inet_aton(bare))
        except (OSError, ValueError):
            return False
    if isinstance(address, ipaddress.IPv4Address):
        return any(address in network for network in _V4_REFUSED)
    if any(address in network for network in _V6_REFUSED):
        return True
    return any(within in network for within in _v4_within(address) for network in _V4_REFUSED)


def _v4_within(address: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses to which packets for `address` may be sent."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or address in _V4_COMPATIBLE:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return [each for each in found if each is not None]
