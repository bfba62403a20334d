"""The delta packs that `publish` writes: into a version, and back into the version before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.core.pairing import Stretch
from yarnstore.ops.publishing.bases import Bases, base_label, choose_base
from yarnstore.ops.publishing.deltas import (
    DeltaReader,
    Listed,
    join_listed,
    listed_bytes,
    reading,
    write_deltas,
)
from yarnstore.ops.publishing.skips import find_skips
from yarnstore.ops.publishing.tree import RegistryFolder
from yarnstore.progress import OnProgress, Progress
from yarnstore.registry.deltas import DeltaChange
from yarnstore.registry.entries import BASED
from yarnstore.registry.select import iter_builds
from yarnstore.registry.ways import Edge
from yarnstore.store.places import lacking_ids

# From versions before the nearest ones there is a delta if the way over several takes more than this share
# of the files.
_SKIP_FROM_SHARE = 0.15


@dataclass(frozen=True)
class NewDeltas:
    """Deltas that were written, as registry entries list them: those into the version of the manifest `to`,
    and those back, into the version of the manifest `previous`.  `base` is the version that `--base` named or
    found, `before` what the version's entry lists already."""

    to: Sha256
    leading: Listed = field(default_factory=dict)
    back: Listed = field(default_factory=dict)
    previous: Sha256 | None = None
    base: Manifest | None = None
    before: Listed = field(default_factory=dict)

    @property
    def back_bytes(self) -> int:
        return listed_bytes(self.back)

    @property
    def base_bytes(self) -> int:
        """The size of the deltas from `base`."""
        items = (item for items in join_listed([self.before, self.leading]).values() for item in items)
        digest = str(self.base.digest) if self.base is not None else ""
        return sum(item["size_bytes"] for item in items if str(Sha256.parse(item["base_manifest"])) == digest)

    @property
    def base_label(self) -> str | None:
        return base_label(self.base) if self.base is not None else None

    def bytes_by_base(self) -> dict[str, int]:
        """Return the bytes of the deltas into the version from each other version of its model."""
        total: dict[str, int] = {}
        listed = join_listed([self.before, self.leading])
        for item in (item for key, items in listed.items() if key != BASED for item in items):
            total[item["base"]] = total.get(item["base"], 0) + item["size_bytes"]
        return total

    def changes(self) -> dict[Sha256, DeltaChange]:
        """Return what to list, by the manifest of the build that lists it."""
        found = {self.to: DeltaChange(add=self.leading)} if self.leading else {}
        if self.previous is not None and self.back:
            found[self.previous] = DeltaChange(add=self.back)
        return found


def write_new_deltas(
    folder: RegistryFolder,
    manifest: Manifest,
    earlier: Sequence[Manifest],
    count: int,
    bases: Bases,
    before: Listed,
    runs: Mapping[Sha256, list[Stretch]],
    on_progress: OnProgress,
) -> NewDeltas:
    """Write delta packs from the first `count` of the versions `earlier` (the newest first), from one of
    `bases`, from later ones of `earlier` whose updates would be large, and back into the first.  `before` is
    what the version's entry lists already, `runs` are those of the version and others that are known, by the
    manifest of the other.

    Raises: IntegrityError, NotFoundError, StorageError.
    """
    if not (earlier or bases.manifests or bases.found):
        return NewDeltas(manifest.digest, before=before)
    leading: list[Listed] = []
    back: Listed = {}
    with reading(folder.packs) as reader:
        for base_digest, known_runs in runs.items():
            reader.know_runs(manifest, base_digest, known_runs)

        def write(base: Manifest, *, and_back: bool = False) -> None:
            ahead, behind = write_deltas(reader, folder.deltas, manifest, base, on_progress, back=and_back)
            leading.append(ahead.listed())
            if behind is not None:
                back.update(behind.listed())

        for n, base in enumerate(earlier[:count]):
            write(base, and_back=n == 0)
        chosen = _choose(reader, manifest, earlier[:count], bases, on_progress)
        known = {base.digest for base in earlier[:count]} | _listed_bases(before)
        if chosen is not None and chosen.digest not in known:
            write(chosen)
            if not leading[-1]:
                why = "it has all chunks of this version, so no delta is needed"
                if len(lacking_ids(manifest, chosen)):
                    why = "no chunk is smaller as a delta against it"
                on_progress(Progress("note", "", text=f"--base {base_label(chosen)}: {why}"))
        sizes = _sizes(folder, manifest, join_listed(leading))
        for skip in find_skips(reader, manifest, earlier[count:], sizes, from_share=_SKIP_FROM_SHARE):
            write(skip.base)
    previous = earlier[0].digest if earlier else None
    return NewDeltas(
        to=manifest.digest,
        leading=join_listed(leading),
        back=back,
        previous=previous,
        base=chosen,
        before=before,
    )


def _listed_bases(listed: Listed) -> set[Sha256]:
    return {Sha256.parse(item["base_manifest"]) for items in listed.values() for item in items}


def _choose(
    reader: DeltaReader, new: Manifest, near: Sequence[Manifest], bases: Bases, on_progress: OnProgress
) -> Manifest | None:
    if not bases.found:
        return next(iter(bases.manifests), None)
    known = {base.digest for base in bases.manifests}
    own = [base for base in near[:1] if base.digest not in known]
    return choose_base(reader, new, [*own, *bases.manifests], on_progress)


def _sizes(folder: RegistryFolder, manifest: Manifest, leading: Listed) -> dict[Edge, int]:
    """Return the bytes of all deltas of the model, with those that lead into the new version."""
    entry = folder.entry(manifest.model)
    found: dict[Edge, int] = {}
    for build in iter_builds(entry) if entry is not None else ():
        if build.entry.manifest is not None:
            for delta in build.entry.all_deltas:
                edge = Sha256.parse(delta.base_manifest), Sha256.parse(build.entry.manifest)
                found[edge] = found.get(edge, 0) + delta.net_bytes
    for item in (item for items in leading.values() for item in items):
        edge = Sha256.parse(item["base_manifest"]), manifest.digest
        found[edge] = found.get(edge, 0) + item["size_bytes"] - item.get("replaced_bytes", 0)
    return {edge: max(0, size) for edge, size in found.items()}
