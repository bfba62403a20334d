"""Replace the files of older versions by deltas against the installed one, for `gc`.

The deltas are written under the shared lock, and the files deleted under the exclusive lock, by a plan that
is made again.  If the disk has too little free space for all chunks, this goes on in steps, the smallest
files first: the files of a step are deleted before the next one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from yarnstore.core.index import NO_IDS, Ids, find_ids
from yarnstore.errors import DiskFullError
from yarnstore.ops.copies.proof import forget_damaged
from yarnstore.ops.copies.slim import Backing, as_deltas, verify_claims
from yarnstore.ops.querying.keeping import GcPolicy
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc_plan import GcPlan, alone, plan_gc
from yarnstore.progress import Meter, format_sizes
from yarnstore.store import fsread
from yarnstore.store.chunks import ChunkStore
from yarnstore.store.layout import file_name
from yarnstore.store.packs import PackWriter
from yarnstore.store.places import manifest_chunks


def thin_out(session: Session, policy: GcPolicy, backing: Backing, plan: GcPlan) -> tuple[Backing, GcPlan]:
    """Encode the chunks that only files have which the policy does not keep, and delete these files.

    Returns `backing` with what was hashed now, and the plan that was applied last.

    Raises: DiskFullError if the disk has too little space for a file's chunks; LockTimeoutError.
    """
    layout = session.layout
    tried = failed = NO_IDS
    meter: Meter | None = None
    full: DiskFullError | None = None
    while True:
        error = None
        with layout.shared():
            backing, thin = _plan_thin(session, policy, backing)
            left = np.setdiff1d(thin.lacking.to_encode, tried)
            step = _fitting(session, thin, left)
            if len(step):
                if meter is None:
                    _say_need(session, thin, left, dry_run=False)
                    plain_bytes = thin.lacking.bytes_of(thin.roots)
                    meter = Meter(session.activity.report, "write", "older versions", plain_bytes)
                error = _write(session, thin, step, meter)
        if thin.frees_files or len(backing.ids):
            with alone(session):
                plan = plan_gc(session, policy, backing, thin=True)
                plan.apply()
        tried = np.union1d(tried, step)
        if error is not None:
            failed, full = np.union1d(failed, step), error
        elif len(step) and full is not None:  # with what this step has freed they may fit
            tried, failed, full = np.setdiff1d(tried, failed), NO_IDS, None
            continue
        if len(step) == len(left):
            if full is not None:
                raise full
            return backing, plan


def _write(session: Session, thin: GcPlan, ids: Ids, meter: Meter) -> DiskFullError | None:
    """Encode chunks into packs; return the error if the disk has too little free space for them."""
    layout = session.layout
    with ChunkStore(layout) as chunks, PackWriter(layout.pack_folder) as writer:
        try:
            for entry in as_deltas(session, chunks, ids, thin.roots):
                fsread.require_space(layout.root, entry.stored_bytes, layout.reserve)
                writer.add(entry)
                meter.add(entry.plain_bytes)
        except DiskFullError as error:
            writer.discard()  # other files may need the space
            return error
    return None


def forecast_need(session: Session, policy: GcPolicy) -> None:
    """Report what `thin_out` would.  Needs the shared lock."""
    thin = plan_gc(session, policy, thin=True)
    _say_need(session, thin, np.setdiff1d(thin.lacking.to_encode, thin.lacking.claimed), dry_run=True)


def _plan_thin(session: Session, policy: GcPolicy, backing: Backing) -> tuple[Backing, GcPlan]:
    thin = plan_gc(session, policy, backing, thin=True)
    if thin.frees_files and forget_damaged(session, thin.roots, thin.own_files):
        thin = plan_gc(session, policy, backing, thin=True)
    if len(thin.lacking.claimed):
        kept = [*thin.roots, *thin.views.manifests]
        proof = verify_claims(session, kept, thin.own_files, thin.lacking.claimed)
        backing = replace(backing, only_copies=replace(proof, only_copies=backing.only_copies))
        thin = plan_gc(session, policy, backing, thin=True)
    return backing, thin


def _steps(thin: GcPlan, ids: Ids) -> list[tuple[int, Ids]]:
    """Divide chunks (ascending) by the files that they let go, the smallest first, with their sizes in bytes
    before encoding.  Chunks that several files have are in the step of each.
    """
    listed, lengths = manifest_chunks(thin.roots)
    sizes = np.zeros(len(ids), np.int64)
    rows = find_ids(ids, listed)
    sizes[rows[rows >= 0]] = lengths[rows >= 0]
    parts: dict[str, Ids] = {}
    rest = np.ones(len(ids), bool)
    for manifest in thin.roots:
        for file in manifest.files:
            name = file_name(file)
            if name in thin.lacking.names and name not in parts:
                rows = find_ids(ids, file.chunk_list()[0])
                parts[name] = np.unique(rows[rows >= 0])
                rest[parts[name]] = False
    # Chunks of packs that are encoded again, and of files that only versions without a ref have.
    groups = [np.flatnonzero(rest), *parts.values()]
    steps = [(int(sizes[rows].sum()), ids[rows]) for rows in groups if len(rows)]
    return sorted(steps, key=lambda step: step[0])


def _fitting(session: Session, thin: GcPlan, ids: Ids) -> Ids:
    """Return the chunks of the next step: those of as many files as fit on the disk before encoding, of one
    at least.
    """
    space = _space_bytes(session)
    if thin.lacking.bytes_of(thin.roots) <= space:
        return ids
    chosen, total = [NO_IDS], 0
    for size, part in _steps(thin, ids):
        total += size
        if total > space and len(chosen) > 1:
            break
        chosen.append(part)
    return np.unique(np.concatenate(chosen))


def _space_bytes(session: Session) -> int:
    free, reserve = fsread.free_bytes(session.layout.root, session.layout.reserve)
    return max(0, free - reserve)


def _say_need(session: Session, thin: GcPlan, ids: Ids, *, dry_run: bool) -> None:
    """Report if the disk may have too little free space for the deltas that take the place of a file."""
    space = _space_bytes(session)
    if thin.lacking.bytes_of(thin.roots) <= space:
        return
    largest = max((size for size, _ in _steps(thin, ids)), default=0)
    if largest > space:
        needed, there = format_sizes(largest, space)
        session.note(
            f"encoding older versions {'would need' if dry_run else 'needs'} up to {needed} of free disk "
            f"space, and {there} are free besides the reserve: files for which that is too little are kept"
        )
