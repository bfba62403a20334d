"""Files of one stored version, open for reading by others than this engine.

Every chunk is hashed before its bytes are returned.  `contents` finds the version.
"""

from __future__ import annotations

import io
import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Final

from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.inspecting.readers import CachedChunks, Content, stored_content
from yarnstore.store.layout import StoreLayout

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# A service reads for many clients at once; each of them goes on where it stopped, within a chunk.
_CACHE_BYTES: Final = 2 * MIB


class OpenVersion:
    """A version that is read, and the chunks of its files; thread-safe.

    `held` is a descriptor that keeps `gc` from the version until `close`, or None.
    """

    def __init__(self, layout: StoreLayout, manifest: Manifest, held: int | None) -> None:
        self.layout = layout
        self.manifest = manifest
        self._held = held
        self._lock = threading.Lock()
        self._chunks: list[CachedChunks] = []
        self._is_closed = False

    @cached_property
    def files(self) -> dict[str, ManifestFile]:
        """Its files by path."""
        return {file.path: file for file in self.manifest.files}

    def chunks(self, wrong: CachedChunks | None) -> CachedChunks:
        """Return the chunks of the store, whose places are looked up again if those were `wrong`.

        Raises: ValueError if the version is closed.
        """
        with self._lock:
            if self._is_closed:
                raise ValueError("I/O operation on closed file")
            if not self._chunks or self._chunks[-1] is wrong:
                # Another thread may still use the one before.
                self._chunks.append(CachedChunks(self.layout, _CACHE_BYTES))
            return self._chunks[-1]

    def close(self) -> None:
        """End all reading."""
        with self._lock:
            self._is_closed = True
            while self._chunks:
                self._chunks.pop().close()
            held, self._held = self._held, None
            if held is not None:
                os.close(held)


def missing_file(manifest: Manifest, path: str) -> NotFoundError:
    """Return the error for a path that a version does not have."""
    return NotFoundError("file", path[:120], where=manifest.label)


class StoredFile(io.RawIOBase):
    """One file of a stored version, open for reading in binary mode.

    `read_at` may be called by several threads at once; `read` and `seek` are for one, as with any file.  The
    lock of the store is held only while bytes are read.  Until `close`, `gc` keeps the version, but not in a
    read-only store; `remove` does not keep it.  Reading a version that was deleted raises.
    """

    def __init__(self, version: OpenVersion, file: ManifestFile, *, is_first: bool) -> None:
        super().__init__()
        self.path = file.path
        self.size_bytes = file.size_bytes
        self.sha256 = file.sha256.hex
        self.manifest = str(version.manifest.digest)
        self._version = version
        self._is_first = is_first
        self._file = file
        self._place = 0
        self._located: tuple[CachedChunks, Content] | None = None

    def other(self, path: str) -> StoredFile:
        """Open another file of the same version, which can be read until this one is closed.

        Raises: NotFoundError.
        """
        file = self._version.files.get(path)
        if file is None:
            raise missing_file(self._version.manifest, path)
        return StoredFile(self._version, file, is_first=False)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, fewer only where the file ends.

        Raises: IntegrityError if a chunk is damaged or was deleted, StorageError, LockTimeoutError.
        """
        length = max(0, min(length, self.size_bytes - offset))
        if not length:
            return b""
        with self._version.layout.shared():
            chunks, content = self._locate(None)
            try:
                return bytes(content.read(offset, length))
            except (IntegrityError, NotFoundError):  # `gc` may have moved the chunk since it was located
                return bytes(self._locate(chunks)[1].read(offset, length))

    def _locate(self, wrong: CachedChunks | None) -> tuple[CachedChunks, Content]:
        """Return the chunks of the store and the file in them."""
        chunks = self._version.chunks(wrong)
        located = self._located
        if self.closed:
            raise ValueError("I/O operation on closed file")
        if located is None or located[0] is not chunks:
            located = self._located = chunks, stored_content(self._file, chunks)
        return located

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """See io."""
        with memoryview(buffer) as view:
            data = self.read_at(self._place, view.nbytes)
            view.cast("B")[: len(data)] = data
        self._place += len(data)
        return len(data)

    def readable(self) -> bool:
        """See io."""
        return True

    def seekable(self) -> bool:
        """See io."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See io."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size_bytes}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """See io."""
        return self._place

    def close(self) -> None:
        """See io."""
        if self._is_first:
            self._version.close()
        super().close()
