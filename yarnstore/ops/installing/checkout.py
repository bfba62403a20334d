"""`checkout`, `rollback`: install another version.

Order: chunks, manifest (`fetch`), materialised files, version ref, view, reflog, `installed`, and the link
in `models/`; the version ref comes before the files if packs have all chunks.  If the view already exists,
only the last three change.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest, ManifestFile
from yarnstore.core.reflog import Installed
from yarnstore.errors import IntegrityError
from yarnstore.ops.copies.second import keep_copies
from yarnstore.ops.fetching.eligibility import require_eligible
from yarnstore.ops.fetching.fetch import ensure_version, mark_complete
from yarnstore.ops.fetching.mending import mended
from yarnstore.ops.fetching.transfer import TransferStats
from yarnstore.ops.installing.activate import (
    CheckoutResult,
    activate,
    restore_link,
    rollback_goal,
    rollback_retained,
)
from yarnstore.ops.session.lookup import Found, Offered, of_installed, offered_as
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored, is_whole, stored_as
from yarnstore.progress import Meter, format_size, format_span
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.spec import Spec
from yarnstore.store import folders, fsio, held, trash
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.drafts import Draft, Drafts
from yarnstore.store.files import is_sound, materialise, missing_files
from yarnstore.store.layout import file_name
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName
from yarnstore.store.seen import content_of
from yarnstore.store.small_files import is_small, materialise_small
from yarnstore.store.views import has_view, make_view

# How fast the files of a stored version are made on a common machine: only for a forecast of the time.
_DECODES_BYTES_PER_S = 100_000_000


def checkout(session: Session, spec: Spec, *, force: bool = False) -> CheckoutResult:
    """Install the version that `spec` selects: fetch it if needed, materialise it, verify it, move the ref.

    `force` accepts a yanked version, and one that needs more memory than this machine has.

    Raises: NotFoundError, BackendError, IntegrityError, IncompatibleError, DiskFullError, LockTimeoutError.
    """
    started = time.perf_counter()
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        found = require_eligible(session, spec, installing=True, force=force)
        return install(session, found, "checkout", chunks, started)


def install(
    session: Session,
    found: Found,
    operation: Literal["checkout", "update"],
    chunks: ChunkStore,
    started: float,
    *,
    began_at: Installed | None = None,
) -> CheckoutResult:
    """Install a version that was admitted, within the shared lock.

    `began_at` is as in `activate`.  Raises: as `checkout`; ConflictError.
    """
    return prepare(session, found, chunks).install(session, operation, started, began_at=began_at)


class Prepared(msgspec.Struct, frozen=True):
    """A version whose view is complete, within the shared lock."""

    manifest: Manifest
    download_bytes: int = 0
    leaves_copies: bool = False

    def install(
        self,
        session: Session,
        operation: Literal["checkout", "update"],
        started: float,
        *,
        began_at: Installed | None = None,
    ) -> CheckoutResult:
        """Do the rest of `install`.  Raises: as `activate`."""
        done = activate(
            session,
            self.manifest,
            operation,
            started,
            self.download_bytes,
            ensure=ensure_view,
            began_at=began_at,
        )
        return msgspec.structs.replace(done, leaves_copies=self.leaves_copies)


def prepare(session: Session, found: Found, chunks: ChunkStore) -> Prepared:
    """Download a version that was admitted, and complete its view, without installing it.

    Raises: as `checkout`.
    """
    manifest = _retained(session, found)
    if manifest is not None:
        return Prepared(manifest)
    manifest, brought = _make_ready(session, found, chunks, packs_too=session.keep_copy == "always")
    return Prepared(manifest, brought.download_bytes, _leaves_copies(session, manifest, chunks))


def _leaves_copies(session: Session, manifest: Manifest, chunks: ChunkStore) -> bool:
    """Whether packs have chunks of a version whose files were made just now, and need not keep them."""
    ids, _ = manifest_chunks([manifest])
    in_packs = bool((chunks.table.find(ids) >= 0).any())
    return in_packs and not keep_copies(session, session.keep_copy, [manifest])


def _make_ready(
    session: Session, found: Found, chunks: ChunkStore, *, packs_too: bool
) -> tuple[Manifest, TransferStats]:
    """Store a version if needed, and complete its view.

    Downloads are written only into its files, or with `packs_too` into packs as well.

    Raises: as `checkout`.
    """
    with Drafts(session.layout, packs_too=packs_too) as drafts:
        found, manifest, brought = ensure_version(session, found, chunks, drafts=drafts)
        make_whole(session, manifest, found, chunks, drafts)
    return manifest, brought


def _retained(session: Session, found: Found) -> Manifest | None:
    """Return the manifest of a version whose view is complete, if it has the requested content."""
    stored = found if isinstance(found, Stored) else stored_as(session, found.name)
    if stored is None or not has_view(session.layout, stored.manifest.digest):
        return None
    if isinstance(found, Offered) and not _is_offered(stored.manifest, found.build.entry):
        return None
    return stored.manifest if is_whole(session, stored.manifest) else None


def _is_offered(manifest: Manifest, entry: VersionEntry) -> bool:
    if entry.manifest is not None:
        return Sha256.parse(entry.manifest) == manifest.digest
    return bool(entry.checksum) and Sha256.parse(entry.checksum or "") == content_of(manifest)


def ensure_view(session: Session, manifest: Manifest) -> None:
    """Complete the view of a version whose chunks are in the store.  Raises: as `make_whole`."""
    name = VersionName(manifest.model, manifest.variant, manifest.version)
    with ChunkStore(session.layout) as chunks:
        make_whole(session, manifest, Stored(name, manifest), chunks)


def make_whole(
    session: Session, manifest: Manifest, found: Found, chunks: ChunkStore, drafts: Drafts | None = None
) -> None:
    """Materialise a version whose chunks are in the store, and link its view, unless that is complete.

    `found` is the version as it was stored, `drafts` are files into which its chunks were downloaded.
    Damaged chunks are fetched again, each once.

    Raises: IntegrityError, BackendError, StorageError.
    """
    drafted = drafts is not None and bool(drafts.held(manifest_chunks([manifest])[0]).any())
    had_view = has_view(session.layout, manifest.digest)  # another process may make it from now on
    if not drafted and is_whole(session, manifest):
        return
    if had_view:
        session.note(f"{manifest.label}: its installed files were modified; restoring them")
    mended(
        session, manifest, found, chunks, lambda: _materialise_all(session, chunks, manifest, drafts), drafts
    )
    if drafts is not None:
        mark_complete(session, found.name, manifest, chunks)
    make_view(session.layout, manifest)


def _materialise_all(session: Session, chunks: ChunkStore, manifest: Manifest, drafts: Drafts | None) -> None:
    files = {file_name(file): file for file in manifest.files}.values()
    total = sum(file.size_bytes for file in files)
    meter = Meter(session.activity.report, "write", manifest.label, total)
    with folders.keeping_open():
        _materialise_each(session, chunks, files, drafts, meter)
    fsio.sync_dir(session.layout.files)  # once for all files, before the view


def _materialise_each(
    session: Session, chunks: ChunkStore, files: Iterable[ManifestFile], drafts: Drafts | None, meter: Meter
) -> None:
    there = held.names(session.layout)
    small: list[ManifestFile] = []
    for file in files:
        # A file of another version is hashed again before this one links it.
        if file_name(file) in there:
            if is_sound(session.layout, file):
                meter.add(file.size_bytes)
                continue
            # Kept until it is replaced, since its sound chunks may be nowhere else.
            trash.keep_copy(held.find(session.layout, file_name(file)).path, session.layout.trash)
        draft = drafts.find(file) if drafts is not None else None
        if draft is not None:
            _finish_draft(session, chunks, file, draft, meter)
        elif is_small(file):
            small.append(file)
        else:
            materialise(session.layout, chunks, file, meter.add)
    materialise_small(session.layout, chunks, small, meter.add)


def _finish_draft(
    session: Session, chunks: ChunkStore, file: ManifestFile, draft: Draft, meter: Meter
) -> None:
    before = meter.done
    try:
        materialise(session.layout, chunks, file, meter.add, draft.target, draft.placed, draft.hashed)
    except IntegrityError:
        meter.add(before - meter.done)
        if chunks.bad:
            raise
        draft.check()  # its chunks were right on arrival; if they are damaged now, the store may have copies
        materialise(session.layout, chunks, file, meter.add, draft.target, draft.placed)


def rollback(session: Session, model: str, version: str | None = None) -> CheckoutResult:
    """Install the previous version, or `version`.

    Uses no network for a version that is in the store.

    Raises: NotFoundError if the model is not installed, or has no previous version.
    """
    started = time.perf_counter()
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        done = rollback_retained(session, model, version)
        if done is not None:
            return done
        goal = rollback_goal(session, model, version)
        name = VersionName(model, goal.variant, goal.version)
        stored = stored_as(session, name)
        if stored is not None:
            _tell_work(session, stored.manifest)
        found: Found = stored or offered_as(session, name)
        manifest, brought = _make_ready(session, found, chunks, packs_too=session.keep_copy == "always")
        done = activate(session, manifest, "rollback", started, brought.download_bytes)
        return msgspec.structs.replace(done, leaves_copies=_leaves_copies(session, manifest, chunks))


def _tell_work(session: Session, manifest: Manifest) -> None:
    """Report, before it begins, that a version's files must be made from its chunks, and about how long."""
    size = sum(file.size_bytes for file in missing_files(session.layout, manifest))
    if size:
        about = f", about {format_span(size / _DECODES_BYTES_PER_S)}" if size > _DECODES_BYTES_PER_S else ""
        session.note(f"{manifest.label}: {format_size(size)} to decode and write first{about}")


def ensure_ready(session: Session, spec: Spec) -> Manifest:
    """Complete the version that `spec` selects, including its view, without installing it.

    A bare model means the installed version.  Raises: as `checkout`.
    """
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        current = session.refs.current(spec.model) if spec == Spec(spec.model) else None
        if current is not None:
            manifest = session.layout.read_manifest(current.manifest)
            ensure_view(session, manifest)
        else:
            found = require_eligible(session, of_installed(session, spec), installing=False)
            # It is not installed, so its files are temporary, and packs keep its chunks.
            manifest, _ = _make_ready(session, found, chunks, packs_too=True)
        restore_link(session, spec.model)
        return manifest
