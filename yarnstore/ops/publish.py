"""`publish`: a file or a folder becomes a version in a static registry.

Order: packs with the new chunks, their indexes, the manifest, delta packs from the last versions, the
model's own file, and `registry.json` last: what they list is there.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MANIFEST_LIMIT_BYTES
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.pairing import iter_pairs
from yarnstore.errors import (
    ConflictError,
    FormatError,
    IntegrityError,
    NotFoundError,
    SpecError,
    UsageError,
)
from yarnstore.ops.deltas import write_deltas
from yarnstore.ops.ingest import SourceFile, hash_source, ingest, list_sources
from yarnstore.ops.progress import Meter, OnProgress, ignore
from yarnstore.ops.registry_folder import RegistryFolder, timestamp
from yarnstore.registry.edit import RawDoc, add_version
from yarnstore.registry.ranges import Range
from yarnstore.registry.resolve import builds_of
from yarnstore.registry.spec import Exact, Spec
from yarnstore.registry.versions import precedence, sort_versions
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import ChunkTable, PackReader, load_indexes, manifest_chunks
from yarnstore.store.packs import PackWriter, recover_packs

_MANIFEST_LEVEL = 3


@dataclass(frozen=True)
class VersionInfo:
    """What a publisher says about a version, beside its bytes."""

    changelog: str | None = None
    compatibility: tuple[str, ...] = ()
    minimum_ram_gb: float | None = None
    recommended_ram_gb: float | None = None
    security: bool = False
    download_url: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What a publisher says about a model; what is None stays as it is."""

    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    category: str | None = None


# From how many earlier versions an update is a delta.
DEFAULT_DELTAS = 3

_NO_VERSION_INFO = VersionInfo()
_NO_MODEL_INFO = ModelInfo()


@dataclass(frozen=True)
class PublishResult:
    """What was published.

    `new_bytes` went into full packs, `deltas` says how many bytes lead here from each earlier version;
    `changed` is false where it was there already.
    """

    model: str
    version: str
    variant: str
    manifest: str
    size_bytes: int
    chunks_total: int
    chunks_new: int
    new_bytes: int
    deltas: dict[str, int]
    changed: bool
    seconds: float


def publish(
    registry: Path,
    source: Path,
    spec: Spec,
    *,
    version_info: VersionInfo = _NO_VERSION_INFO,
    model_info: ModelInfo = _NO_MODEL_INFO,
    deltas: int = DEFAULT_DELTAS,
    split: bool = False,
    now: datetime | None = None,
    on_progress: OnProgress = ignore,
) -> PublishResult:
    """Publish `source` as the exact version that `spec` names into the registry at a folder.

    `deltas` is how many earlier versions delta packs are written from; `split` keeps each model in a file
    of its own from now on, and none in registry.json, as docs/registry.md has it.

    Raises: SpecError, UsageError; ConflictError where the version is there with another content;
    FormatError where the folder's registry.json is no registry; StorageError.
    """
    started = time.perf_counter()
    if not isinstance(spec.selector, Exact):
        raise SpecError(str(spec), "publishing needs an exact version")
    for text in version_info.compatibility:
        Range.parse(text)
    _check_ram(version_info)
    variant = spec.variant or DEFAULT_VARIANT
    sources = list_sources(source)
    folder = RegistryFolder(registry)
    if registry.exists() and not registry.is_dir():
        raise UsageError(f"{registry} is not a folder", hint="--registry names the registry's folder")
    published = _published(folder, spec.model, spec.selector.version, variant)
    if published is not None:
        _refuse_other_content(published, sources, str(spec), on_progress)
    fsio.ensure_dir(registry)
    recover_packs(folder.packs)
    table = ChunkTable(load_indexes(folder.packs, rebuild=True).indexes)
    total = sum(item.size_bytes for item in sources)
    with PackReader(folder.packs, table) as known, PackWriter(folder.packs) as writer:
        files = ingest(sources, known, writer, Meter(on_progress, "read", str(spec), total))
    manifest = Manifest.make(spec.model, spec.selector.version, variant, files)
    _write_manifest(folder, manifest)
    entry = _entry(folder, manifest, version_info, now or datetime.now(UTC))
    leading = _published_deltas(folder, spec.model, manifest)
    if leading is None:
        leading = _write_deltas(folder, manifest, deltas, on_progress)
    if leading:
        entry["deltas"] = leading
    changed = _list_version(folder, manifest, entry, model_info, now or datetime.now(UTC), split=split)
    fsio.remove_empty_dirs(folder.tmp, stop=folder.root)
    ids, _ = manifest_chunks([manifest])
    return PublishResult(
        manifest.model,
        manifest.version,
        variant,
        str(manifest.digest),
        manifest.size_bytes,
        len(ids),
        writer.chunks,
        writer.stored_bytes,
        _bytes_by_base(leading),
        changed,
        round(time.perf_counter() - started, 3),
    )


