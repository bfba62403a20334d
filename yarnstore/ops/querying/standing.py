"""The standing of an installed version in a registry, and whether the registry has other files under its
number; and what the installed versions need of each other.

`registry/standing` has the marks of a registry, `session/stored` reads its entries.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.reflog import Installed
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.ops.session.session import Session
from yarnstore.ops.session.stored import cached_entry, needs_of
from yarnstore.registry.standing import Standing, standing

# Imported only if a registry lists the model, since `list` needs them for nothing else.
if TYPE_CHECKING:
    from yarnstore.registry.entries import ModelEntry, VersionEntry
    from yarnstore.registry.requirements import Need, Requirements


def standing_here(session: Session, model: str, current: Installed) -> Standing:
    """Return the standing of the installed version in the cached registries."""
    found = cached_entry(session, model)
    return standing_of(session, found[1], current) if found else Standing()


def standing_of(session: Session, entry: ModelEntry, current: Installed) -> Standing:
    """Return the standing of the installed version in a registry."""
    told = standing(entry, current.version, current.variant)
    if not told.published:
        return told
    from yarnstore.registry.select import find_build

    build = find_build(entry, current.version, current.variant)
    if build is None:
        return told
    return msgspec.structs.replace(told, replaced=_is_replaced(session, build.entry, current))


def _is_replaced(session: Session, entry: VersionEntry, current: Installed) -> bool:
    """Whether a registry has other files under the installed version.

    Files that are only cut into other chunks, or named differently as in an import, count as equal.
    """
    if entry.manifest is not None and Sha256.parse(entry.manifest) == current.manifest:
        return False
    with contextlib.suppress(NotFoundError, IntegrityError):  # `fsck` reports them
        manifest = session.layout.read_manifest(current.manifest)
        if entry.files:
            theirs = sorted(str(Sha256.parse(file.sha256)) for file in entry.files)
            return theirs != sorted(str(file.sha256) for file in manifest.files)
        if entry.checksum is not None:
            return Sha256.parse(entry.checksum) != manifest.checksum
        return entry.manifest is not None
    return False


def installed_requirements(session: Session) -> Requirements:
    """Return the installed versions and what they need of each other; what cannot be read is left out."""
    from yarnstore.registry.requirements import Requirements

    installed: dict[str, Installed] = {}
    needs: dict[str, list[Need]] = {}
    for model in session.refs.installed_models():
        with contextlib.suppress(FormatError, IntegrityError, NotFoundError):
            current = session.refs.current(model)
            if current is not None:
                installed[model] = current
                needs[model] = needs_of(session, current.manifest)
    met: dict[str, tuple[Need, ...]] = {}
    lacking: dict[str, str] = {}
    for model, wanted in needs.items():
        for label, spec in wanted:
            if has := spec.instead(installed.get(spec.model)):
                lacking.setdefault(model, f"{label} needs {spec}; {has}")
            else:
                met[model] = (*met.get(model, ()), (label, spec))
    return Requirements(installed, met, lacking)
