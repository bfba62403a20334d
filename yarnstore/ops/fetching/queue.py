"""`fetch --queue`, `queue list`, `queue run`, `queue remove`: downloads for later.

An item leaves the queue only when its version is in the store: if a run is killed, the next one continues its
download, chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from yarnstore.errors import CancelledError, NotFoundError, YarnstoreError
from yarnstore.ops.fetching.fetch import FetchResult, fetch
from yarnstore.ops.session.lookup import require_published
from yarnstore.ops.session.session import Session
from yarnstore.registry.spec import Spec
from yarnstore.store.queue import QueueItem, change_queue, read_queue, running


@dataclass(frozen=True)
class QueuedFetch:
    """One queued download."""

    spec: str  #: The spec that was queued.
    registry: str | None  #: The registry to download from, if one was named.
    status: Literal["waiting", "failed"]  #: `failed` if the last try failed; it stays queued.
    added_ms: int  #: When it was queued.
    tries: int  #: How often it was tried.
    error: str | None  #: Why the last try failed.
    new: bool = False  #: Whether this call added it.


@dataclass(frozen=True)
class QueueRun:
    """The result of one queued download."""

    spec: str  #: The spec that was queued.
    status: Literal["fetched", "failed"]  #: `failed` downloads stay queued.
    result: FetchResult | None  #: The result of the download.
    error: str | None  #: Why it failed.
    code: str | None = None  #: The code of the error.


def _told(item: QueueItem, *, new: bool = False) -> QueuedFetch:
    status: Literal["waiting", "failed"] = "failed" if item.error else "waiting"
    return QueuedFetch(
        spec=item.spec,
        registry=item.registry or None,
        status=status,
        added_ms=item.added_ms,
        tries=item.tries,
        error=item.error or None,
        new=new,
    )


def enqueue(session: Session, specs: Sequence[Spec]) -> list[QueuedFetch]:
    """Append specs to the queue; a spec that is queued already keeps its place.

    If the cached registries do not have what a spec names, the registries are queried; one that cannot be
    reached refuses nothing.

    Raises: NotFoundError for a registry that is not configured, and for a version, range or variant that a
    registry does not have although it has the model; LockTimeoutError, StorageError.
    """
    for spec in specs:
        try:
            require_published(session, spec)
        except NotFoundError as error:
            if error.fields["what"] != "model":  # it may be published before the queue runs
                raise
    only = session.registries.only
    registry = session.registries.source(only).name if only is not None else ""
    wanted = [QueueItem(str(spec), session.now_ms(), registry) for spec in specs]

    def change(items: list[QueueItem]) -> tuple[list[QueueItem], list[QueuedFetch]]:
        said = []
        for item in wanted:
            known = next((other for other in items if other.key == item.key), None)
            if known is None:
                items.append(item)
            said.append(_told(known or item, new=known is None))
        return items, said

    return change_queue(session.layout, change)


def list_queue(session: Session) -> list[QueuedFetch]:
    """Return the queue, in order.  Raises: FormatError."""
    return [_told(item) for item in read_queue(session.layout)]


def dequeue(session: Session, specs: Sequence[Spec]) -> list[QueuedFetch]:
    """Remove specs from the queue.  Raises: NotFoundError if one is not queued; nothing is changed then."""
    texts = [str(spec) for spec in specs]
    if not session.layout.exists():
        raise _not_queued(texts[0])

    def change(items: list[QueueItem]) -> tuple[list[QueueItem], list[QueuedFetch]]:
        for text in texts:
            if all(item.spec != text for item in items):
                raise _not_queued(text)
        gone = [item for item in items if item.spec in texts]
        return [item for item in items if item.spec not in texts], [_told(item) for item in gone]

    return change_queue(session.layout, change)


def _not_queued(spec: str) -> NotFoundError:
    return NotFoundError("queued download", spec, hint="`ystore queue` lists the queued downloads")


def run_queue(session: Session, on_result: Callable[[QueueRun], None] | None = None) -> list[QueueRun]:
    """Fetch the queued versions in order; one that fails stays in the queue and does not stop the others.

    Items that are added during the run are fetched too.  `on_result` is called with each result.

    Raises: LockTimeoutError if another process runs the queue; FormatError, StorageError of the queue.
    """
    if not session.layout.exists():
        return []
    done: list[QueueRun] = []
    tried: set[tuple[str, str]] = set()
    with running(session.layout):
        while (item := _next(session, tried)) is not None:
            tried.add(item.key)
            run = _run_one(session, item)
            done.append(run)
            if on_result is not None:
                on_result(run)
    return done


def _next(session: Session, tried: set[tuple[str, str]]) -> QueueItem | None:
    return next((item for item in read_queue(session.layout) if item.key not in tried), None)


def _run_one(session: Session, item: QueueItem) -> QueueRun:
    # A session of its own, since its registry and what it learned must not affect the others.
    own = session.again(only=item.registry or session.registries.only)
    try:
        result = fetch(own, Spec.parse_stored(item.spec))
    except CancelledError:
        raise
    except YarnstoreError as error:
        message = error.message
        failed = msgspec.structs.replace(item, tries=item.tries + 1, error=message[:1000])
        _settle(session, item, failed)
        return QueueRun(item.spec, "failed", None, message, error.code)
    finally:
        own.close()
    _settle(session, item, None)
    return QueueRun(item.spec, "fetched", result, None)


def _settle(session: Session, item: QueueItem, after: QueueItem | None) -> None:
    """Replace the item by `after`, or remove it if None, unless it was removed meanwhile."""

    def change(items: list[QueueItem]) -> tuple[list[QueueItem], None]:
        swapped = [after if other.key == item.key else other for other in items]
        return [other for other in swapped if other is not None], None

    change_queue(session.layout, change)
