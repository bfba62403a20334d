"""Which registries may answer for a model: the one asked for, the one it came from, else all in order."""

from __future__ import annotations

import contextlib

from yarnstore.errors import BackendError, IntegrityError
from yarnstore.ops.session.connections import RegistrySource
from yarnstore.ops.session.session import Session
from yarnstore.store.provenance import read_origin
from yarnstore.store.registry_cache import read_cached_model, read_record


def sources_for(session: Session, model: str) -> tuple[RegistrySource, ...]:
    """The registries to look for a model in, in their order.

    With `--registry` that one alone.  A model that is here stays with the registry it came from.

    Raises: NoRegistryError, NotFoundError for a registry that is not configured.
    """
    session.require_sources()
    return known_sources_for(session, model)


def known_sources_for(session: Session, model: str) -> tuple[RegistrySource, ...]:
    """As `sources_for`, and nothing where no registry is configured.  Raises: NotFoundError."""
    if session.only is not None:
        return (session.source(session.only),)
    sources = session.sources
    origin = origin_of_model(session, model) if sources else None
    if origin is None:
        return sources
    mine = tuple(source for source in sources if source.name == origin)
    if not mine and model not in session.warned:
        session.warned.add(model)
        names = " or ".join(source.name for source in sources)
        session.note(f"{model} came from {origin}, which is no longer a registry here; looking in {names}")
    return mine or sources


def origin_of_model(session: Session, model: str) -> str | None:
    """The registry that a model came from, if it is here and that is known."""
    origin = read_origin(session.layout, model)
    return origin if origin is not None and any(session.refs.versions(model)) else None


def others_with(session: Session, model: str, source: RegistrySource) -> list[str]:
    """The other registries whose cached answers list the same id.  Never uses the network."""
    found = []
    for other in session.sources:
        if other.name == source.name:
            continue
        with contextlib.suppress(BackendError, IntegrityError):
            if read_record(session.layout, other.name) is None:
                continue
            doc = session.doc(other)
            if doc.split:
                cached = read_cached_model(session.layout, other.name, other.url, model)
                listed = cached is not None
            else:
                listed = model in doc.models
            if listed:
                found.append(other.name)
    return found


def warn_of_others(session: Session, model: str, source: RegistrySource) -> None:
    """Tell, once, that a model that is new here is in several registries."""
    if session.only is not None or model in session.warned or len(session.sources) < 2:
        return
    session.warned.add(model)
    if origin_of_model(session, model) is None and (others := others_with(session, model, source)):
        session.note(
            f"{model} is in {source.name} and in {' and '.join(others)}; taking it from {source.name} "
            f"(--registry {others[0]} for the other)"
        )
