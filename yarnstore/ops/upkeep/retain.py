"""Retention: delete old versions after an update according to the settings, or forecast which."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from yarnstore.errors import YarnstoreError
from yarnstore.ops.querying.keeping import GcPolicy, versions_to_delete
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc import gc
from yarnstore.progress import format_size
from yarnstore.registry.policies import Retention
from yarnstore.store.refs import VersionName

# An update does not wait for locks to free space, since its version is installed already.
_PATIENCE_S = 2.0


class Retained(NamedTuple):
    """The versions that a retention rule deleted, or would delete, and the bytes that were freed."""

    versions: tuple[str, ...] = ()
    freed_bytes: int = 0


def apply_retention(session: Session, retention: Retention) -> Retained:
    """Run `gc` by itself if a retention rule is set.

    If that is not possible now, it is reported, and the next update does it.
    """
    if not retention.is_set:
        return Retained()
    layout = session.layout
    patience_s = min(layout.lock_timeout_s, _PATIENCE_S)
    impatient = msgspec.structs.replace(layout, lock_timeout_s=patience_s, on_wait=None)
    try:
        done = gc(msgspec.structs.replace(session, layout=impatient), GcPolicy.of(retention))
    except YarnstoreError as error:
        session.note(f"older versions were not deleted: {error.message}")
        return Retained()
    if done.versions:
        session.note(f"deleted {', '.join(done.versions)} because of keep and keep_within: "
                     f"{format_size(done.freed_bytes)} freed")  # fmt: skip
    return Retained(tuple(done.versions), done.freed_bytes)


def forecast_retention(
    session: Session, retention: Retention, incoming: Collection[VersionName]
) -> tuple[str, ...]:
    """Return the versions that `apply_retention` would delete after an update to the `incoming` ones.

    They are reported in a note, or why they are unknown.
    """
    if not retention.is_set or not incoming:
        return ()
    try:
        with session.layout.shared():
            versions = versions_to_delete(session, GcPolicy.of(retention), incoming)
    except YarnstoreError as error:
        session.note(f"cannot tell which versions would be deleted after the update: {error.message}")
        return ()
    if versions:
        session.note(f"would then delete {', '.join(versions)} because of keep and keep_within")
    return tuple(versions)
