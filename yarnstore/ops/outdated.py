"""`outdated`: which installed models have newer versions, and what getting them would cost.

Plans from manifests and indexes; downloads no chunk.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from yarnstore.errors import BackendError, IntegrityError, NotFoundError
from yarnstore.ops.fetch import manifest_of, plan_for
from yarnstore.ops.plan import Offer
from yarnstore.ops.resolve import Target, registry_target
from yarnstore.ops.session import Session
from yarnstore.registry.ranges import Range
from yarnstore.registry.resolve import builds_of
from yarnstore.registry.spec import Spec
from yarnstore.registry.versions import precedence, security_between, update_type
from yarnstore.store.chunks import ChunkStore, manifest_chunks
from yarnstore.store.refs import VersionName


@dataclass(frozen=True)
class Update:
    """An installed model beside what its registry has.

    `wanted` is the newest version within the installed major, `latest` what the registry calls
    so; `kind` is the type of the step to `wanted`, or to `latest` where only that is newer, and
    None where nothing is.  `download_bytes` is None where it could not be planned.
    """

    model: str
    variant: str
    installed: str
    wanted: str
    latest: str
    kind: str | None
    pinned: bool
    size_bytes: int | None
    download_bytes: int | None
    changelog: str | None
    registry: str | None
    note: str | None


def check_for_updates(session: Session, models: tuple[str, ...] = ()) -> list[Update]:
    """Every installed model, or those named, beside what its registry has now.

    A model that no registry has says so in its `note`.

    Raises: NotFoundError where a named model is not installed, or no registry is configured.
    """
    refs = session.refs
    session.require_sources()
    wanted = models or tuple(refs.installed_models())
    return [_update(session, model) for model in wanted]


def _update(session: Session, model: str) -> Update:
    current = session.refs.current(model)
    if current is None:
        raise NotFoundError("installed model", model, hint="`ystore list` shows what is installed")
    name = VersionName(model, current.variant, current.version)
    pinned = session.refs.pin(name) is not None
    here = current.version
    try:
        latest = registry_target(session, Spec(model, current.variant))
        wanted = _within_major(session, model, current.variant, here) or latest
    except (NotFoundError, BackendError) as error:
        return Update(
            model, current.variant, here, here, here, None, pinned, None, None, None, None, error.message
        )
    goal = wanted if _newer(wanted.name.version, here) else latest
    if goal.build is None or goal.source is None or not _newer(goal.name.version, here):
        at = max(here, wanted.name.version, key=precedence)
        return Update(
            model, current.variant, here, at, latest.name.version, None, pinned, None, 0, None,
            latest.source.name if latest.source else None, None,
        )  # fmt: skip
    entry = session.doc(goal.source).models[model]
    security = [
        version
        for version in entry.versions
        if any(build.entry.security for build in builds_of(entry, version))
    ]
    kind = update_type(here, goal.name.version, security=security_between(here, goal.name.version, security))
    return Update(
        model,
        current.variant,
        here,
        wanted.name.version if _newer(wanted.name.version, here) else here,
        latest.name.version,
        kind,
        pinned,
        goal.build.entry.size_bytes,
        _download_bytes(session, goal),
        goal.build.entry.changelog,
        goal.source.name,
        None,
    )


def _newer(version: str, than: str) -> bool:
    return precedence(version) > precedence(than)


def _within_major(session: Session, model: str, variant: str, version: str) -> Target | None:
    with contextlib.suppress(NotFoundError):
        return registry_target(session, Spec(model, variant, Range.parse(f"^{version}")))
    return None


def _download_bytes(session: Session, target: Target) -> int | None:
    """What fetching would bring over the wire, planned from its manifest and indexes."""
    if target.build is None or target.source is None:
        return None
    if target.build.entry.manifest is None:
        return target.build.entry.size_bytes
    try:
        manifest = manifest_of(session, target.source, target.build, target.name)
        ids, _ = manifest_chunks([manifest])
        with ChunkStore(session.layout) as chunks:
            missing = chunks.missing(ids)
            offer = Offer.of(target.build.entry)
            return plan_for(session, target.source, offer, chunks, missing).stored_bytes
    except (BackendError, IntegrityError):
        return None
