"""The standing of a stored version in its registry: deprecated, yanked, or not published.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarnstore.core.record import Record

if TYPE_CHECKING:
    from yarnstore.registry.entries import ModelEntry


class Standing(Record, frozen=True):
    """What the registry says about a stored version."""

    published: bool = False  #: Whether the registry lists the version.
    deprecated: bool = False
    deprecated_reason: str | None = None
    replaced_by: str | None = None
    yanked: bool = False
    replaced: bool = False  #: Whether the registry now lists other content under the same version.

    def __str__(self) -> str:
        """`withdrawn`, `deprecated: why; use 1.1.0`, or nothing."""
        changed = "now published with different content" if self.replaced else ""
        if not (self.yanked or self.deprecated):
            return changed
        word = "withdrawn by its publisher" if self.yanked else "deprecated"
        reason = f": {self.deprecated_reason}" if self.deprecated_reason else ""
        instead = f"; use {self.replaced_by}" if self.replaced_by else ""
        return f"{word}{reason}{instead}" + (f"; {changed}" if changed else "")


def standing(model: ModelEntry, version: str, variant: str) -> Standing:
    """Return what a registry says about a stored version."""
    if version not in model.versions:
        return Standing()
    from yarnstore.registry.select import builds_of

    builds = builds_of(model, version)
    entry = next((build for build in builds if build.variant == variant), builds[0]).entry
    return Standing(True, entry.deprecated, entry.deprecated_reason, entry.replaced_by, yanked=entry.yanked)
