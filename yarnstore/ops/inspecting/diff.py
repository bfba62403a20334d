"""`diff`: compare two versions, file by file and tensor by tensor.

Owns the result and its sums.  `readers` reads, `pairs` matches files and tensors, `tensors` and
`changed_bytes` count.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from yarnstore.core.manifest import Manifest
from yarnstore.ops.inspecting.changed_bytes import count_changed_file, count_changed_gaps
from yarnstore.ops.inspecting.pairs import FilePair, pair_files, pair_tensors
from yarnstore.ops.inspecting.readers import (
    CachedChunks,
    Content,
    cut_content,
    ensure_stored,
    local_contents,
    parse_place,
    stored_contents,
    version_label,
)
from yarnstore.ops.inspecting.tensors import Status, TensorDiff, TensorWork
from yarnstore.ops.session.session import Session
from yarnstore.progress import Meter
from yarnstore.store.filepath import Path


@dataclass(frozen=True)
class DiffSide:
    """One of the two sides of a comparison: a version or a path."""

    label: str  #: The model and version, or the path.
    model: str | None
    version: str | None
    manifest: str | None
    path: str | None  #: The path, if the side is a path.
    size_bytes: int


@dataclass(frozen=True)
class StatusCounts:
    """The number of files or tensors by status."""

    same: int = 0  #: How many are equal.
    changed: int = 0  #: How many differ.
    added: int = 0  #: How many exist on the new side only.
    removed: int = 0  #: How many exist on the old side only.
    moved: int = 0  #: How many have the same content under another name.

    @classmethod
    def of(cls, statuses: Iterable[Status]) -> StatusCounts:
        """Return the counts of some statuses."""
        counts: dict[str, int] = Counter(statuses)
        return cls(**counts)


@dataclass(frozen=True)
class FileDiff:
    """One file on both sides of a comparison."""

    status: Status  #: `moved`: the same content under another path.
    path: str  #: The path on the new side, or on the old side if it was removed.
    old_path: str | None  #: The path on the old side.
    format: str | None
    size_bytes: int  #: The size on the new side, or on the old side if it was removed, in bytes.
    old_size_bytes: int | None  #: The size on the old side, in bytes.
    tensors: StatusCounts  #: Its tensors by status.
    bytes_changed: int  #: How many bytes differ, `other_bytes_changed` included.
    other_bytes_changed: int  #: How many bytes differ outside of tensors; all, if the format is unknown.


@dataclass(frozen=True)
class DiffTotals:
    """The sums of a comparison; removed files and tensors count in neither `parameters` nor `bytes`."""

    files: StatusCounts  #: The files by status.
    tensors: StatusCounts  #: The tensors by status.
    shifted: int  #: How many equal tensors are at another offset.
    parameters: int  #: The number of parameters on the new side.
    parameters_changed: int  #: How many parameters differ; of a quantised block that differs, all.
    bytes: int  #: The size of the new side, in bytes.
    bytes_changed: int  #: How many bytes differ.


@dataclass(frozen=True)
class DiffResult:
    """The differences between two versions, files or folders."""

    old: DiffSide  #: The old side.
    new: DiffSide  #: The new side.
    files: list[FileDiff]  #: The files in the order of the new side, removed ones last.
    tensors: list[TensorDiff]  #: The tensors in the order of the new side, removed ones last.
    totals: DiffTotals  #: The sums.
    #: How many bytes of both sides were read; the rest was known to be equal from its chunks.
    compared_bytes: int
    seconds: float


def diff(session: Session, old: str, new: str) -> DiffResult:
    """Compare two specs or paths; `new` may be `@VERSION` of the model that `old` names.

    A version that is not stored is fetched.

    Raises: NotFoundError, SpecError, UsageError, IntegrityError, StorageError; as `fetch`.
    """
    started = time.perf_counter()
    first = parse_place(old)
    places = (first, parse_place(new, beside=first))
    with contextlib.ExitStack() as stack:
        manifests: list[Manifest | None] = [None, None]
        if not all(isinstance(place, Path) for place in places):
            stack.enter_context(session.layout.shared())
            store = stack.enter_context(CachedChunks(session.layout))
            manifests = [
                None if isinstance(each, Path) else ensure_stored(session, each, store) for each in places
            ]
        sides: list[tuple[DiffSide, list[Content]]] = []
        for place, manifest in zip(places, manifests, strict=True):
            if manifest is not None:
                sides.append((_version_side(manifest), stored_contents(manifest, store)))
            else:
                sides.append(_open_path(session, Path(str(place))))
        (before, old_files), (after, new_files) = sides
        files = pair_files(old_files, new_files)
        work = TensorWork(pair_tensors(files))
        meter = Meter(session.activity.report, "check", f"{before.label} → {after.label}", work.total_bytes)
        tensors = work.run(meter)
        changes = _diff_files(files, tensors)
    seconds = round(time.perf_counter() - started, 3)
    return DiffResult(
        old=before,
        new=after,
        files=changes,
        tensors=tensors,
        totals=_sum_up(changes, tensors),
        compared_bytes=meter.done,
        seconds=seconds,
    )


def _version_side(manifest: Manifest) -> DiffSide:
    label = version_label(manifest)
    return DiffSide(
        label=label,
        model=manifest.model,
        version=manifest.version,
        manifest=str(manifest.digest),
        path=None,
        size_bytes=manifest.size_bytes,
    )


def _open_path(session: Session, path: Path) -> tuple[DiffSide, list[Content]]:
    files = local_contents(path)
    size = sum(content.size_bytes for content in files)
    meter = Meter(session.activity.report, "read", str(path), size)
    for content in files:
        cut_content(content, meter)
    return DiffSide(
        label=str(path), model=None, version=None, manifest=None, path=str(path), size_bytes=size
    ), files


def _diff_files(pairs: list[FilePair], tensors: list[TensorDiff]) -> list[FileDiff]:
    within: dict[tuple[str, bool], list[TensorDiff]] = defaultdict(list)
    for tensor in tensors:
        within[tensor.file, tensor.status == "removed"].append(tensor)
    changes = []
    for old, new in pairs:
        inside = [] if new is None else within[new.path, False]
        gone = [] if old is None else within[old.path, True]
        changes.append(_diff_file(old, new, [*inside, *gone], single=len(pairs) == 1))
    return changes


def _diff_file(
    old: Content | None, new: Content | None, tensors: list[TensorDiff], *, single: bool
) -> FileDiff:
    content = new or old
    if content is None:
        raise ValueError("a pair has a side")
    other = 0
    status: Status
    if old is None or new is None:
        status = "added" if old is None else "removed"
        changed = content.size_bytes
        other = changed - sum(tensor.size_bytes for tensor in tensors)
    else:
        inside = [tensor for tensor in tensors if tensor.status != "removed"]
        changed = sum(tensor.bytes_changed for tensor in inside)
        if old.sha256 == new.sha256:
            status = "same" if single or old.path == new.path else "moved"
        else:
            status = "changed"
            both = old.layout is not None and new.layout is not None
            other = count_changed_gaps(old, new) if both else count_changed_file(old, new)
            changed = changed + other if both else other
    return FileDiff(
        status=status,
        path=content.path,
        old_path=old.path if old else None,
        format=content.layout.format if content.layout else None,
        size_bytes=content.size_bytes,
        old_size_bytes=old.size_bytes if old else None,
        tensors=StatusCounts.of(tensor.status for tensor in tensors),
        bytes_changed=changed,
        other_bytes_changed=other,
    )


def _sum_up(files: list[FileDiff], tensors: list[TensorDiff]) -> DiffTotals:
    present = [tensor for tensor in tensors if tensor.status != "removed"]
    kept = [file for file in files if file.status != "removed"]
    return DiffTotals(
        files=StatusCounts.of(file.status for file in files),
        tensors=StatusCounts.of(tensor.status for tensor in tensors),
        shifted=sum(tensor.status == "same" and tensor.offset != tensor.old_offset for tensor in tensors),
        parameters=sum(tensor.parameters for tensor in present),
        parameters_changed=sum(tensor.parameters_changed for tensor in present),
        bytes=sum(file.size_bytes for file in kept),
        bytes_changed=sum(file.bytes_changed for file in kept),
    )
