"""Resolves specs to builds.

Owns the choice of version and variant, the meaning of `latest`, and whether a version fits an application.
`schema` reads the registry, `spec` parses specs; docs/registry.md governs the rules. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.suggestions import close_names
from yarnstore.errors import NotFoundError
from yarnstore.registry.entries import ModelEntry, RegistryDoc, VersionEntry
from yarnstore.registry.ranges import Range, range_holds
from yarnstore.registry.spec import LATEST, Exact, Spec, is_alias
from yarnstore.registry.versions import is_prerelease, meant_version, precedence, sort_versions


class Build(msgspec.Struct, frozen=True):
    """One build of one version, which can be fetched.  `entry` is its own, without `variants`."""

    model: str
    version: str
    variant: str
    entry: VersionEntry

    def __str__(self) -> str:
        return f"{self.model} {self.version} ({self.variant})"


def find_model(doc: RegistryDoc, model: str, *, where: str = "") -> ModelEntry:
    """Return the entry of a model; `where` names the registry, for the error.  Raises: NotFoundError."""
    entry = doc.models.get(model)
    if entry is None:
        raise NotFoundError("model", model, where=where, near=close_names(model, doc.models))
    return entry


def builds_of(model: ModelEntry, version: str) -> list[Build]:
    """Return the builds of a version, its own variant first.

    Variants inherit fields of their version: `security`, `yanked` and `deprecated` always;
    `compatibility`, `changelog`, `release_date`, `deprecated_reason` and `replaced_by` unless the
    variant has its own.

    Raises: NotFoundError.
    """
    entry = model.versions.get(version)
    if entry is None:
        raise NotFoundError(
            "version",
            version,
            where=model.model_id,
            near=close_names(version, model.versions),
            hint=_versions_hint(model),
        )
    own = msgspec.structs.replace(entry, variants={}) if entry.variants else entry
    builds = [Build(model.model_id, version, entry.variant or DEFAULT_VARIANT, own)]
    for variant, further in entry.variants.items():
        builds.append(Build(model.model_id, version, variant, _merged(variant, further, own)))
    return builds


def iter_builds(model: ModelEntry) -> Iterator[Build]:
    """Yield all builds, yanked ones and prereleases too: the newest version first, its variants in order."""
    for version in sort_versions(model.versions, newest_first=True):
        yield from builds_of(model, version)


def latest_version(model: ModelEntry) -> str | None:
    """Return the version `latest`: `current_version`, else the newest one that is not a prerelease.

    Yanked versions are skipped: if the current one is yanked, `latest` is the newest one before it. A
    `current_version` that is not among the versions is returned unchanged.
    """
    current = model.current_version
    if current is not None and (current not in model.versions or not _is_yanked(model, current)):
        return current
    for version in sort_versions(model.versions, newest_first=True):
        if is_prerelease(version) or _is_yanked(model, version):
            continue
        if current is None or precedence(version) < precedence(current):
            return version
    return None


def resolve(
    model: ModelEntry, spec: Spec, *, prefer: Sequence[str] = (), include_prereleases: bool = False
) -> Build:
    """Return the build that `spec` selects from the entry of its model.

    The variant is the spec's; else the first of `prefer` that the version has; else the version's own.
    A yanked build is selected only by its exact version.

    Raises: NotFoundError, with the existing versions or variants.
    """
    match spec.selector:
        case Exact(version):
            found = builds_of(model, meant_version(version, model.versions) or version)
            return _pick(found, spec.variant, prefer, model=model, exact=True)
        case Range() as wanted:
            return _newest_in(model, spec, wanted, prefer, include_prereleases=include_prereleases)
        case selector:
            version = _aliased(model, LATEST if selector is None else selector.name)
            return _pick(builds_of(model, version), spec.variant, prefer, model=model, exact=False)


def build_named(model: ModelEntry, version: str, variant: str) -> Build:
    """Return the build of one version in one variant.

    Raises: NotFoundError, with the existing versions or variants.
    """
    return _pick(builds_of(model, version), variant, (), model=model, exact=True)


def find_build(model: ModelEntry, version: str, variant: str) -> Build | None:
    """Return the build of one version in one variant; None if the model has none such."""
    builds = builds_of(model, version) if version in model.versions else []
    return next((build for build in builds if build.variant == variant), None)


def compatible(entry: VersionEntry, app_version: str | None) -> bool:
    """Whether all of the entry's `compatibility` ranges hold for the application's version.

    Without an application nothing can disagree.  A prerelease of the application counts by its place
    in the order of versions.  A range that cannot be read holds for no application.

    Raises: InvalidNameError if `app_version` is not a version.
    """
    if app_version is None:
        return True
    precedence(app_version)
    return all(range_holds(text, app_version) for text in entry.compatibility)


def _merged(variant: str, further: VersionEntry, version: VersionEntry) -> VersionEntry:
    return msgspec.structs.replace(
        further,
        model_id=further.model_id or version.model_id,
        version=further.version or version.version,
        variant=variant,
        compatibility=further.compatibility or version.compatibility,
        release_date=further.release_date or version.release_date,
        changelog=further.changelog or version.changelog,
        deprecated_reason=further.deprecated_reason or version.deprecated_reason,
        replaced_by=further.replaced_by or version.replaced_by,
        security=further.security or version.security,
        yanked=further.yanked or version.yanked,
        deprecated=further.deprecated or version.deprecated,
    )


def _is_yanked(model: ModelEntry, version: str) -> bool:
    return all(build.entry.yanked for build in builds_of(model, version))


def _aliased(model: ModelEntry, alias: str) -> str:
    """The version that an alias points to, which is in the model."""
    version = latest_version(model) if alias == LATEST else model.aliases.get(alias)
    if version in model.versions:
        return version
    if version is not None:
        raise NotFoundError(
            "version",
            _shown(version),
            where=model.model_id,
            hint=f"the alias {alias} in the registry points to it; {_versions_hint(model)}",
        )
    if alias == LATEST:
        raise NotFoundError("version", LATEST, where=model.model_id, hint=_versions_hint(model))
    known = [LATEST, *filter(is_alias, model.aliases)]
    raise NotFoundError(
        "alias",
        alias,
        where=model.model_id,
        near=close_names(alias, known),
        hint=f"it has the {'aliases' if len(known) > 1 else 'alias'} {', '.join(known)}",
    )


def _shown(text: str) -> str:
    """A word of the registry that nothing has checked, fit for a terminal."""
    return text[:80] if text.isprintable() else repr(text[:80])


def _newest_in(
    model: ModelEntry, spec: Spec, wanted: Range, prefer: Sequence[str], *, include_prereleases: bool
) -> Build:
    versions = sort_versions(model.versions, newest_first=True)
    for version in versions:
        if not wanted.matches(version, include_prereleases=include_prereleases):
            continue
        usable = [build for build in builds_of(model, version) if not build.entry.yanked]
        if any(spec.variant in (None, build.variant) for build in usable):
            return _pick(usable, spec.variant, prefer, model=model, exact=False)
    raise NotFoundError(
        "version", str(wanted), where=model.model_id, hint=_why_none(model, spec, wanted, versions)
    )


def _why_none(model: ModelEntry, spec: Spec, wanted: Range, versions: Sequence[str]) -> str:
    """Describe the nearest versions to a range without a usable one."""
    for version in versions:
        if not wanted.matches(version, include_prereleases=True):
            continue
        builds = builds_of(model, version)
        named = [build for build in builds if spec.variant in (None, build.variant)]
        if not named:
            return f"{version} has only {', '.join(build.variant for build in builds)}"
        exact = Spec(model.model_id, spec.variant, Exact(version))
        if all(build.entry.yanked for build in named):
            return f"{version} is withdrawn; to use it: {exact} with --force"
        return f"{version} is a prerelease; to use it: {exact}"
    return _versions_hint(model)


def _pick(
    builds: Sequence[Build], variant: str | None, prefer: Sequence[str], *, model: ModelEntry, exact: bool
) -> Build:
    """Return one of the builds of a version, of which there is at least one."""
    version = builds[0].version
    named = {build.variant: build for build in builds if variant in (None, build.variant)}
    if not named:
        variants = [build.variant for build in builds]
        raise NotFoundError(
            "variant",
            str(variant),
            where=f"{model.model_id} {version}",
            near=close_names(str(variant), variants),
            hint=_variant_hint(model, str(variant)) or f"it has {', '.join(variants)}",
        )
    usable = {name: build for name, build in named.items() if not build.entry.yanked}
    if not (usable or exact):
        taken = Spec(model.model_id, variant, Exact(version))
        raise NotFoundError(
            "usable version",
            version,
            where=model.model_id,
            hint=f"it is withdrawn; to use it: {taken} with --force",
        )
    usable = usable or named
    return next((usable[name] for name in prefer if name in usable), next(iter(usable.values())))


def _variant_hint(model: ModelEntry, variant: str) -> str:
    """The newest version that has a variant, or nothing."""
    for build in iter_builds(model):
        if build.variant == variant and not build.entry.yanked:
            return f"{build.version} has it: {model.model_id}:{variant}@{build.version}"
    return ""


def require_match(model: ModelEntry, wanted: Range) -> None:
    """Raise NotFoundError unless a version of the model, even a yanked one, is in the range."""
    if not any(wanted.matches(version, include_prereleases=True) for version in model.versions):
        raise NotFoundError("version", str(wanted), where=model.model_id, hint=_versions_hint(model))


def _versions_hint(model: ModelEntry) -> str:
    versions = sort_versions(model.versions, newest_first=True)
    if not versions:
        return "it has no versions"
    return f"it has {', '.join(versions[:5])}{' …' if len(versions) > 5 else ''}"
