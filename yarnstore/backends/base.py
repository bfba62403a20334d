"""What all backends have in common: read-only access to bytes by key, safe to share between threads.

Owns the interface and the checks of keys, ranges and lengths.  Leaves access to `local`, `http` and `memory`,
and retries to `sources`.  Backends guarantee nothing about content: their callers hash what they receive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec

from yarnstore.core.limits import MIB, PATH_COMPONENT_LIMIT_BYTES, PATH_LIMIT_BYTES
from yarnstore.errors import BackendError, InvalidNameError, TransientError

# No backend yields a larger block, so a reader's memory does not depend on the backend.
BLOCK_LIMIT_BYTES: Final = 1 * MIB


class Fetched(msgspec.Struct, frozen=True):
    """A whole small file.  `etag` can be passed to `get` to ask whether the file changed; it may be empty.

    `source` is the URL of the mirror that sent it, if there are several.
    """

    data: bytes
    etag: str
    source: str = ""


class Timeouts(msgspec.Struct, frozen=True):
    """How long a remote backend waits, in seconds.

    `connect_s` for a connection; `stall_s` without any byte; every `window_s` of waiting must bring
    `window_s · floor_bytes_per_s` bytes of content, headers and all; `get_s` for one whole `get`.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    window_s: float = 60.0
    floor_bytes_per_s: float = 1024.0
    get_s: float = 300.0


class Body:
    """One streamed response; iterate it once, inside the `with` that opened it.

    `start` is the offset of the first byte delivered: the requested one, or 0 if a server ignores ranges and
    sends the whole file, in which case the blocks also go beyond the requested end. `total` is the size of
    the whole file, if known; `source` is the URL of the mirror that sends it, if there are several.
    `ignores_ranges` is true if a part was requested and the whole file is sent.
    """

    __slots__ = ("_blocks", "ignores_ranges", "source", "start", "total")

    def __init__(
        self,
        start: int,
        total: int | None,
        blocks: Iterator[bytes],
        source: str = "",
        *,
        ignores_ranges: bool = False,
    ) -> None:
        self.start = start
        self.total = total
        self.source = source
        self.ignores_ranges = ignores_ranges
        self._blocks = blocks

    def passing(self, blocks: Iterator[bytes], source: str | None = None) -> Body:
        """Return the same response with its blocks passed through a function."""
        where = self.source if source is None else source
        return Body(self.start, self.total, blocks, where, ignores_ranges=self.ignores_ranges)

    def __iter__(self) -> Iterator[bytes]:
        """Blocks of any size up to 1 MiB.

        Raises: TransientError if the body ends short of its announced length or stalls;
        BackendError if it is longer.
        """
        return self._blocks


class Backend(Protocol):
    """Reads files of a registry by key: a relative path such as `packs/<id>.pack`."""

    @property
    def url(self) -> str:
        """The address, for messages; it never contains credentials."""

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """Return a small file; None if it still has this `etag` of an earlier response.

        Raises: MissingKeyError; BackendError if it is larger than `limit_bytes`; TransientError.
        """

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> AbstractContextManager[Body]:
        """Stream bytes [start, start+length), or to the end.

        A range that begins at the end of the file is empty; one that begins beyond it is a BackendError.

        Raises: MissingKeyError, BackendError, TransientError.
        """

    def close(self) -> None:
        """Close all connections.  Open bodies fail."""


def check_key(key: str) -> str:
    """Check that `key` is a relative path that stays inside, and return it.  Raises: InvalidNameError."""

    def refuse(why: str) -> InvalidNameError:
        return InvalidNameError("key", key, why)

    if not key:
        raise refuse("is empty")
    if key.startswith("/"):
        raise refuse("is absolute; keys are relative to the registry")
    if "\\" in key or not key.isprintable():
        raise refuse("contains a backslash or a control character")
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise refuse("has an empty, '.' or '..' part")
    longest = max(len(part.encode()) for part in parts)
    if longest > PATH_COMPONENT_LIMIT_BYTES or len(key.encode()) > PATH_LIMIT_BYTES:
        raise refuse("is too long")
    return key


def check_range(start: int, length: int | None) -> None:
    """Refuse ranges that cannot be written down.  Raises: ValueError, which is the caller's defect."""
    if start < 0 or (length is not None and length < 1):
        raise ValueError(f"the range of {length} bytes from {start} is outside the file")


def slice_range(url: str, start: int, length: int | None, total: int) -> int:
    """Return how many bytes of a file of `total` bytes are in the range.  Raises: BackendError if it begins
    beyond the end."""
    if start > total:
        raise BackendError(url, f"has {total} bytes; requested from byte {start}", status=416)
    return total - start if length is None else min(length, total - start)


def content_etag(data: bytes) -> str:
    """Return an ETag for backends that have none: a hash of the content."""
    return f'"{hashlib.sha256(data).hexdigest()}"'


def oversize_error(url: str, limit_bytes: int) -> BackendError:
    """Return the error for a file that is larger than its reader accepts."""
    return BackendError(
        url,
        f"is larger than the limit of {limit_bytes} bytes",
        hint="check that this is the address of a registry",
    )


def short_error(url: str, got: int, want: int) -> TransientError:
    """Return the error for a body that ended early."""
    return TransientError(url, f"ended after {got} of {want} bytes")
