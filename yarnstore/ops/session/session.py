"""What every operation works with: one store, its registries, the clock, the connections."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from yarnstore.core.limits import REGISTRY_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.reflog import Installed
from yarnstore.errors import (
    BackendError,
    ConfigError,
    FormatError,
    IntegrityError,
    NoRegistryError,
    NotFoundError,
    OfflineError,
    RolledBackError,
    StorageError,
)
from yarnstore.ops.session.sources import Network, RecentFailures
from yarnstore.ops.session.sources import RegistrySource as RegistrySource
from yarnstore.progress import OnProgress, Progress, format_span, ignore
from yarnstore.registry.host import Host
from yarnstore.registry.policies import LoadPolicy
from yarnstore.store import registry_cache
from yarnstore.store.layout import StoreLayout
from yarnstore.store.refs import Refs

# What reads registries and connects to them is imported where that is done: a rollback does neither.
if TYPE_CHECKING:
    from yarnstore.backends import SourceSet
    from yarnstore.ops.session.connections import Connections
    from yarnstore.ops.session.registries import ModelFiles
    from yarnstore.registry.entries import ModelEntry, RegistryDoc

DEFAULT_CONNECTIONS = 4
_MINUTE_MS = 60_000

# Told the model, the version and the path of what was just installed, and a callback for progress; raises
# to have it taken back.
SelfCheck = Callable[[str, str, str, OnProgress], None]

# Given a session, a version whose files are there, and whether to warn: raises where `[policy]` refuses it.
AdmitVersion = Callable[["Session", Manifest, bool], None]


def _unlooked(session: Session, manifest: Manifest, tell: bool) -> None:  # noqa: ARG001
    """Raises: ConfigError where there is a policy, and nothing that looks."""
    if session.load_policy.restricts:
        raise ConfigError("a policy is set, but nothing inspects versions")


class Session(msgspec.Struct):
    """One use of a store.  `close` lets go of the connections."""

    layout: StoreLayout
    sources: tuple[RegistrySource, ...] = ()
    connections: int = DEFAULT_CONNECTIONS
    on_progress: OnProgress = ignore
    clock: Callable[[], float] = time.time
    # Of the models that are tried out once they are installed.
    self_checks: Mapping[str, SelfCheck] = msgspec.field(default_factory=dict)
    # What an update of a model was decided from: it moves that on, and nothing else.
    updating: dict[str, Installed] = msgspec.field(default_factory=dict)
    # What `local-state.json` is to say of it; None leaves what it says.
    auto_update: bool | None = None
    host: Host = msgspec.field(default_factory=Host)
    network: Network = msgspec.field(default_factory=Network)
    put_last: RecentFailures = msgspec.field(default_factory=RecentFailures)
    load_policy: LoadPolicy = msgspec.field(default_factory=LoadPolicy)
    # `ops/session/loadcode` does it, which a rollback need not import.
    admit_version: AdmitVersion = _unlooked
    # Asked between the blocks of downloads; raises to end them.
    check: Callable[[], None] = lambda: None
    # Takes a version from its registry although it had another content before.
    accept_change: bool = False
    # The one registry that was asked for by name.
    only: str | None = None
    # Models of which it was told that several registries have them.
    warned: set[str] = msgspec.field(default_factory=set)
    _docs: dict[str, RegistryDoc] = msgspec.field(default_factory=dict)
    _links: Connections | None = None
    _refreshed: set[str] = msgspec.field(default_factory=set)
    _unreachable: set[str] = msgspec.field(default_factory=set)
    _damaged: set[str] = msgspec.field(default_factory=set)
    _split: dict[str, ModelFiles] = msgspec.field(default_factory=dict)
    # The cached answers of registries that are split.
    _split_known: dict[str, registry_cache.CachedRegistry] = msgspec.field(default_factory=dict)

    @property
    def refs(self) -> Refs:
        return Refs(self.layout)

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def note(self, text: str) -> None:
        """Tell the user one sentence."""
        self.on_progress(Progress("note", "", text=text))

    @property
    def links(self) -> Connections:
        """The connections of this session."""
        if self._links is None:
            from yarnstore.ops.session.connections import Connections

            self._links = Connections(
                self.layout, self.network, self.note, self.now_ms, self.put_last, lambda: self.check()
            )
        return self._links

    def again(self, *, only: str | None) -> Session:
        """A new session over the same store, which knows nothing of what this one learned of registries."""
        return msgspec.structs.replace(
            self,
            only=only,
            warned=set(),
            _docs={},
            _links=None,
            _refreshed=set(),
            _unreachable=set(),
            _damaged=set(),
            _split={},
            _split_known={},
        )

    def close(self) -> None:
        if self._links is not None:
            self._links.close()
        self._links = None

    # --- registries ----------------------------------------------------------------------------

    def source(self, name: str) -> RegistrySource:
        """Raises: NotFoundError."""
        for source in self.sources:
            if source.name == name:
                return source
        raise NotFoundError("registry", name, hint="`ystore registry list` lists them")

    def require_sources(self) -> tuple[RegistrySource, ...]:
        """All registries, in their order, or the one that was asked for by name.

        Raises: NoRegistryError where none is configured; NotFoundError.
        """
        if self.only is not None:
            return (self.source(self.only),)
        if not self.sources:
            raise NoRegistryError
        return self.sources

    def backend(self, source: RegistrySource) -> SourceSet:
        """The connection to a registry and its mirrors, made once."""
        return self.links.backend(source)

    def doc(self, source: RegistrySource) -> RegistryDoc:
        """What a registry says, from the cache; fetched if it is not cached.

        Raises: BackendError, FormatError.
        """
        if source.name not in self._docs:
            cached = self._cached(source)
            if cached is None:
                return self.refresh(source)
            self._docs[source.name] = doc = _parse_registry(cached.data)
            self._add_mirrors(source, doc)
            self._note_age(source, cached.fetched_ms)
        return self._docs[source.name]

    def refresh(self, source: RegistrySource, *, accept_rollback: bool = False) -> RegistryDoc:
        """Ask a registry what is new, and keep its answer.  Once per session.

        An answer older than what was seen before is refused, but with `accept_rollback`.

        Raises: BackendError, RolledBackError; FormatError where the answer is no registry: the cache stays.
        """
        from yarnstore.ops.session.rolledback import keep_newest, known_time, refuse_rollback

        if source.name in self._refreshed:
            return self._docs[source.name]
        cached = self._cached(source)
        known = known_time(self.layout, source, cached)
        answer = self.backend(source).get(
            registry_cache.REGISTRY_FILE,
            limit_bytes=REGISTRY_LIMIT_BYTES,
            etag=cached.etag if cached else "",
        )
        if answer is None and cached is not None:
            data, etag = cached.data, cached.etag
        elif answer is not None:
            data, etag = answer.data, answer.etag
        else:
            raise BackendError(self.links.own(source), "answered 'not modified' to an unconditional request")
        cached = None  # each may be 256 MiB
        doc = _parse_registry(data, source=self.backend(source).url)
        if answer is not None:
            refuse_rollback(
                source,
                doc,
                known,
                mirror=None if answer.source == self.links.own(source) else answer.source,
                accept=accept_rollback,
                note=self.note,
            )
        kept = registry_cache.CachedRegistry(source.name, source.url, data, etag, self.now_ms())
        try:
            self.layout.ensure()
            registry_cache.write_cached(self.layout, kept)
            keep_newest(self.layout, source, doc, accept=accept_rollback, now_ms=self.now_ms())
        except StorageError as error:
            # It can be used all the same, also in a store that may only be read.
            self.note(f"the index of {source.name} could not be cached: {error.message}")
        self._docs[source.name] = doc
        self._add_mirrors(source, doc)
        self._refreshed.add(source.name)
        return doc

    def refresh_or_cached(self, source: RegistrySource) -> RegistryDoc:
        """`refresh`; where the registry cannot be reached, or answers with no registry, or an older one,
        its cached answer, with a note.

        Raises: BackendError, FormatError where there is no cached answer either.
        """
        try:
            return self.refresh(source)
        except (BackendError, FormatError) as error:
            try:
                doc = self.doc(source)
            except (BackendError, FormatError):
                raise error from None
            self._refreshed.add(source.name)
            self._unreachable.add(source.name)
            if not isinstance(error, OfflineError):
                self.note(f"{source.name} {_failing(error)}; using the cached copy ({_told(error)})")
            return doc

    def _cached(self, source: RegistrySource) -> registry_cache.CachedRegistry | None:
        """Return the last answer of a registry, if it is cached and whole."""
        try:
            cached = registry_cache.read_cached(self.layout, source.name)
        except IntegrityError as error:
            if source.name not in self._damaged:
                self._damaged.add(source.name)
                self.note(
                    f"{source.name}: the cached copy is damaged; downloading it again ({error.message})"
                )
            return None
        return cached if cached is not None and cached.url == source.url else None

    def _add_mirrors(self, source: RegistrySource, doc: RegistryDoc) -> None:
        if doc.mirrors or self._links is not None:
            self.links.add_mirrors(source, doc.mirrors)

    def _note_age(self, source: RegistrySource, fetched_ms: int) -> None:
        from yarnstore.ops.session.registries import DAY_MS

        age_ms = self.now_ms() - fetched_ms
        if age_ms > DAY_MS:
            self.note(f"{source.name}: using a cached copy from {format_span(age_ms / 1000)} ago")

    def entry(
        self, source: RegistrySource, model: str, *, fresh: bool = False, model_file_only: bool = False
    ) -> ModelEntry | None:
        """What a registry says of one model, whether it is split or not; None where it has none such.

        With `fresh` it is asked again, and where it cannot be reached its cached answer counts.  With
        `model_file_only`, one that is known to be split, and stays so, is asked for the model's file and
        nothing else.

        Raises: BackendError where nothing is cached either; FormatError.
        """
        if fresh and model_file_only and source.name not in self._refreshed:
            entry = self._entry_of_model_file(source, model)
            if entry is not None:
                return entry
        doc = self.refresh_or_cached(source) if fresh else self.doc(source)
        if not doc.split:
            return doc.models.get(model)
        fresh = fresh and source.name not in self._unreachable
        return self._split_models(source).entry(self.backend(source), model, fresh=fresh)

    def _entry_of_model_file(self, source: RegistrySource, model: str) -> ModelEntry | None:
        """What a registry that is known to be split says of a model now; None where it is not known to be,
        or has no such model."""
        known = self._known_split(source)
        if known is None or source.mirrors:
            return None  # by registry.json alone is it seen that a mirror is behind
        models = self._split_models(source)
        before = models.unreachable
        entry = models.entry(self.backend(source), model, fresh=not before)
        if models.unreachable and not before:
            self._note_age(source, known.fetched_ms)
        elif entry is not None and not models.unreachable and known.fetched_ms < self.now_ms() - _MINUTE_MS:
            self._split_known[source.name] = known = msgspec.structs.replace(known, fetched_ms=self.now_ms())
            with contextlib.suppress(StorageError):
                registry_cache.write_cached(self.layout, known)  # so that its age is that of what it says
        return entry

    def _known_split(self, source: RegistrySource) -> registry_cache.CachedRegistry | None:
        """The cached answer of a registry where it is a split one's; those are small."""
        if source.name not in self._split_known:
            found = self._cached(source) if registry_cache.is_small(self.layout, source.name) else None
            if found is None:
                return None
            doc = _parse_registry(found.data)
            if not doc.split:
                return None
            self._add_mirrors(source, doc)
            self._split_known[source.name] = found
        return self._split_known[source.name]

    def cached_entry(self, source: RegistrySource, model: str) -> ModelEntry | None:
        """As `entry`, of a registry that is cached, and of a split one's models those that are.

        Raises: FormatError.
        """
        doc = self.doc(source)
        return self._split_models(source).cached(model) if doc.split else doc.models.get(model)

    def _split_models(self, source: RegistrySource) -> ModelFiles:
        if source.name not in self._split:
            from yarnstore.ops.session.registries import ModelFiles

            self._split[source.name] = ModelFiles(
                source.name, source.url, self.layout, self.note, self.now_ms
            )
        return self._split[source.name]


def _parse_registry(data: bytes, *, source: str = "") -> RegistryDoc:
    from yarnstore.registry.schema import parse_registry

    return parse_registry(data, source=source)


def _failing(error: BackendError | FormatError) -> str:
    if isinstance(error, RolledBackError):
        return "returned an older index than last time"
    return "does not return a registry index" if isinstance(error, FormatError) else "cannot be reached"


def _told(error: BackendError | FormatError) -> str:
    return f"{error.message}; {error.hint}" if isinstance(error, RolledBackError) else error.message
