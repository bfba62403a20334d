"""`checkout`, `update`, `rollback`: moving what is installed.

Order: chunks, manifest and version ref (`fetch`), materialised files, view, reflog, `installed`, and
the link in `models/`.  Where the view is there already, only the last three move.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.download import Brought
from yarnstore.ops.fetch import bring, bring_chunks
from yarnstore.ops.moves import CheckoutResult, move, not_installed, relink, rollback_goal, rollback_retained
from yarnstore.ops.plan import Offer
from yarnstore.ops.progress import Meter
from yarnstore.ops.resolve import Target, local_target, registry_target
from yarnstore.ops.session import RegistrySource, Session
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import precedence
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.files import is_sound, materialise
from yarnstore.store.refs import VersionName
from yarnstore.store.views import has_view, installed_path, make_view


def checkout(session: Session, spec: Spec) -> CheckoutResult:
    """Install the version that `spec` means: fetch it if need be, materialise, verify, move the ref.

    Raises: NotFoundError, BackendError, IntegrityError, DiskFullError, LockTimeoutError.
    """
    started = time.perf_counter()
    with session.layout.shared():
        return _install(session, spec, "checkout", started)


def _install(
    session: Session, spec: Spec, operation: Literal["checkout", "update"], started: float
) -> CheckoutResult:
    target = local_target(session, spec)
    if target is not None and target.manifest is not None and has_view(session.layout, target.manifest):
        manifest, brought = session.layout.read_manifest(target.manifest), Brought()
    else:
        target, manifest, brought = bring(session, spec, materialise=True)
        ensure_view(session, manifest, target)
    return move(session, manifest, operation, started, brought.download_bytes)


def ensure_view(session: Session, manifest: Manifest, target: Target | None = None) -> None:
    """Materialise a version whose chunks are in the store, and link its view.

    Chunks that turn out to be damaged are fetched again, each once.

    Raises: IntegrityError, BackendError, StorageError.
    """
    if has_view(session.layout, manifest.digest):
        return
    fetched: set[bytes] = set()
    while True:
        with ChunkStore(session.layout) as chunks:
            try:
                _materialise_all(session, chunks, manifest)
                break
            except IntegrityError:
                bad = set(chunks.bad)
                if not bad - fetched:
                    raise
                # Nothing is given up before it is known where it can be had.
                source, entry = _source_of(session, manifest, target)
                chunks.forget(bad)
        fetched |= bad
        bring_chunks(session, source, manifest, Offer.of(entry))
    make_view(session.layout, manifest)


def _materialise_all(session: Session, chunks: ChunkStore, manifest: Manifest) -> None:
    files = {file.sha256: file for file in manifest.files}.values()
    total = sum(file.size_bytes for file in files)
    meter = Meter(session.on_progress, "write", manifest.label, total)
    for file in files:
        # One that another version has left is hashed again before this one links it.
        if is_sound(session.layout, file):
            meter.add(file.size_bytes)
        else:
            materialise(session.layout, chunks, file, meter.add)


def _source_of(
    session: Session, manifest: Manifest, target: Target | None
) -> tuple[RegistrySource, VersionEntry]:
    """Where a version that is damaged here can be had.  Raises: IntegrityError, BackendError."""
    session.note(f"{manifest.label}: damaged chunks in this store; fetching them again")
    if target is None or target.build is None or target.source is None:
        spec = Spec(manifest.model, manifest.variant, Exact(manifest.version))
        try:
            target = registry_target(session, spec)
        except NotFoundError:
            target = None
    if target is None or target.build is None or target.source is None or not target.build.entry.manifest:
        raise IntegrityError(
            manifest.label,
            why="is damaged in this store, and no registry has its chunks",
            hint=f"`ystore remove {manifest.model}@{manifest.version}`, then fetch or import it again",
        )
    return target.source, target.build.entry


def rollback(session: Session, model: str, version: str | None = None) -> CheckoutResult:
    """Install what was installed before, or `version`.

    Never uses the network for what is in the store.

    Raises: NotFoundError where the model is not installed, or nothing was installed before.
    """
    started = time.perf_counter()
    with session.layout.shared():
        done = rollback_retained(session, model, version)
        if done is not None:
            return done
        goal = rollback_goal(session, model, version)
        spec = Spec(model, goal.variant, Exact(goal.version))
        target, manifest, brought = bring(session, spec, materialise=True)
        ensure_view(session, manifest, target)
        return move(session, manifest, "rollback", started, brought.download_bytes)


@dataclass(frozen=True)
class UpdateResult:
    """How an update went.  `status` is `updated`, `current` (nothing newer) or `pinned`."""

    model: str
    status: Literal["updated", "current", "pinned"]
    version: str
    previous: str | None
    changelog: str | None
    download_bytes: int
    path: str
    seconds: float


def update(session: Session, model: str) -> UpdateResult:
    """Fetch and install what `latest` means for a model that is installed.

    Raises: NotFoundError where it is not installed or no registry has it; as `checkout`.
    """
    started = time.perf_counter()
    with session.layout.shared():
        refs = session.refs
        current = refs.current(model)
        if current is None:
            raise not_installed(session, model)
        target = registry_target(session, Spec(model, current.variant))
        if target.build is None:
            raise NotFoundError("version", "latest", where=model)
        name = VersionName(model, current.variant, current.version)
        manifest = session.layout.read_manifest(current.manifest)
        here = str(installed_path(session.layout, manifest))
        status: Literal["current", "pinned"] | None = None
        if not _is_newer(target.name.version, current.version):
            status = "current"
        elif refs.pin(name) is not None:
            status = "pinned"
        if status is not None:
            relink(session, model)
            seconds = round(time.perf_counter() - started, 4)
            return UpdateResult(model, status, current.version, None, None, 0, here, seconds)
        changelog = target.build.entry.changelog
        session.note(f"{model} {current.version} → {target.name.version}: {changelog or 'no changelog'}")
        spec = Spec(model, target.name.variant, Exact(target.name.version))
        done = _install(session, spec, "update", started)
    return UpdateResult(
        model,
        "updated",
        done.version,
        done.previous,
        changelog,
        done.download_bytes,
        done.path,
        done.seconds,
    )


def _is_newer(version: str, than: str) -> bool:
    return precedence(version) > precedence(than)


def bring_version(session: Session, spec: Spec) -> Manifest:
    """Make the version that `spec` means whole, its view too, moving nothing.

    Of a bare model the installed version.  Raises: as `checkout`.
    """
    with session.layout.shared():
        current = session.refs.current(spec.model) if spec.selector is None else None
        if current is not None and spec.variant in (None, current.variant):
            if spec.variant is None:
                manifest = session.layout.read_manifest(current.manifest)
                ensure_view(session, manifest)
                return manifest
            spec = Spec(spec.model, current.variant, Exact(current.version))
        target, manifest, _ = bring(session, spec, materialise=True)
        ensure_view(session, manifest, target)
    return manifest
