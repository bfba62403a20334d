"""`outdated`: which installed models have newer versions, and what getting them would cost.

Plans from manifests and indexes, once for each version; downloads no chunk.  Of a split registry only the
files of the models are asked for.  What is wanted is `registry/decide`'s to say.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed
from yarnstore.errors import BackendError, ConflictError, IntegrityError, NotFoundError, YarnstoreError
from yarnstore.ops.fetching.fetch import manifest_of, plan_for
from yarnstore.ops.fetching.plan import PackOffer
from yarnstore.ops.session.lookup import (
    Offered,
    find_entry,
    not_installed,
    pin_rule_of,
    sources_for,
    standing_of,
)
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.registry.decide import (
    DEFAULT_POLICY,
    Change,
    Decision,
    Policy,
    decide,
    fitting_variant,
    incompatibility,
    newest_fitting,
)
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.host import Host
from yarnstore.registry.pins import FREE, PinRule
from yarnstore.registry.select import Build, builds_of, resolve
from yarnstore.registry.spec import Spec
from yarnstore.registry.standing import Standing, standing
from yarnstore.registry.versions import precedence
from yarnstore.store.chunks import ChunkStore, manifest_chunks
from yarnstore.store.registry_cache import plan_basis, read_plan, write_plan


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
    note: str | None  #: Why a newer version is not wanted, or what else to know.
    #: The newest version that other options, another application or more memory would allow.
    newest: str | None = None
    compatible: bool = True  #: Whether `newest` fits the application.
    obstacle: str | None = None  #: Why `newest` is not wanted: `application`, `memory`, `major` or `pinned`.
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


@dataclass(frozen=True)
class Candidate:
    """An installed model, what its registry says of it, and what was decided."""

    model: str
    current: Installed
    source: RegistrySource
    entry: ModelEntry
    hold: PinRule
    decision: Decision
    policy: Policy

    @property
    def switched_to(self) -> str | None:
        """The variant that is wanted, where it is not the installed one."""
        wanted = self.decision.wanted
        return wanted.variant if wanted is not None and wanted.variant != self.current.variant else None

    def offer(self, build: Build) -> Offered:
        """A build of it, to be fetched."""
        return Offered.of(self.source, self.entry, build)


def evaluate(
    session: Session,
    model: str,
    policy: Policy = DEFAULT_POLICY,
    *,
    model_file_only: bool = False,
    variant: str | None = None,
) -> Candidate:
    """Decide about an installed model, by what its registry says now.

    With `model_file_only` a split registry is asked for the model's own file and for nothing else.
    `variant` is the
    one to change to.

    Raises: NotFoundError where it is not installed, no registry has it, or it has no such variant;
    ConflictError where it is pinned to another variant; BackendError.
    """
    current = session.refs.current(model)
    if current is None:
        raise not_installed(session, model)
    source, entry = find_entry(
        session, model, sources_for(session, model), fresh=True, model_file_only=model_file_only
    )
    hold = pin_rule_of(session, model, current)
    if variant is not None and variant != current.variant:
        resolve(entry, Spec(model, variant))
        check_hold(model, hold, current, current.version, variant)
        hold = msgspec.structs.replace(hold, variant=variant)
    decision = decide(entry, current.version, current.variant, machine=session.host, hold=hold, policy=policy)
    decision = replace(decision, standing=standing_of(session, entry, current))
    return Candidate(
        model=model, current=current, source=source, entry=entry, hold=hold, decision=decision, policy=policy
    )


def check_hold(model: str, hold: PinRule, current: Installed, version: str, variant: str) -> None:
    """Raises: ConflictError where a pin keeps a model from a version or a variant that was asked for."""
    if (version, variant) == (current.version, current.variant):
        return
    named = hold.version is None and hold.variant in (None, variant)
    if named and (hold.range is None or hold.range.matches(version, include_prereleases=True)):
        return
    pin = current.version if hold.version is not None else str(hold)
    raise ConflictError(
        f"{model} is pinned to {pin}, which excludes {version} ({variant})",
        hint=f"`ystore unpin {model}` first, or `ystore checkout {model}:{variant}@{version}` "
        "despite the pin",
        model=model,
    )


def check_for_updates(session: Session, models: tuple[str, ...] = ()) -> list[Update]:
    """Every installed model, or those named, beside what its registry has now.

    A model that no registry has says so in its `note`; one that could not be asked after in its `error`,
    too.

    Raises: NotFoundError where a named model is not installed, or no registry is configured.
    """
    session.require_sources()
    return [_update(session, model) for model in models or tuple(session.refs.installed_models())]


def _update(session: Session, model: str) -> Update:
    try:
        current = session.refs.current(model)
    except IntegrityError as error:
        return _unknown(session, model, None, error)
    if current is None:
        raise not_installed(session, model)
    here = current.version
    try:
        found = evaluate(session, model, model_file_only=True)
    except (NotFoundError, BackendError, IntegrityError) as error:
        return _unknown(session, model, current, error)
    decision, goal = found.decision, found.decision.goal
    newest = decision.newest
    lacks = incompatibility(newest, session.host) if newest is not None else None
    fits = newest_fitting(found.entry, session.host, decision.variant)
    return Update(
        model=model,
        variant=current.variant,
        installed=here,
        wanted=decision.wanted.version if decision.wanted else here,
        latest=decision.latest or "",
        kind=decision.kind,
        pinned=found.hold.version is not None,
        size_bytes=goal.entry.size_bytes if goal else None,
        download_bytes=planned_bytes(session, found.offer(goal)) if goal else 0,
        changelog=goal.entry.changelog if goal else None,
        registry=found.source.name,
        note=explain(found, session.host) or None,
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
    """What can be said of a model that could not be considered."""
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


def explain(found: Candidate, machine: Host, *, moved: bool = False) -> str:
    """Why the newest version is not the one wanted, and what is wrong with the installed one, unless it
    has `moved` to the one wanted."""
    decision, hold = found.decision, found.hold
    parts = []
    if str(decision.standing) and not moved:
        parts.append(f"{decision.installed} is {decision.standing}")
    if decision.wanted is not None and decision.wanted.version != decision.installed:
        said = standing(found.entry, decision.wanted.version, decision.wanted.variant)
        parts += [f"{decision.wanted.version} is {said}"] if str(said) else []
    if found.switched_to is not None:
        parts.append(f"{found.switched_to} instead of {found.current.variant}, because of a pin")
    if decision.incompatibility is not None and decision.newest is not None:
        parts.append(f"{decision.incompatibility}{_fitting(found.entry, decision.newest, machine)}")
    elif decision.blocker == "pinned" and decision.newest is not None:
        what = "" if hold.version is not None else f" to {hold}"
        parts.append(f"pinned{what}; {decision.newest.version} is newer")
    elif str(hold) and decision.newest is None:
        parts.append("pinned" if hold.version is not None else f"pinned to {hold}")
    if decision.next_major is not None:
        parts.append(
            f"{decision.next_major.version} is a new major version: ystore update --major {found.model}"
        )
    if decision.without_variant is not None:
        parts.append(_lacking(found.entry, decision.without_variant, decision.variant))
    elif decision.newest is None and found.policy.to is not None:
        parts.append(f"no newer version is in {found.policy.to}")
    return "; ".join(parts)


def _lacking(entry: ModelEntry, version: str, variant: str) -> str:
    builds = builds_of(entry, version)
    names = ", ".join(build.variant for build in builds if not build.entry.yanked)
    if any(build.variant == variant for build in builds):
        return f"{version} is withdrawn for {variant}; it has only {names}"
    return f"{version} has no {variant}, only {names}"


def _fitting(entry: ModelEntry, build: Build, machine: Host) -> str:
    other = fitting_variant(entry, build.version, machine)
    return f" ({other.variant} fits)" if other is not None and other.variant != build.variant else ""


def newer(version: str, than: str) -> bool:
    """Whether a version comes after another."""
    return precedence(version) > precedence(than)


def planned_bytes(session: Session, offer: Offered) -> int | None:
    """What fetching would bring over the wire, planned from its manifest and indexes."""
    entry, registry = offer.build.entry, offer.source.name
    if entry.manifest is None:
        return entry.size_bytes
    digest = Sha256.parse(entry.manifest)
    offered = (*entry.packs, *(f"{delta.base} {delta.pack}" for delta in entry.deltas))
    basis = plan_basis(session.layout, offered)
    known = read_plan(session.layout, registry, digest, basis)
    if known is not None:
        return known
    try:
        with ChunkStore(session.layout) as chunks:
            manifest = manifest_of(session, offer)
            ids, _ = manifest_chunks([manifest])
            plan = plan_for(session, offer.source, PackOffer.of(entry), chunks, chunks.missing(ids))
    except (BackendError, IntegrityError):
        return None
    if len(plan.unplaced):  # an index could not be read: nobody knows, this time
        return None
    planned = plan.stored_bytes
    write_plan(session.layout, registry, digest, basis, planned)
    return planned