def _bytes_by_base(leading: list[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for item in leading:
        total[item["base"]] = total.get(item["base"], 0) + item["size_bytes"]
    return total


def _published_deltas(folder: RegistryFolder, model: str, manifest: Manifest) -> list[dict[str, Any]] | None:
    """The deltas that the registry lists for this very manifest, if it does already."""
    entry = folder.entry(model)
    if entry is None or manifest.version not in entry.versions:
        return None
    for build in builds_of(entry, manifest.version):
        if build.entry.manifest and Sha256.parse(build.entry.manifest) == manifest.digest:
            return [msgspec.to_builtins(delta) for delta in build.entry.deltas]
    return None


def _write_deltas(
    folder: RegistryFolder, manifest: Manifest, count: int, on_progress: OnProgress
) -> list[dict[str, Any]]:
    """Delta packs from the newest earlier versions of the same variant, as the entry lists them."""
    found: list[dict[str, Any]] = []
    for base in _earlier_versions(folder, manifest, count):
        pairs = sum(pair.chunk.length for pair in iter_pairs(manifest, base))
        meter = Meter(on_progress, "delta", f"{base.version} → {manifest.version}", pairs)
        written = write_deltas(folder.packs, folder.deltas, manifest, base, meter)
        found += [
            {"base": base.version, "base_manifest": str(base.digest), "pack": str(pack), "size_bytes": size}
            for pack, size in written.packs
        ]
    return found


def _earlier_versions(folder: RegistryFolder, manifest: Manifest, count: int) -> list[Manifest]:
    entry = folder.entry(manifest.model)
    if entry is None:
        return []
    earlier = [v for v in entry.versions if precedence(v) < precedence(manifest.version)]
    found: list[Manifest] = []
    for version in sort_versions(earlier, newest_first=True):
        base = _published(folder, manifest.model, version, manifest.variant)
        if base is not None and len(found) < count:
            found.append(base)
    return found


def _check_ram(info: VersionInfo) -> None:
    low, high = info.minimum_ram_gb, info.recommended_ram_gb
    if low is not None and high is not None and low > high:
        raise UsageError(f"--min-ram {low} is more than --recommended-ram {high}")


def _published(folder: RegistryFolder, model: str, version: str, variant: str) -> Manifest | None:
    """The manifest of a version that the registry lists already, if it can be read."""
    entry = folder.entry(model)
    if entry is None or version not in entry.versions:
        return None
    for build in builds_of(entry, version):
        if build.variant == variant and build.entry.manifest:
            digest = Sha256.parse(build.entry.manifest)
            with contextlib.suppress(NotFoundError, IntegrityError):
                path = folder.root / "manifests" / f"{digest.hex}.json"
                return Manifest.parse(fsread.read_bytes(path, MANIFEST_LIMIT_BYTES), expected=digest)
    return None


def _refuse_other_content(
    published: Manifest, sources: list[SourceFile], what: str, on_progress: OnProgress
) -> None:
    """Raises: ConflictError, before anything is written, unless the files are those published."""
    theirs = {file.path: (file.size_bytes, file.sha256) for file in published.files}
    ours = {item.path: item.size_bytes for item in sources}
    differing = sorted(path for path in theirs.keys() ^ ours.keys())
    differing += sorted(path for path in theirs.keys() & ours.keys() if theirs[path][0] != ours[path])
    if not differing:
        meter = Meter(on_progress, "check", what, sum(ours.values()))
        differing = [item.path for item in sources if hash_source(item, meter) != theirs[item.path][1]]
    if differing:
        shown = ", ".join(differing[:3]) + (" …" if len(differing) > 3 else "")
        raise ConflictError(
            f"{published.model} {published.version} ({published.variant}) is published already, "
            f"with another content: {shown}",
            hint="a published version never changes; publish this as a new version",
            differing=differing[:20],
        )


def _write_manifest(folder: RegistryFolder, manifest: Manifest) -> None:
    path = folder.root / "manifests" / f"{manifest.digest.hex}.json"
    packed = zstandard.ZstdCompressor(level=_MANIFEST_LEVEL).compress(manifest.data)
    for target, data in ((path.with_name(path.name + ".zst"), packed), (path, manifest.data)):
        if not _holds(target, data):
            fsio.write_atomic(target, data, tmp_dir=folder.tmp)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return fsread.read_bytes(path, len(data)) == data
    except (NotFoundError, FormatError):
        return False


def _entry(folder: RegistryFolder, manifest: Manifest, info: VersionInfo, now: datetime) -> dict[str, Any]:
    """The version's entry in the established schema, with the packs that hold its chunks."""
    table = ChunkTable(load_indexes(folder.packs, rebuild=False).indexes)
    ids, _ = manifest_chunks([manifest])
    rows = table.find(ids)
    if (rows < 0).any():
        raise ConflictError(
            "packs vanished from the registry while it was published to",
            hint="keep others from deleting there, and publish again",
        )
    single = manifest.files[0] if len(manifest.files) == 1 else None
    entry: dict[str, Any] = {
        "checksum": str(single.sha256 if single else manifest.digest),
        "download_url": info.download_url,
        "size_bytes": manifest.size_bytes,
        "compatibility": list(info.compatibility),
        "release_date": timestamp(now),
        "changelog": info.changelog,
        "deprecated": False,
        "minimum_ram_gb": info.minimum_ram_gb,
        "recommended_ram_gb": info.recommended_ram_gb,
        "variant": manifest.variant,
        "security": info.security or None,
        "manifest": str(manifest.digest),
        "packs": sorted(str(table.packs[n]) for n in set(table.pack[rows].tolist())),
    }
    return {key: value for key, value in entry.items() if value is not None}


def _list_version(
    folder: RegistryFolder,
    manifest: Manifest,
    entry: dict[str, Any],
    info: ModelInfo,
    now: datetime,
    *,
    split: bool,
) -> bool:
    """Put the entry into the registry, read anew under its lock; whether anything changed."""

    def add(raw: RawDoc) -> bool:
        return add_version(
            raw,
            model=manifest.model,
            version=manifest.version,
            entry=entry,
            now=timestamp(now),
            variant=manifest.variant,
            name=info.name,
            description=info.description,
            tags=info.tags or None,
            category=info.category,
        )

    return folder.edit(manifest.model, add, now=timestamp(now), split=split)
