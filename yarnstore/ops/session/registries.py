"""The indexes of the registries: queried once per session, cached, and refused if older than the last seen.

Owns the cached indexes, and the comparison with the latest index seen; docs/registry.md and
docs/decisions/0016 govern them.  `model_files` reads the files of single models, `connections` connects, and
`stored` decides which registry is used for a model.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from yarnstore.core.limits import REGISTRY_LIMIT_BYTES
from yarnstore.errors import (
    BackendError,
    FormatError,
    IntegrityError,
    NoRegistryError,
    NotFoundError,
    OfflineError,
    RolledBackError,
    StorageError,
)
from yarnstore.ops.session.activity import Activity
from yarnstore.ops.session.sources import Network, RecentFailures, RegistrySource
from yarnstore.progress import format_span
from yarnstore.store.layout import StoreLayout

# Modules that connect or parse registries are imported when needed: a rollback does neither.
if TYPE_CHECKING:
    from yarnstore.backends import SourceSet
    from yarnstore.ops.session.connections import Connections
    from yarnstore.ops.session.model_files import ModelFiles
    from yarnstore.registry.entries import ModelEntry, RegistryDoc
    from yarnstore.store.registry_cache import CachedRegistry

_MINUTE_MS = 60_000
# A cached index older than this is used with a note about its age.
_DAY_MS = 86_400_000


class KnownRegistries:
    """The registries of a store in one session: the connections to them, and their indexes.

    Safe to share by threads: the index of a registry is kept under a lock of its own, and a thread that needs
    it waits while another one queries it.
    """

    def __init__(
        self,
        layout: StoreLayout,
        activity: Activity,
        sources: tuple[RegistrySource, ...] = (),
        *,
        network: Network | None = None,
        put_last: RecentFailures | None = None,
        only: str | None = None,
    ) -> None:
        """`only` is the one registry to use, if given; `put_last` are failures known to this process."""
        self.sources = sources
        self.network = network or Network()
        self.only = only
        self._layout = layout
        self._activity = activity
        self._put_last = put_last or RecentFailures()
        self._lock = threading.RLock()
        self._locks: dict[str, threading.RLock] = {}
        self._links: Connections | None = None
        self._told: set[str] = set()
        self._docs: dict[str, RegistryDoc] = {}
        self._refreshed: set[str] = set()
        self._unreachable: set[str] = set()
        self._damaged: set[str] = set()
        self._split: dict[str, ModelFiles] = {}
        # The cached models of split registries.
        self._split_known: dict[str, CachedRegistry] = {}

    def anew(self, *, only: str | None) -> KnownRegistries:
        """Return the same registries without their indexes."""
        return KnownRegistries(
            self._layout,
            self._activity,
            self.sources,
            network=self.network,
            put_last=self._put_last,
            only=only,
        )

    @property
    def links(self) -> Connections:
        """Return the connections to the registries."""
        with self._lock:
            if self._links is None:
                from yarnstore.ops.session.connections import Connections

                self._links = Connections(
                    self._layout,
                    self.network,
                    self._activity.note,
                    self._activity.now_ms,
                    self._put_last,
                    self._activity.check,
                )
            return self._links

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            links, self._links = self._links, None
        if links is not None:
            links.close()

    def is_news(self, model: str) -> bool:
        """Whether this is the first question about which registries have a model."""
        with self._lock:
            news = model not in self._told
            self._told.add(model)
            return news

    def _knowing(self, source: RegistrySource) -> threading.RLock:
        """Lock the index of one registry."""
        with self._lock:
            return self._locks.setdefault(source.name, threading.RLock())

    def source(self, name: str) -> RegistrySource:
        """Return a registry by name.  Raises: NotFoundError."""
        for source in self.sources:
            if source.name == name:
                return source
        raise NotFoundError("registry", name, hint="`ystore registry list` lists the registries")

    def require_sources(self) -> tuple[RegistrySource, ...]:
        """Return all registries in their order, or only the requested one.

        Raises: NoRegistryError if none is configured; NotFoundError.
        """
        if self.only is not None:
            return (self.source(self.only),)
        if not self.sources:
            raise NoRegistryError
        return self.sources

    def backend(self, source: RegistrySource) -> SourceSet:
        """Return the connection to a registry and its mirrors, made once."""
        with self._knowing(source):
            return self.links.backend(source)

    def doc(self, source: RegistrySource) -> RegistryDoc:
        """Return the index of a registry from the cache; it is downloaded if it is not cached.

        Raises: BackendError, FormatError.
        """
        with self._knowing(source):
            if source.name not in self._docs:
                cached = self._cached(source)
                if cached is None:
                    return self.refresh(source)
                self._docs[source.name] = doc = _parse_registry(cached.data, measured=True)
                self._add_mirrors(source, doc)
                self._note_age(source, cached.fetched_ms)
            return self._docs[source.name]

    def refresh(self, source: RegistrySource, *, accept_rollback: bool = False) -> RegistryDoc:
        """Query a registry for changes, and cache the answer; once per session.

        An older index than before is refused, except with `accept_rollback`.

        Raises: BackendError, RolledBackError; FormatError if the answer is no registry, in which case the
        cache stays.
        """
        with self._knowing(source):
            if source.name not in self._refreshed:
                self._docs[source.name] = doc = self._ask(source, accept_rollback=accept_rollback)
                self._add_mirrors(source, doc)
                self._refreshed.add(source.name)
            return self._docs[source.name]

    def _ask(self, source: RegistrySource, *, accept_rollback: bool) -> RegistryDoc:
        from yarnstore.store.registry_cache import REGISTRY_FILE, CachedRegistry, write_cached

        cached = self._cached(source)
        known = known_time(self._layout, source, cached)
        answer = self.backend(source).get(
            REGISTRY_FILE,
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
        doc = _parse_registry(data, source=self.backend(source).url, measured=answer is None)
        if answer is not None:
            refuse_rollback(
                source,
                doc,
                known,
                mirror=None if answer.source == self.links.own(source) else answer.source,
                accept=accept_rollback,
                note=self._activity.note,
            )
        kept = CachedRegistry(source.name, source.url, data, etag, self._activity.now_ms())
        try:
            self._layout.ensure()
            write_cached(self._layout, kept)
            keep_newest(self._layout, source, doc, accept=accept_rollback, now_ms=self._activity.now_ms())
        except StorageError as error:
            # The answer can be used nevertheless, also in a read-only store.
            self._activity.note(f"the index of {source.name} could not be cached: {error.message}")
        return doc

    def refresh_or_cached(self, source: RegistrySource) -> RegistryDoc:
        """Do as `refresh`; if the registry cannot be reached, or sends no valid or only an older index, use
        the cached one, with a note.

        Raises: BackendError, FormatError if nothing is cached.
        """
        with self._knowing(source):
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
                    self._activity.note(
                        f"{source.name} {_failing(error)}; using the cached copy ({_told(error)})"
                    )
                return doc

    def _cached(self, source: RegistrySource) -> CachedRegistry | None:
        """Return the cached index of a registry, if it exists and is undamaged."""
        from yarnstore.store.registry_cache import read_cached

        try:
            cached = read_cached(self._layout, source.name)
        except IntegrityError as error:
            if source.name not in self._damaged:
                self._damaged.add(source.name)
                self._activity.note(
                    f"{source.name}: the cached copy is damaged; downloading it again ({error.message})"
                )
            return None
        return cached if cached is not None and cached.url == source.url else None

    def _add_mirrors(self, source: RegistrySource, doc: RegistryDoc) -> None:
        if doc.mirrors or self._links is not None:
            self.links.add_mirrors(source, doc.mirrors)

    def _note_age(self, source: RegistrySource, fetched_ms: int) -> None:
        age_ms = self._activity.now_ms() - fetched_ms
        if age_ms > _DAY_MS:
            self._activity.note(f"{source.name}: using a cached copy from {format_span(age_ms / 1000)} ago")

    def entry(
        self, source: RegistrySource, model: str, *, fresh: bool = False, model_file_only: bool = False
    ) -> ModelEntry | None:
        """Return the entry of one model, whether the registry is split or not; None if it has no such model.

        With `fresh` the registry is queried, and the cached entry is used if it cannot be reached.  With
        `model_file_only`, a registry that is known to be split is queried only for the file of the model.

        Raises: BackendError if nothing is cached either; FormatError.
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
        """Return the current entry of a model in a registry that is known to be split; None if it is not
        known to be split, or has no such model."""
        from yarnstore.store.registry_cache import write_cached

        known = self._known_split(source)
        if known is None or source.mirrors:
            return None  # only registry.json shows that a mirror is outdated
        models = self._split_models(source)
        before = models.unreachable
        entry = models.entry(self.backend(source), model, fresh=not before)
        if models.unreachable and not before:
            self._note_age(source, known.fetched_ms)
        elif (
            entry is not None
            and not models.unreachable
            and known.fetched_ms < self._activity.now_ms() - _MINUTE_MS
        ):
            known = msgspec.structs.replace(known, fetched_ms=self._activity.now_ms())
            with self._knowing(source), contextlib.suppress(StorageError):
                self._split_known[source.name] = known
                write_cached(self._layout, known)  # so that its age is that of its content
        return entry

    def _known_split(self, source: RegistrySource) -> CachedRegistry | None:
        """Return the cached index of a registry if it is split; such an index is small."""
        from yarnstore.store.registry_cache import is_small

        with self._knowing(source):
            if source.name not in self._split_known:
                found = self._cached(source) if is_small(self._layout, source.name) else None
                if found is None:
                    return None
                doc = _parse_registry(found.data, measured=True)
                if not doc.split:
                    return None
                self._add_mirrors(source, doc)
                self._split_known[source.name] = found
            return self._split_known[source.name]

    def cached_entry(self, source: RegistrySource, model: str) -> ModelEntry | None:
        """Do as `entry`, for a registry that is cached; of a split one, for models that are cached.

        Raises: FormatError.
        """
        doc = self.doc(source)
        return self._split_models(source).cached(model) if doc.split else doc.models.get(model)

    def _split_models(self, source: RegistrySource) -> ModelFiles:
        from yarnstore.ops.session.model_files import ModelFiles

        with self._knowing(source):
            if source.name not in self._split:
                self._split[source.name] = ModelFiles(
                    source.name, source.url, self._layout, self._activity.note, self._activity.now_ms
                )
            return self._split[source.name]


