"""`list`, `path`: answer from the store alone, without the network or the decoders."""

from __future__ import annotations

import os
from dataclasses import dataclass

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.session.lookup import find_stored, not_installed, pin_rule_of, standing_here
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.whole import is_whole
from yarnstore.registry.decide import Standing
from yarnstore.registry.spec import Exact, Spec
from yarnstore.store.state import version_checksum
from yarnstore.store.views import has_view, last_use, lease, note_use, view_path


@dataclass(frozen=True)
class InstalledModel:
    """One installed model."""

    model: str
    version: str
    variant: str
    size_bytes: int
    installed_ms: int  #: When it was installed.
    last_used_ms: int  #: When it was last used, 0 if never.
    uses: int  #: How often it was used.
    pinned: bool  #: Whether this version is pinned.
    path: str  #: The path to open.
    manifest: str
    pin: str | None = None  #: The version, range or variant that is pinned.
    standing: Standing | None = None  #: What the cached registries say about the version.
    checksum: str = ""  #: The SHA-256 of the file, or of the manifest if the version has several files.


def list_installed(session: Session) -> list[InstalledModel]:
    """The installed models, by id.

    Raises: IntegrityError where a ref or manifest is damaged.
    """
    refs, layout = session.refs, session.layout
    rows = []
    for model in refs.installed_models():
        current = refs.current(model)
        if current is None:
            continue
        try:
            manifest = layout.read_manifest(current.manifest)
        except NotFoundError:
            raise IntegrityError(
                f"the manifest of {model} {current.version}",
                why="is missing from the store",
                hint="`ystore fsck --repair` fetches it again",
            ) from None
        moved = refs.last_move(model)
        uses, used_s = last_use(layout, current.manifest)
        hold = pin_rule_of(session, model, current)
        rows.append(
            InstalledModel(
                model=model,
                version=current.version,
                variant=current.variant,
                size_bytes=manifest.size_bytes,
                installed_ms=moved.time_ms if moved else 0,
                last_used_ms=int(used_s * 1000),
                uses=uses,
                pinned=hold.version is not None,
                path=str(view_path(layout, manifest)),
                manifest=str(current.manifest),
                pin=str(hold) or None,
                standing=standing_here(session, model, current),
                checksum=str(version_checksum(manifest)),
            )
        )
    return rows


class VersionPath(msgspec.Struct, frozen=True):
    """Where a version is; `lease` is a descriptor that keeps gc from it while it is open."""

    path: str
    lease: int | None


def find_path(session: Session, spec: Spec, *, verify: bool = True) -> VersionPath | None:
    """What to open, if it is there: of a bare model the installed version, of a full spec that one.

    None where it is to be materialised, or fetched, first.  Notes the use, before it is known to anybody.
    Hashes what changed since it was hashed last, unless without `verify`.

    Raises: NotFoundError where a bare model is not installed; PolicyError.
    """
    current = session.refs.current(spec.model) if spec.selector is None else None
    if spec.selector is None and spec.variant is None:
        if current is None:
            raise not_installed(session, spec.model)
        return _held(session, current.manifest, verify=verify)
    if current is not None and current.variant == spec.variant:
        spec = Spec(spec.model, spec.variant, Exact(current.version))
    found = find_stored(session, spec)
    return _held(session, found.manifest.digest, verify=verify) if found is not None else None


def path_of(session: Session, manifest: Manifest) -> VersionPath:
    """Where a version is whose view is there.  Notes the use."""
    if session.load_policy.restricts:
        session.admit_version(session, manifest, False)
    note_use(session.layout, manifest.digest)
    held = lease(session.layout, manifest.digest)
    return VersionPath(str(view_path(session.layout, manifest)), held)


def _held(session: Session, digest: Sha256, *, verify: bool) -> VersionPath | None:
    if not has_view(session.layout, digest):
        return None
    try:
        manifest = session.layout.read_manifest(digest)
    except NotFoundError:
        return None  # gc was faster
    found = path_of(session, manifest)
    try:
        whole = is_whole(session, manifest, verify=verify)
    except BaseException:
        _let_go(found)
        raise
    if whole:
        return found
    _let_go(found)
    return None


def _let_go(found: VersionPath) -> None:
    if found.lease is not None:
        os.close(found.lease)
