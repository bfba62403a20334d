"""The installed models, kept between requests: a dashboard asks for them often, and they change rarely.

What they are made of is looked at each time: one `stat` for each model and a few folders.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from yarnstore import Store
from yarnstore.core.jsonable import jsonable
from yarnstore.results import InstalledModel
from yarnstore.settings import config_path, managed_path

# Two changes so close together may leave one time stamp.
_RACY_NS = 50_000_000


class _Kept(msgspec.Struct, frozen=True):
    marks: tuple[int, ...]
    rows: list[InstalledModel]
    data: bytes


class InstalledModels:
    """What `Store.list_installed_models` returns.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: _Kept | None = None

    def rows(self, store: Store) -> list[InstalledModel]:
        """The installed models.  Raises: as `Store.list_installed_models`."""
        return self._find(store).rows

    def data(self, store: Store) -> bytes:
        """The installed models as JSON.  Raises: as `Store.list_installed_models`."""
        return self._find(store).data

    def _find(self, store: Store) -> _Kept:
        with self._lock:
            now_ns = time.time_ns()
            marks = tuple(_marks(store.home))
            if self._kept is not None and self._kept.marks == marks:
                return self._kept
            rows = store.list_installed_models()
            found = _Kept(marks, rows, msgspec.json.encode(jsonable(rows)))
            times = [mark for mark in marks if mark > 10**18]
            self._kept = found if now_ns - max(times, default=0) > _RACY_NS else None
            return found


def _marks(home: Path) -> Iterator[int]:
    """Numbers that change when what is installed, pinned, used, configured or cached of a registry does."""
    for path in (config_path(home), managed_path(home), home / "refs" / "installed", home / "refs" / "holds"):
        yield from _mark(path)
    yield from _below(home / "refs" / "pins", depth=2)
    yield from _below(home / "registries", depth=2)
    yield from _below(home / "logs" / "used", depth=0)


def _mark(path: str | os.PathLike[str]) -> Iterator[int]:
    try:
        found = os.lstat(path)
    except OSError:
        yield 0
    else:
        yield found.st_mtime_ns
        yield found.st_size
        yield found.st_ino


def _below(folder: Path, depth: int) -> Iterator[int]:
    yield from _mark(folder)
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if depth and entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), depth - 1)
        else:
            yield from _mark(entry.path)
