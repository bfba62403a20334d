"""Standard streams that are closed, have another encoding, or have no reader."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import TextIO

_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))


def open_closed_streams() -> None:
    """Give the null device to each standard stream that the parent process closed.

    Otherwise the next file that is opened gets number 0, 1 or 2, and messages are written into it.
    """
    for number, (name, flags, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is returned, which is `number`: those below are open.
            os.set_inheritable(os.open(os.devnull, flags), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it stays open


def forgive_encoding() -> None:
    """Replace characters that stdout or stderr cannot encode, instead of failing.

    On Windows a pipe and a file get UTF-8 instead of the user's code page, which lacks most characters.
    """
    codecs.register_error("ystore", _unencodable)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            piped = sys.platform == "win32" and not stream.isatty() and "PYTHONIOENCODING" not in os.environ
            stream.reconfigure(encoding="utf-8" if piped else None, errors="ystore")


def _unencodable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Keep the bytes of file names that are not text; replace other unencodable characters by `?`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = map(ord, error.object[error.start : error.end])
    return bytes(code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0x3F for code in found), error.end


def discard(stream: TextIO) -> None:
    """Send the rest of a stream to the null device, so that the interpreter's last flush cannot fail."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
