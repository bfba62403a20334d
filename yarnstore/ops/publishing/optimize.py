"""`registry optimize`: add the deltas that shorten the ways of versions in use, drop those that no way needs.

The order of writing is: delta packs with their indexes, then the registry's JSON; only after it are the packs
deleted that no version lists any more.  Leaves encoding to `deltas`, and the cost of ways to `registry/ways`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.errors import NotFoundError, UsageError
from yarnstore.ops.publishing.deltas import (
    DeltaReader,
    Listed,
    join_listed,
    listed_bytes,
    reading,
    write_deltas,
)
from yarnstore.ops.publishing.skips import IN_USE, find_skips
from yarnstore.ops.publishing.tree import RegistryFolder, timestamp
from yarnstore.progress import OnProgress, Progress, format_size, ignore
from yarnstore.registry.deltas import DeltaChange, change_deltas
from yarnstore.registry.entries import ModelEntry
from yarnstore.registry.ranges import Range, range_holds
from yarnstore.registry.select import Build, iter_builds
from yarnstore.registry.versions import is_prerelease
from yarnstore.registry.ways import Edge, cheapest_ways, way_from
from yarnstore.store import fsio
from yarnstore.store.filepath import Path

# Deltas from so many versions before are kept, for clients that cannot go over several.
_DIRECT = 3


@dataclass(frozen=True)
class RegistryDelta:
    """A delta of a registry, and what becomes of it."""

    model: str
    variant: str
    base: str  #: The version that the delta leads from.
    version: str  #: The version that it leads to, which lists it.
    action: Literal["keep", "add", "drop"]  #: What is done, or with `--dry-run` would be done.
    #: The size of its packs; of one that is to be added, the download of an update over it, estimated from a
    #: sample.
    size_bytes: int
    #: What an update from `base` to `version` downloads without it, over other deltas or from full packs; 0
    #: for one that exists already.
    instead_of_bytes: int = 0


@dataclass(frozen=True)
class OptimizeResult:
    """The deltas of a registry after `registry optimize`."""

    deltas: list[RegistryDelta]  #: All deltas between the versions of a model, and what becomes of each.
    added_bytes: int  #: How many bytes of packs were added, or with `--dry-run` would be.
    dropped_bytes: int  #: How many bytes of packs are no longer listed, or with `--dry-run` would be.
    changed: bool  #: Whether the registry was changed.


class _Packs(NamedTuple):
    """The packs of one delta in the registry, and what a download over it takes of them."""

    packs: tuple[str, ...]
    size_bytes: int
    net_bytes: int


@dataclass
class _Line:
    """The builds of one variant of a model, the newest first, with the deltas between them."""

    builds: list[Build]
    listed: dict[Edge, _Packs]
    names: dict[Sha256, Build] = field(init=False)

    def __post_init__(self) -> None:
        self.names = {_digest(build): build for build in self.builds}

    @property
    def newest(self) -> Build | None:
        """The newest build that is not withdrawn; a prerelease only if there is no other."""
        usable = [build for build in self.builds if not build.entry.yanked]
        releases = [build for build in usable if not is_prerelease(build.version)]
        return next(iter(releases or usable), None)


def optimize(
    registry: Path,
    *,
    models: Collection[str] = (),
    versions: str | None = None,
    dry_run: bool = False,
    now: datetime | None = None,
    on_progress: OnProgress = ignore,
) -> OptimizeResult:
    """Add and drop deltas so that the versions in use reach the newest one with small downloads.

    In use are the versions in the range `versions`, else the newest ones; `models` are all without a name.
    Each change is reported with its bytes before anything is written.  With `dry_run` nothing is.

    Raises: SpecError, NotFoundError, UsageError, FormatError, IntegrityError, StorageError.
    """
    if versions is not None:
        Range.parse(versions)
    folder = RegistryFolder(registry)
    folder.refuse_other_kinds()
    listed = _models(folder)
    for model in models:
        if model not in listed:
            raise NotFoundError("model", model, where=str(registry))
    done: list[RegistryDelta] = []
    changed = False
    with reading(folder.packs) as reader:
        for model in models or listed:
            entry = folder.entry(model)
            for line in _lines(entry) if entry is not None else ():
                work = _Work(folder, reader, line, on_progress)
                plan = work.plan(versions)
                if not dry_run:
                    plan, wrote = work.carry_out(plan, timestamp(now or datetime.now(UTC)))
                    changed |= wrote
                done += plan.values()
    if not dry_run:
        fsio.remove_empty_dirs(folder.tmp, stop=folder.root)
    return OptimizeResult(
        done,
        sum(item.size_bytes for item in done if item.action == "add"),
        sum(item.size_bytes for item in done if item.action == "drop"),
        changed,
    )


def _models(folder: RegistryFolder) -> list[str]:
    raw = folder.read()
    if raw is None:
        raise UsageError(
            f"{folder.root} is not a registry", hint="give the folder that contains registry.json"
        )
    return folder.models() if raw.get("split") else list(raw["models"])


def _lines(entry: ModelEntry) -> list[_Line]:
    """Return the builds of a model by variant, and the deltas between those of one variant."""
    by_variant: dict[str, list[Build]] = {}
    for build in iter_builds(entry):
        if build.entry.manifest is not None and build.entry.packs:
            by_variant.setdefault(build.variant, []).append(build)
    return [_Line(builds, _listed(builds)) for builds in by_variant.values()]


def _listed(builds: list[Build]) -> dict[Edge, _Packs]:
    known = {_digest(build) for build in builds}
    found: dict[Edge, _Packs] = {}
    for build in builds:
        for delta in build.entry.all_deltas:
            edge = Sha256.parse(delta.base_manifest), _digest(build)
            if edge[0] in known:
                packs, size_bytes, net_bytes = found.get(edge, _Packs((), 0, 0))
                packs = *packs, delta.pack
                found[edge] = _Packs(packs, size_bytes + delta.size_bytes, net_bytes + delta.net_bytes)
    return found


def _digest(build: Build) -> Sha256:
    return Sha256.parse(str(build.entry.manifest))


class _Work:
    """What is done for one variant of a model."""

    def __init__(
        self, folder: RegistryFolder, reader: DeltaReader, line: _Line, on_progress: OnProgress
    ) -> None:
        self._folder = folder
        self._reader = reader
        self._line = line
        self._tell = on_progress
        self._manifests: dict[Sha256, Manifest] = {}

    def plan(self, versions: str | None) -> dict[Edge, RegistryDelta]:
        """Return what is to become of each delta; changes are reported."""
        line = self._line
        if line.newest is None:
            return {}
        to = _digest(line.newest)
        size_bytes = line.newest.entry.size_bytes or self._manifest(to).size_bytes
        older = line.builds[line.builds.index(line.newest) + 1 :]
        used = [build for build in older if not build.entry.yanked][:IN_USE]
        if versions is not None:
            used = [build for build in older if range_holds(versions, build.version)]
        sizes = {edge: max(0, packs.net_bytes) for edge, packs in line.listed.items()}
        added: dict[Edge, RegistryDelta] = {}
        bases = (self._manifest(_digest(build)) for build in used)
        for skip in find_skips(self._reader, self._manifest(to), bases, sizes):
            edge = skip.base.digest, to
            added[edge] = self._delta(edge, "add", skip.about_bytes, skip.instead_of_bytes)
        ways = cheapest_ways(sizes, to, size_bytes)
        needed = {edge for build in used for edge in way_from(ways, _digest(build), to)}
        needed |= _published(line.builds)
        plan = {
            edge: self._delta(edge, "keep" if edge in needed else "drop", packs.size_bytes)
            for edge, packs in line.listed.items()
        } | {edge: delta for edge, delta in added.items() if edge in needed}
        for delta in plan.values():
            self._report(delta)
        return plan

    def carry_out(self, plan: dict[Edge, RegistryDelta], now: str) -> tuple[dict[Edge, RegistryDelta], bool]:
        """Do what was planned; returns it with the bytes written, and whether anything changed."""
        add: dict[Sha256, list[Listed]] = {}
        drop: dict[Sha256, list[str]] = {}
        done = dict(plan)
        for edge, delta in plan.items():
            if delta.action == "add":
                listed = self._write(edge)
                add.setdefault(edge[1], []).append(listed)
                done[edge] = replace(delta, size_bytes=listed_bytes(listed))
            elif delta.action == "drop":
                drop.setdefault(edge[1], []).extend(self._line.listed[edge].packs)
        changes = {to: DeltaChange(join_listed(add.get(to, [])), drop.get(to, [])) for to in {*add, *drop}}
        if not changes:
            return done, False
        model = self._line.builds[0].model
        changed = self._folder.edit(model, lambda raw: change_deltas(raw, model, changes, now=now), now=now)
        self._delete({pack for packs in drop.values() for pack in packs})
        return done, changed

    def _write(self, edge: Edge) -> Listed:
        base, new = self._manifest(edge[0]), self._manifest(edge[1])
        return write_deltas(self._reader, self._folder.deltas, new, base, self._tell)[0].listed()

    def _delete(self, packs: set[str]) -> None:
        """Delete delta packs that no version of the registry lists, under the registry's lock."""
        folder = self._folder
        with folder.editing():
            doomed = {PackId.parse(pack) for pack in packs}
            for entry in folder.entries():
                for build in iter_builds(entry):
                    doomed -= {PackId.parse(delta.pack) for delta in build.entry.all_deltas}
            for pack in doomed:
                fsio.remove(folder.deltas.index(pack))
                fsio.remove(folder.deltas.pack(pack))

    def _delta(
        self, edge: Edge, action: Literal["keep", "add", "drop"], size_bytes: int, instead_of: int = 0
    ) -> RegistryDelta:
        base, to = (self._line.names[digest] for digest in edge)
        return RegistryDelta(
            model=to.model,
            variant=to.variant,
            base=base.version,
            version=to.version,
            action=action,
            size_bytes=size_bytes,
            instead_of_bytes=instead_of,
        )

    def _report(self, delta: RegistryDelta) -> None:
        if delta.action == "keep":
            return
        what = f"{delta.model} {delta.base} → {delta.version}: "
        if delta.action == "add":
            about, instead = format_size(delta.size_bytes), format_size(delta.instead_of_bytes)
            what += f"add about {about} instead of {instead}"
        else:
            what += f"drop {format_size(delta.size_bytes)}"
        self._tell(Progress("note", "", text=what))

    def _manifest(self, digest: Sha256) -> Manifest:
        if digest not in self._manifests:
            self._manifests[digest] = self._folder.manifest(digest)
        return self._manifests[digest]


def _published(builds: list[Build]) -> set[Edge]:
    """Return the deltas that `publish` writes by itself: from some versions before, and one back."""
    kept: set[Edge] = set()
    for n, build in enumerate(builds):
        if not build.entry.yanked:
            kept |= {(_digest(base), _digest(build)) for base in builds[n + 1 : n + 1 + _DIRECT]}
            kept |= {(_digest(newer), _digest(build)) for newer in builds[max(0, n - 1) : n]}
    return kept
