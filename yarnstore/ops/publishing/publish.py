"""`publish`: publish a file or a folder as a version in a static registry.

The order of writing is: packs with the new chunks, their indexes, the manifest, delta packs from earlier
versions, the model's own file, and `registry.json` last, so that everything that it lists exists.
`store/ingest` cuts files, `tree` has the registry's files and lock; docs/publishing.md describes the command.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import zstandard

from yarnstore.core.digest import PackId, Sha256
from yarnstore.core.index import Ids
from yarnstore.core.loadcode import LoadedCode
from yarnstore.core.manifest import Manifest
from yarnstore.core.names import DEFAULT_VARIANT
from yarnstore.core.pairing import Stretch, inherited_cuts
from yarnstore.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    UsageError,
)
from yarnstore.ops.publishing.bases import (
    AUTO,
    Bases,
    build_entry,
    earlier_versions,
    likely_bases,
    named_base,
    published_manifest,
)
from yarnstore.ops.publishing.broken import note_broken, refuse_broken, search_sources
from yarnstore.ops.publishing.deltas import Listed
from yarnstore.ops.publishing.new_deltas import NewDeltas, write_new_deltas
from yarnstore.ops.publishing.skips import IN_USE
from yarnstore.ops.publishing.tree import RegistryFolder, timestamp
from yarnstore.ops.session.loadcode import note_code
from yarnstore.progress import Meter, OnProgress, ignore
from yarnstore.registry.deltas import change_deltas
from yarnstore.registry.edit import RawDoc, add_version, raw_models, refuse_other_build_metadata
from yarnstore.registry.entries import VersionEntry
from yarnstore.registry.lint.rules import url_fault
from yarnstore.registry.ranges import Range
from yarnstore.registry.spec import Alias, Spec, exact_version
from yarnstore.store import fsio, fsread
from yarnstore.store.chunks import PackReader, load_indexes
from yarnstore.store.contents import SourceContent, StoredContent
from yarnstore.store.filepath import Path
from yarnstore.store.ingest import ingest
from yarnstore.store.matching import find_runs
from yarnstore.store.packs import PackWriter, recover_packs
from yarnstore.store.places import ChunkTable, manifest_chunks
from yarnstore.store.source_files import (
    Sources,
    find_differing,
    list_few,
    list_sources,
    note_changes,
    note_ignored,
    unpublished_changes,
)

_MANIFEST_LEVEL = 3


@dataclass(frozen=True)
class VersionInfo:
    """A publisher's information about a version; fields that are None or empty are not changed."""

    changelog: str | None = None
    compatibility: tuple[str, ...] = ()
    minimum_ram_gb: float | None = None
    recommended_ram_gb: float | None = None
    security: bool = False
    download_url: str | None = None
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelInfo:
    """A publisher's information about a model; fields that are None are not changed."""

    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    category: str | None = None


# The order of keys in an entry.
_KEYS = (
    *("checksum", "download_url", "size_bytes", "compatibility", "release_date", "changelog", "deprecated"),
    *("minimum_ram_gb", "recommended_ram_gb", "requires", "variant", "security", "manifest"),
    "packs",
)
# The number of earlier versions to write deltas from.
DEFAULT_DELTAS = 3

_NO_VERSION_INFO = VersionInfo()
_NO_MODEL_INFO = ModelInfo()


@dataclass(frozen=True)
class PublishResult:
    """The result of publishing one version."""

    model: str
    version: str
    variant: str
    manifest: str
    size_bytes: int
    chunks_total: int  #: How many chunks the version has.
    chunks_new: int  #: How many of them were not in the registry.
    new_bytes: int  #: How many bytes were written into full packs.
    deltas: dict[str, int]  #: The size of the deltas from each earlier version, in bytes.
    changed: bool  #: False if nothing had to change.
    seconds: float
    published_before: bool = False  #: Whether the version was published already.
    updated: list[str] = field(default_factory=list)  #: The fields of a published version that changed.
    #: The paths that were left out; a folder ends with a slash.
    ignored: list[str] = field(default_factory=list)
    #: Differences from the published version that were not published, such as executable bits.
    kept: list[str] = field(default_factory=list)
    #: Parts that run code when a file is loaded, and pickles of plain data.
    code: list[LoadedCode] = field(default_factory=list)
    back_bytes: int = 0  #: The size of the delta from this version back to the previous one, in bytes.
    #: The version that `--base` named or found; None without the option, or if no base saves bytes.
    base: str | None = None
    base_bytes: int = 0  #: The size of the deltas from it, in bytes.


