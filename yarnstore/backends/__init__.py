"""Bytes under keys, read from wherever a registry is.  Every byte received comes through here.

    base, connect                      what every backend is; from an address to a backend
    local, http, memory                registries in folders, on web servers, in tests
    wrappers                           cancelling, limiting the rate, refusing the network
    urls, targets, proxies             addresses: as typed, where requests may go, through which proxy
    trust                              which certificates are trusted
    requests, transport                requests, and what httpx sends them over
    connections, patience              connections, and how long a response may take
    images, tokens                     registries of images: uploads, and how they ask for logins
    replies, pages                     what an HTTP answer means; web pages instead of files
    translate                          errors of httpx and sockets as errors of this package
    sources/                           several addresses of one registry: mirrors, tries, faults

docs/operations.md (mirrors and retries, tokens) governs the behaviour.

Each name is imported when it is first asked for, so that commands without the network start fast; `http`
by `connect` alone, because httpx takes 120 ms.  `connect` itself has the name of its module, which it is
imported from.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from yarnstore.backends.base import Backend, Body, Fetched, Timeouts
    from yarnstore.backends.connect import connect_file
    from yarnstore.backends.local import LocalBackend
    from yarnstore.backends.memory import MemoryBackend
    from yarnstore.backends.sources import Mirror, Retrying, RetryPolicy, SourceSet
    from yarnstore.backends.urls import is_remote
    from yarnstore.backends.wrappers import Cancellable, Limited, Offline, RateLimit

__all__ = [
    "Backend",
    "Body",
    "Cancellable",
    "Fetched",
    "Limited",
    "LocalBackend",
    "MemoryBackend",
    "Mirror",
    "Offline",
    "RateLimit",
    "RetryPolicy",
    "Retrying",
    "SourceSet",
    "Timeouts",
    "connect_file",
    "is_remote",
]

_HOMES = {
    "Backend": "base",
    "Body": "base",
    "Fetched": "base",
    "Timeouts": "base",
    "connect_file": "connect",
    "is_remote": "urls",
    "LocalBackend": "local",
    "MemoryBackend": "memory",
    "Mirror": "sources",
    "Retrying": "sources",
    "RetryPolicy": "sources",
    "SourceSet": "sources",
    "Cancellable": "wrappers",
    "Limited": "wrappers",
    "Offline": "wrappers",
    "RateLimit": "wrappers",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
