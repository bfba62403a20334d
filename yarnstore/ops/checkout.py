"""`checkout`, `update`, `rollback`: moving what is installed.

Order: chunks, manifest and version ref (`fetch`), materialised files, view, reflog, `installed`, and
the link in `models/`.  Where the view is there already, only the last three move.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from yarnstore.core.manifest import Manifest
from yarnstore.core.reflog import Installed
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.download import Brought
from yarnstore.ops.fetch import bring, bring_chunks
from yarnstore.ops.plan import Offer
from yarnstore.ops.progress import Meter
from yarnstore.ops.resolve import Target, local_target, registry_target
from yarnstore.ops.session import Session
from yarnstore.registry.near import near_names
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import precedence
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.files import (
    has_view,
    installed_path,
    link_model,
    make_view,
    materialise,
    missing_files,
)
from yarnstore.store.refs import VersionName


@dataclass(frozen=True)
class CheckoutResult:
    """What was installed; `previous` is the version before, `path` what to open."""

    model: str
    version: str
    variant: str
    previous: str | None
    path: str
    size_bytes: int
    download_bytes: int
    seconds: float
    changed: bool


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
    return _move(session, manifest, operation, started, brought)


def ensure_view(session: Session, manifest: Manifest, target: Target | None = None) -> None:
    """Materialise a version whose chunks are in the store, and link its view.

    A chunk that turns out to be damaged is fetched again, once.

    Raises: IntegrityError, BackendError, StorageError.
    """
    if has_view(session.layout, manifest.digest):
        return
    for attempt in (1, 2):
        with ChunkStore(session.layout) as chunks:
            try:
                _materialise_all(session, chunks, manifest)
                break
            except IntegrityError:
                if attempt == 2 or not chunks.bad:
                    raise
                chunks.forget(chunks.bad)
        _fetch_again(session, manifest, target)
    make_view(session.layout, manifest)


def _materialise_all(session: Session, chunks: ChunkStore, manifest: Manifest) -> None:
    files = missing_files(session.layout, manifest)
    total = sum(file.size_bytes for file in files)
    meter = Meter(session.on_progress, "write", manifest.label, total)
    for file in files:
        materialise(session.layout, chunks, file, meter.add)


def _fetch_again(session: Session, manifest: Manifest, target: Target | None) -> None:
    session.note(f"{manifest.label}: damaged chunks in this store; fetching them again")
    if target is None or target.build is None or target.source is None:
        spec = Spec(manifest.model, manifest.variant, Exact(manifest.version))
        target = registry_target(session, spec)
    if target.build is None or target.source is None or not target.build.entry.manifest:
        raise IntegrityError(
            manifest.label,
            why="is damaged in this store, and no registry has its chunks",
            hint=f"`ystore remove {manifest.model}@{manifest.version}`, then fetch or import it again",
        )
    bring_chunks(session, target.source, manifest, Offer.of(target.build.entry))


def _move(
    session: Session, manifest: Manifest, operation: str, started: float, brought: Brought
) -> CheckoutResult:
    """Move `installed` and the link to a version whose view is there."""
    refs, layout = session.refs, session.layout
    new = Installed(manifest.digest, manifest.variant, manifest.version)
    refs.check_case(manifest.model)
    with refs.moving():
        old = refs.current(manifest.model)
        changed = old != new
        if changed:
            refs.move(manifest.model, new, operation, time_ms=session.now_ms())
        link_model(layout, manifest.model, manifest.digest)
    return CheckoutResult(
        manifest.model,
        manifest.version,
        manifest.variant,
        old.version if old else None,
        str(installed_path(layout, manifest)),
        manifest.size_bytes,
        brought.download_bytes,
        round(time.perf_counter() - started, 4),
        changed,
    )


def rollback(session: Session, model: str, version: str | None = None) -> CheckoutResult:
    """Install what was installed before, or `version`.

    Never uses the network for what is in the store.

    Raises: NotFoundError where the model is not installed, or nothing was installed before.
    """
    started = time.perf_counter()
    with session.layout.shared():
        stack = session.refs.stack(model)
        if not stack:
            raise not_installed(session, model)
        if version is None:
            if len(stack) < 2:
                raise NotFoundError(
                    "earlier version",
                    model,
                    where="the history",
                    hint=f"{stack[-1].version} is the first that was installed; "
                    f"`ystore log {model}` shows what there is",
                )
            goal = stack[-2]
        else:
            goal = _goal(session, model, version, stack)
        if has_view(session.layout, goal.manifest):
            manifest, brought = session.layout.read_manifest(goal.manifest), Brought()
        else:
            spec = Spec(model, goal.variant, Exact(goal.version))
            target, manifest, brought = bring(session, spec, materialise=True)
            ensure_view(session, manifest, target)
        return _move(session, manifest, "rollback", started, brought)


def _goal(session: Session, model: str, version: str, stack: list[Installed]) -> Installed:
    for installed in reversed(stack[:-1]):
        if installed.version == version:
            return installed
    spec = Spec(model, stack[-1].variant, Exact(version))
    target = local_target(session, spec) or local_target(session, Spec(model, None, Exact(version)))
    if target is None or target.manifest is None:
        here = sorted({name.version for name in session.refs.versions(model)})
        raise NotFoundError(
            "version",
            version,
            where=f"what is in the store of {model}",
            hint=f"here are {', '.join(here)}; `ystore checkout {model}@{version}` fetches it",
        )
    return Installed(target.manifest, target.name.variant, target.name.version)


def not_installed(session: Session, model: str) -> NotFoundError:
    """The error for a model that is not installed, with the nearest that are."""
    return NotFoundError(
        "installed model",
        model,
        near=near_names(model, session.refs.installed_models()),
        hint=f"`ystore checkout {model}` installs it; `ystore list` shows what is installed",
    )


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