def publish(
    registry: Path,
    source: Path,
    spec: Spec,
    *,
    version_info: VersionInfo = _NO_VERSION_INFO,
    model_info: ModelInfo = _NO_MODEL_INFO,
    deltas: int = DEFAULT_DELTAS,
    base: str | None = None,
    split: bool = False,
    all_files: bool = False,
    force: bool = False,
    now: datetime | None = None,
    on_progress: OnProgress = ignore,
) -> PublishResult:
    """Publish `source` as the exact version that `spec` names into the registry at a folder.

    `deltas` is the number of earlier versions to write delta packs from; `base` is the spec of a version of
    any model to write a delta from too, or `auto` for the one with the smallest delta.  `split` keeps each
    model in a file of its own from now on, and none in registry.json (docs/registry.md).  `all_files`
    includes files that are otherwise left out, `force` accepts incomplete files.

    If the version exists with the same paths and SHA-256s, its manifest stays, and only the fields of its
    entry that `version_info` and `model_info` set are changed, and the delta from `base` is added.

    Raises: SpecError, UsageError; ConflictError if the version exists with other content, or with other build
    metadata; NotFoundError if the registry does not have `base`; FormatError if the folder's registry.json is
    no registry; StorageError.
    """
    started = time.perf_counter()
    version, variant = exact_version(spec, "publish"), spec.variant or DEFAULT_VARIANT
    name = spec.model, version, variant
    named = Spec.parse(base) if base not in (None, AUTO) else None
    for text in version_info.compatibility:
        Range.parse(text)
    for text in version_info.requires:
        _check_requirement(spec, text)
    _check_said(registry, version_info, model_info)
    folder = RegistryFolder(registry)
    folder.refuse_other_kinds()
    sources = list_sources(source, registry=registry, all_files=all_files)
    note_ignored(sources, on_progress)
    there = folder.entry(spec.model)
    refuse_other_build_metadata(spec.model, there.versions if there else (), version)
    old = build_entry(folder, name)
    _check_ram(version_info, old)
    published = published_manifest(folder, name)
    if published is None:
        _refuse_aliases(version_info)
    else:
        _refuse_other_content(published, sources, str(spec), on_progress)
        _refuse_other_requirements(published, version_info)
    broken, code = search_sources(sources, on_progress if published is None else ignore)
    if published is None:
        note_broken(broken, on_progress) if force else refuse_broken(broken)
    note_code(code, on_progress)
    folder.make()
    recover_packs(folder.packs)
    indexes = load_indexes(folder.packs, rebuild=True).indexes
    earlier = earlier_versions(folder, name, max(deltas, IN_USE))
    meter = Meter(on_progress, "read", str(spec), sources.size_bytes)
    with PackReader(folder.packs, ChunkTable(indexes)) as known, PackWriter(folder.packs) as writer:
        bases = Bases()
        if named is not None:
            bases = Bases([named_base(folder, known, named, name)])
        elif base == AUTO:
            bases = Bases(likely_bases(folder, known, sources, name, on_progress), found=True)
        like = published or next(iter([*bases.manifests, *earlier]), None)
        cuts: dict[str, list[int]] = {}
        runs: dict[Sha256, list[Stretch]] = {}
        if like is not None:
            found = find_runs(SourceContent(sources.files), StoredContent(like, known))
            cuts, runs = inherited_cuts(found, like), {like.digest: found}
        files = ingest(sources.files, known, writer, meter, cuts)
    more = {"requires": list(version_info.requires)} if version_info.requires else {}
    manifest = published or Manifest.make(
        spec.model, version, variant, files, sources.empty_folders, more=more
    )
    kept = unpublished_changes(published, sources) if published else []
    note_changes(kept, manifest.label, on_progress)
    _write_manifest(folder, manifest)
    ids, _ = manifest_chunks([manifest])
    moment = now or datetime.now(UTC)
    before: Listed = {}
    if published is not None and old is not None:
        entry = _renewed_entry(folder, manifest, ids, old, version_info)
        before = {key: msgspec.to_builtins(listed) for key, listed in old.delta_lists}
        earlier = []
    else:
        entry = _entry(folder, manifest, ids, version_info, None if old else moment)
    written = write_new_deltas(
        folder, manifest, earlier if deltas else [], deltas, bases, before, runs, on_progress
    )
    changed, updated = _list_version(folder, manifest, entry, written, model_info, moment, split=split)
    fsio.remove_empty_dirs(folder.tmp, stop=folder.root)
    return PublishResult(
        model=manifest.model,
        version=manifest.version,
        variant=variant,
        manifest=str(manifest.digest),
        size_bytes=manifest.size_bytes,
        chunks_total=len(ids),
        chunks_new=writer.chunks,
        new_bytes=writer.stored_bytes,
        deltas=written.bytes_by_base(),
        changed=changed,
        seconds=round(time.perf_counter() - started, 3),
        published_before=published is not None,
        updated=updated if published is not None else [],
        ignored=sources.ignored,
        kept=kept,
        code=code,
        back_bytes=written.back_bytes,
        base=written.base_label,
        base_bytes=written.base_bytes,
    )


