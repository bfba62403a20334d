"""Cut files into chunks and write the chunks into packs, for `publish`, `import` and plain downloads.

Finds out which chunks are new and chooses the encoding of each.  `core/chunking` cuts, `core/codec` encodes,
and `store/source_files` selects the files of a version.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from blake3 import blake3

from yarnstore.core.chunking import Piece, cut_in_memory, iter_chunk_batches, plan_segments
from yarnstore.core.codec import make_entry
from yarnstore.core.digest import Sha256
from yarnstore.core.layouts import (
    BytesSource,
    Layout,
    Segment,
    Source,
    external_layouts,
    layout_to_json,
    read_layout,
)
from yarnstore.core.manifest import ManifestFile, pack_chunk_list
from yarnstore.core.pack import Entry
from yarnstore.errors import ConflictError, IntegrityError, NotFoundError
from yarnstore.progress import Meter
from yarnstore.store import fsread, native
from yarnstore.store.chunks import PackReader
from yarnstore.store.packs import PackWriter
from yarnstore.store.pipeline import ordered_map
from yarnstore.store.source_files import FileSource, SourceFile, read_small

# Batches of about 2 MiB that are encoded ahead of the writer.
_WINDOW = 16
_SMALL_BYTES = 64 * 1024
# The number of small files read before they are cut, since code between system calls slows them down.
_AHEAD = 256


class _Hashed(NamedTuple):
    """A chunk of a source: its name and length, and its entry if it is new."""

    chunk_id: bytes
    length: int
    entry: Entry | None
    damaged: bool = False


def ingest(
    sources: Sequence[SourceFile],
    known: PackReader,
    writer: PackWriter,
    meter: Meter,
    cuts: Mapping[str, Sequence[int]] | None = None,
) -> list[ManifestFile]:
    """Cut and hash files, pack the chunks that are not `known` or are damaged, and return the manifest's
    files.

    `cuts` are offsets, by path, at which large tensors are cut too (`inherited_cuts`); with them, also with
    none, files are cut at their deflate streams, for the deltas of later versions.

    Raises: ConflictError if a source changes while it is read, StorageError, IntegrityError.
    """
    layouts = _Layouts(sources, cuts)
    cutter = _Cutter(layouts, known, writer, meter)
    with ThreadPoolExecutor(1, thread_name_prefix="yarnstore-sha256") as lane:
        for item in layouts.in_order():
            cutter.add(item, lane)
        cutter.finish()
    return [cutter.made[item.path] for item in sources]


class _Layouts:
    """The layouts of files in order, and their cuts; an ONNX model contains the layouts of its data files."""

    def __init__(self, sources: Sequence[SourceFile], cuts: Mapping[str, Sequence[int]] | None) -> None:
        self._sources = sources
        self._cuts = cuts or {}
        self.at_streams = cuts is not None
        self._external: dict[str, Layout] = {}

    def in_order(self) -> list[SourceFile]:
        """Return ONNX models before all files that may be their data."""
        return sorted(self._sources, key=lambda item: not item.path.endswith(".onnx"))

    def segments(self, item: SourceFile, source: Source, layout: Layout | None) -> list[Segment]:
        """Return the segments to cut a file into."""
        cuts = self._cuts.get(item.path, ())
        return plan_segments(source, layout, cuts, at_streams=self.at_streams)

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
    layouts = _Layouts(sources, None)
    found: dict[str, Layout] = {}
    for item in layouts.in_order():
        with fsread.translating(item.source), fsread.open_source(item.source) as file:
            layout = layouts.read(item, FileSource(file.fileno(), item.size_bytes))
        if layout is not None:
            found[item.path] = layout
    return found


class _Cutter:
    """Cuts the files of one call, and packs their new chunks."""

    def __init__(self, layouts: _Layouts, known: PackReader, writer: PackWriter, meter: Meter) -> None:
        self._layouts = layouts
        self._known = known
        self._writer = writer
        self._meter = meter
        self._written: set[bytes] = set()
        self._ahead: list[tuple[SourceFile, BytesSource]] = []
        self.made: dict[str, ManifestFile] = {}

    def add(self, item: SourceFile, lane: ThreadPoolExecutor) -> None:
        """Cut and pack one file; small files are collected until there are many, or until `finish`."""
        fd = fsread.open_source_fd(item.source)
        try:
            with fsread.translating(item.source):
                before = os.fstat(fd)
                source = read_small(FileSource(fd, before.st_size))
                if isinstance(source, BytesSource):
                    size = source.size
                    self._ahead.append((item, source))
                else:
                    self.finish()
                    size = self._cut_large(item, source, fd, lane)
                after = os.fstat(fd)
        finally:
            os.close(fd)
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or (
            size != after.st_size
        ):
            raise ConflictError(
                f"{item.source} changed while it was read", hint="try again when it is complete"
            )
        if len(self._ahead) == _AHEAD:
            self.finish()

    def finish(self) -> None:
        """Cut and pack the collected small files."""
        pieces: list[Piece] = []
        cut = []
        for item, source in self._ahead:
            layout = self._layouts.read(item, source)
            first = len(pieces)
            pieces += cut_in_memory(source, layout, at_streams=self._layouts.at_streams)
            cut.append((item, layout, Sha256.of(source.data), slice(first, len(pieces))))
        chunks = self._hash_and_encode(pieces)
        for item, layout, sha256, part in cut:
            self._describe(item, layout, self._pack(chunks[part]), sha256)
        self._ahead.clear()

    def _cut_large(self, item: SourceFile, source: Source, fd: int, lane: ThreadPoolExecutor) -> int:
        """Cut and pack a large file; return how many bytes were read."""
        sha256 = hashlib.sha256()
        hashing: Future[None] | None = None
        offset = 0

        def read_next(count: int) -> bytes:
            nonlocal hashing, offset
            parts = []
            # At its offset: on Windows, reading the layout has moved the position of the file.
            while count and (part := native.pread(fd, count, offset)):
                parts.append(part)
                offset += len(part)
                count -= len(part)
            block = parts[0] if len(parts) == 1 else b"".join(parts)
            if hashing is not None:
                hashing.result()
            if len(block) < _SMALL_BYTES:  # hashed faster than another thread could start
                hashing = None
                sha256.update(block)
            else:
                hashing = lane.submit(sha256.update, block)
            return block

        layout = self._layouts.read(item, source)
        batches = iter_chunk_batches(read_next, self._layouts.segments(item, source, layout))
        chunks: list[tuple[bytes, int]] = []
        for batch in ordered_map(self._hash_and_encode, batches, window=_WINDOW):
            chunks += self._pack(batch)
        if hashing is not None:
            hashing.result()
        return self._describe(item, layout, chunks, Sha256(sha256.digest()))

    def _hash_and_encode(self, pieces: list[Piece]) -> list[_Hashed]:
        ids = [blake3(piece.data).digest() for piece in pieces]
        rows = self._known.table.rows_of(ids)
        return [
            self._take(row, chunk_id, piece) for chunk_id, piece, row in zip(ids, pieces, rows, strict=True)
        ]

    def _take(self, row: int, chunk_id: bytes, piece: Piece) -> _Hashed:
        """Return a chunk, with its entry if it is new.

        A known chunk is read, since its copy may be damaged.
        """
        if chunk_id in self._written:
            return _Hashed(chunk_id, len(piece.data), None)
        if row >= 0:
            with contextlib.suppress(IntegrityError, NotFoundError):
                self._known.read_row(row)
                return _Hashed(chunk_id, len(piece.data), None)
        return _Hashed(chunk_id, len(piece.data), make_entry(chunk_id, *piece), damaged=row >= 0)

    def _pack(self, hashed: list[_Hashed]) -> list[tuple[bytes, int]]:
        """Write the new chunks; return the name and length of all."""
        for chunk in hashed:
            if chunk.entry is not None and chunk.chunk_id not in self._written:
                if chunk.damaged:
                    self._known.forget({chunk.chunk_id})
                self._written.add(chunk.chunk_id)
                self._writer.add(chunk.entry)
            self._meter.add(chunk.length)
        return [(chunk.chunk_id, chunk.length) for chunk in hashed]

    def _describe(
        self, item: SourceFile, layout: Layout | None, chunks: list[tuple[bytes, int]], sha256: Sha256
    ) -> int:
        """Make the manifest's entry of a file; return the size of the file in bytes."""
        size = sum(length for _, length in chunks)
        extra: dict[str, Any] = {"layout": layout_to_json(layout)} if layout is not None else {}
        if item.executable:
            extra["executable"] = True
        self.made[item.path] = ManifestFile(item.path, size, sha256, pack_chunk_list(chunks), extra)
        return size
