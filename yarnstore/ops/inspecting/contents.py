"""The files of one version by name, and reading them without installing it.

For programs that do not read the store's files by their paths: servers of a store, and file systems of other
libraries.  Every chunk is hashed before its bytes are returned.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from typing import TYPE_CHECKING

from yarnstore.core.imported import ImportedFrom, imported_from
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.record import Record
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.fetching.fetch import ensure_version, manifest_of
from yarnstore.ops.inspecting.readers import CachedChunks, Content, stored_content
from yarnstore.ops.session.lookup import Found, Offered, find_entry, find_offered, sources_for
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import (
    Stored,
    cached_entry,
    find_stored,
    not_in_store,
    origin_of_model,
    stored_as,
)
from yarnstore.registry.select import iter_builds, resolve
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import is_prerelease, precedence
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import StoreLayout
from yarnstore.store.native import quoted
from yarnstore.store.refs import VersionName
from yarnstore.store.views import hold_version, note_use

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import WriteableBuffer


class VersionFile(Record, frozen=True):
    """One file of a version."""

    path: str  #: The path within the version.
    size_bytes: int  #: The size of the file, in bytes.
    sha256: str  #: The SHA-256 of the file, in hex.
    executable: bool = False  #: Whether it is executable.


class VersionFiles(Record, frozen=True):
    """The files of one version, which is stored or offered by a registry."""

    model: str
    version: str
    variant: str
    manifest: str
    files: tuple[VersionFile, ...]  #: The files, by path.
    stored: bool  #: Whether the version is in the store; if not, `registry` offers it.
    registry: str | None = None  #: The registry that it came from; None for an imported model.
    imported_from: ImportedFrom | None = None  #: Where an imported version was; None for any other.


def list_files(session: Session, spec: Spec, *, commit: str = "", online: bool = False) -> VersionFiles:
    """Return the files of the version that a spec selects.

    A bare model is its installed version, else the newest stored one; with `online`, else the one that
    `fetch` would download.  `commit` are the first digits of the manifest's SHA-256, and select the only
    version with them instead of the spec's version.  Without `online` only stored versions are found, and no
    network is used.

    Raises: NotFoundError, BackendError; IntegrityError if the manifest is damaged.
    """
    online = online and bool(session.registries.sources)
    found = (
        _by_commit(session, spec, commit, online=online) if commit else _find(session, spec, online=online)
    )
    if isinstance(found, Stored):
        return _described(found.manifest, origin_of_model(session, spec.model), stored=True)
    if found.build.entry.manifest is None:
        raise NotFoundError(
            "manifest",
            str(found.name),
            where=found.source.name,
            hint=f"`ystore fetch {quoted(str(spec))}` downloads the file, and then its version can be listed",
        )
    return _described(manifest_of(session, found), found.source.name, stored=False)


def _described(manifest: Manifest, registry: str | None, *, stored: bool) -> VersionFiles:
    return VersionFiles(
        model=manifest.model,
        version=manifest.version,
        variant=manifest.variant,
        manifest=str(manifest.digest),
        files=tuple(
            VersionFile(file.path, file.size_bytes, file.sha256.hex, file.executable)
            for file in manifest.files
        ),
        stored=stored,
        registry=registry,
        imported_from=imported_from(manifest.extra),
    )


def _find(session: Session, spec: Spec, *, online: bool) -> Found:
    """Return the version that a spec selects; see `list_files`."""
    if spec.selector is None:
        found = _installed(session, spec) or (None if online else _newest(session, spec))
    else:
        found = find_stored(session, spec) or _aliased(session, spec)
    if found is not None:
        return found
    if not online:
        raise not_in_store(session, spec)
    try:
        offer = find_offered(session, spec)
    except NotFoundError:
        # An imported model is in no registry.
        newest = _newest(session, spec) if spec.selector is None else None
        if newest is None:
            raise
        return newest
    return stored_as(session, offer.name) or offer


def _installed(session: Session, spec: Spec) -> Stored | None:
    current = session.refs.current(spec.model)
    if current is None or spec.variant not in (None, current.variant):
        return None
    return stored_as(session, VersionName(spec.model, current.variant, current.version))


def _newest(session: Session, spec: Spec) -> Stored | None:
    """Return the newest stored version, a prerelease only if there is nothing else."""
    names = [name for name in session.refs.versions(spec.model) if spec.variant in (None, name.variant)]
    names.sort(
        key=lambda name: (
            not is_prerelease(name.version),
            precedence(name.version),
            name.variant == DEFAULT_VARIANT,
        )
    )
    return _first_readable(session, reversed(names))


def _aliased(session: Session, spec: Spec) -> Stored | None:
    """Return the stored version that an alias or a range selects in the cached registries."""
    cached = None if isinstance(spec.selector, Exact) else cached_entry(session, spec.model)
    if cached is None:
        return None
    with contextlib.suppress(NotFoundError):
        build = resolve(cached[1], spec, prefer=session.host.variants)
        return stored_as(session, Offered.of(*cached, build).name)
    return None


def _by_commit(session: Session, spec: Spec, commit: str, *, online: bool) -> Found:
    """Return the only version whose manifest begins with these digits, a stored one before others."""
    names = session.refs.versions(spec.model)
    found: dict[str, Found] = {}
    for name in names:
        with contextlib.suppress(FormatError):
            digest = session.refs.version(name)
            if digest is not None and digest.hex.startswith(commit):
                stored = stored_as(session, name)
                if stored is not None:
                    found.setdefault(digest.hex, stored)
    if online and not found:
        source, entry = find_entry(session, spec.model, sources_for(session, spec.model), fresh=not names)
        for build in iter_builds(entry):
            listed = (build.entry.manifest or "").removeprefix("sha256:")
            if listed.startswith(commit):
                found.setdefault(listed, Offered.of(source, entry, build))
    elif not names:
        raise not_in_store(session, spec)
    if len(found) != 1:
        hint = f"{len(found)} manifests begin with these digits; give more" if found else ""
        raise NotFoundError("manifest", commit, where=spec.model, hint=hint)
    return next(iter(found.values()))


def _first_readable(session: Session, names: Iterable[VersionName]) -> Stored | None:
    return next((found for name in names if (found := stored_as(session, name)) is not None), None)


def open_file(session: Session, spec: Spec, path: str) -> StoredFile:
    """Open a file of a version; a version that is not stored is downloaded.

    Raises: NotFoundError; as `fetch`.
    """
    found = _find(session, spec, online=bool(session.registries.sources))
    if isinstance(found, Stored):
        manifest = found.manifest
    else:
        with session.layout.shared(), ChunkStore(session.layout) as chunks:
            wanted = Spec(spec.model, found.name.variant, Exact(found.name.version))
            offered = require_eligible(session, wanted, installing=False)
            _, manifest, _ = ensure_version(session, offered, chunks)
    file = next((file for file in manifest.files if file.path == path), None)
    if file is None:
        raise NotFoundError("file", path[:120], where=manifest.label)
    return StoredFile(session.layout, file, _held(session, manifest))


def _held(session: Session, manifest: Manifest) -> int | None:
    """Return a descriptor that keeps `gc` from a version; see `hold_version`.  Raises: NotFoundError."""
    name = VersionName(manifest.model, manifest.variant, manifest.version)
    note_use(session.layout, manifest.digest)
    with session.layout.shared():
        if session.refs.version(name) != manifest.digest:  # deleted since it was found
            raise NotFoundError("version", str(name), where="the store", hint="read it again")
        return hold_version(session.layout, manifest.digest)


class StoredFile(io.RawIOBase):
    """One file of a stored version, open for reading in binary mode.

    `read_at` may be called by several threads at once; `read` and `seek` are for one, as with any file.  The
    lock of the store is held only while bytes are read.  Until `close`, `gc` keeps the version, but not in a
    read-only store; `remove` does not keep it.  Reading a version that was deleted raises.
    """

    def __init__(self, layout: StoreLayout, file: ManifestFile, held: int | None = None) -> None:
        super().__init__()
        self._held = held
        self.path = file.path
        self.size_bytes = file.size_bytes
        self.sha256 = file.sha256.hex
        self._layout = layout
        self._file = file
        self._place = 0
        self._opening = threading.Lock()
        self._chunks: list[CachedChunks] = []
        self._content: Content | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes of a range, fewer only where the file ends.

        Raises: IntegrityError if a chunk is damaged or was deleted, StorageError, LockTimeoutError.
        """
        length = max(0, min(length, self.size_bytes - offset))
        if not length:
            return b""
        with self._layout.shared():
            content = self._located(None)
            try:
                return bytes(content.read(offset, length))
            except (IntegrityError, NotFoundError):  # `gc` may have moved the chunk since it was located
                return bytes(self._located(content).read(offset, length))

    def _located(self, wrong: Content | None) -> Content:
        """Return the file with the places of its chunks, which are looked up again if those were `wrong`."""
        with self._opening:
            if self.closed:
                raise ValueError("I/O operation on closed file")
            if self._content is None or self._content is wrong:
                self._chunks.append(CachedChunks(self._layout))  # another thread may still use the one before
                self._content = stored_content(self._file, self._chunks[-1])
            return self._content

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
        with self._opening:
            self._content = None
            while self._chunks:
                self._chunks.pop().close()
            held, self._held = self._held, None
            if held is not None:
                os.close(held)
            super().close()
