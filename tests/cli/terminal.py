"""`ystore` on a pseudo-terminal, which does what a terminal does: it has a width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

from tests.cli.conftest import YSTORE

PATIENCE_S = 20.0
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(arguments: Sequence[str | Path], *, width: int = 100, **environment: str) -> tuple[int, str]:
    """Run `ystore` on a terminal so many columns wide; its exit code and all that it wrote."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    ours = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [*YSTORE, *arguments],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**ours, "TERM": "xterm", **environment},
    ) as process:
        os.close(follower)
        written = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while block := os.read(leader, 65536):
                written += block
        os.close(leader)
        return process.wait(PATIENCE_S), written.decode()


def lines_of(shown: str) -> list[str]:
    """The lines as they stood on the terminal at any time, without colour and moves of the cursor."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", _ESCAPE.sub("", shown))]
