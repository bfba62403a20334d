"""The check that a registry does not offer other content under a version than before.

Compares with the store and with recorded versions; `store/seen` has the records.  Imported versions are
compared while they are in the store, and never recorded.
"""

from __future__ import annotations

import contextlib

from yarnstore.backends.urls import plain_address, shown
from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import ConflictError, FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.store.refs import VersionName
from yarnstore.store.seen import content_of, remember, seen_content

_ACCEPT = "if its publisher confirms the change, use `--accept-change`"


def refuse_changed(
    session: Session, source: RegistrySource, name: VersionName, content: Sha256, manifest: Sha256 | None
) -> None:
    """Refuse a version whose `content` differs from before, unless the user accepts the change.

    `manifest` is the offered one, if there is one.  Raises: ConflictError with both.
    """
    if session.accept_change:
        return
    there = None
    with contextlib.suppress(FormatError):  # a damaged ref is replaced
        there = session.refs.version(name)
    if there is not None and _differs(session, there, content, manifest):
        raise ConflictError(
            f"{name.model} {name.version} has different content in the store than in {source.name}",
            hint=f"a published version must not change; {_ACCEPT}",
            stored=str(there),
            offered=str(manifest or content),
        )
    known = None
    try:
        known = seen_content(session.layout, _address(source), name)
    except FormatError as error:
        session.note(f"{error.message}; {name} is treated as new")
    if known is not None and known != content:
        raise ConflictError(
            f"{name.model} {name.version} had different content in {source.name} earlier",
            hint=f"a published version must not change; {_ACCEPT}",
            seen=str(known),
            offered=str(content),
        )


def _differs(session: Session, there: Sha256, content: Sha256, manifest: Sha256 | None) -> bool:
    """Whether the manifest of a stored version has other content than the offered one."""
    with contextlib.suppress(NotFoundError, IntegrityError):
        return content_of(session.layout.read_manifest(there)) != content
    return manifest is not None and manifest != there


def remember_content(session: Session, source: RegistrySource, name: VersionName, manifest: Manifest) -> None:
    """Record the content of a version that was completely downloaded from a registry."""
    try:
        remember(session.layout, _address(source), name, content_of(manifest), session.note)
    except StorageError as error:
        session.note(f"the content of {name.model} {name.version} could not be recorded: {error.message}")


def _address(source: RegistrySource) -> str:
    return plain_address(shown(source.url, folder=True))
