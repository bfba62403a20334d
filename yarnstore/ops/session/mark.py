"""The roots that `gc` starts from: every manifest that a ref in the store names.

An unreadable ref is an error and never treated as missing: git t5312, ollama#13885.
"""

from __future__ import annotations

import contextlib

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError, NotFoundError
from yarnstore.ops.session.session import Session
from yarnstore.store.memory import Memory
from yarnstore.store.refs import Refs, VersionName

# A more recent partial download is kept, since it may be continued.
PARTIAL_DAYS = 7


def remembering(session: Session) -> Session:
    """Return a session that parses each manifest and index once, however often they are marked from."""
    layout = msgspec.structs.replace(session.layout, memory=Memory())
    return msgspec.structs.replace(session, layout=layout)


def stored_versions(refs: Refs) -> list[tuple[VersionName, Sha256]]:
    """Return the stored versions with their manifests, without those that another process removes meanwhile.

    Raises: FormatError.
    """
    return [(name, digest) for name in refs.versions() if (digest := refs.version(name)) is not None]


def pinned_versions(refs: Refs) -> list[tuple[VersionName, Sha256]]:
    """Return the pinned versions in the same way."""
    return [(name, digest) for name in refs.pins() if (digest := refs.pin(name)) is not None]


def live_manifest(session: Session, digest: Sha256, why: str) -> Manifest:
    """Return a manifest to keep.  Raises: IntegrityError naming it."""
    try:
        return session.layout.read_manifest(digest)
    except (NotFoundError, IntegrityError) as error:
        raise IntegrityError(
            f"manifest {digest.hex[:12]}… ({why})",
            why=f"cannot be read: {error.message}",
            hint="nothing was deleted; `ystore fsck --repair` repairs it",
        ) from None


def partial_manifests(session: Session) -> tuple[list[Manifest], list[VersionName]]:
    """Return the manifests of versions whose download began at most a few days ago, and the names of those
    whose download began earlier."""
    refs = session.refs
    found: list[Manifest] = []
    stale: list[VersionName] = []
    for name in refs.partials():
        digest, since = refs.partial(name)
        if digest is None or session.clock() - since > PARTIAL_DAYS * 86400:
            stale.append(name)
            continue
        with contextlib.suppress(NotFoundError, IntegrityError):
            found.append(session.layout.read_manifest(digest))
    return found, stale


def current_roots(session: Session) -> list[Manifest]:
    """Return every manifest that a ref names now."""
    refs = session.refs
    digests = {digest for _, digest in stored_versions(refs)}
    digests |= {digest for model in refs.installed_models() if (digest := refs.installed(model))}
    digests |= {digest for _, digest in pinned_versions(refs)}
    manifests = [live_manifest(session, digest, "referenced by a ref") for digest in digests]
    return manifests + partial_manifests(session)[0]
