"""The check whether a version may be downloaded or installed, before either begins.

Owns the refusals, their hints and the warnings; `registry/decide` decides what fits.  Uses no network for a
version that is in the store.

A registry must not offer other content under a version than before: its offer is compared with the store and
with recorded versions (`store/seen`).  Imported versions are compared while they are in the store, and never
recorded.
"""

from __future__ import annotations

import contextlib

from yarnstore.backends.urls import plain_address, shown
from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import (
    BackendError,
    ConflictError,
    FormatError,
    IncompatibleError,
    IntegrityError,
    NotFoundError,
    StorageError,
)
from yarnstore.ops.session.lookup import Found, Offered, lookup
from yarnstore.ops.session.session import RegistrySource, Session
from yarnstore.ops.session.stored import Stored, cached_entry, require_installed
from yarnstore.registry.decide import (
    Incompatibility,
    fitting_variant,
    incompatibility,
    memory_warning,
    newest_fitting,
)
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.host import Host
from yarnstore.registry.select import Build, builds_of, find_build
from yarnstore.registry.spec import Exact, Spec, parse_specs
from yarnstore.registry.standing import standing
from yarnstore.store.refs import VersionName
from yarnstore.store.seen import content_of, remember, seen_content

_ACCEPT = "if its publisher confirms the change, use `--accept-change`"


def require_eligible(session: Session, spec: Spec, *, installing: bool, force: bool = False) -> Found:
    """Return the version that `spec` selects, if it may be fetched, or with `installing` be installed.

    A yanked version needs `force` and its exact number.  Installing refuses a version that does not fit the
    application, and without `force` one that needs more memory; fetching only warns.

    Raises: IncompatibleError; NotFoundError, BackendError.
    """
    found = lookup(session, spec)
    match found:
        case Stored() if not installing:
            return found
        case Offered() if isinstance(spec.selector, Exact):
            found = _as_of_now(session, found)
    told = entry_and_build(session, found)
    if told is not None:
        check_eligible(session, *told, installing=installing, force=force)
    return found


def _as_of_now(session: Session, found: Offered) -> Offered:
    """Return a version as its registry offers it now, since it may have been yanked.

    Unchanged if the registry cannot be reached or no longer has it.
    """
    with contextlib.suppress(BackendError, FormatError):
        entry = session.registries.entry(found.source, found.name.model, fresh=True)
        build = find_build(entry, found.name.version, found.name.variant) if entry is not None else None
        if entry is not None and build is not None:
            return Offered.of(found.source, entry, build)
    return found


def entry_and_build(session: Session, found: Found) -> tuple[ModelEntry, Build] | None:
    """Return the registry entry and build of a version.

    For a stored version, those of a cached registry, if one has it.
    """
    if isinstance(found, Offered):
        return found.entry, found.build
    cached = cached_entry(session, found.name.model)
    build = find_build(cached[1], found.name.version, found.name.variant) if cached is not None else None
    return (cached[1], build) if cached is not None and build is not None else None


def check_eligible(
    session: Session,
    model: ModelEntry,
    build: Build,
    *,
    installing: bool,
    force: bool,
    needs_first: bool = True,
) -> None:
    """Refuse a build, or warn about it.  What it needs must be installed, unless not `needs_first`.

    Raises: IncompatibleError.
    """
    label = f"{build.model} {build.version}"
    said = standing(model, build.version, build.variant)
    if said.yanked and not force:
        raise IncompatibleError(
            f"{label}: {said}",
            hint=_way_out(
                model, build, session.host, forced=f"{'installs' if installing else 'fetches'} it anyway"
            ),
            model=build.model,
            version=build.version,
            reason="yanked",
        )
    if installing and needs_first:
        require_installed(session, label, parse_specs(build.entry.requires))
    if said.yanked or said.deprecated:
        session.note(f"warning: {label}: {said}")
    found = incompatibility(build, session.host)
    if found is None:
        warning = memory_warning(build, session.host) if installing else ""
        if warning:
            session.note(f"warning: {warning}")
    elif installing and not (force and found.what == "memory"):
        raise ineligible_error(model, build, found, session.host)
    else:
        session.note(f"warning: {build.model} {found}")


