"""The delta packs that `publish` writes with a new version: into it, and back into the version before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.ops.publishing.deltas import reading, write_deltas
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

    leading: list[dict[str, Any]] = field(default_factory=list)
    back: list[dict[str, Any]] = field(default_factory=list)
    previous: Sha256 | None = None

    @property
    def back_bytes(self) -> int:
        return sum(item["size_bytes"] for item in self.back)


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
    leading: list[dict[str, Any]] = []
    back: list[dict[str, Any]] = []
    with reading(folder.packs) as reader:

        def write(base: Manifest, *, and_back: bool = False) -> None:
            ahead, behind = write_deltas(reader, folder.deltas, manifest, base, on_progress, back=and_back)
            leading.extend(ahead.listed())
            back.extend(behind.listed() if behind is not None else ())

        for n, base in enumerate(earlier[:count]):
            write(base, and_back=n == 0)
        sizes = _sizes(folder, manifest, leading)
        for skip in find_skips(reader, manifest, earlier[count:], sizes, from_share=_SKIP_FROM_SHARE):
            write(skip.base)
    return NewDeltas(leading, back, earlier[0].digest if earlier else None)


def _sizes(folder: RegistryFolder, manifest: Manifest, leading: list[dict[str, Any]]) -> dict[Edge, int]:
    """Return the bytes of all deltas of the model, with those that lead into the new version."""
    entry = folder.entry(manifest.model)
    found: dict[Edge, int] = {}
    for build in iter_builds(entry) if entry is not None else ():
        if build.entry.manifest is not None:
            for delta in build.entry.deltas:
                edge = Sha256.parse(delta.base_manifest), Sha256.parse(build.entry.manifest)
                found[edge] = found.get(edge, 0) + delta.size_bytes
    for item in leading:
        edge = Sha256.parse(item["base_manifest"]), manifest.digest
        found[edge] = found.get(edge, 0) + item["size_bytes"]
    return found
