"""The part of `Store` that pipelines use: a registry in a folder is published to, and models are locked."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from yarnstore.ops.session.session import Session
from yarnstore.progress import OnProgress, ignore
from yarnstore.registry.spec import Spec
from yarnstore.store import fsread

if TYPE_CHECKING:
    from yarnstore.ops.fetching.fetch import FetchResult
    from yarnstore.ops.installing.activate import CheckoutResult
    from yarnstore.ops.installing.from_lock import LockResult
    from yarnstore.ops.publishing.amend import AmendResult
    from yarnstore.ops.publishing.lint import LintResult
    from yarnstore.ops.publishing.publish import PublishResult

AnyPath = str | os.PathLike[str]


class Publishing(ABC):
    """What a publisher does: to a registry's folder by static methods, which need no store; lint; lock."""

    @abstractmethod
    def _session(self, progress: OnProgress | None = None) -> AbstractContextManager[Session]:
        """One use of the store."""

    def lock(
        self,
        *specs: str,
        file: AnyPath = "ystore.lock",
        update: bool = False,
        progress: OnProgress | None = None,
    ) -> LockResult:
        """Write into a lock file what the specs come to; with `update` what is locked is looked up again.

        Raises: SpecError, UsageError, NotFoundError, BackendError, FormatError, IncompatibleError.
        """
        from yarnstore.ops.installing.from_lock import lock

        with self._session(progress) as session:
            return lock(session, fsread.file_path(file), [Spec.parse(text) for text in specs], update=update)

    def fetch_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> list[FetchResult]:
        """Bring what a lock file names, and nothing else; `accept_change` is as in `fetch`.

        Raises: IntegrityError where a registry has something else under a locked version; as `fetch`.
        """
        from yarnstore.ops.installing.from_lock import fetch_locked

        with self._session(progress) as session:
            session.accept_change = accept_change
            return fetch_locked(session, fsread.file_path(file))

    def checkout_locked(
        self,
        file: AnyPath = "ystore.lock",
        *,
        force: bool = False,
        accept_change: bool = False,
        progress: OnProgress | None = None,
    ) -> list[CheckoutResult]:
        """Install what a lock file names; `accept_change` is as in `fetch`.

        Raises: UsageError where it has two builds of one model; as `fetch_locked` and `checkout`.
        """
        from yarnstore.ops.installing.from_lock import checkout_locked

        with self._session(progress) as session:
            session.accept_change = accept_change
            return checkout_locked(session, fsread.file_path(file), force=force)

    def lint_registry(
        self,
        source: AnyPath,
        *,
        models: tuple[str, ...] = (),
        deep: bool = False,
        decode: bool = False,
        progress: OnProgress | None = None,
    ) -> LintResult:
        """Everything that is wrong with the registry at a folder or URL, or with one of its JSON files.

        `deep` compares manifests and packs with what the entries say; `decode` besides reads every pack
        and hashes every file.  A URL is reached as this store reaches its registries.

        Raises: NotFoundError, BackendError, UsageError.
        """
        from yarnstore.ops.publishing.lint import lint

        with self._session(progress) as session:
            return lint(
                os.fspath(source),
                models=models,
                deep=deep,
                decode=decode,
                sources=session.sources,
                network=session.network,
                on_progress=session.on_progress,
            )

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
        name: str | None = None,
        description: str | None = None,
        tags: tuple[str, ...] = (),
        category: str | None = None,
        deltas: int | None = None,
        split: bool = False,
        all_files: bool = False,
        force: bool = False,
        progress: OnProgress | None = None,
    ) -> PublishResult:
        """Publish a file or folder as a version into the static registry at a folder.

        `deltas` is from how many earlier versions delta packs are written; `split` keeps each model in a
        file of its own from now on; `all_files` takes the leavings of other programs and what a
        `.ystoreignore` names, too.  Publishing the same again changes nothing but what is given.

        Raises: ConflictError for another content under a published version, or other build metadata;
        FormatError for cut files, Git LFS pointers, web pages and missing shards unless `force`;
        SpecError, UsageError, StorageError.
        """
        from yarnstore.ops.publishing.publish import DEFAULT_DELTAS, ModelInfo, VersionInfo, publish

        return publish(
            _registry(registry),
            fsread.source_path(source),
            Spec.parse(spec),
            version_info=VersionInfo(
                changelog=changelog,
                compatibility=compatibility,
                minimum_ram_gb=minimum_ram_gb,
                recommended_ram_gb=recommended_ram_gb,
                security=security,
                download_url=download_url,
            ),
            model_info=ModelInfo(name, description, tags, category),
            deltas=DEFAULT_DELTAS if deltas is None else deltas,
            split=split,
            all_files=all_files,
            force=force,
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
        """Advise against a version, or one variant of it; `undo` takes that back.

        If it is the current version, its replacement becomes that.

        Raises: SpecError, NotFoundError, UsageError, FormatError, StorageError.
        """
        from yarnstore.ops.publishing.amend import deprecate

        return deprecate(
            _registry(registry), Spec.parse(spec), reason=reason, replaced_by=replaced_by, undo=undo
        )

    @staticmethod
    def yank(spec: str, *, registry: AnyPath, undo: bool = False) -> AmendResult:
        """Withdraw a version, or one variant of it; `undo` takes that back.  Raises: as `deprecate`."""
        from yarnstore.ops.publishing.amend import yank

        return yank(_registry(registry), Spec.parse(spec), undo=undo)

    @staticmethod
    def set_alias(model: str, name: str, version: str | None, *, registry: AnyPath) -> AmendResult:
        """Tie a word to a version; None takes the word away.  Raises: as `deprecate`."""
        from yarnstore.ops.publishing.amend import set_alias

        return set_alias(_registry(registry), model, name, version)

    @staticmethod
    def set_current(model: str, version: str, *, registry: AnyPath) -> AmendResult:
        """Make a version what `latest` means.  Raises: as `deprecate`."""
        from yarnstore.ops.publishing.amend import set_current

        return set_current(_registry(registry), model, version)


def _registry(path: AnyPath) -> Path:
    """A registry's folder, which may itself be a link; nothing below it may."""
    return Path(os.path.realpath(fsread.absolute(path)))
