"""From a spec to one version: in the store, or in a registry."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from yarnstore.core.digest import Sha256
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import BackendError, FormatError, NotFoundError
from yarnstore.ops.session import RegistrySource, Session
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.near import near_names
from yarnstore.registry.resolve import Build, resolve
from yarnstore.registry.spec import Exact, Spec
from yarnstore.store.refs import VersionName


@dataclass(frozen=True)
class Target:
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

    Without a variant: the installed one, else the only one there is.
    """
    if not isinstance(spec.selector, Exact):
        return None
    refs = session.refs
    names = [
        name
        for name in refs.versions(spec.model)
        if name.version == spec.selector.version and spec.variant in (None, name.variant)
    ]
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


def registry_target(session: Session, spec: Spec, *, fresh: bool = False) -> Target:
    """The version that the first registry which has the model means by a spec.

    An exact version that the cached registry has needs no network, unless `fresh`; anything else is
    asked anew.

    Raises: NotFoundError with the nearest names, BackendError.
    """
    sources = session.require_sources()
    exact = isinstance(spec.selector, Exact)
    if exact and not fresh:
        with contextlib.suppress(NotFoundError, BackendError, FormatError):
            return _search(session, sources, spec, fresh=False)
    return _search(session, sources, spec, fresh=True)


def _search(session: Session, sources: tuple[RegistrySource, ...], spec: Spec, *, fresh: bool) -> Target:
    near: list[str] = []
    failure: BackendError | None = None
    for source in sources:
        try:
            doc = session.refresh_or_cached(source) if fresh else session.doc(source)
        except BackendError as error:
            failure = failure or error
            continue
        if spec.model in doc.models:
            return _target(session, source, doc.models[spec.model], spec)
        near += near_names(spec.model, doc.models)
    if failure is not None:
        raise failure
    raise NotFoundError(
        "model",
        spec.model,
        where=" or ".join(source.name for source in sources),
        near=near[:3],
        hint="`ystore search` lists what there is",
    )


def _target(session: Session, source: RegistrySource, entry: ModelEntry, spec: Spec) -> Target:
    preferred = installed_variant(session, spec.model)
    build = resolve(entry, spec, prefer=(preferred,) if preferred else ())
    name = VersionName(spec.model, build.variant or DEFAULT_VARIANT, build.version)
    return Target(name, None, build, source)


def find_target(session: Session, spec: Spec) -> Target:
    """The version that a spec means: an exact one from the store if it is there, else from a registry.

    Raises: NotFoundError, BackendError.
    """
    return local_target(session, spec) or registry_target(session, spec)


def model_entry(session: Session, model: str) -> tuple[RegistrySource, ModelEntry] | None:
    """What the cached registries say of a model; None where none has it.  Never uses the network
    where a registry is cached."""
    for source in session.sources:
        with contextlib.suppress(BackendError, FormatError):
            doc = session.doc(source)
            if model in doc.models:
                return source, doc.models[model]
    return None
