"""A version in another tool: one that was found there, or one that is being written there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from yarnstore.core.digest import Buffer, Sha256
from yarnstore.core.index import id_bytes
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import ConflictError
from yarnstore.ops.local.import_export import Listing, put_file, sum_up
from yarnstore.progress import Meter
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import file_sha256
from yarnstore.store.layout import StoreLayout


class Found(NamedTuple):
    """The files of one version in another tool, and what it may be called here."""

    model: str
    variant: str | None
    revision: str  # hex digits, of which the version gets seven; empty if the tool has no revisions
    listing: Listing


class Target:
    """A version that is being written to another tool, or only compared with the files that exist.

    With `check` nothing is written; `behind` then has the paths that are missing or differ.
    """

    def __init__(
        self,
        layout: StoreLayout,
        chunks: ChunkStore,
        manifest: Manifest,
        meter: Meter,
        *,
        hardlink: bool = False,
        check: bool = False,
        flavour: str | None = None,
    ) -> None:
        self.behind: list[str] = []
        self.flavour = flavour  # of an image
        self._check = check
        self.manifest = manifest
        self._layout = layout
        self._chunks = chunks
        self._meter = meter
        self._hardlink = hardlink
        self._ways: set[str] = set()
        self._folders: set[Path] = set()

    @property
    def how(self) -> str:
        """One word for how the files were written; see `ExportResult`."""
        return sum_up(self._ways)

    def put(self, file: ManifestFile, path: Path, *, replace: bool = True) -> None:
        """Write a file, unless it exists with this content.

        Raises: ConflictError if something else is in the way; without `replace`, a file of other content is.
        """
        found = fsread.stat_or_none(path)
        if found is not None and not fsread.is_file(path) and not self._check:
            raise ConflictError(f"{path} exists and is not a file", hint="move it away")
        if (
            fsread.is_file(path)
            and found
            and found.st_size == file.size_bytes
            and (file_sha256(path) == file.sha256)
        ):
            self._meter.add(file.size_bytes)
            self._ways.add("present")
            return
        if self._check:
            self.behind.append(str(path))
            return
        if found is not None and not replace:
            raise ConflictError(
                f"{path} exists with other content", hint="give another name, or move it away"
            )
        self._ways.add(put_file(self._layout, self._chunks, file, path, self._meter, hardlink=self._hardlink))
        self._folders.add(path.parent)

    def put_bytes(self, data: Buffer, path: Path) -> None:
        """Write a small file that no version has, such as a manifest of the other tool."""
        if fsread.is_file(path) and file_sha256(path) == Sha256.of(data):
            return
        if self._check:
            self.behind.append(str(path))
        else:
            fsio.ensure_dir(path.parent)
            fsio.write_atomic(path, data, tmp_dir=path.parent)

    def link(self, content: Path, path: Path) -> None:
        """Link a path to a file that was written; without symlinks, the path becomes the file."""
        target = os.path.relpath(content, path.parent)
        if fsread.read_link(path) == target:
            return
        if self._check:
            self.behind.append(str(path))
            return
        fsio.ensure_dir(path.parent)
        if not fsio.swap_link(path, target, tmp_dir=path.parent):
            fsio.rename(content, path)

    def read(self, file: ManifestFile) -> Iterator[Buffer]:
        """Yield the content of a file.  Raises: IntegrityError."""
        ids, _ = file.chunk_list()
        for number in range(len(ids)):
            chunk_id = id_bytes(ids, number)
            yield self._chunks.read(chunk_id, self._chunks.row_of(chunk_id))

    def flush(self) -> None:
        """Make the names of all written files durable, before something refers to them."""
        for folder in sorted(self._folders):
            fsio.sync_dir(folder)
        self._folders.clear()
