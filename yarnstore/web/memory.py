"""How a process that runs for weeks keeps its memory small between jobs.  Of use with glibc, and harmless
elsewhere."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_M_MMAP_THRESHOLD = -3  # malloc.h
_M_ARENA_MAX = -8
_LARGE_BYTES = 1 << 20


def keep_small() -> None:
    """Let threads share two arenas, and each block above 1 MiB be returned as soon as it is free.

    Otherwise glibc makes arenas for up to eight threads per processor, each with gaps of its own, and raises
    the limit with each larger block, up to 32 MiB.  To be called before there are threads.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def return_unused() -> None:
    """Return all memory to the system that is free now."""
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