def _check_said(registry: Path, info: VersionInfo, model: ModelInfo) -> None:
    """Raise UsageError for values that are invalid for clients."""
    for option, amount in (
        ("--min-ram", info.minimum_ram_gb),
        ("--recommended-ram", info.recommended_ram_gb),
    ):
        if amount is not None and not 0 <= amount < math.inf:
            raise UsageError(f"{option} is {amount:g}", hint="give gigabytes, such as 8 or 0.5")
    url = info.download_url
    if url is not None:
        why = url_fault(url, relative=True)
        if why is None and "://" not in url and not (registry / url).is_file():
            why = f"is neither a URL nor a file of the registry: {url[:120]!r}"
        if why is not None:
            raise UsageError(
                f"--download-url {why}",
                hint="give an http:// or https:// address, or the path of a file in the registry's folder",
            )
    words = [("--tag", tag) for tag in model.tags]
    words += [(o, text) for o, text in (("--category", model.category), ("--name", model.name)) if text]
    for option, word in words:
        if not word.strip() or not word.isprintable():
            raise UsageError(
                f"{option} is {word[:80]!r}",
                hint="give one line of text; without the option, the value is unchanged",
            )


def _check_requirement(spec: Spec, text: str) -> None:
    """Refuse a requirement that is not a spec, or names the model itself.  Raises: SpecError, UsageError."""
    if Spec.parse(text).model == spec.model:
        raise UsageError(f"--requires {text} names the model itself", hint="give another model")


def _refuse_aliases(info: VersionInfo) -> None:
    """Refuse requirements that any version meets: an alias is the registry's, and moves.

    Raises: UsageError.
    """
    for text in info.requires:
        named = Spec.parse(text)
        if isinstance(named.selector, Alias):
            bare = Spec(named.model, named.variant)
            raise UsageError(
                f"--requires {text} names an alias, which may lead to another version tomorrow",
                hint=f"give a range, such as {bare}@^1.0, or {bare} alone for any version",
            )


def _refuse_other_requirements(published: Manifest, info: VersionInfo) -> None:
    """Raise ConflictError for other requirements than the published version has."""
    if info.requires and list(info.requires) != published.extra.get("requires", []):
        raise ConflictError(
            f"{published.label} is already published with other requirements",
            hint="a published version never changes; publish this as a new version",
        )


def _check_ram(info: VersionInfo, old: VersionEntry | None) -> None:
    low = info.minimum_ram_gb if old is None or info.minimum_ram_gb is not None else old.minimum_ram_gb
    high = info.recommended_ram_gb
    if high is None and old is not None and info.minimum_ram_gb is not None:
        high = old.recommended_ram_gb
    if low is not None and high is not None and low > high:
        raise UsageError(f"--min-ram {low:g} is more than --recommended-ram {high:g}")


def _refuse_other_content(published: Manifest, sources: Sources, what: str, on_progress: OnProgress) -> None:
    """Raise ConflictError, before anything is written, unless the files are those published."""
    differing = find_differing(published, sources, what, on_progress)
    if differing:
        raise ConflictError(
            f"{published.model} {published.version} ({published.variant}) is already published "
            f"with different content: {list_few(differing)}",
            hint="a published version never changes; publish this as a new version",
            differing=differing[:20],
        )


def _write_manifest(folder: RegistryFolder, manifest: Manifest) -> None:
    path = folder.root / "manifests" / f"{manifest.digest.hex}.json"
    packed = zstandard.ZstdCompressor(level=_MANIFEST_LEVEL).compress(manifest.data)
    if not _holds(path, manifest.data):
        fsio.write_atomic(path, manifest.data, tmp_dir=folder.tmp)
    if not _unpacks_to(path.with_name(path.name + ".zst"), manifest.data):
        fsio.write_atomic(path.with_name(path.name + ".zst"), packed, tmp_dir=folder.tmp)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return fsread.read_bytes(path, len(data)) == data
    except (NotFoundError, FormatError):
        return False


