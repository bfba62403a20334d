"""Commands in a forked process that ends at a chosen call, as a kill does: no handler of Python runs.

Far cheaper than a process under strace, which imports everything again; that one sees calls which are not
made through `os`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

KILLED = 77
_exit = os._exit
_CHANGING = (
    "replace", "rename", "unlink", "mkdir", "rmdir", "symlink", "link", "fsync", "fdatasync", "fchmod",
    "chmod", "pwrite", "write", "ftruncate",
)  # fmt: skip


def die_at(number: int) -> list[int]:
    """Let this process end before the call of this number that changes something; a write is done in part.

    Returns a list of one number, which counts these calls.
    """
    done = [0]

    def ending(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object, **more: object) -> object:
            if name == "open" and not int(given[1]) & os.O_CREAT:  # type: ignore[call-overload]
                return call(*given, **more)
            done[0] += 1
            if done[0] == number:
                if name in ("write", "pwrite"):
                    data = memoryview(given[1])  # type: ignore[arg-type]
                    call(given[0], data[: len(data) // 2], *given[2:])
                _exit(KILLED)
            return call(*given, **more)

        return counted

    for name in ("open", *_CHANGING):
        setattr(os, name, ending(name, getattr(os, name)))
    return done


class Ended(NamedTuple):
    """How a command ended: its exit code, what it had printed, and how many calls changed something."""

    code: int
    printed: str
    calls: int


def run_command(words: list[str], at: int = 0) -> Ended:
    """Run the command line `ystore WORDS`, killed before the call number `at`; 0 for not."""
    from yarnstore.cli import main

    reading, writing = os.pipe()
    counting, told = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.dup2(writing, 1)
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 2)
            sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
            send = os.write
            done = die_at(at)
            with contextlib.suppress(SystemExit):
                main(words)
            code = 0
            send(told, struct.pack("=q", done[0]))
        finally:
            _exit(code)
    os.close(writing)
    os.close(told)
    with os.fdopen(reading) as pipe, os.fdopen(counting, "rb") as count:
        printed = pipe.read()
        data = count.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(code, printed, struct.unpack("=q", data)[0] if data else 0)
