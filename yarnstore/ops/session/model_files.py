"""Registries with one file per model: only the files of requested models are downloaded.

docs/registry.md governs it.  The file of each model is requested once in a session, with the ETag of its
cached copy; other modules get models from `KnownRegistries.entry`, split or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from yarnstore.backends.urls import shown
from yarnstore.core.limits import REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import model_dirname
from yarnstore.errors import (
    BackendError,
    FormatError,
    InvalidNameError,
    MissingKeyError,
    OfflineError,
    StorageError,
)
from yarnstore.progress import format_span
from yarnstore.store.layout import StoreLayout
from yarnstore.store.registry_cache import (
    CachedModel,
    read_cached_model,
    remove_cached_model,
    write_cached_model,
)

if TYPE_CHECKING:
    from yarnstore.backends import Backend
    from yarnstore.registry.entries import ModelEntry

# A cached index older than this is used with a note about its age.
_DAY_MS = 86_400_000


def model_key(model: str) -> str:
    """Return the key of a model's own file in a registry."""
    return f"models/{model_dirname(model)}.json"


class ModelFiles(msgspec.Struct):
    """The models of one split registry, in one session."""

    name: str
    url: str
    layout: StoreLayout
    note: Callable[[str], None]
    now_ms: Callable[[], int]
    # Set if the registry did not answer and the cached entry is used.
    unreachable: bool = False
    _entries: dict[str, ModelEntry | None] = msgspec.field(default_factory=dict)
    _asked: set[str] = msgspec.field(default_factory=set)
    _lock: threading.Lock = msgspec.field(default_factory=threading.Lock)
    _locks: dict[str, threading.RLock] = msgspec.field(default_factory=dict)

    def entry(self, backend: Backend, model: str, *, fresh: bool) -> ModelEntry | None:
        """Return the entry of a model: with `fresh` from the registry, else from the cache.

        None if the registry has no such model.

        Raises: BackendError if it cannot be reached and nothing is cached; FormatError.
        """
        with self._knowing(model):
            if model in self._asked:
                return self._entries[model]
            if not fresh and (found := self.cached(model)) is not None:
                return found
            cached = read_cached_model(self.layout, self.name, self.url, model)
            self._entries[model] = self._ask(backend, model, cached)
            self._asked.add(model)
            return self._entries[model]

    def _knowing(self, model: str) -> threading.RLock:
        """Lock the entry of one model; other models are not blocked."""
        with self._lock:
            return self._locks.setdefault(model, threading.RLock())

    def cached(self, model: str) -> ModelEntry | None:
        """Return the last known entry of a model, if any.  Raises: FormatError."""
        with self._knowing(model):
            if model not in self._entries:
                cached = read_cached_model(self.layout, self.name, self.url, model)
                if cached is not None:
                    self._entries[model] = _parse_model(cached.data, model=model, source=shown(self.url))
                    self._note_age(model, cached)
            return self._entries.get(model)

    def _ask(self, backend: Backend, model: str, cached: CachedModel | None) -> ModelEntry | None:
        try:
            answer = backend.get(
                model_key(model),
                limit_bytes=REGISTRY_MODEL_LIMIT_BYTES,
                etag=cached.etag if cached else "",
            )
        except (MissingKeyError, InvalidNameError):
            self._keep(model, None)
            return None
        except BackendError as error:
            if cached is None:
                raise
            if not isinstance(error, OfflineError):
                self.note(f"{self.name} cannot be reached; using the cached copy ({error.message})")
            self._note_age(model, cached)
            self.unreachable = True
            return _parse_model(cached.data, model=model, source=shown(self.url))
        if answer is None and cached is None:
            raise BackendError(shown(self.url), "answered 'not modified' to an unconditional request")
        data = answer.data if answer is not None else cached.data if cached else b""
        entry = _parse_model(data, model=model, source=backend.url)
        etag = answer.etag if answer is not None else cached.etag if cached else ""
        # An unchanged answer is recorded only twice a day, since each record needs a sync.
        if (
            cached is None
            or (cached.data, cached.etag) != (data, etag)
            or self._age_ms(cached) > _DAY_MS // 2
        ):
            self._keep(model, CachedModel(data, etag, self.now_ms()))
        return entry

    def _age_ms(self, cached: CachedModel) -> int:
        return self.now_ms() - cached.fetched_ms

    def _note_age(self, model: str, cached: CachedModel) -> None:
        if cached.fetched_ms and self._age_ms(cached) > _DAY_MS:
            age = format_span(self._age_ms(cached) / 1000)
            self.note(f"{self.name}: using a cached copy of {model} from {age} ago")

    def _keep(self, model: str, answer: CachedModel | None) -> None:
        try:
            if answer is None:
                remove_cached_model(self.layout, self.name, model)
            else:
                self.layout.ensure()
                write_cached_model(self.layout, self.name, self.url, model, answer)
        except (StorageError, FormatError) as error:
            self.note(f"the index of {self.name} could not be cached: {error.message}")


def _parse_model(data: bytes, *, model: str, source: str) -> ModelEntry:
    from yarnstore.registry.schema import parse_model

    return parse_model(data, model=model, source=source)
