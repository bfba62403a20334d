"""Keeps the memory of a long-running process small between jobs.

Effective with glibc, and harmless elsewhere.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_LARGE_BYTES = 1 << 20


def keep_small() -> None:
    """Let threads share two arenas, and return blocks above 1 MiB as soon as they are free.

    Otherwise glibc makes up to eight arenas per processor, each with its own gaps, and raises the limit with
    each larger block, up to 32 MiB.  Call before threads are started.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def return_unused() -> None:
    """Return all free memory to the system."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)


def _function(name: str) -> Any:  # noqa: ANN401 - a function of C
    if os.name != "posix":
        return None
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None
