"""The delta packs that `publish` writes with a new version: into it, and back into the version before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.ops.publishing.deltas import Listed, join_listed, listed_bytes, reading, write_deltas
from yarnstore.ops.publishing.skips import find_skips
from yarnstore.ops.publishing.tree import RegistryFolder
from yarnstore.progress import OnProgress
from yarnstore.registry.select import iter_builds
from yarnstore.registry.ways import Edge

# From versions before the nearest ones there is a delta if the way over several takes more than this share
# of the files.
_SKIP_FROM_SHARE = 0.15


@dataclass(frozen=True)
class NewDeltas:
    """Deltas that were written, as registry entries list them: those into the new version, and those back,
    into the version of the manifest `previous`."""

    leading: Listed = field(default_factory=dict)
    back: Listed = field(default_factory=dict)
    previous: Sha256 | None = None

    @property
    def back_bytes(self) -> int:
        return listed_bytes(self.back)

    def bytes_by_base(self) -> dict[str, int]:
        """Return the bytes of the deltas from each version into the new one."""
        total: dict[str, int] = {}
        for items in self.leading.values():
            for item in items:
                total[item["base"]] = total.get(item["base"], 0) + item["size_bytes"]
        return total


def write_new_deltas(
    folder: RegistryFolder,
    manifest: Manifest,
    earlier: Sequence[Manifest],
    count: int,
    on_progress: OnProgress,
) -> NewDeltas:
    """Write delta packs from the first `count` of the versions `earlier` (the newest first), from later ones
    whose updates would be large, and back into the first.

    Raises: IntegrityError, NotFoundError, StorageError.
    """
    leading: list[Listed] = []
    back: Listed = {}
    with reading(folder.packs) as reader:

        def write(base: Manifest, *, and_back: bool = False) -> None:
            ahead, behind = write_deltas(reader, folder.deltas, manifest, base, on_progress, back=and_back)
            leading.append(ahead.listed())
            if behind is not None:
                back.update(behind.listed())

        for n, base in enumerate(earlier[:count]):
            write(base, and_back=n == 0)
        sizes = _sizes(folder, manifest, join_listed(leading))
        for skip in find_skips(reader, manifest, earlier[count:], sizes, from_share=_SKIP_FROM_SHARE):
            write(skip.base)
    return NewDeltas(join_listed(leading), back, earlier[0].digest if earlier else None)


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
