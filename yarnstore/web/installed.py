"""The installed models, cached between requests: a dashboard requests them often, and they rarely change.

Each request compares the times of the files that they are made from, two for each model, and reads only the
models whose files changed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from yarnstore import Store
from yarnstore.core.digest import Sha256
from yarnstore.core.jsonable import jsonable
from yarnstore.core.names import model_dirname
from yarnstore.results import InstalledModel
from yarnstore.settings import config_path, managed_path
from yarnstore.store.filepath import Path

# Two changes within this time may have the same time stamp.
_RACY_NS = 50_000_000

Mark: TypeAlias = tuple[int, int, int]  # when it was changed, its size, its inode


class _Row(msgspec.Struct, frozen=True):
    found: InstalledModel
    data: bytes
    ref: Mark
    used: Mark | None
    uses: str  # the file that counts its uses


class InstalledModels:
    """The result of `Store.list_installed_models`.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._around: list[Mark | None] = []
        self._rows: dict[str, _Row] = {}

    def rows(self, store: Store) -> list[InstalledModel]:
        """The installed models.  Raises: as `Store.list_installed_models`."""
        return [row.found for row in self._find(store)]

    def data(self, store: Store) -> bytes:
        """The installed models as JSON.  Raises: as `Store.list_installed_models`."""
        return b"[" + b",".join(row.data for row in self._find(store)) + b"]"

    def _find(self, store: Store) -> list[_Row]:
        with self._lock:
            now_ns = time.time_ns()
            around = list(_around(store.settings.home))
            refs = _marks_in(store.settings.home / "refs" / "installed")
            if around != self._around or any(_is_racy(mark, now_ns) for mark in around):
                self._rows = {}
            self._around = around
            kept = {
                name: row
                for name, row in self._rows.items()
                if refs.get(name) == row.ref and _mark(row.uses) == row.used
            }
            if len(kept) < len(refs):
                # Single models if few changed; for all, the store reads each folder once.
                few = len(refs) - len(kept) <= len(refs) // 4
                missing = [name.replace("~", "/") for name in refs if name not in kept] if few else []
                uses = store.settings.home / "logs" / "used"
                marks = _marks_in(uses)  # before they are read
                for found in store.list_installed_models(*missing):
                    name, digest = model_dirname(found.model), Sha256.parse(found.manifest).hex
                    kept[name] = _Row(
                        found,
                        msgspec.json.encode(jsonable(found)),
                        ref=refs.get(name, (0, 0, 0)),
                        used=marks.get(digest),
                        uses=str(uses / digest),
                    )
            # Models that changed just now are read again for the next request.
            self._rows = {
                name: row
                for name, row in kept.items()
                if not (_is_racy(row.ref, now_ns) or _is_racy(row.used, now_ns))
            }
            return sorted(kept.values(), key=lambda row: row.found.model)


def _is_racy(mark: Mark | None, now_ns: int) -> bool:
    return mark is not None and now_ns - mark[0] < _RACY_NS


def _around(home: Path) -> Iterator[Mark | None]:
    """Return marks of what all models depend on: settings, pins, and cached registries."""
    for path in (config_path(home), managed_path(home), home / "refs" / "holds"):
        yield _mark(path)
    yield from _below(home / "refs" / "pins", depth=2)
    yield from _below(home / "registries", depth=2)


def _below(folder: Path, depth: int) -> Iterator[Mark | None]:
    yield _mark(folder)
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if depth and entry.is_dir(follow_symlinks=False):
            yield from _below(Path(entry.path), depth - 1)
        else:
            yield _mark(entry.path)


def _marks_in(folder: Path) -> dict[str, Mark]:
    """Return the marks of the files in a folder, by name."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: mark for entry in entries if (mark := _mark(entry.path))}
    except OSError:
        return {}


def _mark(path: str | os.PathLike[str]) -> Mark | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
