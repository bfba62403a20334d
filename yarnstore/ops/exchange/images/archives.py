"""Layers that are tar archives: their files, unpacked into temporary files.

KitOps packs each part of a model so.  Only regular files inside of the version are accepted: no link, no
device, no path that leads out.
"""

from __future__ import annotations

import contextlib
import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Final, Self, TypeVar

from yarnstore.core.limits import KIB, MIB
from yarnstore.core.names import parse_file_path
from yarnstore.core.sizes import Reserve
from yarnstore.errors import FormatError
from yarnstore.store import fsread, growing
from yarnstore.store.filepath import Path
from yarnstore.store.source_files import SourceFile

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
# What `zstd --long` writes, and no more: a frame may ask for gigabytes.
_WINDOW_LIMIT_BYTES: Final = 64 * MIB
_HEADER_LIMIT_BYTES: Final = 64 * KIB
_FILES_LIMIT: Final = 20_000  # tarfile keeps a record of each
_BLOCK_BYTES: Final = 1 * MIB
# The headers that tarfile reads into memory whole: pax's, and GNU's long names.
_READ_WHOLE: Final = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
# What tarfile and the decompressors raise about bytes that are wrong.
_UNREADABLE: Final = (
    *(tarfile.TarError, zlib.error, EOFError),
    *(ValueError, ArithmeticError, LookupError, RecursionError),
)
_PLAIN: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)


class _Member(tarfile.TarInfo):
    """A member whose headers are of limited size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        return _checked(partial(super().frombuf, buf, encoding, errors), buf)

    # What releases of 2026, such as Python 3.14.8, read headers by.
    @classmethod
    def _frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str, **more: bool) -> Self:
        return _checked(partial(super()._frombuf, buf, encoding, errors, **more), buf)  # type: ignore[misc, no-any-return]


_AnyMember = TypeVar("_AnyMember", bound=tarfile.TarInfo)


def _checked(read: Callable[[], _AnyMember], buf: bytes | bytearray) -> _AnyMember:
    """Return the member of a header.  Raises: tarfile.ReadError for one that is too large or broken."""
    try:
        found = read()
    except tarfile.HeaderError as error:
        if any(buf):  # tarfile would take a broken header for the end of the archive
            raise tarfile.ReadError(str(error)) from None
        raise
    if found.size < 0 or (found.type in _READ_WHOLE and found.size > _HEADER_LIMIT_BYTES):
        raise tarfile.ReadError("a header is too large")
    if found.type == tarfile.GNUTYPE_SPARSE:
        raise tarfile.ReadError("sparse files are not supported")
    return found


def unpack(
    archive: Path, what: str, tmp_dir: Path, reserve: Reserve, made: Callable[[Path], None]
) -> Iterator[SourceFile]:
    """Yield the files of a tar archive, plain or compressed by gzip or zstd, as files in `tmp_dir`.

    `made` is called with the path of each before it is written, and removes it later.

    Raises: FormatError naming `what`, also for anything but regular files and folders; DiskFullError.
    """
    try:
        with (
            fsread.translating(archive),
            fsread.open_source(archive) as file,
            _decompressed(file) as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=_BLOCK_BYTES, tarinfo=_Member) as members,
        ):
            for number, member in enumerate(members):
                if number >= _FILES_LIMIT:
                    raise FormatError(what, f"has more than {_FILES_LIMIT} files")
                if member.isdir():
                    continue
                if member.type not in _PLAIN or member.issparse():
                    why = f"has a member that is not a plain file: {member.name[:120]!r}"
                    raise FormatError(what, why, hint="only files and folders are unpacked")
                path = parse_file_path(member.name.removeprefix("./"))
                content = members.extractfile(member)
                if content is None:
                    raise FormatError(what, f"has no content for {path!r}")
                fsread.require_space(tmp_dir, member.size, reserve)
                place = tmp_dir / f"{fsread.unique_name()}.part"
                made(place)
                with growing.PartialFile(place) as new:
                    while block := content.read(_BLOCK_BYTES):
                        new.write(block)
                    if new.size_bytes != member.size:
                        raise FormatError(what, f"ends within {path!r}")
                yield SourceFile(path, place, member.size, executable=bool(member.mode & 0o100))
    except _UNREADABLE as error:
        raise FormatError(what, f"is not a readable archive: {str(error)[:120]}") from None


@contextlib.contextmanager
def _decompressed(file: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the plain bytes of a file; its first bytes say how it is compressed."""
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP):
        with gzip.GzipFile(fileobj=file, mode="rb") as plain:
            try:
                yield plain  # type: ignore[misc]
            except gzip.BadGzipFile as error:
                raise tarfile.ReadError(str(error)) from None
    elif magic == _ZSTD:
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT_BYTES)
        with decompressor.stream_reader(file, read_across_frames=True) as plain:
            try:
                yield plain
            except zstandard.ZstdError as error:
                raise tarfile.ReadError(str(error)) from None
    else:
        yield file