def _unpacks_to(path: Path, data: bytes) -> bool:
    """Whether a frame, which another release of zstd may have made, decodes to these bytes."""
    try:
        packed = fsread.read_bytes(path, len(data) + 1024)
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=len(data)) == data
    except (NotFoundError, FormatError, zstandard.ZstdError):
        return False


def _packs(folder: RegistryFolder, ids: Ids, among: set[str] | None = None) -> list[str] | None:
    """Return the packs that contain the chunks; None if all packs (or those of `among`) lack some."""
    indexes = load_indexes(folder.packs, rebuild=False).indexes
    table = ChunkTable([item for item in indexes if among is None or str(item.pack) in among])
    rows = table.find(ids)
    if (rows < 0).any():
        return None
    return sorted(str(table.packs[n]) for n in set(table.pack[rows].tolist()))


def _full_packs(folder: RegistryFolder, ids: Ids) -> list[str]:
    packs = _packs(folder, ids)
    if packs is None:
        raise ConflictError(
            "packs disappeared from the registry during the publication",
            hint="make sure that nothing deletes files there, then publish again",
        )
    return packs


def _said(info: VersionInfo) -> dict[str, Any]:
    """Return the given values about a version, by field."""
    said: dict[str, Any] = {
        "download_url": info.download_url,
        "compatibility": list(info.compatibility) or None,
        "changelog": info.changelog,
        "minimum_ram_gb": info.minimum_ram_gb,
        "recommended_ram_gb": info.recommended_ram_gb,
        "security": info.security or None,
        "requires": list(info.requires) or None,
    }
    return {key: value for key, value in said.items() if value is not None}


def _entry(
    folder: RegistryFolder, manifest: Manifest, ids: Ids, info: VersionInfo, now: datetime | None
) -> dict[str, Any]:
    """Return a build's entry in the established schema, with the packs that contain its chunks.

    `now` is when it is published; None if the registry lists it already, without a manifest.
    """
    single = manifest.files[0] if len(manifest.files) == 1 else None
    entry: dict[str, Any] = {
        "checksum": str(single.sha256 if single else manifest.digest),
        "size_bytes": manifest.size_bytes,
        "variant": manifest.variant,
        "manifest": str(manifest.digest),
        "packs": _full_packs(folder, ids),
    }
    if now is not None:
        entry |= {"compatibility": [], "release_date": timestamp(now), "deprecated": False}
    entry |= _said(info)
    return {key: entry[key] for key in _KEYS if key in entry}


def _renewed_entry(
    folder: RegistryFolder, manifest: Manifest, ids: Ids, old: VersionEntry, info: VersionInfo
) -> dict[str, Any]:
    """Return the changes to the entry of a published build: new values, and packs that were lost."""
    entry = {"variant": manifest.variant, "manifest": old.manifest, **_said(info)}
    if _packs(folder, ids, among={str(PackId.parse(text)) for text in old.packs}) is None:
        entry["packs"] = _full_packs(folder, ids)
    return entry


def _list_version(
    folder: RegistryFolder,
    manifest: Manifest,
    entry: dict[str, Any],
    written: NewDeltas,
    info: ModelInfo,
    now: datetime,
    *,
    split: bool,
) -> tuple[bool, list[str]]:
    """Add the entry to the registry, which is read again under its lock.

    Returns whether anything changed, and which fields of the model and of the build.
    """
    model = manifest.model
    updated: list[str] = []

    def add(raw: RawDoc) -> bool:
        before = raw_models(raw).get(model, {})
        changed = add_version(
            raw,
            model=model,
            version=manifest.version,
            entry=entry,
            now=timestamp(now),
            variant=manifest.variant,
            name=info.name,
            description=info.description,
            tags=info.tags or None,
            category=info.category,
        )
        changed |= change_deltas(raw, model, written.changes(), now=timestamp(now))
        old, new = (_fields(found, manifest) for found in (before, raw_models(raw)[model]))
        updated[:] = [key for key in new if new[key] != old.get(key)]
        return changed

    return folder.edit(model, add, now=timestamp(now), split=split), updated


def _fields(model: RawDoc, manifest: Manifest) -> dict[str, Any]:
    """Return the given values about a build and its model, by field."""
    version = model.get("versions", {}).get(manifest.version, {})
    if str(version.get("variant") or DEFAULT_VARIANT) != manifest.variant:
        version = version.get("variants", {}).get(manifest.variant, {})
    both = {**{key: model[key] for key in model.keys() - version.keys()}, **version}
    return {key: both[key] for key in sorted(both.keys() - {"versions", "variants"})}
