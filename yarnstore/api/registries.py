"""The part of `Store` that configures registries, asks what they offer, and checks one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from yarnstore.api.base import AnyPath, StoreBase
from yarnstore.ops.session.sources import RegistrySource
from yarnstore.progress import OnProgress
from yarnstore.registry.spec import Spec
from yarnstore.settings import add_registry, load_settings, normal_url, remove_registry
from yarnstore.store.layout import StoreLayout
from yarnstore.store.registry_cache import remove_cached

if TYPE_CHECKING:
    from yarnstore.ops.publishing.lint import LintResult
    from yarnstore.ops.querying.catalogue import Offer, RegistryInfo, VersionDetails


class Registries(StoreBase):
    """Configure registries, ask them, and check one."""

    def add_registry(self, name: str, url: AnyPath) -> RegistryInfo:
        """Add a registry, once it has answered.  Raises: BackendError, FormatError, ConflictError."""
        from yarnstore.ops.querying.catalogue import describe

        source = RegistrySource(name, normal_url(os.fspath(url)))
        before = self.settings
        add_registry(self.home, source.name, source.url)
        try:
            self.settings = load_settings(self.home)
            with self._session() as session:
                return describe(session, session.registries.source(name), refresh=True)
        except BaseException:
            if all(other.name != name for other in before.registries):
                remove_registry(self.home, name)
            self.settings = before
            raise

    def list_registries(self) -> list[RegistryInfo]:
        """The configured registries, in order of priority, as they were last fetched."""
        from yarnstore.ops.querying.catalogue import describe

        with self._session() as session:
            return [describe(session, source, refresh=False) for source in session.registries.sources]

    def refresh_registries(
        self, name: str | None = None, *, accept_rollback: bool = False
    ) -> list[RegistryInfo]:
        """Ask the registries, or the one named, what is new.

        Of several, one that fails stops no other: its `error` says why.  With `accept_rollback` the one
        named is believed although it is older than it was.

        Raises: BackendError, RolledBackError, FormatError where none answered as it should; NotFoundError.
        """
        from yarnstore.ops.querying.catalogue import describe, refresh_all

        with self._session() as session:
            if name is None:
                return refresh_all(session, session.registries.require_sources())
            source = session.registries.source(name)
            return [describe(session, source, refresh=True, accept_rollback=accept_rollback)]

    def remove_registry(self, name: str) -> None:
        """Forget a registry; what came from it stays.  Raises: NotFoundError."""
        remove_registry(self.home, name)
        remove_cached(StoreLayout(self.home), name)
        self.settings = load_settings(self.home)

    def search(self, text: str = "") -> list[Offer]:
        """Models that the registries offer.  Raises: NotFoundError where none is configured."""
        from yarnstore.ops.querying.catalogue import search

        with self._session() as session:
            return search(session, text)

    def list_offered(self, text: str = "") -> list[VersionDetails]:
        """Every version of the models that `search` finds.  Raises: as `search`."""
        from yarnstore.ops.querying.catalogue import list_offered

        with self._session() as session:
            return list_offered(session, text)

    def show(self, spec: str) -> VersionDetails:
        """All that a registry says of a version.  Raises: NotFoundError."""
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
                sources=session.registries.sources,
                network=session.registries.network,
                on_progress=session.activity.report,
            )
