"""Compares an installed model with its registry: which version to install, and why.

`registry/decide` decides; this module adds pins and the messages that explain the decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import msgspec

from yarnstore.core.reflog import Installed
from yarnstore.errors import (
    CancelledError,
    ConflictError,
    YarnstoreError,
)
from yarnstore.ops.querying.standing import installed_requirements, standing_of
from yarnstore.ops.session.lookup import find_entry, sources_for
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import not_installed, pin_rule_of
from yarnstore.registry.decide import (
    DEFAULT_POLICY,
    Decision,
    Policy,
    decide,
    fitting_variant,
)
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.host import Host
from yarnstore.registry.pins import PinRule
from yarnstore.registry.requirements import JointPlan, Requirements, plan_together
from yarnstore.registry.select import Build, builds_of, resolve
from yarnstore.registry.spec import Spec
from yarnstore.registry.standing import standing


@dataclass(frozen=True)
class Candidate:
    """An installed model, its entry in the registry, and the decision."""

    model: str
    current: Installed
    source: RegistrySource
    entry: ModelEntry
    hold: PinRule
    decision: Decision
    policy: Policy
    lacking: str = ""  # what the installed version needs, and is not installed

    @property
    def switched_to(self) -> str | None:
        """The wanted variant, if it is not the installed one."""
        wanted = self.decision.wanted
        return wanted.variant if wanted is not None and wanted.variant != self.current.variant else None


def evaluate(
    session: Session,
    model: str,
    policy: Policy = DEFAULT_POLICY,
    *,
    model_file_only: bool = False,
    variant: str | None = None,
    fresh: bool = True,
    needs: Requirements | None = None,
) -> Candidate:
    """Decide about an installed model by its registry's current index, or without `fresh` by the cached one.

    With `model_file_only` a split registry is queried only for the file of the model. `variant` is the
    variant to change to.  A version is only wanted if it fits `needs`.

    Raises: NotFoundError if the model is not installed, no registry has it, or it has no such variant;
    ConflictError if it is pinned to another variant; BackendError.
    """
    current = session.refs.current(model)
    if current is None:
        raise not_installed(session, model)
    source, entry = find_entry(
        session, model, sources_for(session, model), fresh=fresh, model_file_only=model_file_only
    )
    hold = pin_rule_of(session, model, current)
    if variant is not None and variant != current.variant:
        resolve(entry, Spec(model, variant))
        check_hold(model, hold, current, current.version, variant)
        hold = msgspec.structs.replace(hold, variant=variant)
    decision = decide(
        entry,
        current.version,
        current.variant,
        machine=session.host,
        hold=hold,
        policy=policy,
        requirements=needs,
    )
    decision = replace(decision, standing=standing_of(session, entry, current))
    return Candidate(
        model=model,
        current=current,
        source=source,
        entry=entry,
        hold=hold,
        decision=decision,
        policy=policy,
        lacking=needs.lacking.get(model, "") if needs else "",
    )


def plan_moves(
    session: Session,
    policies: Mapping[str, Policy],
    *,
    fresh: bool = True,
    model_file_only: bool = False,
    jobs: int = 1,
) -> JointPlan:
    """Plan an update of the models in `policies`, each as its policy allows, so that their versions fit each
    other; all others stay.

    `jobs` models are looked up at the same time.  One that cannot be looked up stays.
    """

    def choices_of(model: str) -> Decision | None:
        try:
            return evaluate(
                session, model, policies[model], fresh=fresh, model_file_only=model_file_only
            ).decision
        except CancelledError:
            raise
        except YarnstoreError:
            return None  # as the update of this model reports

    with ThreadPoolExecutor(max(1, min(jobs, len(policies) or 1))) as pool:
        decisions = dict(zip(policies, pool.map(choices_of, policies), strict=True))
    found = {model: decision for model, decision in decisions.items() if decision is not None}
    now = installed_requirements(session)
    plan = plan_together(now, {model: decision.choices for model, decision in found.items()})
    across = plan_together(now, {model: decision.choices_across for model, decision in found.items()})
    return plan._replace(requirements=plan.requirements._replace(across=across.requirements))


def check_hold(model: str, hold: PinRule, current: Installed, version: str, variant: str) -> None:
    """Raise ConflictError if a pin excludes the requested version or variant."""
    if (version, variant) == (current.version, current.variant):
        return
    named = hold.version is None and hold.variant in (None, variant)
    if named and (hold.range is None or hold.range.matches(version, include_prereleases=True)):
        return
    pin = current.version if hold.version is not None else str(hold)
    raise ConflictError(
        f"{model} is pinned to {pin}, which excludes {version} ({variant})",
        hint=f"`ystore unpin {model}` removes the pin; "
        f"`ystore checkout {model}:{variant}@{version}` ignores it",
        model=model,
    )


def explain(found: Candidate, machine: Host, *, moved: bool = False) -> str:
    """Return why the newest version is not wanted, and what is wrong with the installed one, unless it has
    `moved` to the wanted one."""
    decision, hold = found.decision, found.hold
    parts = []
    if str(decision.standing) and not moved:
        parts.append(f"{decision.installed} is {decision.standing}")
    if found.lacking and not moved:
        parts.append(found.lacking)
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
    if decision.held_back is not None:
        parts.append(f"{decision.held_back.version} is held back: {decision.unmet}")
    if decision.next_major is not None:
        # Updating it by name would break the models that move with it.
        way = "ystore update --major" if decision.together else f"ystore update --major {found.model}"
        parts.append(f"{decision.next_major.version} is a new major version: {way}")
    if decision.without_variant is not None:
        parts.append(_lacking(found.entry, decision.without_variant, decision.variant))
    elif decision.newest is None and found.policy.to is not None:
        parts.append(f"no newer version is in {found.policy.to}")
    return "; ".join(parts)


def _lacking(entry: ModelEntry, version: str, variant: str) -> str:
    builds = builds_of(entry, version)
    names = ", ".join(build.variant for build in builds if not build.entry.yanked)
    if any(build.variant == variant for build in builds):
        return f"the variant {variant} of {version} is withdrawn; others: {names}"
    return f"{version} has no variant {variant}, only {names}"


def _fitting(entry: ModelEntry, build: Build, machine: Host) -> str:
    other = fitting_variant(entry, build.version, machine)
    return f" ({other.variant} fits)" if other is not None and other.variant != build.variant else ""
