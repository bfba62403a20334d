"""Commands and the tests' own calls as on a file system without hard links."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

# Links by path alone are made by tests, not by the store.
_REFUSE = """import errno, os
real = os.link
def refuse(*names, src_dir_fd=..., **more):
    if src_dir_fd is ...:
        return real(*names, **more)
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
os.link = refuse
"""
# What begins a command in place of `python -m yarnstore`.
START = (sys.executable, "-c", f"{_REFUSE}\nfrom yarnstore.cli import main\nmain()")


@contextmanager
def refused() -> Iterator[None]:
    """The store can make no hard links in this process meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", os.link)  # restored afterwards
        exec(_REFUSE, {})
        yield


def unlinked(words: Sequence[str]) -> list[str]:
    """The words of `python -m yarnstore …`, for a process that can make no hard links."""
    return [*START, *words[3:]]
