"""What versions need of other models: which builds fit the installed versions, and which move together.

An adapter, tokenizer or projector names its base model in `requires`.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from yarnstore.core.reflog import Installed
from yarnstore.registry.spec import Spec, parse_specs

if TYPE_CHECKING:
    from yarnstore.registry.select import Build

# The label of the version that needs something, and the spec of what it needs.
Need: TypeAlias = tuple[str, Spec]


class Requirements(NamedTuple):
    """The version of each model, installed or planned, and what it needs of other models.

    What installed versions need and do not have is not in `needs`, since no update can break it, but in
    `lacking`, in words.  `across` is the same for a plan in which models also take breaking steps.
    """

    versions: Mapping[str, Installed | Build]
    needs: Mapping[str, tuple[Need, ...]]
    lacking: Mapping[str, str] = MappingProxyType({})
    across: Requirements | None = None

    def conflict(self, build: Build) -> str:
        """Return why a build does not fit the other versions (it breaks one, or needs another), or ""."""
        for model, needs in self.needs.items():
            for label, spec in needs if model != build.model else ():
                if spec.model == build.model and not spec.admits(build.variant, build.version):
                    return f"{label} needs {spec}"
        for _, spec in needs_of_build(build):
            other = self.versions.get(spec.model)
            if other is None or not spec.admits(other.variant, other.version):
                return f"it needs {spec}, and {_has(other)}"
        return ""

    def moved(self, builds: Iterable[Build]) -> Requirements:
        """Return the same with other versions of some models."""
        versions, needs = dict(self.versions), dict(self.needs)
        for build in builds:
            versions[build.model] = build
            needs.pop(build.model, None)
            if own := needs_of_build(build):
                needs[build.model] = own
        return Requirements(versions, needs, self.lacking)

    def unmet(self) -> tuple[str, Spec] | None:
        """Return a model and what it needs and does not have, if there is one."""
        for model, needs in self.needs.items():
            for _, spec in needs:
                other = self.versions.get(spec.model)
                if other is None or not spec.admits(other.variant, other.version):
                    return model, spec
        return None


class JointPlan(NamedTuple):
    """The versions of all models after an update, and the moves to them.

    Each group is a model, or models of which one needs another, in the order of their moves.
    """

    requirements: Requirements
    groups: tuple[tuple[str, ...], ...]


def needs_of_build(build: Build) -> tuple[Need, ...]:
    """Return what a build needs of other models."""
    return tuple((f"{build.model} {build.version}", spec) for spec in parse_specs(build.entry.requires))


def plan_together(now: Requirements, choices: Mapping[str, Sequence[Build]]) -> JointPlan:
    """Return the newest versions that fit each other; `choices` are the builds that each model may move to,
    the newest first.

    Each model starts at its newest choice.  While a requirement is not met, one of its two models goes to an
    older choice, in the end to its installed version: the one that is needed, if an older one fits, else the
    one that needs it; so do models that can never move, since they need each other.  Then models go to newer
    choices that fit the rest.
    """
    allowed = {model: list(builds) for model, builds in choices.items() if builds}
    while True:
        chosen = _lowered(now, allowed)
        stuck = chosen.keys() - set(_order(now, chosen))
        if not stuck:
            break
        for model in stuck:  # each needs another one to move first; an older choice may not
            allowed[model].remove(chosen[model])
            if not allowed[model]:
                del allowed[model]
    chosen = _raised(now, choices, chosen)
    plan = now.moved(chosen.values())
    return JointPlan(plan, _groups(_order(now, chosen), (now, plan)))


def _lowered(now: Requirements, allowed: Mapping[str, list[Build]]) -> dict[str, Build]:
    """Return choices that fit each other, not always the newest ones."""
    chosen = {model: builds[0] for model, builds in allowed.items()}

    def older(model: str) -> list[Build]:
        builds = allowed[model]
        return builds[builds.index(chosen[model]) + 1 :]

    def lower(model: str, builds: list[Build]) -> None:
        if builds:
            chosen[model] = builds[0]
        else:
            del chosen[model]

    plan = now.moved(chosen.values())
    while (broken := plan.unmet()) is not None:
        needing, spec = broken
        needed = spec.model
        if needed in chosen:
            fit = [build for build in older(needed) if spec.admits(build.variant, build.version)]
            installed = now.versions[needed]
            if fit or needing not in chosen or spec.admits(installed.variant, installed.version):
                lower(needed, fit)
            else:
                lower(needing, older(needing))
        else:
            lower(needing, older(needing))
        plan = now.moved(chosen.values())
    return chosen


def _raised(
    now: Requirements, choices: Mapping[str, Sequence[Build]], chosen: Mapping[str, Build]
) -> dict[str, Build]:
    """Return the same with newer choices for models for which one fits the others and can be moved to."""
    found = dict(chosen)
    while True:
        plan = now.moved(found.values())
        for model, build in _iter_newer(choices, found):
            better = {**found, model: build}
            if not plan.conflict(build) and len(_order(now, better)) == len(better):
                found = better
                break
        else:
            return found


def _iter_newer(
    choices: Mapping[str, Sequence[Build]], chosen: Mapping[str, Build]
) -> Iterator[tuple[str, Build]]:
    for model, builds in sorted(choices.items()):
        for build in builds[: builds.index(chosen[model]) if model in chosen else len(builds)]:
            yield model, build


def _order(now: Requirements, chosen: Mapping[str, Build]) -> list[str]:
    """Return the models in the order of their moves, without those that can never move.

    A move that breaks nothing comes first, then one after which only models that are still to move lack
    something; none comes before what it needs.
    """
    order: list[str] = []
    left = dict(sorted(chosen.items()))
    state = now
    while left:
        ready = [model for model, build in left.items() if _has_needs(state, build)]
        if not ready:
            break
        model = next((model for model in ready if not state.conflict(left[model])), ready[0])
        state = state.moved([left.pop(model)])
        order.append(model)
    return order


def _has_needs(state: Requirements, build: Build) -> bool:
    others = [(spec, state.versions.get(spec.model)) for _, spec in needs_of_build(build)]
    return all(other is not None and spec.admits(other.variant, other.version) for spec, other in others)


def _groups(order: Sequence[str], plans: Iterable[Requirements]) -> tuple[tuple[str, ...], ...]:
    """Return the models in groups of which one needs another, now or later; each group in the given order."""
    group_of = {model: {model} for model in order}
    for plan in plans:
        for model, needs in plan.needs.items():
            for _, spec in needs:
                if model in group_of and spec.model in group_of:
                    joined = group_of[model] | group_of[spec.model]
                    group_of.update(dict.fromkeys(joined, joined))
    groups = {id(group): tuple(model for model in order if model in group) for group in group_of.values()}
    return tuple(groups.values())


def _has(other: Installed | Build | None) -> str:
    if other is None:
        return "it is not installed"
    return f"{other.version} is installed" if isinstance(other, Installed) else f"not {other.version}"
