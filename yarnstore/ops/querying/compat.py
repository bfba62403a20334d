"""`compat`: list which versions of a model fit the application and this machine.

Owns the table and its notes.  `registry/decide` has the rules; docs/registry.md governs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from yarnstore.ops.session.lookup import find_entry, sources_for
from yarnstore.ops.session.session import Session
from yarnstore.registry.decide import incompatibility, memory_advice, newest_fitting
from yarnstore.registry.host import Host
from yarnstore.registry.ranges import Range
from yarnstore.registry.select import Build, iter_builds, latest_version, resolve
from yarnstore.registry.spec import Alias, Exact, Selector, Spec
from yarnstore.registry.standing import standing


@dataclass(frozen=True)
class CompatRow:
    """One build of a version, compared with the application and this machine."""

    version: str
    variant: str
    compatible: bool  #: Whether it fits the application.
    fits_memory: bool  #: Whether this machine has enough memory.
    compatibility: tuple[str, ...]
    minimum_ram_gb: float | None
    recommended_ram_gb: float | None
    latest: bool  #: Whether it is the version that `latest` means.
    yanked: bool
    deprecated: bool
    note: str  #: Why it does not fit, or what its publisher says about it.

    @property
    def usable(self) -> bool:
        """Whether it would be installed without `--force`."""
        return self.compatible and self.fits_memory and not self.yanked


@dataclass(frozen=True)
class CompatTable:
    """All builds of a model, the newest version first."""

    model: str
    app_version: str | None  #: The application's version; if None, only memory is compared.
    ram_gb: float | None  #: The memory of this machine in GB (10^9 bytes).
    registry: str
    latest: str | None
    newest_that_fits: str | None  #: The newest version that fits; never a prerelease.
    rows: tuple[CompatRow, ...]  #: The builds.


def compatibility(session: Session, spec: Spec) -> CompatTable:
    """Return the builds that a spec selects, or all of a bare model, with their requirements.

    They are compared with the application's version, if known, and with this machine's memory.

    Raises: NotFoundError if the registry has none of them; BackendError.
    """
    machine = session.host
    source, entry = find_entry(session, spec.model, sources_for(session, spec.model), fresh=True)
    if isinstance(spec.selector, Alias | Exact):
        spec = msgspec.structs.replace(
            spec, selector=Exact(resolve(entry, spec, prefer=machine.variants).version)
        )
    latest = latest_version(entry)
    newest = newest_fitting(entry, machine, spec.variant)
    rows = [
        _row(build, machine, latest, str(standing(entry, build.version, build.variant)))
        for build in iter_builds(entry)
        if spec.variant in (None, build.variant) and _chosen(spec.selector, build.version)
    ]
    if not rows:
        resolve(entry, spec)  # which raises an error with the existing versions
    return CompatTable(
        model=spec.model,
        app_version=machine.app_version,
        ram_gb=machine.ram_gb,
        registry=source.name,
        latest=latest,
        newest_that_fits=newest.version if newest else None,
        rows=tuple(rows),
    )


def _chosen(selector: Selector | None, version: str) -> bool:
    if isinstance(selector, Range):
        return selector.matches(version)
    return selector is None or str(selector) == version


def _row(build: Build, machine: Host, latest: str | None, said: str) -> CompatRow:
    entry = build.entry
    app = incompatibility(build, Host(app_version=machine.app_version))
    memory = incompatibility(build, Host(ram_gb=machine.ram_gb))
    notes = [found.reason for found in (app, memory) if found] or [memory_advice(build, machine)]
    return CompatRow(
        version=build.version,
        variant=build.variant,
        compatible=app is None,
        fits_memory=memory is None,
        compatibility=entry.compatibility,
        minimum_ram_gb=entry.minimum_ram_gb,
        recommended_ram_gb=entry.recommended_ram_gb,
        latest=build.version == latest,
        yanked=entry.yanked,
        deprecated=entry.deprecated,
        note="; ".join(filter(None, [said, *notes])),
    )
