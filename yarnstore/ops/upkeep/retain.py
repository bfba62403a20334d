"""Runs after an install: retention deletes old versions, and disk space is freed.

Retention follows the settings, or forecasts which versions it would delete.  Freeing deletes no version:
second copies of files and packs are deleted, and older versions become deltas against the installed one, as
in `gc`.  If another process uses the store, that is left to the next `gc`.  `gc` is imported only if there is
something to do, since a rollback must be fast.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from yarnstore.errors import CancelledError, YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.progress import format_size
from yarnstore.registry.policies import Retention
from yarnstore.store.refs import VersionName
from yarnstore.store.views import has_view

# An install does not wait for locks to free space, since its version is installed already.
_PATIENCE_S = 2.0


class Retained(NamedTuple):
    """The versions that a retention rule deleted, or would delete, and the bytes that were freed."""

    versions: tuple[str, ...] = ()
    freed_bytes: int = 0


def apply_retention(session: Session, retention: Retention, *, wait: bool = True) -> Retained:
    """Run `gc` if a retention rule is set; without `wait`, it only deletes, and encodes nothing.

    Incomplete downloads stay, also if the disk has less free space than its reserve: they are no versions.
    If that is not possible now, it is reported, and the next update does it.
    """
    if not retention.is_set:
        return Retained()
    from dataclasses import replace

    from yarnstore.ops.querying.keeping import GcPolicy
    from yarnstore.ops.upkeep.gc import gc

    try:
        policy = replace(GcPolicy.of(retention), keep_incomplete=True)
        done = gc(_impatient(session), policy, slim_too=wait)
    except YarnstoreError as error:
        session.note(f"older versions were not deleted: {error.message}")
        return Retained()
    if done.versions:
        session.note(
            f"deleted {', '.join(done.versions)}, as `keep` and `keep_within` say: "
            f"{format_size(done.freed_bytes)} freed"
        )
    return Retained(tuple(done.versions), done.freed_bytes)


def forecast_retention(
    session: Session, retention: Retention, incoming: Collection[VersionName]
) -> tuple[str, ...]:
    """Return the versions that `apply_retention` would delete after an update to the `incoming` ones.

    They are reported in a note, or why they are unknown.
    """
    if not retention.is_set or not incoming:
        return ()
    from yarnstore.ops.querying.keeping import GcPolicy, versions_to_delete

    try:
        with session.layout.shared():
            versions = versions_to_delete(session, GcPolicy.of(retention), incoming)
    except YarnstoreError as error:
        session.note(f"which versions would be deleted after the update is unknown: {error.message}")
        return ()
    if versions:
        session.note(f"would then delete {', '.join(versions)}, as `keep` and `keep_within` say")
    return tuple(versions)


def _impatient(session: Session) -> Session:
    """Return the session with a short lock timeout, and without messages about waiting."""
    layout = session.layout
    timeout_s = min(layout.lock_timeout_s, _PATIENCE_S)
    return msgspec.structs.replace(
        session, layout=msgspec.structs.replace(layout, lock_timeout_s=timeout_s, on_wait=None)
    )


def models_to_slim(session: Session, retention: Retention, installed: Mapping[str, bool]) -> Iterator[str]:
    """Yield the models that may have data on the disk which nothing needs since they were installed.

    These are chunks in packs that files have too, which `installed` says by model, and files of versions that
    are no longer kept as files.  A move between two versions whose files exist leaves neither.
    """
    found = [
        model for model, copies in installed.items() if copies or _has_spare_view(session, retention, model)
    ]
    # Retention rules may have deleted versions of other models as well.
    yield from session.refs.installed_models() if found and retention.is_set else found


def _has_spare_view(session: Session, retention: Retention, model: str) -> bool:
    """Whether a version has a view although its files are no longer kept."""
    refs = session.refs
    keeps = {refs.installed(model)}
    if retention.rollback_of.get(model, retention.rollback) == "instant":
        keeps.update(installed.manifest for installed in refs.behind(model))
    digests = {refs.version(name) for name in refs.versions(model)}
    return any(has_view(session.layout, digest) for digest in digests - keeps if digest is not None)


def slim_models(session: Session, retention: Retention, models: Iterable[str]) -> int:
    """Free the disk space that models no longer need; return how many bytes.

    If that is not possible now, a note gives the reason, and the next `gc` does it.
    """
    try:
        if not session.layout.exists() or not (only := tuple(models)):
            return 0
        from yarnstore.ops.querying.keeping import GcPolicy
        from yarnstore.ops.upkeep.gc import slim

        return slim(_impatient(session), GcPolicy.of(retention, only=only))
    except CancelledError:
        return 0  # the user who cancelled needs no message
    except YarnstoreError as error:
        session.note(f"the next `ystore gc` frees what older versions no longer need: {error.message}")
        return 0
