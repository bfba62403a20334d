"""The published versions that a new one is built on: the earlier ones of its model, and with `publish --base`
one of any model, named or found.

`store/likeness` ranks versions before the new one is cut, so that it is cut like the likeliest; `new_deltas`
then chooses by the bytes of deltas.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from yarnstore.core.digest import Sha256
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, UsageError
from yarnstore.ops.publishing.deltas import DeltaReader, estimate_update, stored_bytes
from yarnstore.ops.publishing.skips import WORTH_SHARE
from yarnstore.ops.publishing.tree import RegistryFolder
from yarnstore.progress import OnProgress, Progress, format_count, format_size, plural
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.select import Build, iter_builds, resolve
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import precedence, sort_versions
from yarnstore.store.chunks import PackReader
from yarnstore.store.contents import SourceContent, StoredContent
from yarnstore.store.likeness import comparable_bytes, likeness
from yarnstore.store.places import manifest_chunks
from yarnstore.store.source_files import Sources

# `--base auto`: the base is found among all versions of the registry.
AUTO: Final = "auto"
# Versions whose manifests are read, those nearest in size; whose sketches are compared; whose deltas are
# estimated.
_READ, _SKETCHED, _ESTIMATED = 1000, 64, 8
# Versions less like than this share of the likeliest are not estimated.
_LIKE_SHARE: Final = 0.5
# A version that can have counterparts for less of the files is no base.
_COMPARABLE_SHARE: Final = 0.1

# Model, version and variant.
Name: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class Bases:
    """Versions that may be the base of a new one, the likeliest first; `found` of those that `auto` found.

    Without `found`, they are what the publisher named: one, or none.
    """

    manifests: Sequence[Manifest] = ()
    found: bool = False


def base_label(base: Manifest) -> str:
    """`model@version`, as registries name bases, with the variant if it is not the default one."""
    variant = "" if base.variant == DEFAULT_VARIANT else base.variant
    return str(Spec(base.model, variant or None, Exact(base.version)))


def build_entry(folder: RegistryFolder, name: Name) -> VersionEntry | None:
    """Return the entry of a build that the registry already lists."""
    model, version, variant = name
    entry = folder.entry(model)
    found = entry.versions.get(version) if entry is not None else None
    if found is None or (found.variant or DEFAULT_VARIANT) == variant:
        return found
    return found.variants.get(variant)


def published_manifest(folder: RegistryFolder, name: Name) -> Manifest | None:
    """Return the manifest of a version that the registry already lists, if it can be read."""
    entry = build_entry(folder, name)
    if entry is None or not entry.manifest:
        return None
    with contextlib.suppress(NotFoundError, IntegrityError):
        return folder.manifest(Sha256.parse(entry.manifest))
    return None


def earlier_versions(folder: RegistryFolder, name: Name, count: int) -> list[Manifest]:
    """Return the manifests of up to `count` earlier versions of the same variant, the newest first."""
    model, version, variant = name
    entry = folder.entry(model)
    if entry is None:
        return []
    earlier = [v for v in entry.versions if precedence(v) < precedence(version)]
    found: list[Manifest] = []
    for older in sort_versions(earlier, newest_first=True):
        base = published_manifest(folder, (model, older, variant))
        if base is not None:
            found.append(base)
        if len(found) == count:
            break
    return found


def named_base(folder: RegistryFolder, reader: PackReader, spec: Spec, name: Name) -> Manifest:
    """Return the version that a spec selects as the base of the version `name`.

    Raises: NotFoundError if the registry does not have it, or its folder lacks some of its chunks; UsageError
    if it is the version itself, or has no chunks; IntegrityError.
    """
    entry = folder.entry(spec.model)
    if entry is None:
        raise NotFoundError(
            "model",
            spec.model,
            where=str(folder.root),
            hint="--base takes a version of this registry, such as MODEL@1.0.0, or auto",
        )
    build = resolve(entry, spec, prefer=(name[2],), include_prereleases=True)
    if (build.model, build.version, build.variant) == name:
        raise UsageError("--base is the version that is published", hint="name another version")
    if not build.entry.manifest:
        raise UsageError(
            f"--base {build} has only a download_url, and no chunks", hint="name a version with a manifest"
        )
    manifest = folder.manifest(Sha256.parse(build.entry.manifest))
    if not _is_there(reader, manifest):
        hint = "the packs of the base must be in the registry's folder"
        raise NotFoundError("content of", base_label(manifest), where=str(folder.root), hint=hint)
    return manifest


def likely_bases(
    folder: RegistryFolder, reader: PackReader, sources: Sources, name: Name, on_progress: OnProgress
) -> list[Manifest]:
    """Return the versions of all models that the files are most like, the likeliest first.

    `reader` reads the registry's packs.  Versions that were not compared are reported.

    Raises: NotFoundError, StorageError.
    """
    ours = SourceContent(sources.files)
    builds = _nearest(folder, sources.size_bytes, name)
    comparable: list[tuple[int, Manifest]] = []
    absent: list[str] = []
    for build in builds[:_READ]:
        try:
            manifest = folder.manifest(Sha256.parse(str(build.entry.manifest)))
            size_bytes = comparable_bytes(sources.files, ours.tensors, manifest)
            if size_bytes < max(1, _COMPARABLE_SHARE * sources.size_bytes):
                continue
            there = _is_there(reader, manifest)
        except (NotFoundError, IntegrityError, FormatError):
            there = False
        if there:
            comparable.append((size_bytes, manifest))
        else:
            absent.append(str(build))
    comparable.sort(key=lambda item: -item[0])  # keeps the order of nearness in size
    left = len(builds[_READ:]) + len(comparable[_SKETCHED:])
    if left:
        _note(on_progress, f"--base auto: {plural(left, 'version')} not compared, others are nearer")
    if absent:
        more = "" if len(absent) < 4 else f" and {format_count(len(absent) - 3)} more"
        why = "their chunks are not in this folder"
        _note(on_progress, f"--base auto: {', '.join(absent[:3])}{more} not compared: {why}")
    ranked = [
        (likeness(ours, StoredContent(manifest, reader)), manifest) for _, manifest in comparable[:_SKETCHED]
    ]
    ranked.sort(key=lambda item: -item[0])
    return [manifest for like, manifest in ranked[:_ESTIMATED] if like >= _LIKE_SHARE * ranked[0][0]]


def choose_base(
    reader: DeltaReader, new: Manifest, bases: Sequence[Manifest], on_progress: OnProgress
) -> Manifest | None:
    """Return the base with the smallest update to `new`, and report its size; None if no base saves bytes.

    A version of the same model is taken unless another one saves clearly more.

    Raises: IntegrityError, NotFoundError if a chunk cannot be read; StorageError.
    """
    ids, _ = manifest_chunks([new])
    whole = stored_bytes(reader, ids)
    sizes = [(estimate_update(reader, new, base), base) for base in bases]
    own = [item for item in sizes if item[1].model == new.model]
    for found in (own, sizes):
        about, base = min(found, key=lambda item: item[0], default=(whole, None))
        if base is None or about > WORTH_SHARE * whole:
            continue
        if found is own and WORTH_SHARE * about > min(size for size, _ in sizes):
            continue
        what = f"about {format_size(about)} instead of {format_size(whole)} to download"
        _note(on_progress, f"--base auto: {base_label(base)}, {what}")
        return base
    similar = f"of {plural(len(bases), 'similar version')}, none" if bases else "no version is similar, none"
    _note(on_progress, f"--base auto: {similar} saves bytes")
    return None


def _nearest(folder: RegistryFolder, size_bytes: int, name: Name) -> list[Build]:
    """Return the usable builds of all models except `name`, those nearest in size first."""

    def distance(build: Build) -> float:
        return abs(math.log((1 + (build.entry.size_bytes or 0)) / (1 + size_bytes)))

    return sorted((build for build in _usable(folder) if _name(build) != name), key=distance)


def _usable(folder: RegistryFolder) -> Iterator[Build]:
    for entry in folder.entries():
        for build in iter_builds(entry):
            if build.entry.manifest and build.entry.packs and not build.entry.yanked:
                yield build


def _name(build: Build) -> Name:
    return build.model, build.version, build.variant


def _is_there(reader: PackReader, manifest: Manifest) -> bool:
    """Whether the registry's folder has all chunks of a version."""
    ids, _ = manifest_chunks([manifest])
    return bool((reader.table.find(ids) >= 0).all())


def _note(on_progress: OnProgress, text: str) -> None:
    on_progress(Progress("note", "", text=text))
