"""The statistics of operations in `logs/statistics`, a file of lines with a limited size.

docs/format/statistics.md governs it.  If statistics cannot be written, that is not an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import YarnstoreError
from yarnstore.store import fsio, fsread, growing, lock
from yarnstore.store.layout import StoreLayout

# In a larger file the rows of a day are merged; a file that exceeds the limit of reading is not valid.
LIMIT_BYTES = MIB // 2
_READ_LIMIT_BYTES = 4 * LIMIT_BYTES
_DAY_MS = 86_400_000


class StatisticsRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation, or several similar ones of the same day; `at_ms` is when the last of them ended."""

    at_ms: int
    operation: str
    model: str = ""
    error: str = ""  # the code of the error; empty after success
    count: int = 1
    took_ms: int = 0
    size_bytes: int = 0  # the size of the downloaded versions as plain files
    downloaded_bytes: int = 0
    reused_bytes: int = 0  # how many of `size_bytes` were in the store before

    def plus(self, other: StatisticsRow) -> StatisticsRow:
        """Return the sum of two rows."""
        return msgspec.structs.replace(
            self,
            at_ms=max(self.at_ms, other.at_ms),
            count=self.count + other.count,
            took_ms=self.took_ms + other.took_ms,
            size_bytes=self.size_bytes + other.size_bytes,
            downloaded_bytes=self.downloaded_bytes + other.downloaded_bytes,
            reused_bytes=self.reused_bytes + other.reused_bytes,
        )


_DECODER = msgspec.json.Decoder(StatisticsRow)


def read_statistics(layout: StoreLayout) -> list[StatisticsRow]:
    """Return the rows, the oldest first; unreadable lines are omitted."""
    try:
        data = fsread.read_bytes(layout.statistics, _READ_LIMIT_BYTES)
    except YarnstoreError:
        return []
    rows = []
    for line in data.splitlines():
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            rows.append(_DECODER.decode(line))
    return rows


def add_statistics(layout: StoreLayout, rows: Iterable[StatisticsRow]) -> None:
    """Append rows, if the store exists and can be written."""
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    with contextlib.suppress(YarnstoreError):
        if fsread.is_folder(layout.logs) and layout.exists():
            with lock.hold_folder(layout.logs):
                size = growing.append_mark(layout.statistics, lines)
                if size == len(lines):  # a new file: only its name is synced
                    fsio.sync_dir(layout.logs)
                elif size > LIMIT_BYTES:
                    _compact(layout)


def _compact(layout: StoreLayout) -> None:
    """Replace the file by a smaller one with equal sums."""
    rows = read_statistics(layout)
    data = _encode(merged(rows))
    while len(data) > LIMIT_BYTES // 2 and len(rows) > 1:
        rows = merged(rows)
        older = rows[: len(rows) // 2 + 1]
        # Rows without models and days are few.
        whole = [msgspec.structs.replace(row, model="", at_ms=older[-1].at_ms) for row in older]
        fewer = [*merged(whole), *rows[len(older) :]]
        if len(fewer) >= len(rows):
            fewer = fewer[1:]
        rows = fewer
        data = _encode(rows)
    fsio.write_atomic(layout.statistics, data, tmp_dir=layout.tmp)


def _encode(rows: Iterable[StatisticsRow]) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def merged(rows: Iterable[StatisticsRow]) -> list[StatisticsRow]:
    """Merge the rows of a day that differ only in time and sums."""
    found: dict[tuple[int, str, str, str], StatisticsRow] = {}
    for row in rows:
        key = (row.at_ms // _DAY_MS, row.operation, row.model, row.error)
        found[key] = found[key].plus(row) if key in found else row
    return sorted(found.values(), key=lambda row: row.at_ms)
