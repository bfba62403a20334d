"""`registry refresh`, `search`, `show`: list the models of registries.

Owns the results of these commands.  `ops/session/registries` reads and caches registries; docs/registry.md
governs their content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from yarnstore.backends.urls import shown
from yarnstore.core.names import parse_model_id
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    InvalidNameError,
    UsageError,
    YarnstoreError,
)
from yarnstore.ops.session.lookup import find_offered
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import installed_variant
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.select import Build, builds_of, iter_builds, latest_version
from yarnstore.registry.spec import Spec
from yarnstore.registry.versions import precedence
from yarnstore.store.refs import VersionName
from yarnstore.store.registry_cache import read_cached, read_health


@dataclass(frozen=True)
class MirrorInfo:
    """One address of a registry, and its last failure."""

    url: str  #: The address.
    fault: str | None = None  #: `lied` (served corrupt data), `stalled` or `unreachable`; None if it works.
    why: str | None = None  #: The reason, in words.
    at_ms: int = 0  #: When it last failed.
    count: int = 0  #: In how many runs it failed.
    configured: bool = False  #: Whether the settings name it as a mirror; else it is named by the registry.


@dataclass(frozen=True)
class RegistryInfo:
    """One configured registry."""

    name: str  #: The name of the registry.
    url: str  #: The address.
    models: int  #: How many models it lists.
    versions: int  #: How many versions it lists.
    last_updated: str | None  #: When it was last changed, by its own `last_updated`, ISO 8601.
    fetched_ms: int  #: When it was last queried, 0 if never.
    error: str | None = None  #: Why it could not be read.
    split: bool = False  #: Whether each model has its own file; models and versions are then 0.
    mirrors: tuple[MirrorInfo, ...] = ()  #: Its addresses, its own first.


def describe(
    session: Session, source: RegistrySource, *, refresh: bool, accept_rollback: bool = False
) -> RegistryInfo:
    """Describe one registry: with `refresh` from a new answer, else from the cache.

    Raises: BackendError, FormatError with `refresh`.
    """
    error = None
    doc = None
    if refresh:
        doc = session.registries.refresh(source, accept_rollback=accept_rollback)
    fetched_ms = 0
    try:
        cached = read_cached(session.layout, source.name)
        if cached is not None and cached.url == source.url:
            fetched_ms = cached.fetched_ms
            doc = doc or session.registries.doc(source)
    except (IntegrityError, BackendError) as fault:
        error = fault.message
    return RegistryInfo(
        name=source.name,
        url=shown(source.url),
        models=len(doc.models) if doc else 0,
        versions=sum(len(model.versions) for model in doc.models.values()) if doc else 0,
        last_updated=doc.last_updated if doc else None,
        fetched_ms=fetched_ms,
        error=error,
        split=doc.split if doc else False,
        mirrors=_mirrors(session, source),
    )


def refresh_all(session: Session, sources: Sequence[RegistrySource]) -> list[RegistryInfo]:
    """Query each registry again and describe it; one that fails has its `error` and its cached content.

    Raises: BackendError, FormatError, UsageError if all fail.
    """
    found: list[RegistryInfo] = []
    failures: list[YarnstoreError] = []
    for source in sources:
        try:
            found.append(describe(session, source, refresh=True))
        except (BackendError, FormatError, UsageError) as error:
            failures.append(error)
            found.append(replace(describe(session, source, refresh=False), error=error.message))
    if failures and len(failures) == len(sources):
        raise failures[0]
    return found


def _mirrors(session: Session, source: RegistrySource) -> tuple[MirrorInfo, ...]:
    """Return the registry's addresses, its own first, each with its last failure."""
    own = {shown(url, folder=True) for url in source.mirrors}
    found = {url: MirrorInfo(url) for url in session.registries.links.addresses(source)}
    for item in read_health(session.layout, source.name):
        found[item.url] = MirrorInfo(item.url, item.kind, item.why, item.at_ms, item.count)
    return tuple(replace(info, configured=url in own) for url, info in found.items())


@dataclass(frozen=True)
class Offer:
    """One model that a registry offers."""

    model: str
    name: str | None  #: The name of the model, for people.
    description: str | None
    latest: str | None  #: The version that `latest` means.
    versions: int  #: How many versions are published.
    size_bytes: int | None  #: The size of the latest version, in bytes.
    tags: tuple[str, ...]
    registry: str
    installed: str | None  #: The version that is installed here.
    category: str | None = None


def search(session: Session, text: str = "") -> list[Offer]:
    """Return the models whose id, name, description, category or tags contain every word of `text`.

    Uses the cached registries; a registry that was never fetched is fetched.  If several have a model, the
    first one is used.

    Raises: NotFoundError if no registry is configured; BackendError if none could be read.
    """
    words = text.casefold().split()
    offers: dict[str, Offer] = {}
    for source, models in _readable(session, text):
        for model, entry in models.items():
            if model not in offers and _matches(entry, words):
                offers[model] = _offer(session, source, entry)
    return sorted(offers.values(), key=lambda offer: offer.model.casefold())


