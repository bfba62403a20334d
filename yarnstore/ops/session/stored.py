"""Versions in the store, and their entries in cached registries; no registry is queried.

Checks that the files of a version are complete, selects the registries for a model, and makes the errors for
missing models and versions.  Checking an unchanged view takes one `lstat` per file; `ops/installing/checkout`
repairs it.  `path` and `rollback` need only this module, so it imports neither decoders nor the choice among
a registry's versions, which is in `lookup`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from yarnstore.core.manifest import Manifest
from yarnstore.core.reflog import Installed
from yarnstore.core.suggestions import close_names
from yarnstore.errors import (
    BackendError,
    FormatError,
    IncompatibleError,
    IntegrityError,
    NotFoundError,
)
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.progress import Meter
from yarnstore.registry.pins import PinRule
from yarnstore.registry.spec import Exact, Spec, parse_specs
from yarnstore.registry.versions import meant_version, precedence
from yarnstore.store import hashed
from yarnstore.store.native import quoted
from yarnstore.store.provenance import read_origin
from yarnstore.store.refs import VersionName
from yarnstore.store.views import hash_right, seal_view, unknown_files, view_files

if TYPE_CHECKING:
    from yarnstore.core.digest import Sha256
    from yarnstore.registry.entries import ModelEntry


class Stored(msgspec.Struct, frozen=True):
    """A version that is in the store, with the manifest that its ref names."""

    name: VersionName
    manifest: Manifest


def find_stored(session: Session, spec: Spec) -> Stored | None:
    """Return the stored version of an exact spec, or None.

    Without a variant: the installed one, else the only one.  Without build metadata: also a version with
    build metadata, as in a registry.
    """
    if not isinstance(spec.selector, Exact):
        return None
    names = [name for name in session.refs.versions(spec.model) if spec.variant in (None, name.variant)]
    version = meant_version(spec.selector.version, {name.version for name in names})
    if version not in (None, spec.selector.version):
        found = cached_entry(session, spec.model)
        if found is not None and spec.selector.version in found[1].versions:
            return None  # a registry has exactly the named version
    names = [name for name in names if name.version == version]
    if len(names) > 1:
        preferred = installed_variant(session, spec.model)
        names = [name for name in names if name.variant == preferred]
    return stored_as(session, names[0]) if len(names) == 1 else None


def stored_as(session: Session, name: VersionName) -> Stored | None:
    """Return the version of exactly this name if it is in the store; None also if its ref is damaged or its
    manifest is missing, since the version of a registry can replace it."""
    with contextlib.suppress(FormatError):
        manifest = session.refs.checked_version(name)
        return Stored(name, manifest) if manifest else None
    return None


def installed_variant(session: Session, model: str) -> str | None:
    """Return the installed variant of a model, which updates keep."""
    with contextlib.suppress(FormatError, NotFoundError):
        current = session.refs.current(model)
        return current.variant if current else None
    return None


def known_sources_for(session: Session, model: str) -> tuple[RegistrySource, ...]:
    """Do as `sources_for`, but return nothing if no registry is configured.  Raises: NotFoundError."""
    if session.registries.only is not None:
        return (session.registries.source(session.registries.only),)
    sources = session.registries.sources
    origin = origin_of_model(session, model) if sources else None
    if origin is None:
        return sources
    mine = tuple(source for source in sources if source.name == origin)
    if not mine and session.registries.is_news(model):
        names = " or ".join(source.name for source in sources)
        session.note(f"{model} came from {origin}, which is no longer configured; looking in {names}")
    return mine or sources


def origin_of_model(session: Session, model: str) -> str | None:
    """Return the registry that a stored model came from, if known."""
    origin = read_origin(session.layout, model)
    return origin if origin is not None and any(session.refs.versions(model)) else None


def cached_entry(session: Session, model: str) -> tuple[RegistrySource, ModelEntry] | None:
    """Do as `model_entry`, but only with registries that are cached; never uses the network."""
    for source in known_sources_for(session, model):
        from yarnstore.store.registry_cache import read_record

        with contextlib.suppress(BackendError, IntegrityError):
            if read_record(session.layout, source.name) is None:
                continue
            entry = session.registries.cached_entry(source, model)
            if entry is not None:
                return source, entry
    return None


def model_entry(session: Session, model: str) -> tuple[RegistrySource, ModelEntry] | None:
    """Return the entry of a model in the cached registries, or None.  Uses no network for a registry that is
    cached."""
    for source in known_sources_for(session, model):
        with contextlib.suppress(BackendError, FormatError):
            entry = session.registries.entry(source, model)
            if entry is not None:
                return source, entry
    return None


def pin_rule_of(session: Session, model: str, current: Installed) -> PinRule:
    """Return the pins of an installed model.  Raises: FormatError if one is damaged."""
    name = VersionName(model, current.variant, current.version)
    if session.refs.pin(name) is not None:
        return PinRule(version=current.version)
    return session.refs.pin_rule(model)


def is_whole(session: Session, manifest: Manifest, *, verify: bool = True) -> bool:
    """Whether a version's view matches its manifest; files that changed since they were hashed are hashed.

    Without `verify` no file is hashed, so that other bytes of the same size are not noticed.

    Raises: StorageError.
    """
    layout = session.layout
    files = view_files(layout, manifest)
    if files is None or not verify:
        return files is not None
    unknown = unknown_files(layout, manifest, files)
    if unknown:
        with hashed.locked(layout):  # the store may be changing them
            files = view_files(layout, manifest)
            unknown = None if files is None else unknown_files(layout, manifest, files)
    if files is None or unknown is None:
        return False
    meter = Meter(session.activity.report, "check", manifest.label, sum(file.size_bytes for file in unknown))
    if not hash_right(layout, manifest, unknown, meter.add):
        return False
    seal_view(layout, manifest, files)
    return True


def requirements(manifest: Manifest) -> list[Spec]:
    """Return the versions of other models that a version needs, such as the base of an adapter."""
    listed = manifest.extra.get("requires", [])
    return parse_specs(listed) if isinstance(listed, list) else []


def require_installed(session: Session, label: str, needed: Iterable[Spec]) -> None:
    """Refuse a version whose requirements are not installed.  Raises: IncompatibleError."""
    for spec in needed:
        current = session.refs.current(spec.model)
        has = spec.instead(current)
        if has:
            raise IncompatibleError(
                f"{label} needs {spec}; {has}",
                hint=f"`ystore checkout {quoted(str(spec))}` first",
                reason="requires",
                needs=str(spec),
                has=current.version if current is not None else None,
            )


def needs_of(session: Session, installed: Sha256 | None) -> list[tuple[str, Spec]]:
    """Return what an installed version needs, each with the version's label.  Raises: as `read_manifest`."""
    if installed is None:
        return []
    manifest = session.layout.read_manifest(installed)
    return [(manifest.label, spec) for spec in requirements(manifest)]


