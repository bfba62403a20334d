"""The log of files that `adopt` replaced, so that `adopt --undo` can take it back.

docs/format/store.md governs `logs/adopted`: one line of JSON for each file, written before the file is
replaced.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import NotFoundError
from yarnstore.store import fsio, fsread, growing, lock
from yarnstore.store.layout import StoreLayout

_LIMIT_BYTES = 64 * MIB


class AdoptedFile(msgspec.Struct, frozen=True):
    """One file that was replaced, or became read-only since others are links to it."""

    path: str
    like: str  # the file whose content it has since; the same as `path` for a file that only became read-only
    how: Literal["reflink", "hardlink", "kept"]
    sha256: str
    mode: int  # before, as its modification time in nanoseconds since 1970
    mtime_ns: int
    time_ms: int


def log_adopted(layout: StoreLayout, files: list[AdoptedFile]) -> None:
    """Append to the log durably.  Raises: StorageError."""
    with lock.hold_folder(layout.logs):
        for file in files:
            growing.append_line(layout.adopted, msgspec.json.encode(file) + b"\n")


def read_adopted(layout: StoreLayout) -> list[AdoptedFile]:
    """Return the files in the log, in order; unreadable lines are left out."""
    return list(_read(layout))


def _read(layout: StoreLayout) -> Iterator[AdoptedFile]:
    try:
        data = fsread.read_bytes(layout.adopted, _LIMIT_BYTES)
    except NotFoundError:
        return
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield msgspec.json.decode(line, type=AdoptedFile)


def forget_adopted(layout: StoreLayout, done: list[AdoptedFile]) -> None:
    """Remove files from the log.  Raises: StorageError."""
    gone = set(done)
    with lock.hold_folder(layout.logs):
        left = [msgspec.json.encode(file) + b"\n" for file in _read(layout) if file not in gone]
        if left:
            fsio.write_atomic(layout.adopted, b"".join(left), tmp_dir=layout.tmp)
        else:
            fsio.remove(layout.adopted)
