"""Commands and the tests' own calls as on a file system without hard links, or without symlinks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

# Links by path alone are made by tests, not by the store.
_REFUSE = """import errno, os
def refusing(real, by):
    def refuse(*names, **more):
        if by not in more:
            return real(*names, **more)
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return refuse
os.{0} = refusing(os.{0}, {1!r})
"""
_CODE = {"link": _REFUSE.format("link", "src_dir_fd"), "symlink": _REFUSE.format("symlink", "dir_fd")}


# What begins a command in place of `python -m yarnstore`.
START = (sys.executable, "-c", f"{_CODE['link']}\nfrom yarnstore.cli import main\nmain()")


@contextmanager
def refused(call: str = "link") -> Iterator[None]:
    """The store can make no hard links in this process meanwhile; with "symlink", no symlinks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, getattr(os, call))  # restored afterwards
        exec(_CODE[call], {})
        yield


def unlinked(words: Sequence[str]) -> list[str]:
    """The words of `python -m yarnstore …`, for a process that can make no hard links."""
    return [*START, *words[3:]]
