"""How a process that runs for weeks keeps its memory small between jobs.  Of use with glibc, and harmless
elsewhere."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Let each block above 1 MiB be returned to the system as soon as it is free.

    Otherwise glibc raises the limit with each larger block, up to 32 MiB, and keeps what is below.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
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
