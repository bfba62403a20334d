"""The part of `Store` that configures, queries and checks registries."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from yarnstore.api.base import AnyPath, StoreBase
from yarnstore.errors import MissingKeyError
from yarnstore.ops.session.sources import RegistrySource
from yarnstore.progress import OnProgress
from yarnstore.registry.spec import Spec
from yarnstore.settings import load_settings
from yarnstore.store.layout import StoreLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarnstore.ops.publishing.lint import LintResult
    from yarnstore.ops.querying.catalogue import Offer, RegistryInfo, VersionDetails


class Registries(StoreBase):
    """Configure, query and check registries."""

    def add_registry(self, name: str, url: AnyPath) -> RegistryInfo:
        """Add a registry to `managed.toml` if it can be read.

        Raises: BackendError, FormatError, ConflictError, InvalidNameError, UsageError.
        """
        from yarnstore.ops.querying.catalogue import describe
        from yarnstore.settings.change import add_registry, normal_url, remove_registry

        source = RegistrySource(name, normal_url(os.fspath(url)))
        before = self.settings
        add_registry(self.settings.home, source.name, source.url)
        try:
            self.settings = load_settings(self.settings.home)
            with self._session() as session:
                return describe(session, session.registries.source(name), refresh=True)
        except BaseException as error:
            if isinstance(error, MissingKeyError) and not error.hint:
                error.hint = "give the folder that `ystore publish --registry` wrote, or its address"
            if all(other.name != name for other in before.registries):
                remove_registry(self.settings.home, name)
            self.settings = before
            raise

    def list_registries(self) -> list[RegistryInfo]:
        """Return the configured registries in order of priority, with their cached answers."""
        from yarnstore.ops.querying.catalogue import describe

        with self._session() as session:
            return [describe(session, source, refresh=False) for source in session.registries.sources]

    def refresh_registries(
        self, name: str | None = None, *, accept_rollback: bool = False
    ) -> list[RegistryInfo]:
        """Download the newest index of all registries, or of the one named.

        A registry that fails does not stop the others: its `error` says why.  With `accept_rollback` an
        index of the named registry is accepted although it is older than the cached one.

        Raises: BackendError, RolledBackError, FormatError if no registry could be read; NotFoundError.
        """
        from yarnstore.ops.querying.catalogue import describe, refresh_all

        with self._session() as session:
            if name is None:
                return refresh_all(session, session.registries.require_sources())
            source = session.registries.source(name)
            return [describe(session, source, refresh=True, accept_rollback=accept_rollback)]

    def set_mirrors(self, name: str, mirrors: Sequence[AnyPath]) -> RegistryInfo:
        """Replace the mirrors of a registry in `managed.toml`; none removes them.

        A mirror is another address of the same registry, a URL or a path, trusted as much as the registry's
        own.  It is not asked now.

        Raises: NotFoundError; UsageError for an address that cannot be one, or more than 16; ConflictError if
        the registry is set in `config.toml`.
        """
        from yarnstore.ops.querying.catalogue import describe
        from yarnstore.settings.change import set_mirrors
        from yarnstore.store.registry_cache import read_health, write_health

        set_mirrors(self.settings.home, name, [os.fspath(url) for url in mirrors])
        self.settings = load_settings(self.settings.home)
        with self._session() as session:
            source = session.registries.source(name)
            known = session.registries.links.addresses(source)
            failed = read_health(session.layout, name)
            left = [item for item in failed if item.url in known]
            if len(left) < len(failed):
                write_health(session.layout, name, left)
            return describe(session, source, refresh=False)

    def remove_registry(self, name: str) -> None:
        """Remove a registry from `managed.toml`; models that came from it stay.

        Raises: NotFoundError; ConflictError if it is set in `config.toml`.
        """
        from yarnstore.settings.change import remove_registry
        from yarnstore.store.registry_cache import remove_cached

        remove_registry(self.settings.home, name)
        remove_cached(StoreLayout(self.settings.home), name)
        self.settings = load_settings(self.settings.home)

    def search(self, text: str = "") -> list[Offer]:
        """Search the models of the registries.  Raises: NotFoundError if no registry is configured."""
        from yarnstore.ops.querying.catalogue import search

        with self._session() as session:
            return search(session, text)

    def list_offered(self, text: str = "") -> list[VersionDetails]:
        """Return every version of the models that `search` finds.  Raises: as `search`."""
        from yarnstore.ops.querying.catalogue import list_offered

        with self._session() as session:
            return list_offered(session, text)

    def show(self, spec: str) -> VersionDetails:
        """Return everything that a registry says about a version.  Raises: NotFoundError."""
        from yarnstore.ops.querying.catalogue import show

        with self._session() as session:
            return show(session, Spec.parse(spec))

    def lint_registry(
        self,
        source: AnyPath,
        *,
        models: tuple[str, ...] = (),
        deep: bool = False,
        decode: bool = False,
        progress: OnProgress | None = None,
    ) -> LintResult:
        """Check the registry at a folder or URL, or one of its JSON files.

        `deep` also compares manifests and packs with the entries; `decode` also reads every pack and hashes
        every file.  A URL is reached with the settings of this store.

        Raises: NotFoundError, BackendError, UsageError.
        """
        from yarnstore.ops.publishing.lint import lint

        with self._session(progress) as session:
            return lint(
                os.fspath(source),
                models=models,
                deep=deep,
                decode=decode,
                sources=session.registries.sources,
                network=session.registries.network,
                on_progress=session.activity.report,
                check=session.activity.check,
            )
