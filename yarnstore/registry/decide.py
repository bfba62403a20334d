"""Chooses the version to update to, and checks that it fits the machine.

Owns the choice of `update` and `outdated` among a model's versions: pins, the ranges of the application,
memory, and the changelogs of the versions in between.  `select` resolves specs, `versions` orders versions,
and callers give the facts about the machine.  Pure.

The rules, in this order.  Candidates are versions newer than the installed one that have its variant and are
not yanked.  Prereleases are candidates only on request.  Versions newer than the registry's latest are
candidates only if a range requests them or the installed version is newer already (as in npm-pick-manifest).
Of the candidates, `wanted` is the newest that is not a breaking step (unless `major`), that the pin allows,
that fits the application, that fits into memory (unless `force`), and that fits the other installed models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from yarnstore.core.names import parse_version
from yarnstore.registry.entries import ModelEntry, VersionEntry
from yarnstore.registry.host import Host
from yarnstore.registry.pins import FREE, PinRule
from yarnstore.registry.ranges import Range, range_holds
from yarnstore.registry.requirements import Requirements
from yarnstore.registry.select import Build, builds_of, latest_version
from yarnstore.registry.standing import Standing, standing
from yarnstore.registry.versions import (
    UpdateType,
    is_breaking,
    is_prerelease,
    precedence,
    security_between,
    sort_versions,
    update_type,
)

# Larger amounts of memory are shown by their order of magnitude.
_ABSURD_GB: Final = 1e6

# The reason why the newest candidate is not the wanted version.
Obstacle: TypeAlias = Literal["application", "memory", "major", "pinned", "requires"]


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of an update: breaking steps, a range, ignoring too little memory.

    A range without any version is an error, unless `to_may_miss`.
    """

    major: bool = False
    to: Range | None = None
    force: bool = False
    to_may_miss: bool = False


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """The reason why a version does not fit this machine: what it `needs`, and what the machine has."""

    what: Literal["application", "memory"]
    version: str
    needs: str
    has: str

    def __str__(self) -> str:
        return f"{self.version} {self.reason}"

    @property
    def reason(self) -> str:
        """The reason without the version: `needs application version >=2.0.0; yours is 1.5.0`."""
        if self.what == "application":
            return f"needs application version {self.needs}; yours is {self.has}"
        return f"needs {self.needs} of memory; this machine has {self.has}"