def dependents(session: Session, model: str) -> list[tuple[str, Spec]]:
    """Return the installed versions that need a model, as labels, and what they need."""
    found = []
    for other in session.refs.installed_models():
        with contextlib.suppress(FormatError, IntegrityError, NotFoundError):
            if other != model:
                needs = needs_of(session, session.refs.installed(other))
                found += [(label, spec) for label, spec in needs if spec.model == model]
    return found


def not_installed(session: Session, model: str) -> NotFoundError:
    """Return the error for a model that is not installed, with similar names of installed ones."""
    # Without a version, a checkout asks a registry, which an imported model does not have.
    names = session.refs.versions(model)
    spec = max(names, key=lambda name: precedence(name.version)).spec if names else model
    return NotFoundError(
        "installed model",
        model,
        near=close_names(model, session.refs.installed_models()),
        hint=f"`ystore checkout {quoted(spec)}` installs it; `ystore list` shows what is installed",
    )


def not_in_store(session: Session, spec: Spec) -> NotFoundError:
    """Return the error for a version that is not in the store, with the stored versions."""
    known = session.refs.versions()
    versions = sorted({name.version for name in known if name.model == spec.model})
    return NotFoundError(
        "such version" if versions else "model",
        str(spec),
        where="the store",
        near=[] if versions else close_names(spec.model, {name.model for name in known}),
        hint=f"stored versions: {', '.join(versions)}"
        if versions
        else "`ystore list --all` shows the stored versions",
    )
