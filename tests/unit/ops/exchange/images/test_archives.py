"""Layers that are tar archives: what is unpacked, and what is refused."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from yarnstore.core.sizes import DEFAULT_RESERVE
from yarnstore.errors import FormatError, YarnstoreError
from yarnstore.ops.exchange.images import archives
from yarnstore.store.filepath import Path as StorePath

CONTENT = bytes(range(256)) * 5000


def member(path: str, size: int = 0, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(path)
    found.size, found.type = size, kind
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def tarred(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def unpacked(tmp_path: Path, data: bytes) -> dict[str, tuple[bytes, bool]]:
    archive, folder = tmp_path / "archive", tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    archive.write_bytes(data)
    folder.mkdir()
    made: list[StorePath] = []
    found = archives.unpack(
        StorePath(str(archive)), "the layer", StorePath(str(folder)), DEFAULT_RESERVE, made.append
    )
    files = {item.path: (Path(item.source).read_bytes(), item.executable) for item in found}
    assert {str(path) for path in made} == {str(path) for path in folder.iterdir()}
    return files


PLAIN = tarred(
    (member("models", kind=tarfile.DIRTYPE), b""),
    (member("./models/a.bin", len(CONTENT)), CONTENT),
    (member("run.sh", 2, mode=0o755), b"#!"),
    (member("empty"), b""),
    (member(f"{'long/' * 30}name", 1), b"x"),
)
WANT = {
    "models/a.bin": (CONTENT, False),
    "run.sh": (b"#!", True),
    "empty": (b"", False),
    f"{'long/' * 30}name": (b"x", False),
}


@pytest.mark.parametrize(
    "compress", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gzip", "zstd"]
)
def test_files_are_unpacked_whatever_the_compression(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    assert unpacked(tmp_path, compress(PLAIN)) == WANT


def test_the_form_of_gnu_is_read(tmp_path: Path) -> None:
    data = tarred((member(f"{'long/' * 30}name", 1), b"x"), form=tarfile.GNU_FORMAT)
    assert unpacked(tmp_path, data) == {f"{'long/' * 30}name": (b"x", False)}


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b", "..", "a/./b", "con", "a\\b", "a\x01"])
def test_a_path_that_leads_out_or_is_no_name_everywhere_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(FormatError):
        unpacked(tmp_path, tarred((member(path, 1), b"x")))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(FormatError, match="not a plain file"):
        unpacked(tmp_path, tarred((member("a", kind=kind, linkname="/etc/passwd"), b"")))


def test_a_header_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE):
        data = member("a", 1 << 40, kind).tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)
        with pytest.raises(FormatError, match=r"too large|sparse"):
            unpacked(tmp_path, gzip.compress(data))
    window = zstandard.ZstdCompressionParameters(window_log=30)
    frame = zstandard.ZstdCompressor(compression_params=window).compressobj().compress(PLAIN)
    with pytest.raises(FormatError):
        unpacked(tmp_path, frame or b"\x28\xb5\x2f\xfd\x00\xa0")


def test_records_that_tarfile_trips_over_are_refused(tmp_path: Path) -> None:
    for record in (
        b"9" * 40 + b" path=a\n",
        b"20 size=-512\n",
        b"12 mtime=x\n",
        b"1 a=b\n",
        b"14 path=\xff\xfe\n",
    ):
        header = member("pax", len(record), tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
        data = header + record.ljust(512, b"\0") + tarred((member("a", 1), b"x"))
        with contextlib.suppress(FormatError):
            assert unpacked(tmp_path, data) == {"a": (b"x", False)}
    nested = member("pax", 0, tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT) * 5000
    with pytest.raises(FormatError):
        unpacked(tmp_path, nested + tarred((member("a", 1), b"x")))


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(YarnstoreError, match="space"):
        unpacked(tmp_path, member("a", 1 << 60).tobuf(tarfile.GNU_FORMAT) + bytes(10_000))


@pytest.mark.parametrize("kept", range(1, len(PLAIN), 40_961))
def test_a_cut_archive_is_refused_or_ends_between_files(tmp_path: Path, kept: int) -> None:
    try:
        found = unpacked(tmp_path, PLAIN[:kept])
    except FormatError:
        return
    assert all(WANT[path] == content for path, content in found.items())


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    first = tarred((member("a", 1), b"x"))[:1024]
    with pytest.raises(FormatError, match="not a readable archive"):
        unpacked(tmp_path, first + b"?" * 512 + bytes(1024))
    for compress in (gzip.compress, zstandard.compress):
        data = compress(PLAIN)
        with pytest.raises(FormatError):
            unpacked(tmp_path, data[: len(data) // 2])
