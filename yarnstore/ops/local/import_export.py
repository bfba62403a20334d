"""`import`, `export`: the operations that need no registry.

Copies local files into the store, and a version out of it.  `core/ignore` decides which files of a folder are
skipped; `ops/upkeep/gc` deletes data.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from yarnstore.core.digest import Sha256
from yarnstore.core.imported import ImportedFrom, as_field
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import ConflictError, IntegrityError, UsageError
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.fetching.fetch import ensure_version
from yarnstore.ops.fetching.mending import mended
from yarnstore.ops.publishing.broken import note_broken, search_sources
from yarnstore.ops.session.loadcode import note_code, refuse_code
from yarnstore.ops.session.lookup import of_installed
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.registry.spec import Spec, exact_version
from yarnstore.store import fsio, fsread, held
from yarnstore.store.access import require_writable
from yarnstore.store.chunks import ChunkStore, recover_chunks
from yarnstore.store.filepath import Path
from yarnstore.store.files import has_file, write_content
from yarnstore.store.hashed import changing, file_sha256
from yarnstore.store.ingest import ingest
from yarnstore.store.layout import StoreLayout, file_name
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName
from yarnstore.store.source_files import (
    Sources,
    comparable,
    list_sources,
    note_changes,
    note_ignored,
    unpublished_changes,
)


@dataclass(frozen=True)
class ImportResult:
    """The result of an import from local files."""

    model: str
    version: str
    variant: str
    manifest: str
    size_bytes: int
    chunks_total: int  #: How many chunks the version has.
    chunks_new: int  #: How many of them were not in the store.
    stored_bytes: int  #: How many bytes were added to the store.
    seconds: float
    #: The paths that were left out; a folder ends with a slash.
    ignored: list[str] = field(default_factory=list)
    #: Differences from the stored version that were not imported, such as executable bits.
    kept: list[str] = field(default_factory=list)
    #: Files that look incomplete, with the reason; they are imported anyway.
    broken: list[str] = field(default_factory=list)
    source: str = ""  #: What was imported: a path, or an address in another tool.
    revision: str | None = None  #: The commit or digest that it has in the other tool.
    present: bool = False  #: Whether the same content was stored already, so that nothing was done.


@dataclass(frozen=True)
class Listing:
    """Files to import, and what is known about them."""

    sources: Sources
    place: str  #: Where they are, for errors.
    imported_from: ImportedFrom | None = None
    hashes: Mapping[str, Sha256] = field(
        default_factory=dict
    )  #: By path: what the other tool's names promise.


def import_source(
    session: Session,
    source: Path,
    spec: Spec,
    *,
    expected: Sha256 | None = None,
    all_files: bool = False,
    chunks: ChunkStore | None = None,
) -> ImportResult:
    """Copy a file or a folder into the store as the exact version that `spec` names.

    `expected` is the checksum that it must have, if one is known; `all_files` includes files that are
    otherwise left out.  `chunks` is the store's, if the caller has it open under the shared lock.

    Raises: SpecError, UsageError; ConflictError if that version is stored with other content; IntegrityError
    if the checksum differs; PolicyError.
    """
    version = exact_version(spec, "import")
    sources = list_sources(source, all_files=all_files)
    note_ignored(sources, session.activity.report)
    name = VersionName(spec.model, spec.variant or DEFAULT_VARIANT, version)
    return import_files(session, name, Listing(sources, str(source)), expected=expected, chunks=chunks)


def import_files(
    session: Session,
    name: VersionName,
    listing: Listing,
    *,
    expected: Sha256 | None = None,
    chunks: ChunkStore | None = None,
) -> ImportResult:
    """Copy listed files into the store as a version.  Raises: as `import_source`."""
    started = time.perf_counter()
    sources = listing.sources
    label = name.spec
    broken, code = search_sources(sources, session.activity.report)
    refuse_code(code, session.load_policy, label)
    note_code(code, session.activity.report)
    note_broken(broken, session.activity.report)
    total = sources.size_bytes
    layout, refs = session.layout, session.refs
    with contextlib.ExitStack() as stack:
        if chunks is None:
            stack.enter_context(layout.shared())
            chunks = stack.enter_context(ChunkStore(layout))
        refs.check_case(name.model)
        require_writable(layout, name.model, installing=False)
        recover_chunks(chunks)
        fsread.require_space(layout.root, total, layout.reserve)
        with chunks.writing() as writer:
            meter = Meter(session.activity.report, "read", label, total)
            files = ingest(sources.files, chunks, writer, meter)
        manifest = Manifest.make(
            name.model,
            name.version,
            name.variant,
            files,
            sources.empty_folders,
            more=as_field(listing.imported_from),
        )
        _check_hashes(manifest, listing, expected)
        there = refs.version(name)
        kept: list[str] = []
        if there is not None and there != manifest.digest:
            known = layout.read_manifest(there)
            content = {path: file.sha256 for path, file in comparable(known, sources).items()}
            if content != {file.path: file.sha256 for file in manifest.files}:
                raise other_content(name)
            manifest, kept = known, unpublished_changes(known, sources)
            note_changes(kept, manifest.label, session.activity.report)
        layout.write_manifest(manifest)
        refs.set_version(name, manifest.digest)
    return replace(
        described(manifest, listing),
        chunks_new=writer.chunks,
        stored_bytes=writer.stored_bytes,
        seconds=round(time.perf_counter() - started, 3),
        kept=kept,
        broken=broken,
    )


def other_content(name: VersionName) -> ConflictError:
    """Return the error for a version that is stored with other content than is to be imported."""
    return ConflictError(
        f"{name} is already in the store with different content",
        hint=f"a version never changes: import this as another version, or `ystore remove {name}` first",
    )


def described(manifest: Manifest, listing: Listing) -> ImportResult:
    """Return the result for a version that is stored with this content."""
    origin = listing.imported_from
    return ImportResult(
        model=manifest.model,
        version=manifest.version,
        variant=manifest.variant,
        manifest=str(manifest.digest),
        size_bytes=manifest.size_bytes,
        chunks_total=len(manifest_chunks([manifest])[0]),
        chunks_new=0,
        stored_bytes=0,
        seconds=0.0,
        ignored=listing.sources.ignored,
        source=listing.place,
        revision=origin.revision if origin is not None and origin.revision else None,
    )


def _check_hashes(manifest: Manifest, listing: Listing, expected: Sha256 | None) -> None:
    """Compare what was read with what the user or the other tool promises.  Raises: IntegrityError."""
    if expected is not None and manifest.checksum != expected:
        raise IntegrityError(
            manifest.label,
            expected=str(expected),
            got=str(manifest.checksum),
            source=listing.place,
            hint=f"`ystore checkout {manifest.model}@{manifest.version}` downloads it again",
        )
    for file in manifest.files:
        promised = listing.hashes.get(file.path, file.sha256)
        if file.sha256 != promised:
            raise IntegrityError(
                f"{manifest.label}: {file.path}",
                expected=str(promised),
                got=str(file.sha256),
                source=listing.place,
                hint="the other tool's copy is damaged: download it again there",
            )


@dataclass(frozen=True)
class ExportResult:
    """The result of copying a version out of the store."""

    model: str
    version: str
    path: str  #: The path of the copy, or the address of the image.
    size_bytes: int
    #: `reflink` (shares disk blocks with the store), `hardlink` (is the store's file), `copy`, `decoded`
    #: (made from chunks), or `present` (all files existed); if files differ, the costliest.  Of an image in
    #: a registry, `uploaded` or `present`.  Of a check, `present` or `behind`.
    how: str
    #: Of a check: the paths that are missing or differ.
    behind: list[str] = field(default_factory=list)


def export(
    session: Session,
    spec: Spec,
    destination: Path,
    *,
    as_folder: bool = False,
    hardlink: bool = False,
) -> ExportResult:
    """Copy a version out of the store: as a file if it has only one, else as a folder.

    `destination` must not exist, or must be a folder, in which the copy gets its own name; with `as_folder`,
    a `destination` that does not exist becomes such a folder.  `hardlink` is as in `put_file`.

    Raises: ConflictError if a file is in the way; UsageError for a path in the store; as `fetch`.
    """
    layout = session.layout
    if Path(os.path.realpath(destination)).is_relative_to(os.path.realpath(layout.root)):
        raise UsageError(f"{destination} is in the store", hint="give a path outside the store")
    with layout.shared(), ChunkStore(layout) as chunks:
        found = require_eligible(session, of_installed(session, spec), installing=False)
        found, manifest, _ = ensure_version(session, found, chunks)
        if as_folder and destination.exists() and not destination.is_dir():
            raise ConflictError(
                f"{destination} is not a folder", hint="remove the final slash, or give a folder"
            )
        single = is_single(manifest)
        inner = destination / own_name(manifest)
        is_folder = destination.is_dir()
        is_parent = is_folder or as_folder if single else is_folder and os.listdir(destination)
        target = inner if is_parent else destination
        if target.exists() and not (target.is_dir() and not os.listdir(target)):
            raise ConflictError(f"{target} already exists", hint="give another path, or remove it")
        total = manifest.size_bytes
        fsread.require_space(target.parent, total)

        def write() -> list[str]:
            meter = Meter(session.activity.report, "write", manifest.label, total)
            return [
                put_file(
                    layout, chunks, file, target if single else target / file.path, meter, hardlink=hardlink
                )
                for file in manifest.files
            ]

        ways = mended(session, manifest, found, chunks, write)
        for folder in manifest.empty_folders:
            fsio.ensure_dir(target / folder)
    return ExportResult(manifest.model, manifest.version, str(target), total, sum_up(ways))


def is_single(manifest: Manifest) -> bool:
    """Whether a copy of a version is a file, and not a folder."""
    return len(manifest.files) == 1 and not manifest.empty_folders


def own_name(manifest: Manifest) -> str:
    """Return the name of the copy of a version in a folder with other files."""
    if is_single(manifest):
        return Path(manifest.files[0].path).name
    return f"{manifest.model.replace('/', '-')}-{manifest.version}"


# The ways in which a file is written, the one that is reported first.
WAYS: Final = ("decoded", "copy", "reflink", "hardlink", "present")


def sum_up(ways: Collection[str]) -> str:
    """Return the one word for how the files of a version were written."""
    return next((way for way in WAYS if way in ways), "copy")


def put_file(
    layout: StoreLayout,
    chunks: ChunkStore,
    file: ManifestFile,
    path: Path,
    meter: Meter,
    *,
    hardlink: bool = False,
) -> str:
    """Write a file of a version to a path outside of the store; return how, one of `WAYS`.

    With `hardlink` it is linked to the store's own file, which is read-only, if there is one on that disk.
    Raises: StorageError, IntegrityError.
    """
    fsio.ensure_dir(path.parent)
    mode = 0o755 if file.executable else fsio.FILE_MODE
    stored = held.find(layout, file_name(file)).path
    if has_file(layout, file) and file_sha256(stored) == file.sha256:
        how = "hardlink" if hardlink and _link(layout, stored, path) else ""
        how = how or fsio.copy_file(stored, path, mode=mode)
        meter.add(file.size_bytes)
        return how
    with fsio.NewFile(path.parent, ".part") as new:
        write_content(chunks, file, new, meter.add)
        new.publish(path, mode=mode)
    return "decoded"


def _link(layout: StoreLayout, stored: Path, path: Path) -> bool:
    with changing(layout, [stored]):
        fsio.remove(path)
        return fsio.try_link(stored, path)
