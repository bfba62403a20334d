"""`AsyncStore`: the same API for asyncio, each call in a thread of its own.

The engine works in threads, where hashing, decoding and file I/O release the GIL; this class keeps the event
loop free meanwhile.  The methods are made from those of `Store`; `aio.pyi` beside this file has their types,
and is written by `make docs`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

from yarnstore.api import AnyPath, Store
from yarnstore.errors import CancelledError, UsageError
from yarnstore.progress import CANCEL, Cancel, OnProgress, ignore

T = TypeVar("T")


class AsyncStore:
    """A `Store` whose methods are awaited; see there for what each does and raises.

    `progress` and `on_result` are called in the worker's thread, never in the event loop's: use
    `loop.call_soon_threadsafe` there.  Cancelling a task stops its call at the next progress event or, while
    it waits for a server, within about a second; a call that does neither runs to its end.  The task is
    cancelled once the thread has closed the store's files.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._closed = False

    @classmethod
    def open(
        cls, path: AnyPath | None = None, *, app_version: str | None = None, progress: OnProgress = ignore
    ) -> Self:
        """As `Store.open`; does not block for long."""
        return cls(Store.open(path, app_version=app_version, progress=progress))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """As `Store.close`; every call after it raises a UsageError, but for `close` itself."""
        self._closed = True
        await self._run(self.store.close)

    async def _run(self, function: Callable[..., T], /, *args: Any, **values: Any) -> T:  # noqa: ANN401
        """Call a method in a thread; if the task is cancelled, stop the call and wait for its end."""
        if self._closed and function != self.store.close:
            raise UsageError("this AsyncStore is closed", hint="open another one: AsyncStore.open()")
        cancel = Cancel(lambda: CancelledError("the task was cancelled"))

        def call() -> T:
            CANCEL.set(cancel)  # in a copy of the task's context
            return function(*args, **values)

        work = asyncio.ensure_future(asyncio.to_thread(call))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.stop()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # nothing else retrieves it
            raise


def _awaited(name: str, method: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """Return an async method with the signature and docstring of the one of `Store`."""

    @functools.wraps(method)
    async def call(self: AsyncStore, *args: Any, **values: Any) -> T:  # noqa: ANN401
        return await self._run(getattr(self.store, name), *args, **values)

    call.__qualname__ = f"AsyncStore.{name}"
    call.__module__ = __name__
    return call


def _store_methods() -> dict[str, Callable[..., Any]]:
    """Return the instance methods of `Store` by name, in the order of its parts."""
    found: dict[str, Callable[..., Any]] = {}
    for part in Store.__mro__:
        for name, item in vars(part).items():
            if inspect.isfunction(item) and not name.startswith("_"):
                found.setdefault(name, item)
    return found


for _name, _method in _store_methods().items():
    if _name not in vars(AsyncStore):
        setattr(AsyncStore, _name, _awaited(_name, _method))
