"""The plan of `gc`: the data to keep, to delete, and to delete once its chunks are elsewhere.

It is made under a lock and applied under the exclusive lock; after each step of `gc` that writes packs, it is
made again (docs/design.md, one copy).  `ops/querying/keeping` chooses the versions to keep, `waste` the packs
to delete, and `gc_views` the views to keep.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import NO_IDS, Ids
from yarnstore.core.manifest import Manifest
from yarnstore.errors import IntegrityError
from yarnstore.ops.copies.slim import Backing, Lacking, find_lacking
from yarnstore.ops.querying.keeping import REASONS, UNNEEDED, Choice, GcPolicy, choose
from yarnstore.ops.session.mark import PARTIAL_DAYS, live_manifest, partial_manifests, stored_versions
from yarnstore.ops.session.session import Session
from yarnstore.ops.upkeep.gc_views import ViewPlan, copied_bytes, plan_views
from yarnstore.ops.upkeep.repack import drop_pack, empty_trash
from yarnstore.ops.upkeep.waste import Files, find_waste, forecast_freed_bytes
from yarnstore.store import fsio, fsread, held, lock, trash
from yarnstore.store.chunks import load_indexes
from yarnstore.store.drafts import DRAFT, INCOMPLETE
from yarnstore.store.filepath import Path
from yarnstore.store.hashed import changing
from yarnstore.store.layout import EXECUTABLE, file_name
from yarnstore.store.places import beside_packs, manifest_chunks
from yarnstore.store.refs import VersionName


@dataclass
class GcPlan:
    """The data to delete.  Made under the exclusive lock; `apply` must be called before it is released."""

    session: Session
    policy: GcPolicy
    live: dict[Sha256, Manifest]
    views: ViewPlan
    choice: Choice
    # The versions whose files are kept: all kept versions, or fewer if the others are in packs.
    with_files: list[Manifest] = field(default_factory=list)
    backed: Ids = field(default_factory=lambda: NO_IDS)  # chunks that packs need not keep
    lacking: Lacking = field(default_factory=Lacking)
    versions: list[VersionName] = field(default_factory=list)
    stale_partials: list[VersionName] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    dead_packs: list[PackId] = field(default_factory=list)
    rewrite_packs: list[PackId] = field(default_factory=list)
    reencode: list[bytes] = field(default_factory=list)
    chunks_removed: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    partial: list[Manifest] = field(default_factory=list)

    @property
    def roots(self) -> list[Manifest]:
        """All manifests that are kept, including versions that are being fetched."""
        return [*self.live.values(), *self.partial]

    @property
    def removed(self) -> dict[VersionName, str]:
        """Why each version is deleted."""
        gone, going = self.choice.gone, set(self.versions)
        stored = stored_versions(self.session.refs)
        return {name: gone.get(digest, UNNEEDED) for name, digest in stored if name in going}

    @property
    def stays(self) -> dict[VersionName, str]:
        """Why each version is kept."""
        kept, going = self.choice.kept, set(self.versions)
        stored = stored_versions(self.session.refs)
        reasons = {name: kept.get(digest, "") for name, digest in stored if name not in going}
        return {name: REASONS.get(why, "it was stored in the meantime") for name, why in reasons.items()}

    @property
    def needed_files(self) -> set[str]:
        """The names in `files/` that kept versions need, also for chunks that are nowhere else."""
        return self._version_files | self.lacking.names

    @property
    def covered_files(self) -> set[str]:
        """Those of `needed_files` that belong to models which the policy covers."""
        covered = filter(self.policy.covers, (*self.roots, *self.views.manifests))
        return self.needed_files & {file_name(file) for manifest in covered for file in manifest.files}

    @property
    def own_files(self) -> set[str]:
        """The names in `files/` of kept versions and views, regardless of where chunks are."""
        return self._version_files | self.views.files

    @property
    def _version_files(self) -> set[str]:
        return {file_name(file) for manifest in self.with_files for file in manifest.files}

    @property
    def frees_files(self) -> bool:
        """Whether views or files are deleted once their chunks are elsewhere."""
        return bool(self.views.dead) or not self.own_files.issuperset(held.names(self.session.layout))

    def unneeded(self) -> list[Path]:
        """Return files and manifests that neither a kept version nor a kept view has."""
        layout, files = self.session.layout, self.needed_files | self.views.files
        there = fsread.list_names(layout.files)
        going = [layout.files / name for name in there if name.removesuffix(held.HELD) not in files]
        return going + self._manifests_beside(self._kept_names())

    def _manifests_beside(self, keep: set[str]) -> list[Path]:
        folder = self.session.layout.manifests
        return [folder / name for name in fsread.list_names(folder) if name.removesuffix(".json") not in keep]

    def _unneeded_records(self) -> list[Path]:
        """Return records of uses and hashes that belong to neither a kept version nor a kept view."""
        layout, keep = self.session.layout, self._kept_names()
        hashes = {name.removesuffix(EXECUTABLE) for name in self.needed_files | self.views.files}
        return [
            *(layout.uses / name for name in fsread.list_names(layout.uses) if name not in keep),
            *(layout.hashed / name for name in fsread.list_names(layout.hashed) if name not in hashes),
        ]

    def _kept_names(self) -> set[str]:
        return self._own_names | self.lacking.manifests

    @property
    def _own_names(self) -> set[str]:
        return {manifest.digest.hex for manifest in self.roots} | self.views.names

    @property
    def fingerprint(self) -> str:
        """A text that is equal for plans that delete the same data of the same store."""
        facts = (
            [manifest.digest.hex for manifest in self.roots],
            [str(name) for name in (*self.versions, *self.stale_partials)],
            [path.name for path in (*self.leftovers, *self.unneeded())],
            [pack.hex for pack in self.dead_packs],
            [pack.hex for pack in self.rewrite_packs],
            [view.digest.hex for view in self.views.dead],
            self.views.names,
        )
        return Sha256.of(msgspec.json.encode([sorted(names) for names in facts])).hex

    def forecast_freed_bytes(self, *, repack: bool) -> int:
        """Return how many bytes a run would free, with or without `repack`."""
        layout, policy = self.session.layout, self.policy
        thin = [
            item for item in self.live.values() if policy.keeps_files(item, self.choice.kept[item.digest])
        ]
        names = {manifest.digest.hex for manifest in thin}
        views = plan_views(self.session, names, policy.path_grace_s)
        then = {file_name(file) for manifest in thin for file in manifest.files} | views.files
        kept = (*self.roots, *views.manifests)
        files = Files(policy.keep_copy, frozenset(self.needed_files), frozenset(then), kept)
        packs = forecast_freed_bytes(self.session, self.roots, files, repack=repack)
        freed = self._manifests_beside(self._own_names)  # manifests that only locate chunks are deleted last
        freed += [held.find(layout, name).path for name in held.names(layout) - then]
        rubbish = trash.iter_trash(self.session.layout.trash, self.session.clock())
        rest = copied_bytes(layout, [*thin, *views.manifests])
        rest += sum(map(fsread.tree_bytes, [*self.leftovers, *rubbish]))
        return max(0, packs + fsread.sum_sizes(freed) + rest)

    def apply(self) -> None:
        """Delete completely unused data: refs first, packs last."""
        refs, layout = self.session.refs, self.session.layout
        if len(self.backed) or self.lacking.on_files or self.lacking:
            fsio.sync_dir(layout.files)  # a killed install may have left unsynced names
            layout.rely_on_files()
        for name in self.versions:
            refs.remove_version(name)
        for name in self.stale_partials:
            refs.remove_partial(name)
        # Deleted views have links to kept files.
        with changing(layout, [layout.files / name for name in fsread.list_names(layout.files)]):
            self.views.discard(self.needed_files | self.views.files)
            for path in [*self.unneeded(), *self._unneeded_records()]:
                trash.discard(path, layout.trash)  # what a program has open is deleted a later time
            for pack in self.dead_packs:
                drop_pack(self.session, pack)
            for path in self.leftovers:
                _remove_dead(path)
            empty_trash(self.session)


@contextlib.contextmanager
def alone(session: Session) -> Iterator[None]:
    """Hold the exclusive lock, with files back in their places that a killed process was moving: a plan
    deletes what is left in `tmp/`.
    """
    with session.layout.exclusive():
        held.reindex(session.layout)
        yield


def plan_gc(
    session: Session, policy: GcPolicy, backing: Backing | None = None, *, thin: bool = False
) -> GcPlan:
    """Mark from the roots, and plan the deletion of everything that they do not reach.  Needs the exclusive
    lock.

    `backing` are chunks that packs need not keep, since files have them; with `thin`, only the versions that
    the policy selects keep their files.
    """
    refs, layout = session.refs, session.layout
    leftovers = _leftovers(session)
    rubbish = [*leftovers, *trash.iter_trash(layout.trash, session.clock())]
    choice = choose(session, policy, rubbish=rubbish)
    reasons = choice.kept
    live = {digest: live_manifest(session, digest, why) for digest, why in reasons.items()}
    begun, stale = partial_manifests(session)
    roots = {manifest.digest.hex for manifest in (*live.values(), *begun)}
    with_files = [
        manifest
        for digest, manifest in live.items()
        if not thin or policy.keeps_files(manifest, reasons[digest])
    ]
    views = {manifest.digest.hex for manifest in with_files} if thin else roots
    plan = GcPlan(
        session=session,
        policy=policy,
        live=live,
        views=plan_views(session, views, policy.path_grace_s),
        choice=choice,
        with_files=with_files,
    )
    plan.leftovers = leftovers
    plan.partial, plan.stale_partials = begun, stale
    plan.versions = [name for name, digest in stored_versions(refs) if digest not in reasons]
    for why in reasons.values():
        plan.kept[why] = plan.kept.get(why, 0) + 1
    _plan_packs(session, plan, backing or Backing())
    return plan


def _leftovers(session: Session) -> list[Path]:
    """Return the leftovers of killed processes in `tmp/`."""
    layout = session.layout
    now, files = session.clock(), held.names(layout)
    found = []
    for name in fsread.list_names(layout.tmp):
        stat = fsread.stat_or_none(layout.tmp / name)
        young = stat is not None and now - stat.st_mtime < PARTIAL_DAYS * 86400
        made = name.endswith(DRAFT) and name.removesuffix(DRAFT) in files
        begun = name.endswith(INCOMPLETE) and not made and fsread.is_file(layout.tmp / name)
        if not (begun and young) and _is_dead(layout.tmp / name):
            found.append(layout.tmp / name)
    return found


def _is_dead(path: Path) -> bool:
    """Whether no process is writing a file.

    Not all writers hold the store's lock.  Folders and links are made under it.
    """
    if not fsread.is_file(path):
        return True
    with lock.claimed(path) as dead:
        return dead


def _remove_dead(path: Path) -> None:
    if not fsread.is_file(path):
        fsio.remove_tree(path)
        return
    with lock.claimed(path) as dead:
        if dead:
            fsio.remove(path, sync=False)


def _plan_packs(session: Session, plan: GcPlan, backing: Backing) -> None:
    folder = session.layout.pack_folder
    there = set(folder.pack_ids(".pack"))  # first: a download may publish packs meanwhile
    indexes = load_indexes(folder, rebuild=True).indexes
    indexed = {index.pack for index in indexes}
    unlisted = sorted(there.difference(indexed))
    if unlisted:
        raise IntegrityError(
            f"packs/{unlisted[0].hex}.pack",
            why="has no index and none can be created, so its chunks are unknown",
            hint="nothing was deleted; `ystore fsck --repair` repairs it",
        )
    ids, _ = manifest_chunks(plan.roots)
    names = plan.own_files
    plan.backed = backing.redundant(session, plan.roots, names)
    waste = find_waste(indexes, ids, plan.backed, beside_packs(session.layout, names))
    kept = [*plan.roots, *plan.views.manifests]
    plan.lacking = find_lacking(session.layout, waste.table, ids, kept, names, backing.proven(names))
    if plan.policy.only is not None:
        waste = waste.due_to(plan.backed, indexes)
    plan.dead_packs, plan.rewrite_packs, plan.reencode = waste.dead, waste.rewrite, waste.reencode
    plan.chunks_removed = waste.chunks_removed
    names = {pack.hex for pack in indexed}
    plan.leftovers += [
        folder.packs / name
        for name in fsread.list_names(folder.packs)
        if name.partition(".")[0] not in names and not name.endswith(".pack")
    ]
