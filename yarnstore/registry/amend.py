"""Changing what a registry says of versions that are there: deprecated, yanked, aliases, the current one.

Works on the raw document, as `edit` does, so that keys nobody here knows survive.  Nothing here touches
a build's content.  Pure.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from yarnstore.core.suggestions import close_names
from yarnstore.errors import NotFoundError, UsageError
from yarnstore.registry.edit import RawDoc, raw_models
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.schema import check_raw_model
from yarnstore.registry.select import builds_of, latest_version
from yarnstore.registry.spec import LATEST, is_alias
from yarnstore.registry.timestamps import next_timestamp
from yarnstore.registry.versions import meant_version

# Puts a change into the raw entry of a model, which it may alter, and says what else the user should know.
Edit = Callable[[RawDoc, ModelEntry], list[str]]


@dataclass(frozen=True)
class Amended:
    """What became of a model: whether anything changed, what is current now, what to know beside it."""

    changed: bool
    current_version: str | None
    notes: list[str] = field(default_factory=list)


def amend(raw: RawDoc, model: str, change: Edit, *, now: str) -> Amended:
    """Put a change into a registry.  On an error `raw` is as it was.

    Raises: NotFoundError where the model or a version it names is not there; UsageError, FormatError.
    """
    models = raw_models(raw)
    if model not in models:
        raise NotFoundError("model", model, near=close_names(model, models))
    old = models[model]
    new = copy.deepcopy(old)
    notes = change(new, check_raw_model(old, model))
    entry = check_raw_model(new, model)
    if new != old:
        models[model] = new
        raw["last_updated"] = next_timestamp(now, raw.get("last_updated"))
    return Amended(new != old, entry.current_version, notes)


def deprecate(
    named: str, variant: str | None = None, *, reason: str | None = None, replaced_by: str | None = None
) -> Edit:
    """Advise against a version, or one variant of it.  What a new deprecation leaves out stays.

    If it was the current version and its replacement is another, that one is current now.
    """

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        build = _build(raw, model, version, variant, "deprecate")
        by = None if replaced_by is None else _meant(model, replaced_by)
        if by is not None:
            if by == version:
                raise UsageError(f"{version} cannot replace itself")
            if model.versions[by].yanked:
                raise UsageError(f"{by} is yanked, and cannot replace {version}")
        build["deprecated"] = True
        if reason is not None:
            build["deprecated_reason"] = reason
        if by is not None:
            build["replaced_by"] = by
        if build is not raw["versions"][version]:
            return []
        if model.current_version == version and by is not None:
            raw["current_version"] = by
            return [f"current_version is {by} now", *_aliased(model, version, "deprecated")]
        current = (
            [f"{version} is the current version still: `ystore registry set-current` names another"]
            if latest_version(model) == version
            else []
        )
        return current + _aliased(model, version, "deprecated")

    return change


def undeprecate(named: str, variant: str | None = None) -> Edit:
    """Take a deprecation back, with its reason and its replacement."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        build = _build(raw, model, _meant(model, named), variant, "deprecate")
        if build.get("deprecated"):
            build["deprecated"] = False
        for key in ("deprecated_reason", "replaced_by"):
            build.pop(key, None)
        return []

    return change


def yank(named: str, variant: str | None = None) -> Edit:
    """Withdraw a version, or one variant of it: only its exact number still finds it.

    If it was the current version, the newest usable release before it is current now.
    """

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        build = _build(raw, model, version, variant, "yank")
        build["yanked"] = True
        after = check_raw_model(raw, model.model_id)
        notes = _aliased(model, version, "yanked") if build is raw["versions"][version] else []
        latest = latest_version(after)
        if model.current_version == version and latest != version:
            if latest is None:
                return [*notes, f"{version} was the current version, and no other is usable"]
            raw["current_version"] = latest
            return [f"current_version is {latest} now", *notes]
        return notes

    return change


def unyank(named: str, variant: str | None = None) -> Edit:
    """Take a withdrawal back.  `current_version` stays what it has become."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        _build(raw, model, _meant(model, named), variant, "yank").pop("yanked", None)
        return []

    return change


def set_alias(name: str, named: str) -> Edit:
    """Tie a word such as `stable` to a version.  Raises: UsageError where it can be no alias."""
    if name == LATEST:
        hint = "ystore registry set-current MODEL VERSION"
        raise UsageError("latest is what current_version says", hint=hint)
    if not is_alias(name):
        raise UsageError(
            f"{name[:80]!r} can be no alias: it reads as a version or a range, or is no word",
            hint="an alias is a word such as stable, beta or lts-2024",
        )

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        raw.setdefault("aliases", {})[name] = version
        entry = model.versions[version]
        fate = "yanked" if entry.yanked else "deprecated" if entry.deprecated else ""
        return [f"{version} is {fate}"] if fate else []

    return change


def remove_alias(name: str) -> Edit:
    """Take an alias away."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        if name not in model.aliases:
            raise NotFoundError("alias", name, where=model.model_id, near=close_names(name, model.aliases))
        del raw["aliases"][name]
        return []

    return change


def set_current(named: str) -> Edit:
    """Make a version what `latest` means.  Raises: UsageError where it is deprecated or yanked."""

    def change(raw: RawDoc, model: ModelEntry) -> list[str]:
        version = _meant(model, named)
        entry = model.versions[version]
        if all(build.entry.yanked for build in builds_of(model, version)) or entry.deprecated:
            fate = "deprecated" if entry.deprecated and not entry.yanked else "yanked"
            verb = "deprecate" if fate == "deprecated" else "yank"
            raise UsageError(
                f"{version} is {fate}, and cannot be the current version",
                hint=f"ystore registry {verb} {model.model_id}@{version} --undo",
            )
        raw["current_version"] = version
        return []

    return change


def _meant(model: ModelEntry, named: str) -> str:
    """The version that a name means.  Raises: NotFoundError, which says what there is instead."""
    version = meant_version(named, model.versions) or named
    builds_of(model, version)
    return version


def _build(raw: RawDoc, model: ModelEntry, version: str, variant: str | None, verb: str) -> RawDoc:
    """The raw entry that a change to a version, or to one variant of it, goes into."""
    builds = [build.variant for build in builds_of(model, version)]
    entry: RawDoc = raw["versions"][version]
    if variant is None:
        return entry
    if variant not in builds:
        raise NotFoundError(
            "variant",
            variant,
            where=f"{model.model_id} {version}",
            near=close_names(variant, builds),
            hint=f"it has {', '.join(builds)}",
        )
    if variant != builds[0]:
        build: RawDoc = entry["variants"][variant]
        return build
    if len(builds) > 1:
        raise UsageError(
            f"{variant} is the version's own build: what is said of it holds for {', '.join(builds[1:])} too",
            hint=f"{verb} the whole version, {model.model_id}@{version}, or its other variants",
        )
    return entry


def _aliased(model: ModelEntry, version: str, fate: str) -> list[str]:
    words = [word for word, target in model.aliases.items() if target == version]
    return [f"{', '.join(words)} leads to {version}, which is {fate} now"] if words else []
