"""The cache of registries in a store: `registries/<name>/`, which docs/format/store.md governs.

`registry.json` is the registry's answer, byte for byte; `fetched.json` has its address, its ETag, its hash
and its time.  The record has the hash before and after a change, so that the cache is readable after a crash
between writing the two files.  Further files have the models of a split registry, plans, the newest state
seen, and the failures of mirrors.  The package `registry` parses the answers.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import KIB, MIB, REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import model_dirname
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread, lock, records
from yarnstore.store.filepath import Path
from yarnstore.store.layout import StoreLayout
from yarnstore.store.records import CheckedRecord, Damage

REGISTRY_FILE = "registry.json"
_RECORD_FILE = "fetched.json"
_SMALL_BYTES = 64 * KIB


class FetchRecord(CheckedRecord, frozen=True):
    """When a registry was fetched, and from which address; times are in milliseconds since 1970."""

    url: str
    fetched_ms: int
    sha256: str
    etag: str = ""
    previous_sha256: str = ""


class CachedRegistry(msgspec.Struct, frozen=True):
    """A registry as it was fetched.  `etag` is empty if it is unknown for these bytes."""

    name: str
    url: str
    data: bytes
    etag: str
    fetched_ms: int


def read_record(layout: StoreLayout, name: str) -> FetchRecord | None:
    """Return the record of a registry.  Raises: FormatError if it is damaged."""
    what = f"registries/{name}/{_RECORD_FILE}"
    return records.read(layout.registry(name) / _RECORD_FILE, FetchRecord, on_damage=Damage(what, _REFRESH))


def check_absent(layout: StoreLayout, name: str) -> None:
    """Check that a missing cache was never written, and is not damaged.

    Raises: FormatError if one of the two files is missing.
    """
    # The file is checked before its record, which is written first.
    there = fsread.stat_or_none(layout.registry(name) / REGISTRY_FILE) is not None
    record = read_record(layout, name)
    if record is not None and record.previous_sha256:
        raise FormatError(f"registries/{name}/{REGISTRY_FILE}", "is missing", hint=_REFRESH)
    if record is None and there:
        raise FormatError(f"registries/{name}/{_RECORD_FILE}", "is missing", hint=_REFRESH)


_REFRESH = "`ystore registry refresh` fetches it again"


def read_cached(layout: StoreLayout, name: str) -> CachedRegistry | None:
    """Return the cached registry, or None if there is no cache.

    Raises: IntegrityError (FormatError) if it differs from what was fetched.
    """
    record = read_record(layout, name)
    if record is None:
        return None
    try:
        data = fsread.read_bytes(layout.registry(name) / REGISTRY_FILE, REGISTRY_LIMIT_BYTES)
    except NotFoundError:
        return None
    got = Sha256.of(data).hex
    if got not in (record.sha256, record.previous_sha256):
        if read_record(layout, name) != record:  # another process replaced both files meanwhile
            return read_cached(layout, name)
        raise IntegrityError(
            f"registries/{name}/{REGISTRY_FILE}", expected=record.sha256, got=got, hint=_REFRESH
        )
    current = got == record.sha256
    return CachedRegistry(name, record.url, data, record.etag if current else "", record.fetched_ms)


def is_small(layout: StoreLayout, name: str) -> bool:
    """Whether a cached registry is small enough to be a split one."""
    found = fsread.stat_or_none(layout.registry(name) / REGISTRY_FILE)
    return found is not None and found.st_size <= _SMALL_BYTES


def changing(layout: StoreLayout, name: str) -> AbstractContextManager[None]:
    """Lock the cache of one registry, for a change that depends on its content.  Raises: StorageError."""
    return lock.hold_folder(layout.registry(name))


def write_cached(layout: StoreLayout, cached: CachedRegistry) -> None:
    """Store a registry's answer under the lock of its folder; first a record with both hashes.

    Raises: StorageError.
    """
    folder = layout.registry(cached.name)
    path = folder / REGISTRY_FILE
    after = Sha256.of(cached.data).hex
    with changing(layout, cached.name):
        before = _hash_of(path)
        record = FetchRecord(cached.url, cached.fetched_ms, after, cached.etag, before)
        records.write(folder / _RECORD_FILE, record, tmp_dir=layout.tmp)
        if before != after:
            fsio.write_atomic(path, cached.data, tmp_dir=layout.tmp)


def _hash_of(path: Path) -> str:
    """Return the SHA-256 of the cached answer, empty if it does not exist; read in blocks to save memory."""
    digest = hashlib.sha256()
    try:
        for block in fsread.iter_blocks(path):
            digest.update(block)
    except (NotFoundError, FormatError):
        return ""
    return digest.hexdigest()


def remove_cached(layout: StoreLayout, name: str) -> None:
    """Remove the cache of a registry."""
    fsio.remove_tree(layout.registry(name))


# --- the models of split registries
# `models/<model>.fetched` is one line of JSON with the address and the hash, and then the bytes as the
# registry sent them.  An unreadable one counts as missing.


class _Header(msgspec.Struct, frozen=True):
    """The first line; `sha256` is that of the rest, `fetched_ms` is 0 if an older release wrote it."""

    url: str
    etag: str
    sha256: str
    fetched_ms: int = 0


class CachedModel(msgspec.Struct, frozen=True):
    """The bytes of a `models/<model>.json`, and their ETag.

    `fetched_ms` is when they were last known to be current, in milliseconds since 1970, or 0.
    """

    data: bytes
    etag: str
    fetched_ms: int = 0


def read_cached_model(layout: StoreLayout, registry: str, url: str, model: str) -> CachedModel | None:
    """Return the last answer of the registry at `url` for a model; None if it is unknown or damaged."""
    try:
        data = fsread.read_bytes(_model_path(layout, registry, model), REGISTRY_MODEL_LIMIT_BYTES + MIB)
        line, _, body = data.partition(b"\n")
        header = msgspec.json.decode(line, type=_Header)
    except (NotFoundError, FormatError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if header.url != url or Sha256.of(body).hex != header.sha256:
        return None
    return CachedModel(body, header.etag, header.fetched_ms)


def write_cached_model(layout: StoreLayout, registry: str, url: str, model: str, cached: CachedModel) -> None:
    """Store a registry's answer for a model."""
    header = msgspec.json.encode(_Header(url, cached.etag, Sha256.of(cached.data).hex, cached.fetched_ms))
    path = _model_path(layout, registry, model)
    fsio.write_atomic(path, header + b"\n" + cached.data, tmp_dir=layout.tmp)


