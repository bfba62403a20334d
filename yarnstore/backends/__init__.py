"""Bytes under keys, read from wherever a registry is.  Every byte received comes through here.

`http` is not imported here, because httpx takes 120 ms; `connect` does when it must.
"""

from yarnstore.backends.base import Backend, Body, Fetched, Timeouts
from yarnstore.backends.connect import connect, connect_file, is_remote
from yarnstore.backends.local import LocalBackend
from yarnstore.backends.memory import MemoryBackend
from yarnstore.backends.sources import Mirror, Retrying, RetryPolicy, SourceSet
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
    "connect",
    "connect_file",
    "is_remote",
]
