"""What every operation works with: one store, its registries, the clock, the connections."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from yarnstore.backends import Backend, connect
from yarnstore.core.limits import REGISTRY_LIMIT_BYTES
from yarnstore.errors import BackendError, IntegrityError, NoRegistryError, NotFoundError, StorageError
from yarnstore.ops.progress import OnProgress, Progress, ignore
from yarnstore.registry.schema import RegistryDoc, parse_registry
from yarnstore.store import registries
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs

DEFAULT_CONNECTIONS = 4


@dataclass(frozen=True)
class RegistrySource:
    """A registry that is configured: its local name, where it is, and a bearer token if it wants one."""

    name: str
    url: str
    token: str | None = field(default=None, repr=False)


@dataclass
class Session:
    """One use of a store.  `close` lets go of the connections."""

    layout: StoreLayout
    sources: tuple[RegistrySource, ...] = ()
    connections: int = DEFAULT_CONNECTIONS
    on_progress: OnProgress = ignore
    clock: Callable[[], float] = time.time
    _docs: dict[str, RegistryDoc] = field(default_factory=dict)
    _backends: dict[str, Backend] = field(default_factory=dict)
    _adopted: list[Backend] = field(default_factory=list)
    _refreshed: set[str] = field(default_factory=set)

    @property
    def refs(self) -> Refs:
        return Refs(self.layout)

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def note(self, text: str) -> None:
        """Tell the user one sentence."""
        self.on_progress(Progress("note", "", text=text))

    def close(self) -> None:
        for backend in [*self._backends.values(), *self._adopted]:
            backend.close()
        self._backends.clear()
        self._adopted.clear()

    def adopt(self, backend: Backend) -> None:
        """Close a backend, one for a file outside the registries, together with the rest."""
        self._adopted.append(backend)

    # --- registries ----------------------------------------------------------------------------

    def source(self, name: str) -> RegistrySource:
        """Raises: NotFoundError."""
        for source in self.sources:
            if source.name == name:
                return source
        raise NotFoundError("registry", name, hint="`ystore registry list` shows those there are")

    def require_sources(self) -> tuple[RegistrySource, ...]:
        """Raises: NoRegistryError where none is configured."""
        if not self.sources:
            raise NoRegistryError
        return self.sources

    def backend(self, source: RegistrySource) -> Backend:
        """The connection to a registry, made once."""
        if source.name not in self._backends:
            self._backends[source.name] = connect(source.url, token=source.token)
        return self._backends[source.name]

    def doc(self, source: RegistrySource) -> RegistryDoc:
        """What a registry says, from the cache; fetched where there is none.

        Raises: BackendError, FormatError.
        """
        if source.name not in self._docs:
            cached = None
            with contextlib.suppress(IntegrityError):
                cached = registries.read_cached(self.layout, source.name)
            if cached is None or cached.url != source.url:
                return self.refresh(source)
            self._docs[source.name] = parse_registry(cached.data)
        return self._docs[source.name]

    def refresh(self, source: RegistrySource) -> RegistryDoc:
        """Ask a registry what is new, and keep its answer.  Once per session.

        Raises: BackendError; FormatError where the answer is no registry: the cache stays.
        """
        if source.name in self._refreshed:
            return self._docs[source.name]
        cached = None
        with contextlib.suppress(IntegrityError):
            cached = registries.read_cached(self.layout, source.name)
        if cached is not None and cached.url != source.url:
            cached = None
        answer = self.backend(source).get(
            registries.REGISTRY_FILE,
            limit_bytes=REGISTRY_LIMIT_BYTES,
            etag=cached.etag if cached else "",
        )
        if answer is None and cached is not None:
            data, etag = cached.data, cached.etag
        elif answer is not None:
            data, etag = answer.data, answer.etag
        else:
            raise BackendError(source.url, "answered 'not modified' to a question without a condition")
        doc = parse_registry(data, source=self.backend(source).url)
        kept = registries.CachedRegistry(source.name, source.url, data, etag, self.now_ms())
        try:
            self.layout.ensure()
            registries.write_cached(self.layout, kept)
        except StorageError as error:
            # It can be gone by all the same, in a store that is only to be read as well.
            self.note(f"what {source.name} said could not be kept: {error.message}")
        self._docs[source.name] = doc
        self._refreshed.add(source.name)
        return doc

    def refresh_or_cached(self, source: RegistrySource) -> RegistryDoc:
        """`refresh`; where the registry cannot be reached, its cached answer, with a note.

        Raises: BackendError where there is no cached answer either.
        """
        try:
            return self.refresh(source)
        except BackendError as error:
            try:
                doc = self.doc(source)
            except BackendError:
                raise error from None
            self._refreshed.add(source.name)
            self.note(f"{source.name} cannot be reached; going by what it said before ({error.message})")
            return doc
