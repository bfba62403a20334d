"""The newest state that was ever seen of each registry: what an older answer is told by.

docs/format/store.md governs `registries/<name>/newest.json`.  It is a file of its own, so that a cached
answer that is lost or damaged does not take it along.
"""

from __future__ import annotations

from yarnstore.store.layout import StoreLayout
from yarnstore.store.records import CheckedRecord, read_sealed, write_sealed

NEWEST_FILE = "newest.json"
_REFRESH = "`ystore registry refresh` creates it again"


class HighWaterMark(CheckedRecord, frozen=True):
    """The latest `last_updated` of the registry at `url`; `seen_ms` is in milliseconds since 1970."""

    url: str
    last_updated: str
    seen_ms: int


def read_newest(layout: StoreLayout, name: str) -> HighWaterMark | None:
    """None where nothing is known.  Raises: FormatError where the record is damaged."""
    what = f"registries/{name}/{NEWEST_FILE}"
    return read_sealed(layout.registry(name) / NEWEST_FILE, HighWaterMark, what, _REFRESH)


def write_newest(layout: StoreLayout, name: str, newest: HighWaterMark) -> None:
    """Keep what is the newest now.  Raises: StorageError."""
    write_sealed(layout.registry(name) / NEWEST_FILE, newest, tmp_dir=layout.tmp)