def remove_cached_model(layout: StoreLayout, registry: str, model: str) -> None:
    """Remove the cache of a model that a registry no longer has."""
    path = _model_path(layout, registry, model)
    if fsread.stat_or_none(path) is not None:
        fsio.remove(path)


def _model_path(layout: StoreLayout, registry: str, model: str) -> Path:
    return layout.registry(registry) / "models" / f"{model_dirname(model)}.fetched"


# --- planned downloads of versions
# With them, `outdated` does not request manifests and indexes again.  A plan is valid as long as the store
# has the same packs and files; an unreadable one counts as missing.

PLANS_FILE = "plans.json"
# More than the models of a machine.
_PLANS_LIMIT = 1000


class _Plan(msgspec.Struct, frozen=True):
    """A planned download; `given` is a hash of everything that the plan depends on."""

    given: str
    bytes: int


def plan_basis(layout: StoreLayout, offered: Iterable[str]) -> str:
    """Return a digest of everything a plan depends on: the content of the store, and the offered packs."""
    held = (*fsread.list_names(layout.root / "packs"), "", *fsread.list_names(layout.files))
    return Sha256.of("\n".join((*held, "", *offered)).encode()).hex


def read_plan(layout: StoreLayout, registry: str, manifest: Sha256, basis: str) -> int | None:
    """Return the planned bytes of a version; None without a plan of this basis."""
    plan = _read_plans(layout, registry).get(manifest.hex)
    return plan.bytes if plan is not None and plan.given == basis else None


def write_plan(layout: StoreLayout, registry: str, manifest: Sha256, basis: str, planned: int) -> None:
    """Store a plan, if the store can be written."""
    with contextlib.suppress(StorageError), changing(layout, registry):
        plans = _read_plans(layout, registry)
        plans.pop(manifest.hex, None)
        plans[manifest.hex] = _Plan(basis, planned)
        newest = dict(list(plans.items())[-_PLANS_LIMIT:])
        records.write(layout.registry(registry) / PLANS_FILE, newest, tmp_dir=layout.tmp)


def _read_plans(layout: StoreLayout, registry: str) -> dict[str, _Plan]:
    path = layout.registry(registry) / PLANS_FILE
    return records.read(path, dict[str, _Plan], on_damage="absent") or {}


# --- the newest state seen, to recognise an older answer
# A separate file, so that it is kept if a cached answer is lost or damaged.

NEWEST_FILE = "newest.json"
_REFRESH_MARK = "`ystore registry refresh` creates it again"


class HighWaterMark(CheckedRecord, frozen=True):
    """The latest `last_updated` of the registry at `url`; `seen_ms` is in milliseconds since 1970."""

    url: str
    last_updated: str
    seen_ms: int


def read_newest(layout: StoreLayout, name: str) -> HighWaterMark | None:
    """Return the newest state seen; None if unknown.  Raises: FormatError if the record is damaged."""
    what = f"registries/{name}/{NEWEST_FILE}"
    return records.read(
        layout.registry(name) / NEWEST_FILE, HighWaterMark, on_damage=Damage(what, _REFRESH_MARK)
    )


def write_newest(layout: StoreLayout, name: str, newest: HighWaterMark) -> None:
    """Store the newest state.  Raises: StorageError."""
    records.write(layout.registry(name) / NEWEST_FILE, newest, tmp_dir=layout.tmp)


# --- failures of mirrors, only for display

HEALTH_FILE = "health.json"


class MirrorHealth(msgspec.Struct, frozen=True):
    """A mirror that failed: `kind` is `lied`, `stalled` or `unreachable`.

    `at_ms` is the last time, in milliseconds since 1970, `count` the number of sessions in which it failed.
    """

    url: str
    kind: str
    why: str
    at_ms: int
    count: int = 1


def read_health(layout: StoreLayout, name: str) -> list[MirrorHealth]:
    """Return the known failures of a registry's mirrors; empty if the record is missing or damaged."""
    path = layout.registry(name) / HEALTH_FILE
    return records.read(path, list[MirrorHealth], on_damage="absent") or []


def write_health(layout: StoreLayout, name: str, found: Sequence[MirrorHealth]) -> None:
    """Store the known failures.  Raises: StorageError."""
    path = layout.registry(name) / HEALTH_FILE
    if found:
        records.write(path, list(found), tmp_dir=layout.tmp)
    else:
        fsio.remove(path)
