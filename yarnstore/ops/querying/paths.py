"""`path`: find the files of a version, from the store only, without the network.

`ops/installing/checkout` makes missing files; docs/operations.md describes which paths are stable.
"""

from __future__ import annotations

import os

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError, StorageError
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import find_stored, is_whole, not_installed
from yarnstore.registry.spec import Exact, Spec
from yarnstore.store.views import has_view, is_left_behind, lease, note_use, view_path

# How often a view is leased that comes and goes.
_TRIES = 4


class VersionPath(msgspec.Struct, frozen=True):
    """The path of a version; `lease` is a descriptor that keeps the view from `gc` while it is open."""

    path: str
    lease: int | None
    # Whether a kill left the link of the model, if that is installed, missing or leading elsewhere.
    left_behind: bool = False


def find_path(session: Session, spec: Spec, *, verify: bool = True) -> VersionPath | None:
    """Return the path to open: of the installed version for a bare model, else of the version in the spec.

    Returns None if the version must be materialised or fetched first.  Records the use before the path is
    returned.  With `verify`, files that changed since they were last hashed are hashed.

    Raises: NotFoundError if a bare model is not installed; PolicyError.
    """
    current = session.refs.current(spec.model) if spec.selector is None else None
    if spec.selector is None and spec.variant is None:
        if current is None:
            raise not_installed(session, spec.model)
        digest = current.manifest
    else:
        if current is not None and current.variant == spec.variant:
            spec = Spec(spec.model, spec.variant, Exact(current.version))
        found = find_stored(session, spec)
        if found is None:
            return None
        digest = found.manifest.digest
    held = _held(session, digest, verify=verify)
    if held is not None and _is_left_behind(session, spec.model):
        return VersionPath(held.path, held.lease, left_behind=True)
    return held


def _is_left_behind(session: Session, model: str) -> bool:
    try:
        installed = session.refs.installed(model)
    except (IntegrityError, StorageError):  # the version in a spec is found beside a damaged ref
        return False
    return installed is not None and is_left_behind(session.layout, model, installed)


def path_of(session: Session, manifest: Manifest) -> VersionPath:
    """Return the path of a version whose view exists, and record the use."""
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
        return None  # gc deleted it meanwhile
    found = path_of(session, manifest)
    for _ in range(_TRIES):
        try:
            whole = is_whole(session, manifest, verify=verify)
        except BaseException:
            _let_go(found)
            raise
        if not whole:
            _let_go(found)
            return None
        if found.lease is not None:
            break
        # gc deleted the view before the lease, and another process made it again since
        found = VersionPath(found.path, lease(session.layout, digest))
    return found


def _let_go(found: VersionPath) -> None:
    if found.lease is not None:
        os.close(found.lease)
