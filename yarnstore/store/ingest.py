"""Cut files into chunks and write the chunks into packs, for `publish`, `import` and plain downloads.

Owns which chunks are new and how each is encoded.  Leaves cutting to `core/chunking`, encoding to
`core/codec`, and which files belong to a version to `store/source_files`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from yarnstore.core.chunking import Piece, iter_chunk_batches, plan_segments
from yarnstore.core.codec import make_entry
from yarnstore.core.digest import Sha256
from yarnstore.core.layouts import BytesSource, Layout, Source, external_layouts, layout_to_json, read_layout
from yarnstore.core.manifest import ManifestFile, pack_chunk_list
from yarnstore.core.pack import Entry
from yarnstore.errors import ConflictError, IntegrityError, NotFoundError
from yarnstore.progress import Meter
from yarnstore.store import fsread
from yarnstore.store.chunks import PackReader
from yarnstore.store.packs import PackWriter
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.source_files import FileSource, SourceFile, read_small

_THREADS = 2
# Batches of about 8 MiB encoded ahead of the writer.
_WINDOW = 4
_SMALL_BYTES = 64 * 1024


@dataclass(frozen=True)
class _Hashed:
    """A chunk that was read: its name and length, and its entry if it is new."""

    chunk_id: bytes
    length: int
    entry: Entry | None
    damaged: bool = False


def ingest(
    sources: Sequence[SourceFile], known: PackReader, writer: PackWriter, meter: Meter
) -> list[ManifestFile]:
    """Cut, name, encode and pack the chunks that are not `known`, or damaged; returns the manifest's files.

    Raises: ConflictError if a source changes while it is read, StorageError, IntegrityError.
    """
    written: set[bytes] = set()
    layouts = _Layouts(sources)
    made: dict[str, ManifestFile] = {}
    with ThreadPoolExecutor(1, thread_name_prefix="yarnstore-sha256") as lane:
        for item in layouts.in_order():
            made[item.path] = _ingest_file(item, layouts, known, writer, written, lane, meter)
    return [made[item.path] for item in sources]


class _Layouts:
    """The layouts of files that are read in order; an ONNX model has those of its data files."""

    def __init__(self, sources: Sequence[SourceFile]) -> None:
        self._sources = sources
        self._external: dict[str, Layout] = {}

    def in_order(self) -> list[SourceFile]:
        """Return ONNX models before all files that may be their data."""
        return sorted(self._sources, key=lambda item: not item.path.endswith(".onnx"))

    def read(self, item: SourceFile, source: Source) -> Layout | None:
        """Return the layout of an open file, if it has one."""
        if item.path.endswith(".onnx"):
            folder = item.path.rpartition("/")[0]
            prefix = f"{folder}/" if folder else ""
            near = {
                other.path.removeprefix(prefix): other.size_bytes
                for other in self._sources
                if other.path.startswith(prefix)
            }
            for path, external in external_layouts(source, near).items():
                self._external.setdefault(prefix + path, external)
        layout = read_layout(source, name=item.path)
        if layout is None and source.size == item.size_bytes:
            layout = self._external.get(item.path)
        return layout


def read_layouts(sources: Sequence[SourceFile]) -> dict[str, Layout]:
    """Return the layouts of the files that have one, by path.  Raises: StorageError."""
    layouts = _Layouts(sources)
    found: dict[str, Layout] = {}
    for item in layouts.in_order():
        with fsread.translating(item.source), fsread.open_source(item.source) as file:
            layout = layouts.read(item, FileSource(file.fileno(), item.size_bytes))
        if layout is not None:
            found[item.path] = layout
    return found


def _take(known: PackReader, row: int, chunk_id: bytes, piece: Piece, *, skip: bool) -> _Hashed:
    """Return a chunk, with its entry if it is new; a known chunk is read, since a place is no proof."""
    if skip:
        return _Hashed(chunk_id, len(piece.data), None)
    if row >= 0:
        with contextlib.suppress(IntegrityError, NotFoundError):
            known.read_row(row)
            return _Hashed(chunk_id, len(piece.data), None)
    return _Hashed(chunk_id, len(piece.data), make_entry(chunk_id, *piece), damaged=row >= 0)


def _ingest_file(
    item: SourceFile,
    layouts: _Layouts,
    known: PackReader,
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
        return [
            _take(known, row, chunk_id, piece, skip=chunk_id in written)
            for chunk_id, piece, row in zip(ids, batch, known.table.rows_of(ids), strict=True)
        ]

    with fsread.translating(item.source), fsread.open_source(item.source) as file:
        before = os.fstat(file.fileno())
        source = read_small(FileSource(file.fileno(), before.st_size))
        stream = io.BytesIO(source.data) if isinstance(source, BytesSource) else file

        def read_next(count: int) -> bytes:
            nonlocal hashing
            parts = []
            while count and (part := stream.read(count)):
                parts.append(part)
                count -= len(part)
            block = parts[0] if len(parts) == 1 else b"".join(parts)
            if hashing is not None:
                hashing.result()
            if len(block) < _SMALL_BYTES:  # hashed in less time than another thread needs to start on it
                hashing = None
                sha256.update(block)
            else:
                hashing = lane.submit(sha256.update, block)
            return block

        layout = layouts.read(item, source)
        segments = plan_segments(source, layout)
        batches = iter_chunk_batches(read_next, segments)
        for batch in ordered_map(hash_and_encode, batches, threads=_THREADS, window=_WINDOW):
            for chunk in batch:
                chunks.append((chunk.chunk_id, chunk.length))
                if chunk.entry is not None and chunk.chunk_id not in written:
                    if chunk.damaged:
                        known.forget({chunk.chunk_id})
                    written.add(chunk.chunk_id)
                    writer.add(chunk.entry)
                meter.add(chunk.length)
        if hashing is not None:
            hashing.result()
        after = os.fstat(file.fileno())
    size = sum(length for _, length in chunks)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or size != after.st_size:
        raise ConflictError(f"{item.source} changed while it was read", hint="try again when it is complete")
    extra: dict[str, Any] = {"layout": layout_to_json(layout)} if layout is not None else {}
    if item.executable:
        extra["executable"] = True
    return ManifestFile(item.path, size, Sha256(sha256.digest()), pack_chunk_list(chunks), extra)
