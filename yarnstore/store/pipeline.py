"""The only pipeline of the engine: work in threads, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from yarnstore import machine

T = TypeVar("T")
R = TypeVar("R")
MapFn = Callable[[T], R]


def ordered_map(
    function: MapFn[T, R], items: Iterable[T], *, window: int, threads: int | None = None
) -> Iterator[R]:
    """Apply `function` in threads and yield the results in order, at most `window` ahead.

    While the caller writes or hashes a result, the next items are read, decoded and verified.  A single item
    is processed without a thread.

    Without `threads`, there are as many as `machine` counts, and never more than `window`.  The window limits
    the memory, whatever the number of threads: choose it by the bytes of an item.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(min(threads or machine.count_threads(), window), thread_name_prefix="yarnstore")
    try:
        for item in chain(first, rest):
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
        pool.shutdown(wait=True, cancel_futures=True)
