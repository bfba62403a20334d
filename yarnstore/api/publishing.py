"""The part of `Store` for publishers, who work on the folder of a registry and need no store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from yarnstore.api.base import AnyPath
from yarnstore.progress import OnProgress, ignore
from yarnstore.registry.spec import Spec
from yarnstore.store import paths
from yarnstore.store.filepath import Path

if TYPE_CHECKING:
    from yarnstore.ops.publishing.amend import AmendResult
    from yarnstore.ops.publishing.optimize import OptimizeResult
    from yarnstore.ops.publishing.publish import PublishResult


class Publishing:
    """Publish into the folder of a registry, and edit its entries, by static methods."""

    @staticmethod
    def publish(
        source: AnyPath,
        spec: str,
        *,
        registry: AnyPath,
        changelog: str | None = None,
        compatibility: tuple[str, ...] = (),
        minimum_ram_gb: float | None = None,
        recommended_ram_gb: float | None = None,
        security: bool = False,
        download_url: str | None = None,
        requires: tuple[str, ...] = (),
        name: str | None = None,
        description: str | None = None,
        tags: tuple[str, ...] = (),
        category: str | None = None,
        deltas: int | None = None,
        base: str | None = None,
        split: bool = False,
        all_files: bool = False,
        force: bool = False,
        progress: OnProgress | None = None,
    ) -> PublishResult:
        """Publish a file or folder as a version into the static registry at a folder.

        `deltas` is the number of earlier versions from which delta packs are written; `base` is the spec of a
        version of any model of the registry from which one is written too, such as that of which this is a
        fine-tune, or `auto` for the version with the smallest delta; `split` keeps each model in a file of
        its own from now on; `all_files` includes temporary files of other programs and
        files that a `.ystoreignore` names.  `requires` are specs of other models, such as the base of an
        adapter, which must be installed before it.  Publishing the same content again changes only the given
        fields, and adds the delta from `base`.

        Raises: ConflictError for different content under a published version, or other build metadata;
        FormatError for truncated files, Git LFS pointers, web pages and missing shards unless `force`;
        SpecError, UsageError, StorageError; NotFoundError if the registry does not have `base`.
        """
        from yarnstore.ops.publishing.publish import DEFAULT_DELTAS, ModelInfo, VersionInfo, publish

        return publish(
            _registry(registry),
            paths.source_path(source),
            Spec.parse(spec),
            version_info=VersionInfo(
                changelog=changelog,
                compatibility=compatibility,
                minimum_ram_gb=minimum_ram_gb,
                recommended_ram_gb=recommended_ram_gb,
                security=security,
                download_url=download_url,
                requires=requires,
            ),
            model_info=ModelInfo(name, description, tags, category),
            deltas=DEFAULT_DELTAS if deltas is None else deltas,
            base=base,
            split=split,
            all_files=all_files,
            force=force,
            on_progress=progress or ignore,
        )

    @staticmethod
    def optimize_registry(
        registry: AnyPath,
        *,
        models: tuple[str, ...] = (),
        versions: str | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> OptimizeResult:
        """Add deltas to the newest version of each model from versions in use, where they save downloads, and
        drop those that no version needs.

        In use are the versions in the range `versions`; without one, the 12 newest before the newest.
        `models` are those to optimize, all by default.  Each change is reported, with its bytes, before
        anything is written.

        Raises: SpecError, NotFoundError, UsageError, FormatError, IntegrityError, StorageError.
        """
        from yarnstore.ops.publishing.optimize import optimize

        return optimize(
            _registry(registry),
            models=models,
            versions=versions,
            dry_run=dry_run,
            on_progress=progress or ignore,
        )

    @staticmethod
    def deprecate(
        spec: str,
        *,
        registry: AnyPath,
        reason: str | None = None,
        replaced_by: str | None = None,
        undo: bool = False,
    ) -> AmendResult:
        """Mark a version, or one variant of it, as deprecated; `undo` removes the mark.

        If it is the current version, its replacement becomes the current one.

        Raises: SpecError, NotFoundError, UsageError, FormatError, StorageError.
        """
        from yarnstore.ops.publishing.amend import deprecate

        return deprecate(
            _registry(registry), Spec.parse(spec), reason=reason, replaced_by=replaced_by, undo=undo
        )

    @staticmethod
    def yank(spec: str, *, registry: AnyPath, undo: bool = False) -> AmendResult:
        """Withdraw a version, or one variant of it; `undo` reverts that.  Raises: as `deprecate`."""
        from yarnstore.ops.publishing.amend import yank

        return yank(_registry(registry), Spec.parse(spec), undo=undo)

    @staticmethod
    def set_alias(model: str, name: str, version: str | None, *, registry: AnyPath) -> AmendResult:
        """Set an alias to a version; None removes the alias.  Raises: as `deprecate`."""
        from yarnstore.ops.publishing.amend import set_alias

        return set_alias(_registry(registry), model, name, version)

    @staticmethod
    def set_current(model: str, version: str, *, registry: AnyPath) -> AmendResult:
        """Make a version the one that `latest` means.  Raises: as `deprecate`."""
        from yarnstore.ops.publishing.amend import set_current

        return set_current(_registry(registry), model, version)


def _registry(path: AnyPath) -> Path:
    """Return the folder of a registry, which may be a link; nothing below it may."""
    return Path(os.path.realpath(paths.absolute(path)))
