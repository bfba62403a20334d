"""Statistics of operations.

Only the outermost operation is recorded, with the totals of the operations that it runs.
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
    """The totals of the running operation; `counts` is false if it changed nothing."""

    size_bytes: int = 0
    downloaded_bytes: int = 0
    reused_bytes: int = 0
    counts: bool = True


_CURRENT: ContextVar[Count | None] = ContextVar("_CURRENT", default=None)


@contextmanager
def counted(session: Session, operation: str, model: str = "") -> Iterator[Count]:
    """Count this context, in this thread, as one operation, or as part of the operation that is running."""
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
    """Return the totals of the running operation; without one, totals that are discarded."""
    return _CURRENT.get() or Count()


@contextmanager
def download(meter: Meter) -> Iterator[None]:
    """Count the bytes of a download, even if it is stopped."""
    before = meter.done
    try:
        yield
    finally:
        current().downloaded_bytes += meter.done - before