def _readable(session: Session, text: str) -> Iterator[tuple[RegistrySource, dict[str, ModelEntry]]]:
    failure: BackendError | FormatError | None = None
    read = 0
    for source in session.registries.require_sources():
        try:
            doc = session.registries.doc(source)
            models = _named(session, source, text) if doc.split else doc.models
        except (BackendError, FormatError) as error:
            failure = failure or error
            session.note(f"{source.name} cannot be read: {error.message}")
            continue
        read += 1
        yield source, models
    if failure is not None and not read:
        raise failure


def _named(session: Session, source: RegistrySource, text: str) -> dict[str, ModelEntry]:
    """Return the model with the id `text` of a split registry, which has no list of its models."""
    session.note(f"{source.name} is split and has no list of models; search for a complete model id there")
    try:
        entry = session.registries.entry(source, parse_model_id(text.strip()), fresh=True)
    except InvalidNameError:
        return {}
    return {entry.model_id: entry} if entry else {}


def _matches(entry: ModelEntry, words: list[str]) -> bool:
    texts = (entry.model_id, entry.name, entry.description, entry.category, *entry.tags)
    whole = "\n".join(text for text in texts if text).casefold()
    return all(word in whole for word in words)


def _offer(session: Session, source: RegistrySource, entry: ModelEntry) -> Offer:
    latest = latest_version(entry)
    current = None
    with contextlib.suppress(IntegrityError):
        current = session.refs.current(entry.model_id)
    size = entry.versions[latest].size_bytes if latest in entry.versions else None
    return Offer(
        model=entry.model_id,
        name=entry.name,
        description=entry.description,
        latest=latest,
        versions=len(entry.versions),
        size_bytes=size,
        tags=entry.tags,
        registry=source.name,
        installed=current.version if current else None,
        category=entry.category,
    )


@dataclass(frozen=True)
class VersionDetails:
    """One version in a registry, and whether it is stored here."""

    model: str
    version: str
    variant: str
    registry: str | None
    name: str | None  #: The name of the model, for people.
    description: str | None
    tags: tuple[str, ...]
    license: str | None
    homepage: str | None
    versions: list[str]  #: All published versions.
    variants: list[str]  #: The variants of this version.
    aliases: dict[str, str]  #: The aliases and their versions.
    size_bytes: int | None
    checksum: str | None
    manifest: str | None
    download_url: str | None  #: Where the plain file can be downloaded.
    release_date: str | None
    changelog: str | None
    compatibility: tuple[str, ...]
    minimum_ram_gb: float | None
    recommended_ram_gb: float | None
    security: bool
    deprecated: bool
    deprecated_reason: str | None
    replaced_by: str | None
    yanked: bool
    in_store: bool
    installed: str | None  #: The version of the model that is installed here.
    category: str | None = None
    requires: tuple[str, ...] = ()  #: The models that it needs, as specs.


def show(session: Session, spec: Spec) -> VersionDetails:
    """Return the details of the version that `spec` names.  Raises: NotFoundError, BackendError."""
    offer = find_offered(session, spec)
    return _details(session, offer.source, offer.entry, offer.build)


def list_offered(session: Session, text: str = "") -> list[VersionDetails]:
    """Return every version of the models that `search` finds, by model and the newest first.

    Raises: as `search`.
    """
    words = text.casefold().split()
    found: dict[str, tuple[RegistrySource, ModelEntry]] = {}
    for source, models in _readable(session, text):
        for model, entry in models.items():
            if _matches(entry, words):
                found.setdefault(model, (source, entry))
    rows = [
        _details(session, source, entry, build)
        for source, entry in found.values()
        for build in iter_builds(entry)
    ]
    rows.sort(key=lambda row: (precedence(row.version), row.variant), reverse=True)
    return sorted(rows, key=lambda row: row.model.casefold())


def _details(session: Session, source: RegistrySource, model: ModelEntry, build: Build) -> VersionDetails:
    entry = build.entry
    name = VersionName(model.model_id, build.variant, build.version)
    current = session.refs.current(name.model) if installed_variant(session, name.model) else None
    return VersionDetails(
        model=name.model,
        version=name.version,
        variant=name.variant,
        registry=source.name,
        name=model.name,
        description=model.description,
        tags=model.tags,
        license=model.license,
        homepage=model.homepage,
        versions=list(model.versions),
        variants=[each.variant for each in builds_of(model, name.version)],
        aliases=dict(model.aliases),
        size_bytes=entry.size_bytes,
        checksum=entry.checksum,
        manifest=entry.manifest,
        download_url=entry.download_url,
        release_date=entry.release_date,
        changelog=entry.changelog,
        compatibility=entry.compatibility,
        minimum_ram_gb=entry.minimum_ram_gb,
        recommended_ram_gb=entry.recommended_ram_gb,
        security=entry.security,
        deprecated=entry.deprecated,
        deprecated_reason=entry.deprecated_reason,
        replaced_by=entry.replaced_by,
        yanked=entry.yanked,
        in_store=session.refs.version(name) is not None,
        installed=current.version if current else None,
        category=model.category,
        requires=entry.requires,
    )
