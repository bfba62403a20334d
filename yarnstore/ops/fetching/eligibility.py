"""The check whether a version may be downloaded or installed, before either begins.

Owns the refusals, their hints and the warnings; `registry/decide` decides what fits.  Uses no network for a
version that is in the store.
"""

from __future__ import annotations

import contextlib

from yarnstore.errors import BackendError, FormatError, IncompatibleError
from yarnstore.ops.session.lookup import Found, Offered, lookup
from yarnstore.ops.session.session import Session
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
