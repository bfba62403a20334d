"""Server-sent events: each listener gets the newest state of each job, and changes of the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import msgspec

from yarnstore.core.jsonable import jsonable
from yarnstore.web.records import Job

# Proxies close connections that say nothing for a minute.
_KEEP_ALIVE_S = 25.0
_LOOK_S = 2.0
# A download has hundreds of progress events a second; a few are enough.
_DELIVER_S = 0.1
# Well below the number of connections, so that requests are answered beside any number of streams.
STREAMS = 128


class Listener:
    """One open stream.  Pending states are kept once per job."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.store_changed = False
        self.closed = False
        self.wake = asyncio.Event()


class Events:
    """The open streams.  `publish` may be called from any thread, everything else in the event loop."""

    def __init__(self, fingerprint: Callable[[], str]) -> None:
        self._fingerprint = fingerprint
        self._listeners: set[Listener] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._news: dict[str, Job] = {}
        self._delivered_s = 0.0
        self._closed = False

    def attach(self) -> None:
        """Use the running event loop."""
        self._loop = asyncio.get_running_loop()

    def publish(self, job: Job) -> None:
        """Send a job's new state to all listeners, soon; of several states the last."""
        with self._lock:
            expected = bool(self._news)
            self._news[job.id] = job
        if not expected and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver_in_time, self._loop)

    def _deliver_in_time(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_at(self._delivered_s + _DELIVER_S, self._deliver, loop)

    def _deliver(self, loop: asyncio.AbstractEventLoop) -> None:
        self._delivered_s = loop.time()
        with self._lock:
            news, self._news = self._news, {}
        for listener in self._listeners:
            listener.jobs.update(news)
            listener.wake.set()

    @property
    def are_many(self) -> bool:
        """Whether no more streams may be opened."""
        return len(self._listeners) >= STREAMS

    def close(self) -> None:
        """End all streams."""
        self._closed = True
        for listener in self._listeners:
            listener.closed = True
            listener.wake.set()
        if self._watching is not None:
            self._watching.cancel()

    async def stream(self, jobs: Callable[[], list[Job]], *, only: str | None = None) -> AsyncIterator[bytes]:
        """Yield all jobs, then each change; only those of the job `only`, if given."""
        listener = Listener()
        self._listeners.add(listener)
        try:
            if self._watching is None or self._watching.done():
                before = await asyncio.to_thread(self._fingerprint)  # no later change is missed
                if self._watching is None or self._watching.done():
                    self._watching = asyncio.create_task(self._watch(before))
            yield b"retry: 1000\n\n"
            for job in jobs():
                yield _event("job", job)
            while not (listener.closed or self._closed):
                try:
                    await asyncio.wait_for(listener.wake.wait(), _KEEP_ALIVE_S)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                listener.wake.clear()
                waiting, listener.jobs = listener.jobs, {}
                for job in waiting.values():
                    if only in (None, job.id):
                        yield _event("job", job)
                changed, listener.store_changed = listener.store_changed, False
                if changed and only is None:
                    yield _event("store", {"changed": True})
        finally:
            self._listeners.discard(listener)

    async def _watch(self, before: str) -> None:
        """Check whether the store changed, while there are listeners."""
        while self._listeners:
            await asyncio.sleep(_LOOK_S)
            now = await asyncio.to_thread(self._fingerprint)
            if now != before:
                before = now
                for listener in self._listeners:
                    listener.store_changed = True
                    listener.wake.set()


def _event(name: str, value: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(jsonable(value)))