# --- older answers -------------------------------------------------------------------------------


def known_time(layout: StoreLayout, source: RegistrySource, cached: CachedRegistry | None) -> str:
    """Return the latest `last_updated` that was seen of a registry at its address, or an empty text."""
    from yarnstore.registry.timestamps import is_believable
    from yarnstore.store.registry_cache import read_newest

    try:
        newest = read_newest(layout, source.name)
    except FormatError:
        newest = None  # fsck reports it
    if newest is not None and newest.url == source.url:
        return newest.last_updated
    if cached is None:
        return ""
    try:  # a store of an older release has only the registry's name
        said = _parse_registry(cached.data, measured=True).last_updated or ""
    except FormatError:
        return ""
    return said if is_believable(said, _time(cached.fetched_ms)) else ""


def refuse_rollback(
    source: RegistrySource,
    doc: RegistryDoc,
    known: str,
    *,
    mirror: str | None,
    accept: bool,
    note: Callable[[str], None],
) -> None:
    """Refuse an index that is older than the last known one; with `accept`, only from a mirror.

    `mirror` is the source of the index, None for the registry's own address.  Raises: RolledBackError,
    BackendError.
    """
    from yarnstore.backends.urls import shown
    from yarnstore.registry.timestamps import is_older, parse_timestamp

    if parse_timestamp(known) is None:
        return
    said = doc.last_updated or ""
    if mirror is not None:
        if parse_timestamp(said) is None or is_older(said, known):
            raise BackendError(mirror, "has an older index than the cached one")
        return
    if parse_timestamp(said) is None:
        note(f"the index of {source.name} has no last_updated any more; last time it was {known}")
    elif is_older(said, known):
        if not accept:
            raise RolledBackError(shown(source.url, folder=True), source.name, known, said)
        note(f"{source.name}: accepted an older index, from {said} instead of {known}")


