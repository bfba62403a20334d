"""The plan of one update: the version to install and its cost.

`outdated`, `update --dry-run` and `update` share it.  `registry/decide` chooses the version, from what
`candidates` collects; `checkout` installs it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed
from yarnstore.errors import BackendError, IntegrityError, UsageError
from yarnstore.ops.fetching.alternates import absent_from, has_file
from yarnstore.ops.fetching.eligibility import (
    check_eligible,
    entry_and_build,
    ineligible_error,
    require_eligible,
)
from yarnstore.ops.fetching.fetch import manifest_of, plan_for
from yarnstore.ops.fetching.ways import PackOffer
from yarnstore.ops.installing.activate import repair_link
from yarnstore.ops.installing.candidates import Candidate, check_hold, evaluate, explain
from yarnstore.ops.installing.checkout import Prepared, ensure_view, prepare
from yarnstore.ops.session.lookup import Found, Offered
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import not_installed, pin_rule_of
from yarnstore.registry.decide import Change, Policy, changes_between, incompatibility
from yarnstore.registry.requirements import Requirements
from yarnstore.registry.select import require_match
from yarnstore.registry.spec import Spec
from yarnstore.registry.versions import is_breaking, update_type
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.places import manifest_chunks
from yarnstore.store.registry_cache import plan_basis, read_plan, write_plan
from yarnstore.store.views import view_path


@dataclass(frozen=True)
class UpdateResult:
    """The result of updating one model."""

    model: str
    #: `planned`: with `--dry-run`; `current`: nothing is newer; `pinned`: a pin excludes newer versions;
    #: `held`: newer versions do not fit; `unlisted`: no registry has the model.
    status: Literal["updated", "planned", "current", "pinned", "held", "unlisted", "failed"]
    version: str  #: The version that is installed now, or would be.
    previous: str | None  #: The version that was installed before.
    changelog: str | None
    download_bytes: int | None
    path: str  #: The path to open.
    seconds: float
    variant: str = ""
    kind: str | None = None  #: The type of the step.
    breaking: bool = False  #: Whether the step is breaking.
    changes: tuple[Change, ...] = ()  #: The versions that the step crosses, the newest first.
    size_bytes: int | None = None
    registry: str | None = None  #: The registry that has the model.
    note: str | None = None  #: Which newer versions were not installed, and why.
    error: dict[str, object] | None = None
    #: How many bytes the retention rules deleted afterwards; for several models see the summary.
    freed_bytes: int = 0
    #: The versions that the retention rules deleted afterwards, or with `--dry-run` would delete; for several
    #: models see the summary.
    deleted_versions: tuple[str, ...] = ()
    leaves_copies: bool = False  #: Whether packs still have chunks that its files have, which `slim` deletes.

    @property
    def changed(self) -> bool:
        """Whether a version was installed."""
        return self.status == "updated"


@dataclass(frozen=True)
class UpdatePlan:
    """The update of one installed model.  Made under the shared lock, which is kept until `apply` returns.

    `goal` is the version that the step leads to; `apply` installs it only if `installs` is true.  `outcome`
    is the result as far as it is known without planning the download; `note_after` is the note after the
    installation.
    """

    session: Session
    chunks: ChunkStore
    current: Installed
    goal: Found | None
    installs: bool
    outcome: UpdateResult
    note_after: str | None = None

    def download_bytes(self) -> int | None:
        """How many bytes fetching the goal would download; None if that cannot be planned."""
        if isinstance(self.goal, Offered):
            return _planned_bytes(self.session, self.goal, self.chunks)
        return 0

    def forecast(self) -> UpdateResult:
        """Return the result that `--dry-run` shows."""
        planned = self.outcome.status == "planned"
        return replace(
            self.outcome, download_bytes=self.download_bytes() if planned else 0, path=self._current_path()
        )

    def prepare(self) -> Prepared | None:
        """Download the goal without installing it; None without one.  Raises: as `checkout`."""
        if self.goal is None or not self.installs:
            return None
        return prepare(self.session, self.goal, self.chunks)

    def apply(self, started: float, prepared: Prepared | None = None) -> UpdateResult:
        """Install the goal, which may be `prepared`; without one, make the link point to the installed
        version.

        Raises: ConflictError if another version was installed meanwhile; as `checkout`.
        """
        if self.goal is None or not self.installs:
            repair_link(self.session, self.outcome.model, ensure_view)
            return replace(self.outcome, path=self._current_path())
        began_at = self.current if self.outcome.status == "planned" else None
        if began_at is not None:
            self.session.note(describe_step(self.outcome, began_at.version))
        prepared = prepared or prepare(self.session, self.goal, self.chunks)
        done = prepared.install(self.session, "update", started, began_at=began_at)
        return replace(
            self.outcome,
            status="updated" if done.changed else "current",  # another process was faster
            version=done.version,
            previous=self.outcome.previous if done.changed else None,
            download_bytes=done.download_bytes,
            path=done.path,
            variant=done.variant,
            size_bytes=done.size_bytes,
            note=self.note_after,
            leaves_copies=done.leaves_copies,
        )

    def _current_path(self) -> str:
        layout = self.session.layout
        return str(view_path(layout, layout.read_manifest(self.current.manifest)))


def plan_update(
    session: Session,
    spec: Spec,
    policy: Policy,
    chunks: ChunkStore,
    requirements: Requirements | None = None,
) -> UpdatePlan:
    """Plan the update of an installed model to its newest version, or to the version that `spec` selects.

    Without a selector, the update stays within the installed major version unless the policy allows others,
    and it is an error if no newer version fits.  With a selector it goes to that version, also to an older
    one and to another major version.  An update that nobody asked for by name is given `requirements`, which
    limit it; then it is no error if none fits.

    Raises: NotFoundError if it is not installed or no registry has it; IncompatibleError; ConflictError if a
    pin excludes the requested version; UsageError, BackendError.
    """
    if spec.selector is not None:
        return _plan_named(session, spec, policy, chunks)
    found = evaluate(session, spec.model, policy, variant=spec.variant, needs=requirements)
    if policy.to is not None and not policy.to_may_miss:
        require_match(found.entry, policy.to)
    wanted, blocked = found.decision.wanted, found.decision.blocked
    if wanted is not None:
        # What a planned version needs may be installed just before it.
        alone = requirements is None
        check_eligible(session, found.entry, wanted, installing=True, force=policy.force, needs_first=alone)
    elif requirements is None and blocked is not None:
        reason = incompatibility(blocked, session.host)
        if reason is not None:
            raise ineligible_error(found.entry, blocked, reason, session.host)
    return plan_newest(session, found, chunks)


def plan_newest(session: Session, found: Candidate, chunks: ChunkStore) -> UpdatePlan:
    """Return the plan of a decision about a model."""
    decision, goal, wanted = found.decision, found.decision.goal, found.decision.wanted
    status: Literal["planned", "current", "pinned", "held"] = "current"
    if wanted is not None:
        status = "planned"
    elif decision.blocked is not None or decision.held_back is not None:
        status = "held"
    elif decision.blocker == "pinned":
        status = "pinned"
    outcome = UpdateResult(
        model=found.model,
        status=status,
        version=wanted.version if wanted else found.current.version,
        previous=found.current.version if wanted else None,
        changelog=wanted.entry.changelog if wanted else None,
        download_bytes=0,
        path="",
        seconds=0.0,
        variant=wanted.variant if wanted else found.current.variant,
        kind=decision.kind,
        breaking=decision.breaking,
        changes=decision.changes if wanted else (),
        size_bytes=wanted.entry.size_bytes if wanted else None,
        registry=found.source.name,
        note=explain(found, session.host) or None,
    )
    return UpdatePlan(
        session=session,
        chunks=chunks,
        current=found.current,
        goal=Offered.of(found.source, found.entry, goal) if goal is not None else None,
        installs=wanted is not None,
        outcome=outcome,
        note_after=explain(found, session.host, moved=True) or None,
    )


def _plan_named(session: Session, spec: Spec, policy: Policy, chunks: ChunkStore) -> UpdatePlan:
    """Return the plan of an update to the version that a spec selects."""
    if policy.to is not None:
        raise UsageError(
            f"{spec} names a version, so --to cannot be used", hint="give only one of them", model=spec.model
        )
    current = session.refs.current(spec.model)
    if current is None:
        raise not_installed(session, spec.model)
    goal = require_eligible(session, spec, installing=True, force=policy.force)
    name = goal.name
    check_hold(spec.model, pin_rule_of(session, spec.model, current), current, name.version, name.variant)
    told = entry_and_build(session, goal)
    changes = changes_between(told[0], current.version, name.version, name.variant) if told else ()
    same = (name.version, name.variant) == (current.version, current.variant)
    kind = update_type(current.version, name.version, security=any(item.security for item in changes))
    outcome = UpdateResult(
        model=spec.model,
        status="current" if same else "planned",
        version=name.version,
        previous=None if same else current.version,
        changelog=told[1].entry.changelog if told else None,
        download_bytes=0,
        path="",
        seconds=0.0,
        variant=name.variant,
        kind=None if same else kind,
        breaking=not same and is_breaking(current.version, name.version),
        changes=changes,
        size_bytes=told[1].entry.size_bytes if told else None,
        registry=goal.source.name if isinstance(goal, Offered) else None,
    )
    return UpdatePlan(
        session=session, chunks=chunks, current=current, goal=goal, installs=True, outcome=outcome
    )


def describe_step(step_to: UpdateResult, installed: str) -> str:
    """Report the changelogs of all versions that a step crosses, before it is installed."""
    step = f"{step_to.model} {installed} → {step_to.version}"
    if step_to.kind == "downgrade":
        return f"{step}, which is older"
    if len(step_to.changes) < 2 and not step_to.breaking:
        return f"{step}: {step_to.changelog or 'no changelog'}"
    lines = [f"{step}{', which may break existing uses' if step_to.breaking else ''}:"]
    for change in step_to.changes:
        marks = [change.kind, *(["breaking"] if change.breaking and change.kind != "major" else [])]
        text = "\n  ".join((change.changelog or "no changelog").strip().splitlines())
        lines.append(f"{change.version} ({', '.join(marks)}): {text}")
    return "\n".join(lines)


def _planned_bytes(session: Session, offer: Offered, chunks: ChunkStore) -> int | None:
    """Return how many bytes fetching would download, planned from manifest and indexes.

    What alternates have is not downloaded.
    """
    entry, registry = offer.build.entry, offer.source.name
    if entry.manifest is None:
        near = entry.checksum is not None and has_file(session, Sha256.parse(entry.checksum))
        return 0 if near else entry.size_bytes
    digest = Sha256.parse(entry.manifest)
    packs = PackOffer.of(entry, offer.entry)
    basis = plan_basis(session.layout, packs.listed())
    # The content of alternates is no part of the basis.
    known = None if session.alternates else read_plan(session.layout, registry, digest, basis)
    if known is not None:
        return known
    try:
        manifest = manifest_of(session, offer)
        ids, _ = manifest_chunks([manifest])
        missing = absent_from(session, chunks.missing(ids))
        plan = plan_for(session, offer.source, packs, chunks, missing)
    except (BackendError, IntegrityError):
        return None
    if len(plan.unplaced):  # an index could not be read, so the size is unknown
        return None
    planned = plan.stored_bytes
    if not session.alternates:
        write_plan(session.layout, registry, digest, basis, planned)
    return planned
