"""`registry deprecate|yank|alias|set-current`: change the entries of published versions.

`registry/edit` makes the changes; `ops/publishing/tree` writes the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from yarnstore.core.names import read_version
from yarnstore.errors import NotFoundError, SpecError
from yarnstore.ops.publishing.tree import RegistryFolder, timestamp
from yarnstore.registry import edit as rules
from yarnstore.registry.edit import Amended, Edit, RawDoc
from yarnstore.registry.spec import Exact, Spec
from yarnstore.store import fsio
from yarnstore.store.filepath import Path


@dataclass(frozen=True)
class AmendResult:
    """The result of an edit of a registry: deprecate, yank, alias or set-current."""

    model: str
    what: str  #: The edit as a word, such as `deprecated`.
    changed: bool  #: False if nothing had to change.
    current_version: str | None  #: The version that `latest` means now.
    notes: list[str]  #: Side effects, such as an alias of a version that is now withdrawn.


def deprecate(
    registry: Path,
    spec: Spec,
    *,
    reason: str | None = None,
    replaced_by: str | None = None,
    undo: bool = False,
    now: datetime | None = None,
) -> AmendResult:
    """Mark a version, or one variant of it, as deprecated; or undo that.

    Raises: SpecError, NotFoundError, UsageError, FormatError, StorageError.
    """
    version = _exact(spec)
    if undo:
        return _amend(registry, spec, "no longer deprecated", rules.undeprecate(version, spec.variant), now)
    replaced_by = None if replaced_by is None else read_version(replaced_by)
    change = rules.deprecate(version, spec.variant, reason=reason, replaced_by=replaced_by)
    return _amend(registry, spec, "deprecated", change, now)


def yank(registry: Path, spec: Spec, *, undo: bool = False, now: datetime | None = None) -> AmendResult:
    """Withdraw a version, or one variant of it; or undo that.  Raises: as `deprecate`."""
    version = _exact(spec)
    if undo:
        return _amend(registry, spec, "no longer yanked", rules.unyank(version, spec.variant), now)
    return _amend(registry, spec, "yanked", rules.yank(version, spec.variant), now)


def set_alias(
    registry: Path, model: str, name: str, version: str | None, *, now: datetime | None = None
) -> AmendResult:
    """Set an alias to a version, or with None remove the alias.  Raises: as `deprecate`."""
    spec = _bare(model)
    if version is None:
        return _amend(registry, spec, f"{name} removed", rules.remove_alias(name), now)
    version = read_version(version)
    return _amend(registry, spec, f"{name} is {version}", rules.set_alias(name, version), now)


def set_current(registry: Path, model: str, version: str, *, now: datetime | None = None) -> AmendResult:
    """Make a version the current one, which `latest` selects.  Raises: as `deprecate`."""
    version = read_version(version)
    return _amend(registry, _bare(model), f"latest is {version}", rules.set_current(version), now)


def _exact(spec: Spec) -> str:
    if not isinstance(spec.selector, Exact):
        raise SpecError(str(spec), "it needs an exact version")
    return spec.selector.version


def _bare(model: str) -> Spec:
    spec = Spec.parse(model)
    if spec.selector is not None or spec.variant is not None:
        raise SpecError(model, "only a model is needed, without a variant or version")
    return spec


def _amend(registry: Path, spec: Spec, what: str, change: Edit, now: datetime | None) -> AmendResult:
    folder = RegistryFolder(registry)
    folder.refuse_other_kinds()
    if folder.read() is None:
        raise NotFoundError(
            "registry", str(registry), hint="give the folder of a registry, which contains registry.json"
        )
    at = timestamp(now or datetime.now(UTC))
    done: list[Amended] = []

    def apply(raw: RawDoc) -> bool:
        done.append(rules.amend(raw, spec.model, change, now=at))
        return done[-1].changed

    folder.edit(spec.model, apply, now=at)
    fsio.remove_empty_dirs(folder.tmp, stop=folder.root)
    result = done[-1]
    return AmendResult(spec.model, what, result.changed, result.current_version, result.notes)
