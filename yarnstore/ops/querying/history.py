"""`log`: list the published versions of a model and the changes of its installed version.

Leaves the reflog to `store/refs`; docs/format/refs.md governs it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal

from yarnstore.core.digest import Sha256
from yarnstore.core.record import Record
from yarnstore.core.reflog import Installed, Move
from yarnstore.core.suggestions import close_names
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import model_entry
from yarnstore.registry.versions import precedence, update_type
from yarnstore.store.refs import VersionName

# Imported where a registry lists the model: `log` needs them for nothing else.
if TYPE_CHECKING:
    from yarnstore.registry.entries import ModelEntry


class HistoryVersion(Record, frozen=True):
    """One published or stored version of a model."""

    version: str
    variant: str
    installed: bool  #: Whether it is installed.
    in_store: bool
    pinned: bool  #: Whether it is pinned.
    published: bool  #: Whether the registry lists it.
    latest: bool  #: Whether it is the version that `latest` means.
    release_date: str | None
    size_bytes: int | None
    type: str | None  #: The type of the step from the version before it.
    changelog: str | None
    deprecated: bool
    deprecated_reason: str | None
    replaced_by: str | None
    yanked: bool
    security: bool


class HistoryMove(Record, frozen=True):
    """One change of the installed version."""

    time_ms: int  #: When it happened.
    #: `checkout`, `update`, `import`, `remove`, `rollback`, or `self-check` if that refused the version
    #: `old`.
    operation: str
    old: str | None  #: The version before.
    new: str | None  #: The version after.
    registry: str | None = None  #: The registry that lists the version after with the same content.
    variant: str | None = None  #: The variant after.
    direction: Literal["forward", "back"] | None = None  #: Whether it was to a newer or an older version.


class History(Record, frozen=True):
    """The versions of a model and the changes of the installed version."""

    model: str
    installed: str | None  #: The installed version.
    registry: str | None
    versions: list[HistoryVersion]  #: The versions, the newest first.
    moves: list[HistoryMove]  #: The changes, the oldest first.


def history(session: Session, model: str) -> History:
    """Return the history of a model, without using the network if a registry is cached.

    Raises: NotFoundError if neither the store nor a registry knows the model.
    """
    refs = session.refs
    current = None
    with contextlib.suppress(NotFoundError):
        current = refs.current(model)
    found = model_entry(session, model)
    moves = refs.moves(model)
    here = refs.versions(model)
    if found is None and not moves and not here:
        known = {name.model for name in refs.versions()} | set(refs.installed_models())
        for source in session.registries.sources:
            with contextlib.suppress(FormatError):
                known |= set(session.registries.doc(source).models)
        raise NotFoundError(
            "model", model, near=close_names(model, known), hint="`ystore search` lists the available models"
        )
    pins = {(name.variant, name.version) for name in refs.pins(model)}
    stored = {(name.variant, name.version) for name in here}
    at = (current.variant, current.version) if current else None
    rows = []
    if found is not None:
        from yarnstore.registry.select import iter_builds, latest_version

        latest = latest_version(found[1])
        builds = list(iter_builds(found[1]))
        versions = sorted({build.version for build in builds}, key=precedence)
        before = dict(zip(versions[1:], versions, strict=False))
        for build in builds:
            entry = build.entry
            key = (build.variant, build.version)
            previous = before.get(build.version)
            rows.append(
                HistoryVersion(
                    version=build.version,
                    variant=build.variant,
                    installed=key == at,
                    in_store=key in stored,
                    pinned=key in pins,
                    published=True,
                    latest=build.version == latest,
                    release_date=entry.release_date,
                    size_bytes=entry.size_bytes,
                    type=update_type(previous, build.version, security=entry.security) if previous else None,
                    changelog=entry.changelog,
                    deprecated=entry.deprecated,
                    deprecated_reason=entry.deprecated_reason,
                    replaced_by=entry.replaced_by,
                    yanked=entry.yanked,
                    security=entry.security,
                )
            )
    listed = {(row.variant, row.version) for row in rows}
    for variant, version in stored - listed:
        name = VersionName(model, variant, version)
        rows.append(_unpublished(session, name, (variant, version) == at, (variant, version) in pins))
    rows.sort(key=lambda row: row.variant)
    rows.sort(key=lambda row: precedence(row.version), reverse=True)
    return History(
        model,
        current.version if current else None,
        found[0].name if found else None,
        rows,
        [
            HistoryMove(
                time_ms=move.time_ms,
                operation=move.operation,
                old=move.old.version if move.old else None,
                new=move.new.version if move.new else None,
                registry=_origin(found, move.new),
                variant=move.new.variant if move.new else None,
                direction=_direction(move),
            )
            for move in moves
        ],
    )


def _direction(move: Move) -> Literal["forward", "back"] | None:
    if move.old is None or move.new is None:
        return None
    old, new = precedence(move.old.version), precedence(move.new.version)
    return None if old == new else "forward" if old < new else "back"


def _origin(found: tuple[RegistrySource, ModelEntry] | None, installed: Installed | None) -> str | None:
    """Return the name of the registry that publishes what was installed.

    It lists the same manifest, or the same version if it lists no manifest.
    """
    if found is None or installed is None or installed.version not in found[1].versions:
        return None
    from yarnstore.registry.select import builds_of

    for build in builds_of(found[1], installed.version):
        manifest = build.entry.manifest
        same = manifest is None or Sha256.parse(manifest) == installed.manifest
        if build.variant == installed.variant and same:
            return found[0].name
    return None


def _unpublished(session: Session, name: VersionName, installed: bool, pinned: bool) -> HistoryVersion:
    manifest = None
    with contextlib.suppress(IntegrityError):
        manifest = session.refs.checked_version(name)
    return HistoryVersion(
        name.version,
        name.variant,
        installed,
        in_store=True,
        pinned=pinned,
        published=False,
        latest=False,
        release_date=None,
        size_bytes=manifest.size_bytes if manifest else None,
        type=None,
        changelog=None,
        deprecated=False,
        deprecated_reason=None,
        replaced_by=None,
        yanked=False,
        security=False,
    )
