"""`outdated`: which installed models have newer versions, and how much an update would download.

Each version is planned once, from manifests and indexes; no chunk is downloaded.  Of a split registry only
the files of the models are requested.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from yarnstore.core.reflog import Installed
from yarnstore.errors import BackendError, IntegrityError, NotFoundError, YarnstoreError
from yarnstore.ops.installing.candidates import evaluate, plan_moves
from yarnstore.ops.installing.update_plan import plan_newest
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import not_installed, pin_rule_of
from yarnstore.registry.decide import DEFAULT_POLICY, Change, incompatibility, newest_fitting
from yarnstore.registry.pins import FREE
from yarnstore.registry.requirements import Requirements
from yarnstore.registry.standing import Standing
from yarnstore.store.chunks import ChunkStore


@dataclass(frozen=True)
class Update:
    """An installed model, compared with its registry."""

    model: str
    variant: str
    installed: str  #: The installed version.
    wanted: str  #: The version that `update` would install.
    latest: str  #: The version that `latest` means; empty if unknown.
    #: The type of the step to `wanted`, or to `newest` if that is newer; None if nothing is newer.
    kind: str | None
    pinned: bool  #: Whether the installed version is pinned.
    size_bytes: int | None  #: The size of the wanted version, in bytes.
    download_bytes: int | None  #: How many bytes `update` would download; None if unknown.
    changelog: str | None
    registry: str | None  #: The registry that has the model.
    note: str | None  #: Why a newer version is not wanted, or another note.
    #: The newest version that other options, another application or more memory would allow.
    newest: str | None = None
    compatible: bool = True  #: Whether `newest` fits the application.
    #: Why `newest` is not wanted: `application`, `memory`, `major`, `pinned`, or `requires` if an installed
    #: model needs another version, or if it needs another version of one.
    obstacle: str | None = None
    needs: str | None = None  #: What `newest` needs, such as a range of application versions.
    newest_that_fits: str | None = None  #: The newest version that fits the application and this machine.
    breaking: bool = False  #: Whether the step is breaking.
    pin: str | None = None  #: The version, range or variant that is pinned.
    changes: tuple[Change, ...] = ()  #: The versions that the step crosses, the newest first.
    standing: Standing | None = None  #: What the registry says about the installed version.
    wanted_variant: str | None = None  #: The variant to change to, if a pin asks for another one.
    across: str | None = None  #: The newest version that `update --major` would install.
    error: dict[str, object] | None = None

    @property
    def available(self) -> bool:
        """Whether `update`, with or without `--major`, would install another version."""
        return self.wanted != self.installed or bool(self.wanted_variant or self.across)


def check_for_updates(
    session: Session,
    models: tuple[str, ...] = (),
    *,
    fresh: bool = True,
    movable: tuple[str, ...] | None = None,
) -> list[Update]:
    """Compare every installed model, or the named ones, with the current indexes, or without `fresh` with
    cached ones.  The plan moves all installed models, or those in `movable`.

    If no registry has a model, its `note` says so; if a registry cannot be reached, its `error` does too.

    Raises: NotFoundError if a named model is not installed, or no registry is configured.
    """
    session.registries.require_sources()
    installed = tuple(session.refs.installed_models())
    named = models or installed
    # Also those that are not named: only their new versions say what they need.
    policies = dict.fromkeys(installed if movable is None else movable, DEFAULT_POLICY)
    requirements = plan_moves(session, policies, fresh=fresh, model_file_only=True).requirements
    return [_update(session, model, requirements, fresh=fresh) for model in named]


def _update(session: Session, model: str, requirements: Requirements, *, fresh: bool) -> Update:
    try:
        current = session.refs.current(model)
    except IntegrityError as error:
        return _unknown(session, model, None, error)
    if current is None:
        raise not_installed(session, model)
    here = current.version
    try:
        found = evaluate(session, model, model_file_only=True, fresh=fresh, needs=requirements)
    except (NotFoundError, BackendError, IntegrityError) as error:
        return _unknown(session, model, current, error)
    decision, newest = found.decision, found.decision.newest
    lacks = incompatibility(newest, session.host) if newest is not None else None
    fits = newest_fitting(found.entry, session.host, decision.variant)
    with ChunkStore(session.layout) as chunks:
        plan = plan_newest(session, found, chunks)
        download_bytes = plan.download_bytes()
    goal = decision.goal
    return Update(
        model=model,
        variant=current.variant,
        installed=here,
        wanted=decision.wanted.version if decision.wanted else here,
        latest=decision.latest or "",
        kind=decision.kind,
        pinned=found.hold.version is not None,
        size_bytes=goal.entry.size_bytes if goal else None,
        download_bytes=download_bytes,
        changelog=goal.entry.changelog if goal else None,
        registry=found.source.name,
        note=plan.outcome.note,
        newest=newest.version if newest else None,
        compatible=lacks is None or lacks.what != "application",
        obstacle=decision.blocker,
        needs=lacks.needs if lacks else None,
        newest_that_fits=fits.version if fits else None,
        breaking=decision.breaking,
        pin=str(found.hold) or None,
        changes=decision.changes,
        standing=decision.standing,
        wanted_variant=found.switched_to,
        across=decision.next_major.version if decision.next_major else None,
    )


def _unknown(session: Session, model: str, current: Installed | None, error: YarnstoreError) -> Update:
    """Return the result for a model that could not be compared."""
    here, hold = current.version if current else "", FREE
    with contextlib.suppress(IntegrityError, NotFoundError):
        hold = pin_rule_of(session, model, current) if current else session.refs.pin_rule(model)
    return Update(
        model=model,
        variant=current.variant if current else "",
        installed=here,
        wanted=here,
        latest="",
        kind=None,
        pinned=hold.version is not None,
        size_bytes=None,
        download_bytes=None,
        changelog=None,
        registry=None,
        note=error.message,
        pin=str(hold) or None,
        error=None if isinstance(error, NotFoundError) else error.as_dict(),
    )
