"""The queue of downloads, in order; kept on disk.

docs/format/store.md governs `queue.json`.  Each change is made under the lock of `queue.lock`, completely or
not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, IncompatibleError, NotFoundError
from yarnstore.store import fsio, fsread, lock
from yarnstore.store.layout import StoreLayout

T = TypeVar("T")

QUEUE_FILE = "queue.json"
_FORMAT = 1


class QueueItem(msgspec.Struct, frozen=True):
    """A spec to fetch, from `registry` if it is not empty.

    `added_ms` is in milliseconds since 1970; `error` is the reason of the last failure, `tries` their number.
    """

    spec: str
    added_ms: int
    registry: str = ""
    tries: int = 0
    error: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """The key that distinguishes items."""
        return self.spec, self.registry


class _Queue(msgspec.Struct, frozen=True):
    items: list[QueueItem]
    format: int = _FORMAT


def read_queue(layout: StoreLayout) -> list[QueueItem]:
    """Return the queued items in order.  Raises: FormatError, IncompatibleError."""
    try:
        data = fsread.read_bytes(layout.root / QUEUE_FILE, MIB)
        found = msgspec.json.decode(data, type=_Queue)
    except NotFoundError:
        return []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        hint = f"correct or delete {layout.root / QUEUE_FILE}"
        raise FormatError(QUEUE_FILE, f"cannot be read: {error}", hint=hint) from None
    if found.format > _FORMAT:
        raise IncompatibleError(
            f"{QUEUE_FILE} has format {found.format}; this release reads {_FORMAT}",
            hint="update yarnstore to read it",
        )
    return found.items


def change_queue(layout: StoreLayout, change: Callable[[list[QueueItem]], tuple[list[QueueItem], T]]) -> T:
    """Replace the queue by the first result of `change`, under its lock; return the second one.

    Raises: LockTimeoutError, FormatError, StorageError.
    """
    layout.ensure()
    with lock.acquire(
        layout.root / "queue.lock", exclusive=True, timeout_s=layout.lock_timeout_s, on_wait=layout.on_wait
    ):
        before = read_queue(layout)
        after, said = change(list(before))
        if after != before:
            data = msgspec.json.format(msgspec.json.encode(_Queue(after)), indent=2) + b"\n"
            fsio.write_atomic(layout.root / QUEUE_FILE, data, tmp_dir=layout.tmp)
        return said


@contextlib.contextmanager
def running(layout: StoreLayout) -> Iterator[None]:
    """Hold the lock for running the queue.  Raises: LockTimeoutError, naming the process that runs it."""
    layout.ensure()
    with lock.acquire(
        layout.root / "queue.run.lock",
        exclusive=True,
        timeout_s=layout.lock_timeout_s,
        on_wait=layout.on_wait,
    ):
        yield
