"""`gc`: delete data that no installed, pinned or recent version needs.

Always kept are the installed version, the target of a rollback, the version that was installed last, pinned
versions, versions that a live process has open, and recent partial downloads; then the newest versions of
each model.  Views whose path was printed are kept longer than their versions (`gc_views`).

Two short steps run under the exclusive lock: mark, and delete completely unused data; then, after packs with
too much garbage were rewritten concurrently with readers (`repack`), mark again and delete those packs.  If a
root cannot be read, nothing is deleted (git t5312, ollama#13885).
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field, replace
from functools import partial

from yarnstore.errors import ConflictError, DiskFullError, LockTimeoutError
from yarnstore.ops.copies.proof import forget_damaged, forget_rotten_doubles
from yarnstore.ops.copies.slim import Backing, lack_copies, verify_files, write_copies
from yarnstore.ops.querying.keeping import GcPolicy
from yarnstore.ops.session.mark import current_roots, remembering
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc_plan import GcPlan, alone, plan_gc
from yarnstore.ops.upkeep.gc_views import KeptView, hold_copies
from yarnstore.ops.upkeep.repack import encode_anew, repack, rewrite_packs
from yarnstore.ops.upkeep.thinning import forecast_need, thin_out
from yarnstore.progress import format_size, plural
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore, recover_chunks
from yarnstore.store.disk import content_bytes, disk_bytes
from yarnstore.store.drafts import incomplete_bytes, remove_incomplete
from yarnstore.store.refs import VersionName

# How many versions are named before they are deleted.
_MANY = 20


@dataclass(frozen=True)
class GcResult:
    """The result of deleting unneeded data, or the forecast of `--dry-run`."""

    dry_run: bool  #: Whether nothing was deleted.
    freed_bytes: int  #: How many bytes were freed, or would be.
    versions: list[str]  #: The versions that were deleted, as specs.
    packs_removed: int  #: How many packs were deleted.
    packs_rewritten: int  #: How many packs were replaced by smaller ones.
    chunks_removed: int  #: How many chunks were deleted.
    kept: dict[str, int]  #: How many versions were kept, by the first reason for keeping them.
    #: Views that stay although their versions were deleted.
    kept_views: list[KeptView] = field(default_factory=list)
    grace_bytes: int = 0  #: How many more bytes `gc --grace 0` would free.
    low_on_space: bool = False  #: Whether the disk has less free space than the reserve.
    removed: dict[str, str] = field(default_factory=dict)  #: Why each version was deleted, by spec.
    stays: dict[str, str] = field(default_factory=dict)  #: Why each version was kept, by spec.
    #: With a limit for the size: the disk space of the store afterwards in bytes, as `du -s` counts it.
    disk_bytes: int | None = None
    #: The disk space of incomplete downloads that stay, in bytes.
    incomplete_bytes: int = 0


def gc(
    session: Session,
    policy: GcPolicy,
    *,
    dry_run: bool = False,
    repack_too: bool = False,
    slim_too: bool = True,
    expected: str | None = None,
) -> GcResult:
    """Delete data that no kept version needs; with `repack_too`, store older versions as deltas against the
    newest.  Without `slim_too`, second copies are left to the next run.

    With `expected`, the fingerprint of a plan, exactly the data of that plan is deleted.

    Raises: ConflictError if the plan has changed; FormatError, IntegrityError naming the root or
    the pack that cannot be read, with nothing deleted; LockTimeoutError, StorageError.
    """
    if expected is None and not session.layout.root.exists():  # a missing store is not created
        return GcResult(
            dry_run=dry_run,
            freed_bytes=0,
            versions=[],
            packs_removed=0,
            packs_rewritten=0,
            chunks_removed=0,
            kept={},
        )
    session = remembering(session)
    if not dry_run:
        expected = _copy_first(session, policy, expected)
    before = _stored_bytes(session)
    with alone(session):
        # Without disk space to recover packs of killed processes, these are deleted too.
        with contextlib.suppress(DiskFullError), ChunkStore(session.layout) as chunks:
            recover_chunks(chunks)
        plan = plan_gc(session, policy)
        if expected is not None and plan.fingerprint != expected:
            raise ConflictError(
                "the store changed since this plan was made; nothing was deleted", hint="make a new plan"
            )
        removed, stays = _by_spec(plan.removed), _by_spec(plan.stays)
        _announce(session, removed, stays, dry_run=dry_run)
        if not dry_run:
            plan.apply()
    views = plan.views.describe(plan.needed_files)
    if dry_run:
        with session.layout.shared():
            freed = plan.forecast_freed_bytes(repack=repack_too)
            if slim_too:
                forecast_need(session, policy)
            if _is_short(session, policy, freed):
                incomplete = incomplete_bytes(session.layout, without=plan.leftovers)
                _announce_incomplete(session, incomplete, dry_run=True)
                freed += incomplete
    else:
        backing = _leave_one_copy(session, policy, plan) if slim_too else Backing()
        if repack_too:
            repack(session, partial(backing.redundant, session))
        freed = max(0, before - _stored_bytes(session))
        if expected is None:
            freed += _make_space(session, policy)
    disk = None
    if policy.max_size_bytes is not None:
        disk = disk_bytes(session.layout.root) - (freed if dry_run else 0)
    free, reserve = fsread.free_bytes(session.layout.root, session.layout.reserve)
    return GcResult(
        dry_run=dry_run,
        freed_bytes=freed,
        versions=[f"{name.model}@{name.version}" for name in plan.versions],
        packs_removed=len(plan.dead_packs),
        packs_rewritten=len(plan.rewrite_packs),
        chunks_removed=plan.chunks_removed,
        kept=plan.kept,
        kept_views=views,
        grace_bytes=sum(view.size_bytes for view in views if view.until_ms is not None),
        low_on_space=free < reserve,
        removed=removed,
        stays=stays,
        disk_bytes=disk,
        incomplete_bytes=incomplete_bytes(session.layout),
    )


def _make_space(session: Session, policy: GcPolicy) -> int:
    """Delete incomplete downloads if the disk is still too full; return how many bytes were freed."""
    layout = session.layout
    if not _is_short(session, policy) or not (incomplete_bytes(layout) or session.refs.partials()):
        return 0
    before = disk_bytes(layout.root)
    with alone(session):
        _announce_incomplete(session, incomplete_bytes(layout), dry_run=False)
        remove_incomplete(layout)
        for name in session.refs.partials():  # the plan then deletes what they brought into packs
            session.refs.remove_partial(name)
        plan_gc(session, replace(policy, max_size_bytes=None)).apply()
    return max(0, before - disk_bytes(layout.root))


def _announce_incomplete(session: Session, size_bytes: int, *, dry_run: bool) -> None:
    """Report which incomplete downloads are deleted, and why, before they are."""
    begun = session.refs.partials()
    if not size_bytes and not begun:
        return
    names = ", ".join(name.spec for name in begun[:_MANY]) + (" …" if len(begun) > _MANY else "")
    session.note(
        f"{'would delete' if dry_run else 'deleting'} {format_size(size_bytes)} of incomplete downloads"
        f"{f' ({names})' if names else ''}: the disk has less free space than its reserve"
    )


def _is_short(session: Session, policy: GcPolicy, freed_bytes: int = 0) -> bool:
    """Whether incomplete downloads are deleted: the disk has no more free space than its reserve, also once
    `freed_bytes` are freed.
    """
    if policy.keep_incomplete:
        return False
    free, reserve = fsread.free_bytes(session.layout.root, session.layout.reserve)
    return free + freed_bytes <= reserve


def _copy_first(session: Session, policy: GcPolicy, expected: str | None) -> str | None:
    """Find damaged entries of chunks that other packs, or files that are deleted, have too, and write second
    copies of kept versions that no registry offers any more, before anything is deleted.

    Returns the fingerprint of the same plan after that; `expected` if nothing changed.
    """
    with session.layout.shared():
        plan = plan_gc(session, policy)
        if expected not in (None, plan.fingerprint):
            return expected  # which is refused
        forgot = forget_rotten_doubles(session)
        forgot |= forget_damaged(session, plan.roots, plan.needed_files | plan.views.files)
        if not forgot and not lack_copies(session, policy.keep_copy, plan.roots):
            return expected
        try:
            write_copies(session, policy.keep_copy, list(plan.live.values()))
        except DiskFullError as error:
            session.note(f"second copies are written after other data is deleted: {error.message}")
        return expected and plan_gc(session, policy).fingerprint


def slim(session: Session, policy: GcPolicy) -> int:
    """Leave one copy of each chunk of the models that a policy covers, like `gc`; delete no version.

    Returns how many bytes were freed.  Raises: as `gc`.
    """
    session = remembering(session)
    policy = replace(policy, keep=sys.maxsize, max_size_bytes=None, unused_s=None)
    before = _stored_bytes(session)
    with session.layout.shared():
        forget_rotten_doubles(session)
        plan = plan_gc(session, policy)
    _leave_one_copy(session, policy, plan)
    return max(0, before - _stored_bytes(session))


def _by_spec(reasons: dict[VersionName, str]) -> dict[str, str]:
    return {name.spec: why for name, why in reasons.items()}


def _announce(session: Session, removed: dict[str, str], stays: dict[str, str], *, dry_run: bool) -> None:
    """Report which versions are deleted and kept, with reasons, before anything is deleted."""
    if not removed:
        return
    verbs = ("would delete", "would keep") if dry_run else ("deleting", "keeping")
    for verb, versions in zip(verbs, (removed, stays), strict=True):
        for name, why in list(versions.items())[:_MANY]:
            session.note(f"{verb} {name}: {why}")
        if len(versions) > _MANY:
            session.note(f"{verb} {plural(len(versions) - _MANY, 'more version')}")


def _leave_one_copy(session: Session, policy: GcPolicy, plan: GcPlan) -> Backing:
    """Leave one copy of each chunk; return the chunks that packs need not have, since files have them."""
    policy = replace(policy, max_size_bytes=None)  # the plan did that, and announced it
    backing, after = _slim(session, policy, plan)
    if after.reencode:
        encode_anew(session, after.reencode)
        with alone(session):
            after = plan_gc(session, policy, backing, thin=True)
            after.apply()
    rewrite_packs(session, after.rewrite_packs, partial(backing.redundant, session))
    try:
        hold_copies(session, filter(policy.covers, [*after.with_files, *after.views.manifests]))
    except DiskFullError as error:
        session.note(f"second copies of files are kept: {error.message}")
    return backing


def _slim(session: Session, policy: GcPolicy, plan: GcPlan) -> tuple[Backing, GcPlan]:
    """Leave one copy of each chunk.

    Returns the chunks that files have as well, and the plan that was applied last.

    First, chunks of versions that keep their files are removed from packs; then those of the other versions
    are encoded against these, and their files are deleted.  Second copies that do not fit are written last.
    """
    backing = Backing()
    try:
        lacks_copies = _write_copies(session, policy) is not None
        backing, plan = _drop_doubles(session, policy, plan)
        backing, plan = thin_out(session, policy, backing, plan)
        if lacks_copies and (full := _write_copies(session, policy)) is not None:
            session.note(f"second copies are missing: {full.message}")
    except LockTimeoutError as error:
        session.note(f"some files and packs are kept: {error.message}")
    except DiskFullError as error:
        session.note(f"some files and packs are kept: {error.message}")
        with contextlib.suppress(DiskFullError, LockTimeoutError):  # what was written for files that stay
            backing, plan = _drop_doubles(session, policy, plan)
    return backing, plan


def _write_copies(session: Session, policy: GcPolicy) -> DiskFullError | None:
    """Write the second copies that are missing; return the error if they do not fit on the disk."""
    with session.layout.shared():
        try:
            write_copies(session, policy.keep_copy, list(filter(policy.covers, current_roots(session))))
        except DiskFullError as error:
            return error
    return None


def _drop_doubles(session: Session, policy: GcPolicy, plan: GcPlan) -> tuple[Backing, GcPlan]:
    """Remove from packs what files of a plan's versions have; return as `_slim`."""
    with session.layout.shared():
        backing = verify_files(session, policy.keep_copy, current_roots(session), plan.covered_files)
    if len(backing.ids):
        with alone(session):
            plan = plan_gc(session, policy, backing)
            plan.apply()
        rewrite_packs(session, plan.rewrite_packs, partial(backing.redundant, session))
    return backing, plan


def _stored_bytes(session: Session) -> int:
    layout = session.layout
    folders = (layout.pack_folder.packs, layout.manifests)
    files = sum(fsread.sum_sizes([folder / name for name in fsread.list_names(folder)]) for folder in folders)
    files += content_bytes(layout.files, layout.views)
    return files + fsread.tree_bytes(layout.tmp) + fsread.tree_bytes(layout.trash)
