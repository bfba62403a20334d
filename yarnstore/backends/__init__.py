"""Bytes under keys, read from wherever a registry is.  Every byte received comes through here.

`http` is not imported here, because httpx takes 120 ms; `connect` does when it must.
"""

from yarnstore.backends.base import Backend, Body, Fetched, Timeouts
from yarnstore.backends.connect import connect, connect_file
from yarnstore.backends.local import LocalBackend
from yarnstore.backends.memory import MemoryBackend
from yarnstore.backends.retry import Retrying, RetryPolicy, call_with_retry

__all__ = [
    "Backend",
    "Body",
    "Fetched",
    "LocalBackend",
    "MemoryBackend",
    "RetryPolicy",
    "Retrying",
    "Timeouts",
    "call_with_retry",
    "connect",
    "connect_file",
]