def ineligible_error(
    model: ModelEntry, build: Build, found: Incompatibility, machine: Host
) -> IncompatibleError:
    """Return the error for a build that does not fit, with the versions that do."""
    newest = newest_fitting(model, machine, build.variant) or newest_fitting(model, machine)
    memory = found.what == "memory"
    what = f"{build.model} {found}"
    if memory and len(builds_of(model, build.version)) > 1:
        what = f"{build.model} ({build.variant}) {found}"
    return IncompatibleError(
        what,
        hint=_way_out(model, build, machine, forced="installs it anyway" if memory else ""),
        model=build.model,
        version=build.version,
        variant=build.variant,
        reason=found.what,
        needs=found.needs,
        has=found.has,
        newest_that_fits=newest.version if newest else None,
    )


def _way_out(model: ModelEntry, build: Build, machine: Host, *, forced: str) -> str:
    """Suggest the build to use instead, with the command for it, and the effect of `--force`."""
    lines = []
    variant = fitting_variant(model, build.version, machine)
    if variant is not None and variant.variant != build.variant:
        lines.append(f"{variant.variant} fits:       {_checkout(variant)}")
    same = newest_fitting(model, machine, build.variant)
    newest = same or newest_fitting(model, machine)
    if newest is not None and newest.version != build.version:
        other = "" if same else f" ({newest.variant})"
        named = not same or len(builds_of(model, newest.version)) > 1
        lines.append(f"newest that fits: {newest.version}{other}       {_checkout(newest, named=named)}")
    elif not lines:
        lines.append(f"no version of {build.model} fits")
    if forced:
        lines.append(f"--force {forced}")
    return "\n".join(lines)


def _checkout(build: Build, *, named: bool = True) -> str:
    return f"ystore checkout {Spec(build.model, build.variant if named else None, Exact(build.version))}"


# --- changed content ------------------------------------------------------------------------------


def refuse_changed(
    session: Session, source: RegistrySource, name: VersionName, content: Sha256, manifest: Sha256 | None
) -> None:
    """Refuse a version whose `content` differs from before, unless the user accepts the change.

    `manifest` is the offered one, if there is one.  Raises: ConflictError with both.
    """
    if session.accept_change:
        return
    there = None
    with contextlib.suppress(FormatError):  # a damaged ref is replaced
        there = session.refs.version(name)
    if there is not None and _differs(session, there, content, manifest):
        raise ConflictError(
            f"{name.model} {name.version} has different content in the store than in {source.name}",
            hint=f"a published version must not change; {_ACCEPT}",
            stored=str(there),
            offered=str(manifest or content),
        )
    known = None
    try:
        known = seen_content(session.layout, _address(source), name)
    except FormatError as error:
        session.note(f"{error.message}; {name} is treated as new")
    if known is not None and known != content:
        raise ConflictError(
            f"{name.model} {name.version} had different content in {source.name} earlier",
            hint=f"a published version must not change; {_ACCEPT}",
            seen=str(known),
            offered=str(content),
        )


def _differs(session: Session, there: Sha256, content: Sha256, manifest: Sha256 | None) -> bool:
    """Whether the manifest of a stored version has other content than the offered one."""
    with contextlib.suppress(NotFoundError, IntegrityError):
        return content_of(session.layout.read_manifest(there)) != content
    return manifest is not None and manifest != there


def remember_content(session: Session, source: RegistrySource, name: VersionName, manifest: Manifest) -> None:
    """Record the content of a version that was completely downloaded from a registry."""
    try:
        remember(session.layout, _address(source), name, content_of(manifest), session.note)
    except StorageError as error:
        session.note(f"the content of {name.model} {name.version} could not be recorded: {error.message}")


def _address(source: RegistrySource) -> str:
    return plain_address(shown(source.url, folder=True))
