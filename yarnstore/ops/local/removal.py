"""`remove` and what takes it back.

A removal deletes refs alone: until `gc` the manifests and the data are still in the store, and `restore`
writes the refs again.  Leaves deleting data to `ops/upkeep/gc`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import ConflictError, FormatError, IntegrityError, NotFoundError, UsageError
from yarnstore.ops.fetching.fetch import ensure_version, mark_complete
from yarnstore.ops.installing.activate import activate, tell_state
from yarnstore.ops.installing.checkout import ensure_view, make_whole
from yarnstore.ops.installing.pin import pin
from yarnstore.ops.session.lookup import Found, offered_as
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import Stored, dependents, not_in_store
from yarnstore.registry.pins import FREE
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import meant_versions
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.native import quoted
from yarnstore.store.places import manifest_chunks
from yarnstore.store.refs import VersionName
from yarnstore.store.views import check_link_place, unlink_model


@dataclass(frozen=True)
class RemovedVersion:
    """One version that was removed: what `restore` needs to know of it."""

    version: str
    variant: str
    manifest: str
    installed: bool = False  #: Whether it was installed.
    pinned: bool = False  #: Whether it was pinned.


@dataclass(frozen=True)
class RemoveResult:
    """The versions that were removed; `ystore gc` then reclaims their disk space."""

    model: str
    versions: list[str]  #: The removed versions.
    uninstalled: bool  #: Whether the installed version was among them.
    removed: tuple[RemovedVersion, ...] = ()  #: The same versions, for `Store.restore`.
    pin: str | None = None  #: The range or variant that the model was pinned to, as in `MODEL@^1.1`.


def remove(session: Session, spec: Spec, *, whole_model: bool = False) -> RemoveResult:
    """Remove a version, or with `whole_model` all versions of a model and its installation.

    Raises: NotFoundError; ConflictError for a version that is installed or pinned; UsageError for a version
    without build metadata if several have some.
    """
    refs, layout = session.refs, session.layout
    if not layout.exists():
        raise not_in_store(session, spec)
    # What is installed or pinned must not change between the check and the removal.
    with layout.shared(), refs.moving():
        if whole_model:
            return _remove_model(session, spec.model)
        if not isinstance(spec.selector, Exact):
            raise UsageError(
                f"{spec} does not name one version to remove",
                hint=f"give {spec.model}@VERSION, or `ystore remove --all {spec.model}` for all versions",
            )
        names = [name for name in refs.versions(spec.model) if spec.variant in (None, name.variant)]
        versions = meant_versions(spec.selector.version, {name.version for name in names})
        if not versions:
            raise not_in_store(session, spec)
        if len(versions) > 1:
            raise UsageError(
                f"{spec} is ambiguous: the store has {', '.join(versions)}",
                hint=f"give one, as in `ystore remove {spec.model}@{versions[0]}`",
            )
        names = [name for name in names if name.version == versions[0]]
        current = refs.current(spec.model)
        for name in names:
            if current and (current.variant, current.version) == (name.variant, name.version):
                raise ConflictError(
                    f"{name.model} {name.version} is installed",
                    hint=f"install another version first, or `ystore remove --all {spec.model}`",
                )
            if refs.pin(name) is not None:
                raise ConflictError(
                    f"{name.model} {name.version} is pinned", hint=f"`ystore unpin {name}` first"
                )
        removed = _described(session, names)
        for name in names:
            refs.remove_version(name)
    return RemoveResult(spec.model, [name.version for name in names], uninstalled=False, removed=removed)


def _remove_model(session: Session, model: str) -> RemoveResult:
    """Remove a model within `Refs.moving`, so that no checkout happens between its link, its log and its
    refs.
    """
    refs, layout = session.refs, session.layout
    names = refs.versions(model)
    installed = model in refs.installed_models()
    if not names and not installed:
        raise not_in_store(session, Spec(model))
    needed_by = [label for label, _ in dependents(session, model)]
    if needed_by:
        first = ", ".join(needed_by)
        raise ConflictError(f"{model} is required by {first}", hint=f"remove {first} first")
    check_link_place(layout, model)
    removed, pin = _described(session, names), _pin_of(session, model)
    unlink_model(layout, model)
    if installed:
        refs.move(model, None, "remove", time_ms=session.now_ms())
        tell_state(session)
    for name in refs.pins(model):
        refs.remove_pin(name)
    refs.remove_hold(model)
    for name in names:
        refs.remove_version(name)
    for name in refs.partials(model):
        refs.remove_partial(name)
    return RemoveResult(model, [name.version for name in names], installed, removed, pin)


def _described(session: Session, names: Sequence[VersionName]) -> tuple[RemovedVersion, ...]:
    """Describe versions that are about to be removed; damaged ones, which cannot come back, are left out."""
    refs = session.refs
    found = []
    for name in names:
        with contextlib.suppress(FormatError):
            digest = refs.version(name)
            if digest is not None:
                current, pinned = refs.installed(name.model), refs.pin(name) is not None
                row = RemovedVersion(name.version, name.variant, str(digest), digest == current, pinned)
                found.append(row)
    return tuple(found)


def _pin_of(session: Session, model: str) -> str | None:
    with contextlib.suppress(FormatError):
        return str(session.refs.pin_rule(model)) or None
    return None


def removed_versions(session: Session, spec: Spec) -> RemoveResult:
    """Describe the removed versions that are still in the store, as their removal did, but without pins.

    A spec without a version means all removed versions of the model; the one that was installed when the
    model was removed is `installed`.

    Raises: NotFoundError if `gc` has deleted them, or none was removed; ConflictError for a version that was
    stored with two contents; UsageError for a range or alias.
    """
    layout, refs, model = session.layout, session.refs, spec.model
    if not isinstance(spec.selector, Exact | None):
        raise UsageError(
            f"{spec} is not a version", hint=f"give {model}@VERSION, or {model} for all versions"
        )
    last = refs.last_move(model)
    was = last.old.manifest if last and last.old and last.new is None else None
    stored = {*refs.versions(model), *refs.partials(model)}
    found: dict[VersionName, Manifest] = {}
    with layout.shared(), ChunkStore(layout) as chunks:
        for manifest in layout.readable_manifests({}):
            name = VersionName(manifest.model, manifest.variant, manifest.version)
            if name.model != model or name in stored or spec.variant not in (None, name.variant):
                continue
            if spec.selector and not meant_versions(spec.selector.version, {name.version}):
                continue
            if len(chunks.missing(manifest_chunks([manifest])[0])):
                continue  # an interrupted download
            if name in found and was not in (found[name].digest, manifest.digest):
                raise ConflictError(f"{name} was stored with several contents, which are all removed")
            if name not in found or manifest.digest == was:
                found[name] = manifest
    if not found:
        raise NotFoundError(
            "removed version",
            str(spec),
            hint=f"`gc` deletes removed versions; try `ystore fetch {quoted(str(spec))}`",
        )
    rows = [
        RemovedVersion(name.version, name.variant, str(manifest.digest), manifest.digest == was)
        for name, manifest in sorted(found.items())
    ]
    return RemoveResult(model, [row.version for row in rows], any(row.installed for row in rows), tuple(rows))


@dataclass(frozen=True)
class RestoreResult:
    """The versions that are in the store again."""

    model: str
    versions: list[str]  #: The restored versions.
    installed: str | None  #: The version that is installed now.


def restore(session: Session, removed: RemoveResult) -> RestoreResult:
    """Take a removal back: store its versions again, install and pin what was installed and pinned.

    What `gc` has deleted since is downloaded again.  If another version was installed since, it stays.

    Raises: NotFoundError if the data is gone and no registry has the version; ConflictError if a version was
    stored again with other content; as `checkout`.
    """
    model, refs = removed.model, session.refs
    started = time.perf_counter()
    with session.layout.shared(), ChunkStore(session.layout) as chunks:
        for item in removed.removed:
            name = VersionName(model, item.variant, item.version)
            digest = Sha256.parse(item.manifest)
            if refs.version(name) not in (None, digest):
                raise ConflictError(
                    f"{model} {item.version} is stored again with different content",
                    hint=f"`ystore remove {name}` first",
                )
            found, manifest, _ = ensure_version(session, _find(session, name, digest), chunks)
            mark_complete(session, name, manifest, chunks)
            if item.pinned:
                refs.set_pin(name, manifest.digest)
            if item.installed and refs.installed(model) is None:
                make_whole(session, manifest, found, chunks)
                activate(session, manifest, "checkout", started, ensure=ensure_view)
    if removed.pin and refs.pin_rule(model) == FREE:
        pin(session, Spec.parse_stored(f"{model}{removed.pin}"))
    current = refs.current(model)
    return RestoreResult(
        model, [item.version for item in removed.removed], current.version if current else None
    )


def _find(session: Session, name: VersionName, digest: Sha256) -> Found:
    """Return a removed version by the manifest that is left of it, else as a registry offers it.

    Raises: NotFoundError.
    """
    with contextlib.suppress(NotFoundError, IntegrityError):
        manifest: Manifest = session.layout.read_manifest(digest)
        if VersionName(manifest.model, manifest.variant, manifest.version) != name:
            raise UsageError(f"the manifest {digest} does not belong to {name}")
        return Stored(name, manifest)
    return offered_as(session, name)
