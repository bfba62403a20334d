"""From a spec to one version: in the store, or in a registry."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.reflog import Installed
from yarnstore.core.suggestions import close_names
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    NotFoundError,
)
from yarnstore.ops.session.origins import known_sources_for, others_with, sources_for, warn_of_others
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.registry.decide import Standing, standing
from yarnstore.registry.entries import ModelEntry, VersionEntry
from yarnstore.registry.pins import PinRule
from yarnstore.registry.select import Build, builds_of, resolve
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import meant_version
from yarnstore.store.refs import VersionName
from yarnstore.store.registry_cache import read_record
from yarnstore.store.state import version_checksum


class Target(msgspec.Struct, frozen=True):
    """One version that a spec means.

    `manifest` is the one in the store, where the version is there whole; `build` and `source` are
    what a registry says of it, where one was asked.
    """

    name: VersionName
    manifest: Sha256 | None = None
    build: Build | None = None
    source: RegistrySource | None = None


def local_target(session: Session, spec: Spec) -> Target | None:
    """The version of an exact spec if it is in the store whole, else None.

    Without a variant: the installed one, else the only one there is.  Without build metadata: also a
    version that has some, as in a registry.
    """
    if not isinstance(spec.selector, Exact):
        return None
    refs = session.refs
    names = [name for name in refs.versions(spec.model) if spec.variant in (None, name.variant)]
    version = meant_version(spec.selector.version, {name.version for name in names})
    if version not in (None, spec.selector.version):
        found = cached_entry(session, spec.model)
        if found is not None and spec.selector.version in found[1].versions:
            return None  # a registry has the very version that is named
    names = [name for name in names if name.version == version]
    if len(names) > 1:
        preferred = installed_variant(session, spec.model)
        names = [name for name in names if name.variant == preferred]
    if len(names) != 1:
        return None
    try:
        manifest = refs.checked_version(names[0])
    except FormatError:
        return None  # damaged: what a registry has can replace it
    return Target(names[0], manifest) if manifest else None


def installed_variant(session: Session, model: str) -> str | None:
    """The variant of a model that is installed: it sticks through updates."""
    with contextlib.suppress(FormatError, NotFoundError):
        current = session.refs.current(model)
        return current.variant if current else None
    return None


def preferred_variants(session: Session, model: str) -> tuple[str, ...]:
    """Which variants to take where a spec names none: the pinned one, the installed one, those of the
    settings."""
    pinned = None
    with contextlib.suppress(FormatError, NotFoundError):
        pinned = session.refs.pin_rule(model).variant
    first = (pinned, installed_variant(session, model))
    return (*(variant for variant in first if variant), *session.host.variants)


def registry_target(session: Session, spec: Spec, *, fresh: bool = False) -> Target:
    """The version that the first registry which has the model means by a spec.

    An exact version that the cached registry has needs no network, unless `fresh`; anything else is
    asked anew.

    Raises: NotFoundError with the nearest names, BackendError.
    """
    sources = sources_for(session, spec.model)
    exact = isinstance(spec.selector, Exact)
    if exact and not fresh:
        with contextlib.suppress(NotFoundError, BackendError, FormatError):
            return _search(session, sources, spec, fresh=False)
    return _search(session, sources, spec, fresh=True)


def _search(session: Session, sources: tuple[RegistrySource, ...], spec: Spec, *, fresh: bool) -> Target:
    source, entry = find_entry(session, spec.model, sources, fresh=fresh)
    return _target(session, source, entry, spec)


def find_entry(
    session: Session,
    model: str,
    sources: tuple[RegistrySource, ...],
    *,
    fresh: bool,
    model_file_only: bool = False,
) -> tuple[RegistrySource, ModelEntry]:
    """The first of the registries that has a model, and what it says of it; with `fresh` asked anew, and
    with `model_file_only` for nothing else where a registry is split.

    Raises: NotFoundError with the nearest names, BackendError.
    """
    near: list[str] = []
    failure: BackendError | None = None
    for source in sources:
        try:
            entry = session.entry(source, model, fresh=fresh, model_file_only=model_file_only)
        except BackendError as error:
            failure = failure or error
            continue
        if entry is not None:
            if failure is not None:
                raise _unsure(failure, model, source)
            warn_of_others(session, model, source)
            return source, entry
        near += close_names(model, session.doc(source).models)
    if failure is not None:
        raise failure
    elsewhere = others_with(session, model, sources[0]) if len(sources) < len(session.sources) else []
    raise NotFoundError(
        "model",
        model,
        where=" or ".join(source.name for source in sources),
        near=near[:3],
        hint=f"{elsewhere[0]} has one of that name: `--registry {elsewhere[0]}` takes it from there"
        if elsewhere
        else "`ystore search` lists the available models",
    )


def _unsure(failure: BackendError, model: str, source: RegistrySource) -> BackendError:
    """A registry of higher priority may have the model, too, and then its would count."""
    return BackendError(
        failure.url,
        str(failure.fields["why"]),
        hint=f"{source.name} has {model}; to take it from there: --registry {source.name}",
        status=failure.status,
    )


def _target(session: Session, source: RegistrySource, entry: ModelEntry, spec: Spec) -> Target:
    build = resolve(entry, spec, prefer=preferred_variants(session, spec.model))
    name = VersionName(spec.model, build.variant or DEFAULT_VARIANT, build.version)
    return Target(name, None, build, source)


def find_target(session: Session, spec: Spec) -> Target:
    """The version that a spec means: an exact one from the store if it is there, else from a registry.

    Where a change is accepted, it is the registry's, as it is now.

    Raises: NotFoundError, BackendError.
    """
    if session.accept_change:
        return registry_target(session, spec, fresh=True)
    return local_target(session, spec) or registry_target(session, spec)


def pin_rule_of(session: Session, model: str, current: Installed) -> PinRule:
    """What pins say of an installed model.  Raises: FormatError where one is damaged."""
    name = VersionName(model, current.variant, current.version)
    if session.refs.pin(name) is not None:
        return PinRule(version=current.version)
    return session.refs.pin_rule(model)


def standing_here(session: Session, model: str, current: Installed) -> Standing:
    """What the cached registries say of the version that is installed."""
    found = cached_entry(session, model)
    return standing_of(session, found[1], current) if found else Standing()


def standing_of(session: Session, entry: ModelEntry, current: Installed) -> Standing:
    """What a registry says of the version that is installed."""
    told = standing(entry, current.version, current.variant)
    if not told.published:
        return told
    for build in builds_of(entry, current.version):
        if build.variant == current.variant:
            return replace(told, replaced=_is_replaced(session, build.entry, current))
    return told


def _is_replaced(session: Session, entry: VersionEntry, current: Installed) -> bool:
    """Whether a registry has other files under the version that is installed.

    Chunked or named otherwise, as an imported one may be, they are the same.
    """
    if entry.manifest is not None and Sha256.parse(entry.manifest) == current.manifest:
        return False
    with contextlib.suppress(NotFoundError, IntegrityError):  # `fsck` is for those
        manifest = session.layout.read_manifest(current.manifest)
        if entry.files:
            theirs = sorted(str(Sha256.parse(file.sha256)) for file in entry.files)
            return theirs != sorted(str(file.sha256) for file in manifest.files)
        if entry.checksum is not None:
            return Sha256.parse(entry.checksum) != version_checksum(manifest)
        return entry.manifest is not None
    return False


def require_published(session: Session, spec: Spec) -> None:
    """Ask the registries where the cached ones do not have what a spec names.

    Raises: NotFoundError where they answer that they have none such.
    """
    if local_target(session, spec) is not None or not session.sources:
        return
    known = cached_entry(session, spec.model)
    with contextlib.suppress(NotFoundError):
        if known is not None:
            resolve(known[1], spec)
            return
    sources = sources_for(session, spec.model)
    with contextlib.suppress(BackendError, IntegrityError):
        for source in sources:
            session.refresh(source)  # which raises where it cannot be reached: its cached answer is no proof
        resolve(find_entry(session, spec.model, sources, fresh=True)[1], spec)


def cached_entry(session: Session, model: str) -> tuple[RegistrySource, ModelEntry] | None:
    """As `model_entry`, from the registries that are cached alone: of what is here, offline."""
    for source in known_sources_for(session, model):
        with contextlib.suppress(BackendError, IntegrityError):
            if read_record(session.layout, source.name) is None:
                continue
            entry = session.cached_entry(source, model)
            if entry is not None:
                return source, entry
    return None


def model_entry(session: Session, model: str) -> tuple[RegistrySource, ModelEntry] | None:
    """What the cached registries say of a model; None where none has it.  Never uses the network
    where a registry is cached."""
    for source in known_sources_for(session, model):
        with contextlib.suppress(BackendError, FormatError):
            entry = session.entry(source, model)
            if entry is not None:
                return source, entry
    return None


def not_installed(session: Session, model: str) -> NotFoundError:
    """The error for a model that is not installed, with the nearest that are."""
    return NotFoundError(
        "installed model",
        model,
        near=close_names(model, session.refs.installed_models()),
        hint=f"`ystore checkout {model}` installs it; `ystore list` shows what is installed",
    )


def not_in_store(session: Session, spec: Spec) -> NotFoundError:
    """The error for a version that is not here, with those that are."""
    known = session.refs.versions()
    versions = sorted({name.version for name in known if name.model == spec.model})
    return NotFoundError(
        "such version" if versions else "model",
        str(spec),
        where="the store",
        near=[] if versions else close_names(spec.model, {name.model for name in known}),
        hint=f"here are {', '.join(versions)}" if versions else "`ystore log MODEL` shows what is here",
    )
