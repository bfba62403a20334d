"""The part of `Store` that says how registries are reached, and that keeps the queue of downloads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import msgspec

from yarnstore.ops.session.session import Session
from yarnstore.progress import OnProgress
from yarnstore.registry.spec import Spec
from yarnstore.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from yarnstore.ops.fetching.queue import QueuedFetch, QueueRun


class Downloads(ABC):
    """What a `Store` does about downloads; `Store` has what this works with."""

    settings: Settings

    @abstractmethod
    def _session(self, progress: OnProgress | None = None) -> AbstractContextManager[Session]:
        """One use of the store."""

    def set_network(
        self,
        *,
        offline: bool | None = None,
        limit_rate: float | None = None,
        connections: int | None = None,
        registry: str | None = None,
    ) -> None:
        """Reach registries in another way from here on; what is None stays.

        `offline` does without the network; `limit_rate` is in bytes per second over everything that
        this process downloads, 0 for no limit; `registry` is the one to look in, and no other.
        """
        network = self.settings.network
        if offline is not None:
            network = msgspec.structs.replace(network, offline=offline)
        if limit_rate is not None:
            network = msgspec.structs.replace(network, limit_rate=limit_rate)
        self.settings = msgspec.structs.replace(
            self.settings,
            network=network,
            connections=connections or self.settings.connections,
            registry=registry or self.settings.registry,
        )

    # --- the queue -----------------------------------------------------------------------------

    def enqueue(self, *specs: str) -> list[QueuedFetch]:
        """Put versions into the queue, to be fetched by `run_queue`.  Raises: SpecError, NotFoundError."""
        from yarnstore.ops.fetching.queue import enqueue

        with self._session() as session:
            return enqueue(session, [Spec.parse(spec) for spec in specs])

    def list_queue(self) -> list[QueuedFetch]:
        """What is queued, in order.  Raises: FormatError."""
        from yarnstore.ops.fetching.queue import list_queue

        with self._session() as session:
            return list_queue(session)

    def dequeue(self, *specs: str) -> list[QueuedFetch]:
        """Take versions out of the queue.  Raises: SpecError, NotFoundError."""
        from yarnstore.ops.fetching.queue import dequeue

        with self._session() as session:
            return dequeue(session, [Spec.parse_stored(spec) for spec in specs])

    def run_queue(
        self, *, on_result: Callable[[QueueRun], None] | None = None, progress: OnProgress | None = None
    ) -> list[QueueRun]:
        """Fetch what is queued, in order; what fails stays in the queue and is in the result.

        Raises: LockTimeoutError where another process is at it.
        """
        from yarnstore.ops.fetching.queue import run_queue

        with self._session(progress) as session:
            return run_queue(session, on_result)
