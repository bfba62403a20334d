"""Commands in a forked process that ends at a chosen call, as a kill does: no handler of Python runs.

Far cheaper than a process under strace, which imports everything again; that one sees calls which are not
made through `os`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

KILLED = 77
_exit = os._exit
_CHANGING = (
    "replace", "rename", "unlink", "mkdir", "rmdir", "symlink", "link", "fsync", "fdatasync", "fchmod",
    "chmod", "pwrite", "write", "ftruncate",
)  # fmt: skip


def die_at(number: int) -> None:
    """Let this process end before the call of this number that changes something; a write is done in part."""
    done = 0

    def ending(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **more: object) -> object:
            if name == "open" and not int(given[1]) & os.O_CREAT:  # type: ignore[call-overload]
                return call(*given, **more)
            nonlocal done
            done += 1
            if done == number:
                if name in ("write", "pwrite"):
                    data = memoryview(given[1])  # type: ignore[arg-type]
                    call(given[0], data[: len(data) // 2], *given[2:])
                _exit(KILLED)
            return call(*given, **more)

        return counted

    for name in ("open", *_CHANGING):
        setattr(os, name, ending(name, getattr(os, name)))


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it had printed."""

    code: int
    printed: str


def run_command(words: list[str], at: int) -> Ended:
    """Run the command line `ystore WORDS`, killed before the call number `at`."""
    from yarnstore.cli import main

    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(writing, 1)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            die_at(at)
            with contextlib.suppress(SystemExit):
                main(words)
            code = 0
        finally:
            _exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        printed = pipe.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), printed)
