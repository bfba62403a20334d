"""Count what an operation does, for the statistics of the store.

The outermost operation is one row of them, whatever other operations it is made of.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from yarnstore.errors import CancelledError, UsageError, YarnstoreError
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store.statistics import StatisticsRow, add_statistics


class Count(msgspec.Struct):
    """What the operation that runs has done until now; without `counts`, it is one that changed nothing."""

    size_bytes: int = 0
    downloaded_bytes: int = 0
    reused_bytes: int = 0
    counts: bool = True


_CURRENT: ContextVar[Count | None] = ContextVar("_CURRENT", default=None)


@contextmanager
def counted(session: Session, operation: str, model: str = "") -> Iterator[Count]:
    """Count what happens in this context, in this thread, as one operation; part of another, as that one."""
    outer = _CURRENT.get()
    if outer is not None:
        yield outer
        return
    count = Count()
    token = _CURRENT.set(count)
    started = time.perf_counter()
    error = ""
    try:
        yield count
    except UsageError:
        count.counts = False
        raise
    except YarnstoreError as fault:
        error = fault.code
        raise
    except KeyboardInterrupt:
        error = CancelledError.code
        raise
    except BaseException:
        error = "internal"
        raise
    finally:
        _CURRENT.reset(token)
        if count.counts or count.downloaded_bytes:
            row = StatisticsRow(
                at_ms=session.now_ms(),
                operation=operation,
                model=model,
                error=error,
                took_ms=round((time.perf_counter() - started) * 1000),
                size_bytes=count.size_bytes,
                downloaded_bytes=count.downloaded_bytes,
                reused_bytes=count.reused_bytes,
            )
            add_statistics(session.layout, [row])


def current() -> Count:
    """The count of the operation that runs; without one, a count that nobody reads."""
    return _CURRENT.get() or Count()


@contextmanager
def download(meter: Meter) -> Iterator[None]:
    """Count the bytes of a download, also of one that is stopped."""
    before = meter.done
    try:
        yield
    finally:
        current().downloaded_bytes += meter.done - before
