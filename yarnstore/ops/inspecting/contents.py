"""The files of one version by name, and reading them without installing it.

For programs that do not read the store's files by their paths: servers of a store, and file systems of other
libraries.  `stored_file` reads them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from yarnstore.core.imported import ImportedFrom, imported_from
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.record import Record
from yarnstore.errors import FormatError, NotFoundError
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.fetching.fetch import ensure_version, manifest_of
from yarnstore.ops.inspecting.stored_file import OpenVersion, StoredFile, missing_file
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
from yarnstore.store.native import quoted
from yarnstore.store.refs import VersionName
from yarnstore.store.views import hold_version, note_use


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
        raise missing_file(manifest, path)
    version = OpenVersion(session.layout, manifest, _held(session, manifest))
    return StoredFile(version, file, is_first=True)


def _held(session: Session, manifest: Manifest) -> int | None:
    """Return a descriptor that keeps `gc` from a version; see `hold_version`.  Raises: NotFoundError."""
    name = VersionName(manifest.model, manifest.variant, manifest.version)
    note_use(session.layout, manifest.digest)
    with session.layout.shared():
        if session.refs.version(name) != manifest.digest:  # deleted since it was found
            raise NotFoundError("version", str(name), where="the store", hint="read it again")
        return hold_version(session.layout, manifest.digest)
