"""A registry in a folder: a disk, a USB stick, a network drive.

Owns the translation of `OSError`s of reading a registry; writing one is `store/fsio`'s.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from yarnstore.backends.base import (
    BLOCK_LIMIT_BYTES,
    Body,
    Fetched,
    check_key,
    check_range,
    content_etag,
    oversize_error,
    short_error,
    slice_range,
)
from yarnstore.errors import BackendError, MissingKeyError, TransientError, UsageError

_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENXIO})
# A FIFO planted under a key must not hang the reader; regular files ignore O_NONBLOCK.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def path_from_url(url: str) -> str:
    """The path of a file:// URL.  Raises: UsageError if it names another host or cannot be a path."""
    parts = urlsplit(url)
    host, path = parts.netloc.lower(), unquote(parts.path)
    if os.name == "nt":  # file:///C:/models, and file://C:\\models as it is often written
        found = re.fullmatch(
            "(?:localhost)?/?([a-z]:.*)", unquote(parts.netloc) + path, re.IGNORECASE | re.DOTALL
        )
        host, path = ("", found[1]) if found else (host, path)
    if parts.scheme.lower() != "file" or host not in ("", "localhost"):
        raise UsageError(f"{url!r} is not a folder on this machine", hint="write file:///absolute/path")
    if not os.path.isabs(path) or "\0" in path or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is not an absolute path", hint="write file:///absolute/path")
    return path


class LocalBackend:
    """A `Backend` over a folder, given as a path or a file:// URL."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path)
        if text[:5].lower() == "file:":
            text = path_from_url(text)
        if not text or "\0" in text:
            raise UsageError(f"{text!r} is not a path")
        try:
            self.url = os.path.abspath(text)
        except FileNotFoundError:
            raise UsageError(
                f"{text!r}: the current folder was removed", hint="change to another one"
            ) from None

    def get(self, key: str, *, limit_bytes: int, etag: str = "") -> Fetched | None:
        """See `Backend.get`.  The ETag is of the content, so a file is read to learn it has not changed."""
        with self._opened(key) as (file, total, where):
            if total > limit_bytes:
                raise oversize_error(where, limit_bytes)
            with _translating(where):
                data = file.read(total + 1)
        if len(data) != total:
            raise TransientError(where, "changed while it was read")
        found = content_etag(data)
        return None if found == etag else Fetched(data, found)

    @contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[Body]:
        """See `Backend.open`."""
        check_range(start, length)
        with self._opened(key) as (file, total, where):
            want = slice_range(where, start, length, total)
            with _translating(where):
                file.seek(start)
            yield Body(start, total, _blocks(file, want, where))

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[BinaryIO, int, str]]:
        where = os.path.join(self.url, *check_key(key).split("/"))
        try:
            descriptor = os.open(where, _FLAGS)
        except OSError as error:
            # Windows opens no folder, and says that access is denied.
            if error.errno not in _MISSING and not (os.name == "nt" and os.path.isdir(where)):
                raise _translated(where, error) from error
            if os.path.isfile(self.url):
                raise BackendError(
                    self.url, "a file, and not a folder", hint="give the folder that has registry.json in it"
                ) from error
            if not os.path.isdir(self.url):
                # An unplugged drive is not a registry that lost its files.
                raise BackendError(
                    self.url, "no such folder", hint="check the path, and that its drive is connected"
                ) from error
            raise MissingKeyError(where, "no such file") from error
        try:
            with _translating(where):
                status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise MissingKeyError(where, "is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                yield file, status.st_size, where
        finally:
            os.close(descriptor)


def _blocks(file: BinaryIO, want: int, where: str) -> Iterator[bytes]:
    left = want
    while left:
        with _translating(where):
            block = file.read(min(left, BLOCK_LIMIT_BYTES))
        if not block:
            raise short_error(where, want - left, want)
        left -= len(block)
        yield block


def _translated(where: str, error: OSError) -> BackendError:
    return BackendError(where, error.strerror or str(error))


@contextmanager
def _translating(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _translated(where, error) from error
