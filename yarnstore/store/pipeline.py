"""The only pipeline of the engine: work in threads, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
MapFn = Callable[[T], R]


def ordered_map(function: MapFn[T, R], items: Iterable[T], *, threads: int, window: int) -> Iterator[R]:
    """Apply `function` in threads and yield the results in order, at most `window` ahead.

    While the caller writes or hashes a result, the next items are read, decoded and verified.  A single item
    is processed without a thread.
    """
    rest = iter(items)
    first = list(islice(rest, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="yarnstore")
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
