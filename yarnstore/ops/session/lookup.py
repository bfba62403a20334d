"""Resolves a spec to one version: in the store, or offered by a registry.

Selects the version and variant among those that registries offer.  `session/stored` has the versions in the
store, `session/registries` queries registries, and `ops/fetching/eligibility` decides whether a version may
be installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.suggestions import close_names
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    NoRegistryError,
    NotFoundError,
)
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import (
    Stored,
    cached_entry,
    find_stored,
    installed_variant,
    known_sources_for,
    origin_of_model,
)
from yarnstore.registry.select import Build, build_named, resolve
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import precedence
from yarnstore.store.refs import VersionName

# Imported when a registry is searched, which few commands do.
if TYPE_CHECKING:
    from yarnstore.registry.entries import ModelEntry


class Offered(msgspec.Struct, frozen=True):
    """A version that a registry offers: its build, and the entry of its model, as `source` sent them."""

    name: VersionName
    build: Build
    source: RegistrySource
    entry: ModelEntry

    @classmethod
    def of(cls, source: RegistrySource, entry: ModelEntry, build: Build) -> Offered:
        """Return the offer of one build."""
        name = VersionName(build.model, build.variant or DEFAULT_VARIANT, build.version)
        return cls(name, build, source, entry)


Found: TypeAlias = Stored | Offered


def lookup(session: Session, spec: Spec) -> Found:
    """Find the version that a spec selects: an exact one in the store if it exists, else in a registry.

    With an accepted change, the version that the registry has now.

    Raises: NotFoundError with the nearest names, BackendError.
    """
    if session.accept_change:
        return find_offered(session, spec, fresh=True)
    return find_stored(session, spec) or find_offered(session, spec)


def of_installed(session: Session, spec: Spec) -> Spec:
    """Return the spec of the installed version for a bare model; other specs unchanged."""
    current = session.refs.current(spec.model) if spec.selector is None else None
    if current is None or spec.variant not in (None, current.variant):
        return spec
    return Spec(spec.model, current.variant, Exact(current.version))


def preferred_variants(session: Session, model: str) -> tuple[str, ...]:
    """Return the variants to prefer if a spec names none: the pinned one, the installed one, those of the
    settings."""
    pinned = None
    with contextlib.suppress(FormatError, NotFoundError):
        pinned = session.refs.pin_rule(model).variant
    first = (pinned, installed_variant(session, model))
    return (*(variant for variant in first if variant), *session.host.variants)


def find_offered(session: Session, spec: Spec, *, fresh: bool = False) -> Offered:
    """Return the version that a spec selects in the first registry that has the model.

    For an exact version in the cached index, the network is not used unless `fresh`; in all other cases the
    registry is queried.

    Raises: NotFoundError with the nearest names, BackendError.
    """
    preferred = preferred_variants(session, spec.model)
    cached = isinstance(spec.selector, Exact) and not fresh
    return _offer(session, spec.model, lambda entry: resolve(entry, spec, prefer=preferred), cached=cached)


def offered_as(session: Session, name: VersionName, *, fresh: bool = False) -> Offered:
    """Return the version of exactly this name from the registries; with `fresh`, as they have it now.

    Raises: NotFoundError, BackendError.
    """
    return _offer(
        session, name.model, lambda entry: build_named(entry, name.version, name.variant), cached=not fresh
    )


def _offer(session: Session, model: str, choose: Callable[[ModelEntry], Build], *, cached: bool) -> Offered:
    """Return the build that `choose` selects for a model; with `cached`, from the cached registries if they
    have it."""
    sources = sources_for(session, model)
    if cached:
        with contextlib.suppress(NotFoundError, BackendError, FormatError):
            source, entry = find_entry(session, model, sources, fresh=False)
            return Offered.of(source, entry, choose(entry))
    source, entry = find_entry(session, model, sources, fresh=True)
    return Offered.of(source, entry, choose(entry))


def sources_for(session: Session, model: str) -> tuple[RegistrySource, ...]:
    """Return the registries to search for a model, in their order.

    With `--registry` only that one.  For a stored model only the registry that it came from.

    Raises: NoRegistryError, NotFoundError for a registry that is not configured.
    """
    if session.registries.only is None and not session.registries.sources:
        raise NoRegistryError(_stored_hint(session, model))
    return known_sources_for(session, model)


def others_with(session: Session, model: str, source: RegistrySource) -> list[str]:
    """Return the other registries whose cached indexes list the same id.  Never uses the network."""
    from yarnstore.store.registry_cache import read_cached_model, read_record

    found = []
    for other in session.registries.sources:
        if other.name == source.name:
            continue
        with contextlib.suppress(BackendError, IntegrityError):
            if read_record(session.layout, other.name) is None:
                continue
            doc = session.registries.doc(other)
            if doc.split:
                cached = read_cached_model(session.layout, other.name, other.url, model)
                listed = cached is not None
            else:
                listed = model in doc.models
            if listed:
                found.append(other.name)
    return found


def warn_of_others(session: Session, model: str, source: RegistrySource) -> None:
    """Report once if a model that is new here is in several registries."""
    registries = session.registries
    if registries.only is not None or len(registries.sources) < 2 or not registries.is_news(model):
        return
    if origin_of_model(session, model) is None and (others := others_with(session, model, source)):
        session.note(
            f"{model} is in {source.name} and in {' and '.join(others)}; using {source.name} "
            f"(--registry {others[0]} uses the other)"
        )


def find_entry(
    session: Session,
    model: str,
    sources: tuple[RegistrySource, ...],
    *,
    fresh: bool,
    model_file_only: bool = False,
) -> tuple[RegistrySource, ModelEntry]:
    """Return the first registry that has a model, and its entry; with `fresh`, the registry is queried, and
    with `model_file_only` only for the file of that model if it is split.

    Raises: NotFoundError with the nearest names, BackendError.
    """
    near: list[str] = []
    failure: BackendError | None = None
    for source in sources:
        try:
            entry = session.registries.entry(source, model, fresh=fresh, model_file_only=model_file_only)
        except BackendError as error:
            failure = failure or error
            continue
        if entry is not None:
            if failure is not None:
                raise _unsure(failure, model, source)
            warn_of_others(session, model, source)
            return source, entry
        near += close_names(model, session.registries.doc(source).models)
    if failure is not None:
        raise failure
    elsewhere = (
        others_with(session, model, sources[0]) if len(sources) < len(session.registries.sources) else []
    )
    raise NotFoundError(
        "model",
        model,
        where=" or ".join(source.name for source in sources),
        near=near[:3],
        hint=_stored_hint(session, model)
        or (
            f"{elsewhere[0]} also has this model: use `--registry {elsewhere[0]}`"
            if elsewhere
            else "`ystore search` lists the available models"
        ),
    )


def _stored_hint(session: Session, model: str) -> str:
    """Return how to use a version that only the store has, such as an import; empty if it has none."""
    names = sorted(session.refs.versions(model), key=lambda name: precedence(name.version), reverse=True)
    if not names:
        return ""
    versions = ", ".join(dict.fromkeys(name.version for name in names))
    return f"the store has {versions}: name the version, as in `ystore checkout {names[0].spec}`"


def _unsure(failure: BackendError, model: str, source: RegistrySource) -> BackendError:
    """Return the error for a failed registry of higher priority, which may have the model too."""
    return BackendError(
        failure.url,
        str(failure.fields["why"]),
        hint=f"{source.name} has {model}; to use it: --registry {source.name}",
        status=failure.status,
    )


def require_published(session: Session, spec: Spec) -> None:
    """Query the registries if the cached indexes do not have the version that a spec selects.

    Raises: NotFoundError if they do not have it.
    """
    if find_stored(session, spec) is not None or not session.registries.sources:
        return
    known = cached_entry(session, spec.model)
    with contextlib.suppress(NotFoundError):
        if known is not None:
            resolve(known[1], spec)
            return
    sources = sources_for(session, spec.model)
    with contextlib.suppress(BackendError, IntegrityError):
        for source in sources:
            # This raises if the registry cannot be reached: the cached index proves nothing.
            session.registries.refresh(source)
        resolve(find_entry(session, spec.model, sources, fresh=True)[1], spec)