def keep_newest(
    layout: StoreLayout, source: RegistrySource, doc: RegistryDoc, *, accept: bool, now_ms: int
) -> None:
    """Record the latest `last_updated`, or with `accept` this one.  Raises: StorageError."""
    from yarnstore.registry.timestamps import is_believable, is_older
    from yarnstore.store.registry_cache import HighWaterMark, changing, write_newest

    if not is_believable(doc.last_updated, _time(now_ms)):
        return
    # Read again under the lock, since another process may have seen a newer index meanwhile.
    with changing(layout, source.name):
        known = known_time(layout, source, None)
        if known != doc.last_updated and (accept or not is_older(doc.last_updated, known)):
            mark = HighWaterMark(url=source.url, last_updated=str(doc.last_updated), seen_ms=now_ms)
            write_newest(layout, source.name, mark)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _parse_registry(data: bytes, *, source: str = "", measured: bool = False) -> RegistryDoc:
    """Parse a registry.

    A cached one, which is compared with its SHA-256, was `measured` when it was downloaded.
    """
    from yarnstore.registry.schema import parse_registry

    return parse_registry(data, source=source, measured=measured)


def _failing(error: BackendError | FormatError) -> str:
    if isinstance(error, RolledBackError):
        return "returned an older index than last time"
    return "does not return a registry index" if isinstance(error, FormatError) else "cannot be reached"


def _told(error: BackendError | FormatError) -> str:
    return f"{error.message}; {error.hint}" if isinstance(error, RolledBackError) else error.message