@dataclass(frozen=True, slots=True)
class Change:
    """One version between the installed version and the one to install."""

    version: str
    kind: UpdateType  #: The type of the step from the version before it.
    breaking: bool  #: Whether it may break programs that worked with the version before it.
    security: bool
    changelog: str | None
    release_date: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about one installed model.

    `wanted` is the build to install, None to keep the installed one.  `newest` is the newest candidate;
    `obstacle` and `misfit` give the reason if it is not `wanted`.  `kind` is the type of the step to
    `wanted`, else to `newest`; `changes` are the versions of that step, the newest first.
    """

    installed: str
    variant: str
    wanted: Build | None
    newest: Build | None
    latest: str | None
    kind: UpdateType | None
    breaking: bool
    blocker: Obstacle | None
    incompatibility: Incompatibility | None
    changes: tuple[Change, ...]
    standing: Standing
    # The newest build that would be wanted if it fitted the machine.
    blocked: Build | None
    # The newest build that would be wanted if it were not a breaking step.
    next_major: Build | None
    # The newest version that would be a candidate if it had the variant.
    without_variant: str | None
    # The newest build that would be wanted, or with `major` would be, but for a requirement between installed
    # models, and that requirement.
    held_back: Build | None = None
    unmet: str = ""
    # The builds that would be wanted but for such requirements, the newest first, and the same with `major`.
    choices: tuple[Build, ...] = ()
    choices_across: tuple[Build, ...] = ()
    # Whether `next_major` fits the other installed models only after they move, too.
    together: bool = False

    @property
    def goal(self) -> Build | None:
        """The version to which `kind` and `changes` refer."""
        return self.wanted or self.newest


def decide(
    model: ModelEntry,
    installed: str,
    variant: str,
    *,
    machine: Host,
    hold: PinRule = FREE,
    policy: Policy = DEFAULT_POLICY,
    requirements: Requirements | None = None,
) -> Decision:
    """Decide about a model whose exact version `installed` is stored as `variant`.

    Raises: InvalidNameError if `installed` or the application's version is not a version.
    """
    if machine.app_version is not None:
        parse_version(machine.app_version)
    kept = hold.variant or variant
    in_reach = _in_reach(model, installed, hold, policy, switching=kept != variant)
    builds = [(version, _build(model, version, kept)) for version in in_reach]
    reach = [build for _, build in builds if build is not None]
    lacking = builds[0][0] if builds and builds[0][1] is None else None
    crossing = policy.major or _asks_to_cross(model, installed, policy)
    newest = reach[0] if reach else None
    wanted, held, across, obstacle, reason = None, None, None, None, None
    held_back, unmet, together = None, "", False
    choices, choices_across = list[Build](), list[Build]()
    for build in reach:
        found = incompatibility(build, machine)
        if found is not None and policy.force and found.what == "memory":
            found = None
        bar = _bar(build, installed, hold, crossing=crossing)
        fits = found is None and bar in (None, "major")
        if fits:
            choices_across.append(build)
        if fits and bar is None:
            choices.append(build)
        if wanted is not None:
            continue
        apart = requirements.conflict(build) if requirements and fits else ""
        if apart:
            conflict = apart
            if requirements and requirements.across and bar == "major":
                conflict = requirements.across.conflict(build)
            if conflict:
                bar = "requires"
                if held_back is None:
                    held_back, unmet = build, conflict
        if found is None and bar is None:
            wanted = build
        if found is not None and bar is None:
            held = held or build
        if found is None and bar == "major" and across is None:
            across, together = build, bool(apart)
        if build is newest and wanted is None:  # reasons that no option overrides come first
            obstacle, reason = found.what if found else bar, found
    goal = wanted or newest
    return Decision(
        installed=installed,
        variant=kept,
        wanted=wanted,
        newest=newest,
        latest=latest_version(model),
        kind=_kind(model, installed, goal) if goal else None,
        breaking=is_breaking(installed, goal.version) if goal else False,
        blocker=obstacle,
        incompatibility=reason,
        changes=changes_between(model, installed, goal.version, kept) if goal else (),
        standing=standing(model, installed, variant),
        blocked=held,
        next_major=across,
        without_variant=lacking,
        held_back=held_back,
        unmet=unmet,
        choices=tuple(choices),
        choices_across=tuple(choices_across),
        together=together,
    )


def _in_reach(
    model: ModelEntry, installed: str, hold: PinRule, policy: Policy, *, switching: bool
) -> Iterator[str]:
    """Return the candidates of any variant, the newest first.

    With the installed version itself if another variant is requested.
    """
    here = precedence(installed)
    latest = latest_version(model)
    ceiling = precedence(latest) if latest in model.versions and policy.to is None else None
    asked = policy.to or Range.parse(f">={installed.partition('+')[0]}")
    for version in sort_versions(model.versions, newest_first=True):
        there = precedence(version)
        if there < here or (there == here and not (switching and version == installed)):
            continue
        if not asked.matches(version, include_prereleases=True):
            continue
        if is_prerelease(version):
            if not (asked.matches(version) or (hold.range is not None and hold.range.matches(version))):
                continue
        elif ceiling is not None and here <= ceiling < there:
            continue
        if all(build.entry.yanked for build in builds_of(model, version)):
            continue
        yield version


def _build(model: ModelEntry, version: str, variant: str) -> Build | None:
    for build in builds_of(model, version):
        if build.variant == variant and not build.entry.yanked:
            return build
    return None


def _asks_to_cross(model: ModelEntry, installed: str, policy: Policy) -> bool:
    """Whether the requested range excludes the installed major version, and so requests another."""
    if policy.to is None:
        return False
    line = [installed, *(version for version in model.versions if not is_breaking(installed, version))]
    return not any(policy.to.matches(version) for version in line)


def _bar(build: Build, installed: str, hold: PinRule, *, crossing: bool) -> Obstacle | None:
    """Whether a pin, or a new major that was not requested, blocks a build in reach."""
    if hold.version is not None:
        return "pinned"
    if hold.range is not None and not hold.range.matches(build.version, include_prereleases=True):
        return "pinned"
    return "major" if not crossing and is_breaking(installed, build.version) else None


def _kind(model: ModelEntry, old: str, new: Build) -> UpdateType:
    security = [version for version in model.versions if _entry(model, version, new.variant).security]
    return update_type(old, new.version, security=security_between(old, new.version, security))


def _entry(model: ModelEntry, version: str, variant: str | None) -> VersionEntry:
    """Return the entry of a version's variant, or of its main build without such a variant."""
    builds = builds_of(model, version)
    return next((build for build in builds if build.variant == variant), builds[0]).entry


