"""Files into chunks, chunks into packs: what `publish`, `import` and plain downloads share."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3

from yarnstore.core.chunking import Piece, iter_chunk_batches, plan_segments
from yarnstore.core.codec import make_entry
from yarnstore.core.digest import Sha256
from yarnstore.core.layouts import Layout, external_layouts, layout_to_json, read_layout
from yarnstore.core.manifest import ManifestFile, pack_chunk_list
from yarnstore.core.names import check_file_paths
from yarnstore.core.pack import Entry
from yarnstore.errors import ConflictError, NotFoundError, UsageError
from yarnstore.ops.progress import Meter
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkTable, ordered_map
from yarnstore.store.packs import PackWriter

_THREADS = 2
# Batches of about 8 MiB encoded ahead of the writer.
_WINDOW = 4


@dataclass(frozen=True)
class SourceFile:
    """A file to be taken in: its path within the version, and where it is."""

    path: str
    source: Path
    size_bytes: int


def list_sources(source: Path) -> list[SourceFile]:
    """The files of a source, which is a file or a folder, by their paths in the version.

    Symlinks to files are followed, since caches of models are made of them; a link to a folder is
    refused.

    Raises: NotFoundError, UsageError for an empty folder or anything that is no file, FormatError
    for a path that not every system can hold.
    """
    if not source.exists():
        raise NotFoundError("file or folder", str(source))
    if source.is_file():
        found = [SourceFile(source.name, source, source.stat().st_size)]
    else:
        found = list(_walk(source))
    if not found:
        raise UsageError(f"{source} holds no files", hint="name a model file, or a folder of files")
    check_file_paths(item.path for item in found)
    return sorted(found, key=lambda item: item.path.encode())


def _walk(root: Path) -> Iterator[SourceFile]:
    def fail(error: OSError) -> None:
        raise fsread.translate(error, error.filename or root)

    for folder, folders, names in os.walk(root, onerror=fail):
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise UsageError(f"{Path(folder) / name} is a link to a folder", hint="put the files there")
        for name in names:
            path = Path(folder) / name
            with fsread.translating(path):
                found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{path} is not a file", hint="remove it from the folder")
            yield SourceFile(path.relative_to(root).as_posix(), path, found.st_size)


def hash_source(item: SourceFile, meter: Meter) -> Sha256:
    """The SHA-256 of a source file.  Raises: StorageError."""
    digest = hashlib.sha256()
    with fsread.translating(item.source), open(item.source, "rb") as file:
        while block := file.read(4 << 20):
            digest.update(block)
            meter.add(len(block))
    return Sha256(digest.digest())


@dataclass(frozen=True)
class _Hashed:
    """A chunk that was read: its name and length, and its entry where it is new."""

    chunk_id: bytes
    length: int
    entry: Entry | None


def ingest(
    sources: Sequence[SourceFile], known: ChunkTable, writer: PackWriter, meter: Meter
) -> list[ManifestFile]:
    """Cut, name, encode and pack the chunks that are not `known`; returns the manifest's files.

    Raises: ConflictError where a source changes while it is read, StorageError, IntegrityError.
    """
    written: set[bytes] = set()
    layouts = read_layouts(sources)
    with ThreadPoolExecutor(1, thread_name_prefix="yarnstore-sha256") as lane:
        return [
            _ingest_file(item, layouts.get(item.path), known, writer, written, lane, meter)
            for item in sources
        ]


class _FileSource:
    """An open file as layout readers see it."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)


def read_layouts(sources: Sequence[SourceFile]) -> dict[str, Layout]:
    """The layouts of the files that have one, by path; an ONNX model tells those of its data files.

    Raises: StorageError.
    """
    layouts: dict[str, Layout] = {}
    sizes = {item.path: item.size_bytes for item in sources}
    for item in sources:
        with fsread.translating(item.source), open(item.source, "rb", buffering=0) as file:
            source = _FileSource(file.fileno(), item.size_bytes)
            layout = read_layout(source, name=item.path)
            if layout is not None:
                layouts[item.path] = layout
            if item.path.endswith(".onnx"):
                folder = item.path.rpartition("/")[0]
                prefix = f"{folder}/" if folder else ""
                near = {
                    path.removeprefix(prefix): size for path, size in sizes.items() if path.startswith(prefix)
                }
                for path, external in external_layouts(source, near).items():
                    layouts.setdefault(prefix + path, external)
    return layouts


def _ingest_file(
    item: SourceFile,
    layout: Layout | None,
    known: ChunkTable,
    writer: PackWriter,
    written: set[bytes],
    lane: ThreadPoolExecutor,
    meter: Meter,
) -> ManifestFile:
    sha256 = hashlib.sha256()
    hashing: Future[None] | None = None
    chunks: list[tuple[bytes, int]] = []

    def hash_and_encode(batch: list[Piece]) -> list[_Hashed]:
        ids = [blake3(piece.data).digest() for piece in batch]
        rows = known.find(np.array(ids, "S32"))
        return [
            _Hashed(
                chunk_id,
                len(piece.data),
                make_entry(chunk_id, *piece) if row < 0 and chunk_id not in written else None,
            )
            for chunk_id, piece, row in zip(ids, batch, rows, strict=True)
        ]

    with fsread.translating(item.source), open(item.source, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())

        def read_next(count: int) -> bytes:
            nonlocal hashing
            parts = []
            while count and (part := file.read(count)):
                parts.append(part)
                count -= len(part)
            block = parts[0] if len(parts) == 1 else b"".join(parts)
            if hashing is not None:
                hashing.result()
            hashing = lane.submit(sha256.update, block)
            return block

        segments = plan_segments(_FileSource(file.fileno(), before.st_size), layout)
        batches = iter_chunk_batches(read_next, segments)
        for batch in ordered_map(hash_and_encode, batches, threads=_THREADS, window=_WINDOW):
            for chunk in batch:
                chunks.append((chunk.chunk_id, chunk.length))
                if chunk.entry is not None and chunk.chunk_id not in written:
                    written.add(chunk.chunk_id)
                    writer.add(chunk.entry)
                meter.add(chunk.length)
        if hashing is not None:
            hashing.result()
        after = os.fstat(file.fileno())
    size = sum(length for _, length in chunks)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or size != after.st_size:
        raise ConflictError(f"{item.source} changed while it was read", hint="try again when it is whole")
    extra = {"layout": layout_to_json(layout)} if layout is not None else {}
    return ManifestFile(item.path, size, Sha256(sha256.digest()), pack_chunk_list(chunks), extra)
