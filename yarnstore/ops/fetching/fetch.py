"""`fetch`: download the missing chunks of a version into the store.

Order: the manifest, a ref that marks the version as being fetched, verified chunks into packs, then the
version's ref, the only mark of completeness.  After an interruption, downloaded data is kept, and the same
command continues.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import zstandard
from numpy.typing import NDArray

from yarnstore.backends.urls import shown
from yarnstore.core.codec import decode_zstd
from yarnstore.core.digest import Sha256
from yarnstore.core.index import Ids, find_ids
from yarnstore.core.limits import MANIFEST_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    MissingKeyError,
    NotFoundError,
    OfflineError,
    TransientError,
    YarnstoreError,
)
from yarnstore.ops.fetching.alternates import find_manifest, take_chunks
from yarnstore.ops.fetching.begun import Begun, KeptFile
from yarnstore.ops.fetching.eligibility import refuse_changed, remember_content, require_eligible
from yarnstore.ops.fetching.plan import NOTHING, DownloadPlan, plan_download
from yarnstore.ops.fetching.transfer import TransferStats, download
from yarnstore.ops.fetching.ways import PackOffer, RemotePack, find_way
from yarnstore.ops.session import counting
from yarnstore.ops.session.counting import counted
from yarnstore.ops.session.lookup import Found, Offered, offered_as
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import Stored
from yarnstore.progress import Meter, format_part, format_size, plural
from yarnstore.registry.spec import Spec
from yarnstore.store import fsread
from yarnstore.store.access import require_writable
from yarnstore.store.chunks import ChunkStore, recover_chunks
from yarnstore.store.drafts import Drafts
from yarnstore.store.files import missing_files
from yarnstore.store.places import manifest_chunks
from yarnstore.store.provenance import write_origin
from yarnstore.store.refs import VersionName
from yarnstore.store.seen import content_of

# After so many downloads in which a delta could not be used, only full packs are.
_DELTA_ROUNDS = 2


@dataclass(frozen=True)
class FetchResult:
    """The result of downloading one version into the store."""

    model: str
    version: str
    variant: str
    manifest: str
    size_bytes: int
    download_bytes: int
    chunks_total: int  #: How many chunks the version has.
    chunks_fetched: int  #: How many of them were downloaded.
    #: The stored version that deltas were applied to; `model@version` if it is one of another model.
    delta_from: str | None
    seconds: float
    alternate_bytes: int = 0  #: How many bytes were copied from alternates, as chunks without compression.


def fetch(session: Session, spec: Spec, *, force: bool = False) -> FetchResult:
    """Download the version that `spec` selects into the store and verify it; `force` accepts a yanked one.

    Raises: NotFoundError, BackendError, IntegrityError, IncompatibleError, DiskFullError, LockTimeoutError.
    """
    started = time.perf_counter()
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        found = require_eligible(session, spec, installing=False, force=force)
        _, manifest, brought = ensure_version(session, found, chunks)
        return fetch_result(manifest, brought, time.perf_counter() - started)


def fetch_result(manifest: Manifest, brought: TransferStats, seconds: float) -> FetchResult:
    """Return the result of storing a version."""
    ids, _ = manifest_chunks([manifest])
    return FetchResult(
        model=manifest.model,
        version=manifest.version,
        variant=manifest.variant,
        manifest=str(manifest.digest),
        size_bytes=manifest.size_bytes,
        download_bytes=brought.download_bytes,
        chunks_total=len(ids),
        chunks_fetched=brought.chunks,
        delta_from=brought.delta_from,
        seconds=round(seconds, 3),
        alternate_bytes=brought.alternate_bytes,
    )


def ensure_version(
    session: Session, found: Found, chunks: ChunkStore, *, drafts: Drafts | None = None
) -> tuple[Found, Manifest, TransferStats]:
    """Store a version completely, within the shared lock.  `chunks` is the operation's `ChunkStore`.

    With `drafts`, arriving chunks are written into the version's files; if some are only there afterwards,
    the caller completes the files and calls `mark_complete`.

    Returns the version as it was stored, since an outdated registry entry is queried again.
    """
    recover_chunks(chunks)
    match found:
        case Stored(name, manifest):
            if _has_all(session, manifest, chunks, drafts):
                return found, manifest, TransferStats()
            # Damaged or incomplete: a registry may have the missing chunks.
            lost = plural(len(chunks.missing(manifest_chunks([manifest])[0])), "chunk")
            session.note(f"{manifest.label}: {lost} corrupt or missing in this store; downloading again")
            offer = offered_again(session, name)
        case Offered():
            offer = found
    repaired = repairing(offer.name) if isinstance(found, Stored) else contextlib.nullcontext()
    with repaired, counted(session, "fetch", offer.name.model):
        return _bring_newest(session, offer, chunks, drafts)


def offered_again(session: Session, name: VersionName) -> Offered:
    """Return where to get the chunks that a stored version lacks.

    Raises: IntegrityError if no registry lists it; BackendError.
    """
    with contextlib.suppress(NotFoundError):
        return offered_as(session, name)
    raise lost_version(name)


@contextlib.contextmanager
def repairing(name: VersionName) -> Iterator[None]:
    """Say in errors of downloads which version of the store needs them; their class and hint stay."""
    try:
        yield
    except BackendError as error:
        raise YarnstoreError.restore(
            error.code,
            f"{name.model} {name.version} is corrupt in this store and not downloaded: {error.message}",
            error.hint or "`ystore fsck --repair` downloads it once the registry can be reached",
            error.fields,
        ) from error


def lost_version(name: VersionName) -> IntegrityError:
    """The error for a version that lacks chunks which no registry has."""
    return IntegrityError(
        f"{name.model} {name.version}",
        why="is corrupt in this store, and no registry has its chunks",
        hint=f"`ystore remove {name}`, then fetch or import it again; "
        "if it is installed, install another version first",
    )


def _bring_newest(
    session: Session, offer: Offered, chunks: ChunkStore, drafts: Drafts | None
) -> tuple[Found, Manifest, TransferStats]:
    """Store a version; if that fails, try again with its current entry in the registry."""
    try:
        return offer, *_bring(session, offer, chunks, drafts)
    except TransientError:
        raise
    except (BackendError, IntegrityError):
        # The cached entry of an exact version can be outdated, since packs are replaced.
        newer = _newer_offer(session, offer)
        if newer is None:
            raise
        session.note(f"{offer.name.model} {offer.name.version}: the registry has changed; trying again")
        chunks.reload()  # it is unknown whether the registry or the store was wrong
        return newer, *_bring(session, newer, chunks, drafts)


def _newer_offer(session: Session, offer: Offered) -> Offered | None:
    """Return the current entry of the same version in the registries; None if it is unchanged."""
    try:
        newer = offered_as(session, offer.name, fresh=True)
    except (BackendError, FormatError, NotFoundError):
        return None
    return None if (newer.source, newer.build) == (offer.source, offer.build) else newer


def _bring(
    session: Session, offer: Offered, chunks: ChunkStore, drafts: Drafts | None
) -> tuple[Manifest, TransferStats]:
    require_writable(session.layout, offer.name.model, installing=drafts is not None)
    try:
        manifest, brought = _bring_from(session, offer, chunks, drafts)
    except OfflineError as error:
        size = offer.build.entry.size_bytes
        what = f"{offer.name.model} {offer.name.version}" + (f" ({format_size(size)})" if size else "")
        raise OfflineError(error.url, what) from None
    counting.current().size_bytes += manifest.size_bytes
    write_origin(session.layout, offer.name.model, offer.source.name)
    return manifest, brought


def _bring_from(
    session: Session, offer: Offered, chunks: ChunkStore, drafts: Drafts | None
) -> tuple[Manifest, TransferStats]:
    entry = offer.build.entry
    if entry.manifest is None:
        if entry.checksum is not None:
            refuse_changed(session, offer.source, offer.name, Sha256.parse(entry.checksum), None)
        from yarnstore.ops.fetching.single_file import fetch_plain  # late: it imports what cuts files

        manifest, brought = fetch_plain(session, offer, chunks)
    else:
        manifest = manifest_of(session, offer)
        refuse_changed(session, offer.source, offer.name, content_of(manifest), manifest.digest)
        session.layout.write_manifest(manifest)
        chunks.know(manifest)
        brought = ensure_chunks(
            session, offer.source, manifest, PackOffer.of(entry, offer.entry), chunks, drafts
        )
        if drafts is not None and drafts.held(manifest_chunks([manifest])[0]).any():
            session.layout.rely_on_files()  # before files have names: `gc` must not write it on a full disk
        else:
            mark_complete(session, offer.name, manifest, chunks)
    remember_content(session, offer.source, offer.name, manifest)
    return manifest, brought


def mark_complete(session: Session, name: VersionName, manifest: Manifest, chunks: ChunkStore) -> None:
    """Set the ref of a version whose chunks are in packs and in files that have their names.

    Raises: StorageError, ConflictError.
    """
    if not chunks.in_packs(manifest_chunks([manifest])[0]).all():
        session.layout.rely_on_files()
    if session.refs.version(name) != manifest.digest:
        session.refs.set_version(name, manifest.digest)
    session.refs.remove_partial(name)


def _has_all(session: Session, manifest: Manifest, chunks: ChunkStore, drafts: Drafts | None) -> bool:
    """Whether all chunks of a version are in the store."""
    chunks.know(manifest)
    ids, _ = manifest_chunks([manifest])
    if drafts is None:  # otherwise they are read when the version's files are made
        chunks.check_files(ids)
    if len(chunks.missing(ids)):
        return False
    if not chunks.in_packs(ids).all():
        session.layout.rely_on_files()
    return True


def manifest_of(session: Session, offer: Offered) -> Manifest:
    """Return the manifest that the registry lists for a version, checked against its entry."""
    digest = Sha256.parse(offer.build.entry.manifest or "")
    try:
        manifest = session.layout.read_manifest(digest)
    except (NotFoundError, IntegrityError):
        near = find_manifest(session, digest) if session.alternates else None
        manifest = near or read_remote_manifest(session, offer.source, digest)
    found = VersionName(manifest.model, manifest.variant, manifest.version)
    if found != offer.name:
        raise IntegrityError(
            f"the manifest of {offer.name}",
            why=f"belongs to {found}",
            source=shown(offer.source.url),
            hint="the publisher must fix the registry",
        )
    promised = offer.build.entry.checksum
    actual = str(manifest.files[0].sha256) if len(manifest.files) == 1 else str(digest)
    if promised is not None and Sha256.parse(promised) != Sha256.parse(actual):
        raise IntegrityError(
            f"{offer.name.model} {offer.name.version}",
            expected=promised,
            got=actual,
            source=shown(offer.source.url),
            hint="the registry's checksum and manifest do not match; the publisher must fix the registry",
        )
    return manifest


def read_remote_manifest(session: Session, source: RegistrySource, digest: Sha256) -> Manifest:
    """Return a manifest of a registry, downloaded compressed if available, else plain.

    Raises: BackendError, IntegrityError, IncompatibleError.
    """
    backend = session.registries.backend(source)
    key = f"manifests/{digest.hex}.json"
    tmp = session.layout.tmp
    # The compressed file is optional, and servers answer differently for missing files.
    with contextlib.suppress(BackendError, IntegrityError):
        return backend.get_checked(
            f"{key}.zst",
            lambda data: Manifest.parse(_unpack(data), expected=digest),
            limit_bytes=MANIFEST_LIMIT_BYTES,
            kept=KeptFile(tmp, f"{key}.zst", MANIFEST_LIMIT_BYTES),
        )[0]
    try:
        return backend.get_checked(
            key,
            lambda data: Manifest.parse(data, expected=digest),
            limit_bytes=MANIFEST_LIMIT_BYTES,
            kept=KeptFile(tmp, key, MANIFEST_LIMIT_BYTES),
        )[0]
    except MissingKeyError as error:
        raise IntegrityError(
            f"{source.name} lists a version, but its manifest {digest.hex[:12]}…",
            why="is missing",
            source=error.url,
            hint="the publisher must publish it again",
        ) from None
    except IntegrityError as error:
        raise IntegrityError(
            f"manifest {digest.hex[:12]}…",
            expected=str(digest),
            got=str(error.fields.get("got", "")),
            why=str(error.fields["why"]),
            source=str(error.fields["source"]) or shown(source.url),
        ) from None


def _unpack(frame: bytes) -> bytes:
    size = _frame_size(frame)
    if not 0 < size <= MANIFEST_LIMIT_BYTES:
        raise FormatError("manifest", "declares an impossible size")
    return decode_zstd(frame, size, "manifest", window_limit_bytes=MANIFEST_LIMIT_BYTES)


def _frame_size(frame: bytes) -> int:
    try:
        return zstandard.frame_content_size(frame)
    except zstandard.ZstdError as error:
        raise FormatError("manifest", f"is not a zstd frame: {error}") from None


def ensure_chunks(
    session: Session,
    source: RegistrySource,
    manifest: Manifest,
    offer: PackOffer,
    chunks: ChunkStore,
    drafts: Drafts | None = None,
) -> TransferStats:
    """Download the chunks of a manifest that the store does not have; with `drafts`, into its files.

    Raises: DiskFullError before anything is written; BackendError, IntegrityError.
    """
    layout = session.layout
    files = sum(file.size_bytes for file in missing_files(layout, manifest)) if drafts is not None else 0
    ids, lengths = manifest_chunks([manifest])
    if drafts is None:
        chunks.check_files(ids)
    else:
        drafts.begin(manifest, resume_only=True)

    def find_absent() -> Ids:
        absent = chunks.missing(ids)
        return absent if drafts is None else absent[~drafts.held(absent)]

    if session.alternates and len(find_absent()):
        _mark_begun(session, manifest)
    copied = take_chunks(session, manifest, chunks, ids, lengths, drafts) if session.alternates else 0
    failed: set[RemotePack] = set()
    brought = TransferStats(alternate_bytes=copied)
    announced = False
    rounds = 0
    absent = find_absent()
    absent_bytes = int(lengths[find_ids(ids, absent)].sum())
    counting.current().reused_bytes += manifest.size_bytes - absent_bytes
    while True:
        missing = find_absent()
        if announced and not len(missing):
            return brought
        if rounds == _DELTA_ROUNDS:  # or a registry whose deltas are all wrong would cost more than its packs
            offer = PackOffer(offer.packs)
        rounds += 1
        plan = plan_for(session, source, offer, chunks, missing, without=failed)
        there = 0
        for_packs = _all
        if drafts is not None:
            if not plan.is_empty:
                drafts.begin(manifest)
            for_packs = drafts.for_packs
            there = drafts.placed_bytes
        pack_bytes = plan.disk_bytes(ids, lengths, for_packs)
        fsread.require_space(layout.root, pack_bytes + files - there, layout.reserve)
        if not announced:
            if not (plan.is_empty or chunks.is_empty or all(delta.can_be_made for delta in offer.deltas)):
                session.note(
                    f"{manifest.label}: this Python's zlib makes other bytes than the publisher's, so "
                    "deltas of compressed files cannot be used"
                )
            _announce(session, manifest, plan, plan.most_bytes(ids, lengths))
        if plan.is_empty:
            return brought
        announced = True
        failing, brought = _download(session, source, manifest, plan, chunks, brought, drafts)
        if not failing:
            break
        failed |= failing
        session.note(f"{manifest.label}: a delta cannot be used; downloading full packs instead")
        chunks.reload()  # its base may be damaged, removed or replaced
    absent = find_absent()
    if len(absent):
        raise IntegrityError(
            f"{manifest.label}",
            why=f"is incomplete: the registry's packs lack {len(absent)} of its chunks",
            source=shown(source.url),
            hint="the publisher must publish it again",
        )
    return brought


def _all(wanted: Ids) -> NDArray[np.bool_]:
    return np.ones(len(wanted), bool)


def plan_for(
    session: Session,
    source: RegistrySource,
    offer: PackOffer,
    chunks: ChunkStore,
    missing: Ids,
    *,
    without: Collection[RemotePack] = (),
) -> DownloadPlan:
    """Return the cheapest plan for the missing chunks.  Uses the network only if chunks are missing."""
    if not len(missing):
        return NOTHING
    backend = session.registries.backend(source)
    kept = partial(KeptFile, session.layout.tmp)
    way = find_way(offer, _complete(session), chunks, without=without)
    return plan_download(backend, offer, chunks, missing, session.connections, way=way, kept=kept)


def _complete(session: Session) -> set[Sha256]:
    """Return the manifests of the versions that the store has."""
    found: set[Sha256] = set()
    for name in session.refs.versions():
        with contextlib.suppress(FormatError):  # a damaged ref, which `fsck` reports
            digest = session.refs.version(name)
            found |= {digest} if digest is not None else set()
    return found


def _download(
    session: Session,
    source: RegistrySource,
    manifest: Manifest,
    plan: DownloadPlan,
    chunks: ChunkStore,
    before: TransferStats,
    drafts: Drafts | None,
) -> tuple[set[RemotePack], TransferStats]:
    _mark_begun(session, manifest)
    meter = Meter(session.activity.report, "download", manifest.label, plan.stored_bytes)
    begun = Begun(session.layout.tmp)
    with counting.download(meter), chunks.writing() as writer:
        backend = session.registries.backend(source)
        count, failed = download(backend, plan, chunks, writer, session.connections, meter, begun, drafts)
    return failed, TransferStats(
        before.download_bytes + meter.done,
        before.chunks + count,
        before.deltas + plan.delta_chunks,
        plan.delta_from if not failed else before.delta_from,
        before.alternate_bytes,
    )


def _mark_begun(session: Session, manifest: Manifest) -> None:
    name = VersionName(manifest.model, manifest.variant, manifest.version)
    if session.refs.version(name) is None:
        session.refs.set_partial(name, manifest.digest)


def _announce(session: Session, manifest: Manifest, plan: DownloadPlan, most_bytes: int) -> None:
    what = f"{manifest.label} ({manifest.variant})" if manifest.variant != DEFAULT_VARIANT else manifest.label
    if not plan.is_empty:
        how = f" (delta from {plan.delta_from})" if plan.delta_from else ""
        most = "up to " if len(plan.unplaced) else ""
        session.note(f"{what}: {most}{format_part(most_bytes, manifest.size_bytes)} to download{how}")
    else:
        session.note(
            f"{what}, {format_size(manifest.size_bytes)}: all chunks already stored, nothing to download"
        )
