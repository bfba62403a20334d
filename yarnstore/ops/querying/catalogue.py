"""`registry refresh`, `search`, `show`: list what registries offer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from yarnstore.core.names import parse_model_id
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    InvalidNameError,
    NotFoundError,
    UsageError,
    YarnstoreError,
)
from yarnstore.ops.session.connections import bare_url
from yarnstore.ops.session.lookup import installed_variant, registry_target
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.select import builds_of, latest_version
from yarnstore.registry.spec import Spec
from yarnstore.store.health import read_health
from yarnstore.store.registry_cache import read_cached


@dataclass(frozen=True)
class MirrorInfo:
    """An address of a registry; `fault` is `lied`, `stalled` or `unreachable` where it failed, `why` the
    reason, `at_ms` when last (milliseconds since 1970), `count` in how many runs."""

    url: str
    fault: str | None = None
    why: str | None = None
    at_ms: int = 0
    count: int = 0


@dataclass(frozen=True)
class RegistryInfo:
    """A registry; `fetched_ms` is when it was last asked, in milliseconds since 1970, 0 for never."""

    name: str
    url: str
    models: int
    versions: int
    last_updated: str | None
    fetched_ms: int
    error: str | None = None
    split: bool = False
    mirrors: tuple[MirrorInfo, ...] = ()


def describe(
    session: Session, source: RegistrySource, *, refresh: bool, accept_rollback: bool = False
) -> RegistryInfo:
    """What a registry holds: asked anew with `refresh`, else as it was last fetched.

    Raises: BackendError, FormatError with `refresh`.
    """
    error = None
    doc = None
    if refresh:
        doc = session.refresh(source, accept_rollback=accept_rollback)
    fetched_ms = 0
    try:
        cached = read_cached(session.layout, source.name)
        if cached is not None and cached.url == source.url:
            fetched_ms = cached.fetched_ms
            doc = doc or session.doc(source)
    except (IntegrityError, BackendError) as fault:
        error = fault.message
    return RegistryInfo(
        name=source.name,
        url=bare_url(source.url),
        models=len(doc.models) if doc else 0,
        versions=sum(len(model.versions) for model in doc.models.values()) if doc else 0,
        last_updated=doc.last_updated if doc else None,
        fetched_ms=fetched_ms,
        error=error,
        split=doc.split if doc else False,
        mirrors=_mirrors(session, source),
    )


def refresh_all(session: Session, sources: Sequence[RegistrySource]) -> list[RegistryInfo]:
    """Each registry, asked anew; one that fails has its `error`, and what it said before.

    Raises: BackendError, FormatError, UsageError where none could be asked.
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
    """The registry's addresses, its own first, and what was last found wrong with each."""
    found = {url: MirrorInfo(url) for url in session.links.addresses(source)}
    for item in read_health(session.layout, source.name):
        found[item.url] = MirrorInfo(item.url, item.kind, item.why, item.at_ms, item.count)
    return tuple(found.values())


@dataclass(frozen=True)
class Offer:
    """A model that a registry offers; `installed` is the version here, if any."""

    model: str
    name: str | None
    description: str | None
    latest: str | None
    versions: int
    size_bytes: int | None
    tags: tuple[str, ...]
    registry: str
    installed: str | None
    category: str | None = None


def search(session: Session, text: str = "") -> list[Offer]:
    """The models whose id, name, description, category or tags hold every word of `text`.

    From the cached registries; a registry that was never fetched is fetched.  Of a model that several
    have, the first registry's counts.

    Raises: NotFoundError where no registry is configured; BackendError where none could be read.
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
    for source in session.require_sources():
        try:
            doc = session.doc(source)
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
    """The one model of a split registry whose id is `text`: nothing there lists them all."""
    session.note(f"{source.name} is split and lists no models: only a whole model id finds one there")
    try:
        entry = session.entry(source, parse_model_id(text.strip()), fresh=True)
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
    """All that a registry says of one version, and whether it is here."""

    model: str
    version: str
    variant: str
    registry: str | None
    name: str | None
    description: str | None
    tags: tuple[str, ...]
    license: str | None
    homepage: str | None
    versions: list[str]
    variants: list[str]
    aliases: dict[str, str]
    size_bytes: int | None
    checksum: str | None
    manifest: str | None
    download_url: str | None
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
    installed: str | None
    category: str | None = None


def show(session: Session, spec: Spec) -> VersionDetails:
    """What is known of the version that `spec` means.  Raises: NotFoundError, BackendError."""
    target = registry_target(session, spec)
    if target.build is None or target.source is None:
        raise NotFoundError("registry entry", str(spec))
    entry = target.build.entry
    model = session.entry(target.source, spec.model) or ModelEntry(model_id=spec.model, versions={})
    current = session.refs.current(spec.model) if installed_variant(session, spec.model) else None
    return VersionDetails(
        model=spec.model,
        version=target.name.version,
        variant=target.name.variant,
        registry=target.source.name,
        name=model.name,
        description=model.description,
        tags=model.tags,
        license=model.license,
        homepage=model.homepage,
        versions=list(model.versions),
        variants=[build.variant for build in builds_of(model, target.name.version)],
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
        in_store=session.refs.version(target.name) is not None,
        installed=current.version if current else None,
        category=model.category,
    )