def changes_between(model: ModelEntry, old: str, new: str, variant: str | None = None) -> tuple[Change, ...]:
    """The versions that the step from `old` to `new` crosses, `new` among them, the newest first.

    Changelogs and flags are those of the `variant`.  Yanked versions are omitted, and prereleases unless
    `new` is one.
    """
    crossed = []
    before = old
    for version in sort_versions(model.versions):
        if not precedence(old) < precedence(version) <= precedence(new):
            continue
        if version != new and (is_prerelease(version) or model.versions[version].yanked):
            continue
        entry = _entry(model, version, variant)
        crossed.append(
            Change(
                version=version,
                kind=update_type(before, version, security=entry.security),
                breaking=is_breaking(before, version),
                security=entry.security,
                changelog=entry.changelog,
                release_date=entry.release_date,
            )
        )
        before = version
    return tuple(reversed(crossed))


# --- whether it fits ---------------------------------------------------------------------------


def incompatibility(build: Build, machine: Host) -> Incompatibility | None:
    """Return why a build cannot be installed on a machine, the application first.

    Raises: InvalidNameError if the application's version is not one.
    """
    app = machine.app_version
    if app is not None:
        failing = [text for text in build.entry.compatibility if not range_holds(text, app)]
        if failing:
            return Incompatibility("application", build.version, ", ".join(failing), app)
    least = build.entry.minimum_ram_gb
    if machine.ram_gb is not None and least is not None and machine.ram_gb < least:
        digits = _digits_apart(least, machine.ram_gb)
        return Incompatibility(
            "memory", build.version, format_gb(least, digits), format_gb(machine.ram_gb, digits)
        )
    return None


def memory_warning(build: Build, machine: Host) -> str:
    """Return a warning if a build gets less memory than its publisher recommends, else ""."""
    advice = memory_advice(build, machine)
    return f"{build.model} {build.version} ({build.variant}) {advice}" if advice else ""


def memory_advice(build: Build, machine: Host) -> str:
    """Return the same as `memory_warning`, without the name of the build."""
    wanted = build.entry.recommended_ram_gb
    if machine.ram_gb is None or wanted is None or machine.ram_gb >= wanted:
        return ""
    digits = _digits_apart(wanted, machine.ram_gb)
    return (
        f"runs best with {format_gb(wanted, digits)} "
        f"of memory; this machine has {format_gb(machine.ram_gb, digits)}"
    )


def fitting_variant(model: ModelEntry, version: str, machine: Host) -> Build | None:
    """Return the build of a version that fits a machine: a preferred one, else the registry's first."""
    fitting = [
        build
        for build in builds_of(model, version)
        if not build.entry.yanked and incompatibility(build, machine) is None
    ]
    preferred = (build for name in machine.variants for build in fitting if build.variant == name)
    return next(preferred, fitting[0] if fitting else None)


def newest_fitting(model: ModelEntry, machine: Host, variant: str | None = None) -> Build | None:
    """Return the newest build that fits a machine, of `variant` if given; no prereleases, no yanked ones."""
    for version in sort_versions(model.versions, newest_first=True):
        if is_prerelease(version):
            continue
        for build in builds_of(model, version):
            right = variant in (None, build.variant) and not build.entry.yanked
            if right and incompatibility(build, machine) is None:
                return build
    return None


def format_gb(size: float, digits: int = 1) -> str:
    """`8 GB`, `7.5 GB`; with more digits `7.96 GB`."""
    if size >= _ABSURD_GB:
        return f"{size:.3g} GB"
    return f"{size:.{digits}f}".rstrip("0").rstrip(".") + " GB"


def _digits_apart(one: float, other: float) -> int:
    """The number of digits that distinguish two sizes, so that 7.96 GB is not printed as 8 GB."""
    return next((n for n in range(1, 4) if format_gb(one, n) != format_gb(other, n)), 4)
