"""What operations cost and saved: `logs/statistics`, a file of lines that never grows past a bound.

docs/format/statistics.md governs it.  Statistics are worth no error: what cannot be written is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import YarnstoreError
from yarnstore.store import fsio, fsread, growing, lock
from yarnstore.store.layout import StoreLayout

# Beyond this size the rows of a day are made one; a file that is larger than what is read was not ours.
LIMIT_BYTES = MIB // 2
_READ_LIMIT_BYTES = 4 * LIMIT_BYTES
_DAY_MS = 86_400_000


class StatisticsRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation, or several of the same day that are alike; `at_ms` is when the last of them ended."""

    at_ms: int
    operation: str
    model: str = ""
    error: str = ""  # the code of the error; empty where it was done
    count: int = 1
    took_ms: int = 0
    size_bytes: int = 0  # of the versions that were downloaded, as plain files
    downloaded_bytes: int = 0
    reused_bytes: int = 0  # the part of `size_bytes` that was in the store before

    def plus(self, other: StatisticsRow) -> StatisticsRow:
        """Both in one."""
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
    """The rows, the oldest first; a line that cannot be read is left out."""
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
    """Append rows, if a store exists and can be written."""
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    with contextlib.suppress(YarnstoreError):
        if fsread.is_folder(layout.logs) and layout.exists():
            with lock.hold_folder(layout.logs):
                size = growing.append_mark(layout.statistics, lines)
                if size == len(lines):  # a new file: its name is synced, rows are not
                    fsio.sync_dir(layout.logs)
                elif size > LIMIT_BYTES:
                    _compact(layout)


def _compact(layout: StoreLayout) -> None:
    """Replace the file by a smaller one with the same sums."""
    rows = read_statistics(layout)
    data = _encode(merged(rows))
    while len(data) > LIMIT_BYTES // 2 and len(rows) > 1:
        rows = merged(rows)
        older = rows[: len(rows) // 2 + 1]
        # Without their models and days they are few.
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
    """The rows with those made one that differ in time and sums alone, within a day."""
    found: dict[tuple[int, str, str, str], StatisticsRow] = {}
    for row in rows:
        key = (row.at_ms // _DAY_MS, row.operation, row.model, row.error)
        found[key] = found[key].plus(row) if key in found else row
    return sorted(found.values(), key=lambda row: row.at_ms)
