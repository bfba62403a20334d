"""`gc`: free what nothing keeps.

Kept always: what is installed, what a rollback leads to, what was installed last, what is pinned,
what a live process has open, and young partial downloads.  Then the newest of each model.

Two steps under the exclusive lock, both short: mark and delete what is dead whole; and, after the
packs with too much garbage were rewritten beside running readers, mark again and delete those.
A root that cannot be read stops it with nothing deleted (git t5312, ollama#13885).
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from yarnstore.core.codec import decode_entry
from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import Ids, id_bytes
from yarnstore.core.limits import MIB
from yarnstore.core.manifest import Manifest
from yarnstore.core.pack import Entry, parse_entry
from yarnstore.errors import DiskFullError, IntegrityError, NotFoundError
from yarnstore.ops.session import Session
from yarnstore.registry.versions import precedence
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import ChunkTable, load_indexes, manifest_chunks, read_entry_bytes
from yarnstore.store.packs import PackWriter, recover_packs
from yarnstore.store.refs import VersionName
from yarnstore.store.views import last_use, view_in_use

DEFAULT_KEEP = 3
# A partial download younger than this is somebody's; resuming is worth more than its space.
PARTIAL_DAYS = 7
_QUARANTINE_S = 24 * 3600
# A pack is rewritten when this share of it is garbage: below, the copying costs more than it frees.
_GARBAGE_SHARE = 0.25
# Packs smaller than this are put together when there are several: many updates make many.
_SMALL_PACK_BYTES = 8 * MIB
_SMALL_PACKS = 4
# Live bytes copied before the old packs go: what gc needs free for a while.
_REWRITE_BATCH_BYTES = 512 * MIB


@dataclass(frozen=True)
class GcPolicy:
    """What to keep beside what is always kept: the `keep` newest versions of each model, and what
    came or was used within `keep_within_s` seconds."""

    keep: int = DEFAULT_KEEP
    keep_within_s: float = 0.0


@dataclass(frozen=True)
class GcResult:
    """What was freed, or would be.  `kept` counts versions by the first reason to keep them."""

    dry_run: bool
    freed_bytes: int
    versions: list[str]
    packs_removed: int
    packs_rewritten: int
    chunks_removed: int
    kept: dict[str, int]


@dataclass
class GcPlan:
    """What is dead.  Made under the exclusive lock; `apply` acts within the same hold."""

    session: Session
    live: dict[Sha256, Manifest]
    versions: list[VersionName] = field(default_factory=list)
    stale_partials: list[VersionName] = field(default_factory=list)
    views: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    manifests: list[Path] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    dead_packs: list[PackId] = field(default_factory=list)
    rewrite_packs: list[PackId] = field(default_factory=list)
    chunks_removed: int = 0
    freed_bytes: int = 0
    kept: dict[str, int] = field(default_factory=dict)

    def apply(self) -> None:
        """Delete what is dead whole: refs first, packs last."""
        refs, layout = self.session.refs, self.session.layout
        for name in self.versions:
            refs.remove_version(name)
        for name in self.stale_partials:
            refs.remove_partial(name)
        for path in [*self.views, *self.files, *self.manifests]:
            fsio.to_trash(path, layout.trash)
        for pack in self.dead_packs:
            _drop_pack(self.session, pack)
        for path in self.leftovers:
            fsio.remove_tree(path)
        _empty_trash(self.session)


def gc(session: Session, policy: GcPolicy, *, dry_run: bool = False) -> GcResult:
    """Free what nothing keeps.

    Raises: FormatError, IntegrityError naming the root that cannot be read, with nothing deleted;
    LockTimeoutError.
    """
    with session.layout.exclusive():
        with contextlib.suppress(DiskFullError):
            # Where there is no room to take up what killed processes left, it is freed with the rest.
            recover_packs(session.layout.pack_folder)
        plan = plan_gc(session, policy)
        if not dry_run:
            plan.apply()
    if not dry_run:
        _rewrite(session, plan)
    return GcResult(
        dry_run,
        plan.freed_bytes,
        [f"{name.model}@{name.version}" for name in plan.versions],
        len(plan.dead_packs),
        len(plan.rewrite_packs),
        plan.chunks_removed,
        plan.kept,
    )


def plan_gc(session: Session, policy: GcPolicy) -> GcPlan:
    """Mark from the roots and list what nothing reaches.  Needs the exclusive lock."""
    refs, layout = session.refs, session.layout
    reasons = _keep_reasons(session, policy)
    plan = GcPlan(session, {})
    kept = [name for name in refs.versions() if reasons.get(_required(refs.version(name), name))]
    plan.versions = [name for name in refs.versions() if name not in kept]
    for digest, why in reasons.items():
        plan.live[digest] = _live_manifest(session, digest, why)
        plan.kept[why] = plan.kept.get(why, 0) + 1
    partial = _partial_manifests(session, plan)
    _plan_files(session, plan, partial)
    ids, _ = manifest_chunks([*plan.live.values(), *partial])
    _plan_packs(session, plan, ids)
    trash = [layout.trash / name for name in fsread.list_names(layout.trash)]
    plan.freed_bytes += sum(fsread.tree_bytes(path) for path in [*plan.leftovers, *trash])
    return plan


def _required(digest: Sha256 | None, name: VersionName) -> Sha256:
    if digest is None:
        raise IntegrityError(f"ref of {name}", why="vanished", hint="try again")
    return digest


def _keep_reasons(session: Session, policy: GcPolicy) -> dict[Sha256, str]:
    """The manifests to keep, each with the first reason."""
    refs, layout = session.refs, session.layout
    reasons: dict[Sha256, str] = {}
    by_model: dict[str, list[tuple[VersionName, Sha256]]] = defaultdict(list)
    for name in refs.versions():
        by_model[name.model].append((name, _required(refs.version(name), name)))
    for model in refs.installed_models():
        current = refs.installed(model)
        if current is not None:
            reasons.setdefault(current, "installed")
    for model in sorted({*refs.logged_models(), *refs.installed_models()}):
        fault = refs.log_fault(model)
        if fault:
            raise IntegrityError(
                f"the log of {model}",
                why=f"cannot be gone by: it {fault}",
                hint="nothing was deleted; `ystore fsck --repair` mends it",
            )
        here = {digest for _, digest in by_model[model]}
        stack, moves = refs.stack(model), refs.moves(model)
        behind = [stack[-2]] if len(stack) > 1 else []
        behind += [moves[-1].old] if moves and moves[-1].old and moves[-1].new else []
        for installed in behind:
            if installed.manifest in here:
                reasons.setdefault(installed.manifest, "rollback")
    for name in refs.pins():
        reasons.setdefault(_required(refs.pin(name), name), "pinned")
    now = session.clock()
    for names in by_model.values():
        for name, digest in names:
            if view_in_use(layout, digest):
                reasons.setdefault(digest, "in use")
            came = max(refs.version_time_s(name), last_use(layout, digest)[1])
            if policy.keep_within_s and now - came <= policy.keep_within_s:
                reasons.setdefault(digest, "recent")
        newest = sorted({name.version for name, _ in names}, key=precedence, reverse=True)[: policy.keep]
        for name, digest in names:
            if name.version in newest:
                reasons.setdefault(digest, "newest")
    return reasons


def _live_manifest(session: Session, digest: Sha256, why: str) -> Manifest:
    try:
        return session.layout.read_manifest(digest)
    except (NotFoundError, IntegrityError) as error:
        raise IntegrityError(
            f"manifest {digest.hex[:12]}…, kept as {why},",
            why=f"cannot be read: {error.message}",
            hint="nothing was deleted; `ystore fsck --repair` mends it",
        ) from None


def _partial_manifests(session: Session, plan: GcPlan) -> list[Manifest]:
    """The manifests of versions that are being fetched, or were a few days ago."""
    refs = session.refs
    found = []
    for name in refs.partials():
        digest, since = refs.partial(name)
        if digest is None or session.clock() - since > PARTIAL_DAYS * 86400:
            plan.stale_partials.append(name)
            continue
        with contextlib.suppress(NotFoundError, IntegrityError):
            found.append(session.layout.read_manifest(digest))
    return found


def _plan_files(session: Session, plan: GcPlan, partial: list[Manifest]) -> None:
    layout = session.layout
    keep = {manifest.digest.hex for manifest in [*plan.live.values(), *partial]}
    files = {file.sha256.hex for manifest in plan.live.values() for file in manifest.files}
    plan.views = [layout.views / name for name in fsread.list_names(layout.views) if name not in keep]
    plan.files = [layout.files / name for name in fsread.list_names(layout.files) if name not in files]
    plan.manifests = [
        layout.manifests / name
        for name in fsread.list_names(layout.manifests)
        if name.removesuffix(".json") not in keep
    ]
    plan.freed_bytes += fsread.sum_sizes([*plan.files, *plan.manifests])
    now = session.clock()
    for name in fsread.list_names(layout.tmp):
        found = fsread.stat_or_none(layout.tmp / name)
        young = found is not None and now - found.st_mtime < PARTIAL_DAYS * 86400
        if not (name.endswith(".download") and young):
            plan.leftovers.append(layout.tmp / name)
    plan.leftovers += [layout.uses / name for name in fsread.list_names(layout.uses) if name not in keep]


def _plan_packs(session: Session, plan: GcPlan, live: Ids) -> None:
    """Which packs are dead, and which hold too much that is.  A chunk lives in the first pack alone."""
    folder = session.layout.pack_folder
    table = ChunkTable(load_indexes(folder, rebuild=True).indexes)
    rows = table.find(live)
    rows = rows[rows >= 0]
    live_bytes = np.bincount(table.pack[rows], table.stored[rows], len(table.packs)).astype(np.int64)
    sizes = [fsread.sum_sizes([folder.pack(pack), folder.index(pack)]) for pack in table.packs]
    small = [n for n, size in enumerate(sizes) if live_bytes[n] and size < _SMALL_PACK_BYTES]
    for n, pack in enumerate(table.packs):
        garbage = sizes[n] - int(live_bytes[n])
        if not live_bytes[n]:
            plan.dead_packs.append(pack)
            plan.freed_bytes += sizes[n]
        elif _is_wasteful(garbage, sizes[n], len(table)):
            plan.rewrite_packs.append(pack)
            plan.freed_bytes += garbage
        elif n in small and len(small) >= _SMALL_PACKS:
            plan.rewrite_packs.append(pack)
    going = {*plan.dead_packs, *plan.rewrite_packs}
    gone = np.array([pack in going for pack in table.packs], bool)
    dead = np.ones(len(table), bool)
    dead[rows] = False
    plan.chunks_removed = int((dead & gone[table.pack]).sum()) if len(table) else 0
    indexed = {pack.hex for pack in table.packs}
    plan.leftovers += [
        folder.packs / name
        for name in fsread.list_names(folder.packs)
        if name.partition(".")[0] not in indexed
    ]


def _is_wasteful(garbage: int, size: int, chunks: int) -> bool:
    overhead = 80 * chunks  # an index's share of a pack is no garbage
    return garbage - min(overhead, size // 10) > _GARBAGE_SHARE * size


def _rewrite(session: Session, plan: GcPlan) -> None:
    """Copy what lives in wasteful packs to new ones, batch by batch, and drop the old."""
    layout = session.layout
    folder = layout.pack_folder
    for batch in _batches(session, plan.rewrite_packs):
        with layout.shared():
            ids, _ = manifest_chunks(_current_roots(session))
            table = ChunkTable(load_indexes(folder, rebuild=False).indexes)
            try:
                fsread.require_space(layout.root, sum(folder.pack(pack).stat().st_size for pack in batch))
                with PackWriter(folder) as writer:
                    for entry in _live_entries(session, table, ids, set(batch)):
                        writer.add(entry)
            except DiskFullError as error:
                session.note(f"some packs were left as they are: {error.message}")
                return
        with layout.exclusive():
            # Whoever fetched meanwhile may count on a chunk that was dead before: mark again.
            ids, _ = manifest_chunks(_current_roots(session))
            indexes = load_indexes(folder, rebuild=False).indexes
            here = ChunkTable([index for index in indexes if index.pack not in batch])
            there = ChunkTable([index for index in indexes if index.pack in batch])
            needed = ids[(here.find(ids) < 0) & (there.find(ids) >= 0)]
            rows = there.find(needed)
            keep = {there.packs[n] for n in set(there.pack[rows].tolist())}
            for pack in batch:
                if pack not in keep:
                    _drop_pack(session, pack)
            _empty_trash(session)


def _batches(session: Session, packs: list[PackId]) -> Iterator[list[PackId]]:
    batch: list[PackId] = []
    size = 0
    for pack in packs:
        found = fsread.stat_or_none(session.layout.pack_folder.pack(pack))
        size += found.st_size if found else 0
        batch.append(pack)
        if size >= _REWRITE_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _current_roots(session: Session) -> list[Manifest]:
    """Every manifest that a ref names now."""
    refs = session.refs
    digests = {_required(refs.version(name), name) for name in refs.versions()}
    digests |= {digest for model in refs.installed_models() if (digest := refs.installed(model))}
    digests |= {_required(refs.pin(name), name) for name in refs.pins()}
    manifests = [_live_manifest(session, digest, "named by a ref") for digest in digests]
    return manifests + _partial_manifests(session, GcPlan(session, {}))


def _live_entries(session: Session, table: ChunkTable, live: Ids, packs: set[PackId]) -> Iterator[Entry]:
    """The verified entries of live chunks whose place is in one of `packs`; a damaged one is left
    where it is, for `fsck` to mend."""
    rows = table.find(live)
    for n in range(len(live)):
        row = int(rows[n])
        if row < 0 or table.packs[int(table.pack[row])] not in packs:
            continue
        with contextlib.suppress(IntegrityError):
            entry = parse_entry(read_entry_bytes(session.layout.pack_folder, table, row))
            if entry.chunk_id == id_bytes(live, n):
                decode_entry(entry)
                yield entry


def _drop_pack(session: Session, pack: PackId) -> None:
    """The index first: a pack without one is not there."""
    layout = session.layout
    fsio.to_trash(layout.pack_folder.index(pack), layout.trash)
    fsio.to_trash(layout.pack_folder.pack(pack), layout.trash)


def _empty_trash(session: Session) -> None:
    trash = session.layout.trash
    for name in fsread.list_names(trash):
        found = fsread.stat_or_none(trash / name)
        # A rename sets ctime: what fsck moved aside can be looked at for a day.
        young = found is not None and session.clock() - found.st_ctime < _QUARANTINE_S
        if not (name.startswith(fsio.QUARANTINE) and young):
            fsio.remove_tree(trash / name)
