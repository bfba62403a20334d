"""`stats`: bytes saved by deltas and deduplication, use of models, durations and failures of operations."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from yarnstore.ops.session.session import Session
from yarnstore.store.statistics import StatisticsRow, read_statistics
from yarnstore.store.views import last_use


@dataclass(frozen=True)
class OperationStatistics:
    """Statistics of one kind of operation."""

    operation: str  #: `fetch`, `checkout`, `update`, `rollback`, `gc` or `fsck`.
    count: int  #: How many ended, including failed ones.
    failed: int  #: How many of them failed.
    seconds: float  #: The total duration of those that succeeded, in seconds.

    @property
    def mean_seconds(self) -> float:
        """The mean duration of those that succeeded, in seconds; 0 without any."""
        done = self.count - self.failed
        return round(self.seconds / done, 3) if done else 0.0


@dataclass(frozen=True)
class FailureStatistics:
    """How often an operation failed in one way."""

    operation: str  #: The operation.
    error: str  #: The code of the error.
    count: int  #: The number of failures.
    last_ms: int  #: The time of the last one, in milliseconds since 1970.


@dataclass(frozen=True)
class ModelStatistics:
    """The use and the cost of one model."""

    model: str
    uses: int  #: How often `path` printed the path of a version that is stored now.
    last_used_ms: int  #: When it last did, in milliseconds since 1970; 0 if never.
    updates: int  #: How many updates were installed.
    rollbacks: int  #: How often it was rolled back.
    failed: int  #: How many operations on it failed.
    size_bytes: int  #: The size of the versions that were downloaded, as plain files.
    download_bytes: int  #: How many bytes were downloaded for them.


@dataclass(frozen=True)
class Statistics:
    """Statistics of the operations on a store."""

    since_ms: int | None  #: The beginning of the period, in milliseconds since 1970; None for all operations.
    first_ms: int | None  #: When the first operation of the period ended, in milliseconds since 1970.
    size_bytes: int  #: The size of the versions that were downloaded, as plain files.
    download_bytes: int  #: How many bytes were downloaded, including those of failed operations.
    reused_bytes: int  #: How many of `size_bytes` were in the store before.
    operations: list[OperationStatistics]  #: The operations, by name.
    failures: list[FailureStatistics]  #: The failures, the most frequent first.
    models: list[ModelStatistics]  #: The models, by name.

    @property
    def saved_bytes(self) -> int:
        """How many bytes were not downloaded."""
        return max(0, self.size_bytes - self.download_bytes)

    @property
    def dedupe_bytes(self) -> int:
        """The part of `saved_bytes` that was stored already."""
        return min(self.reused_bytes, self.saved_bytes)

    @property
    def delta_bytes(self) -> int:
        """The part of `saved_bytes` that deltas and compression saved."""
        return self.saved_bytes - self.dedupe_bytes


def statistics(session: Session, since_ms: int | None = None) -> Statistics:
    """Return the statistics of the operations since a time.  A damaged file is not an error."""
    rows = [row for row in read_statistics(session.layout) if since_ms is None or row.at_ms >= since_ms]
    return Statistics(
        since_ms=since_ms,
        first_ms=min((row.at_ms for row in rows), default=None),
        size_bytes=sum(row.size_bytes for row in rows),
        download_bytes=sum(row.downloaded_bytes for row in rows),
        reused_bytes=sum(row.reused_bytes for row in rows),
        operations=_operations(rows),
        failures=_failures(rows),
        models=_models(session, rows),
    )


def _operations(rows: list[StatisticsRow]) -> list[OperationStatistics]:
    found = defaultdict(list)
    for row in rows:
        found[row.operation].append(row)
    return [
        OperationStatistics(
            operation,
            count=sum(row.count for row in those),
            failed=sum(row.count for row in those if row.error),
            seconds=sum(row.took_ms for row in those if not row.error) / 1000,
        )
        for operation, those in sorted(found.items())
    ]


def _failures(rows: list[StatisticsRow]) -> list[FailureStatistics]:
    found: dict[tuple[str, str], StatisticsRow] = {}
    for row in rows:
        if row.error:
            key = (row.operation, row.error)
            found[key] = found[key].plus(row) if key in found else row
    ordered = sorted(found.items(), key=lambda item: (-item[1].count, item[0]))
    return [FailureStatistics(*key, count=row.count, last_ms=row.at_ms) for key, row in ordered]


def _models(session: Session, rows: list[StatisticsRow]) -> list[ModelStatistics]:
    found = defaultdict(list)
    for row in rows:
        if row.model:
            found[row.model].append(row)
    uses: dict[str, tuple[int, int]] = {}
    for name in session.refs.versions():
        digest = session.refs.version(name)
        count, last_s = last_use(session.layout, digest) if digest is not None else (0, 0.0)
        before, last_ms = uses.get(name.model, (0, 0))
        uses[name.model] = (before + count, max(last_ms, int(last_s * 1000) if count else 0))
    return [
        ModelStatistics(
            model=model,
            uses=uses.get(model, (0, 0))[0],
            last_used_ms=uses.get(model, (0, 0))[1],
            updates=_done(found[model], "update"),
            rollbacks=_done(found[model], "rollback"),
            failed=sum(row.count for row in found[model] if row.error),
            size_bytes=sum(row.size_bytes for row in found[model]),
            download_bytes=sum(row.downloaded_bytes for row in found[model]),
        )
        for model in sorted({*found, *uses})
    ]


def _done(rows: list[StatisticsRow], operation: str) -> int:
    return sum(row.count for row in rows if row.operation == operation and not row.error)
