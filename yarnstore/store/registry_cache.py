"""The cache of registries in a store: `registries/<name>/`, which docs/format/store.md governs.

`registry.json` is the registry's answer, byte for byte; `fetched.json` beside it has its address, its ETag,
its hash and its time.  The record has the hash before and after a change, so that a crash between the two
files leaves both readable.  Beside them are the models of a split registry, plans, the newest state seen, and
the failures of mirrors.  Leaves the meaning of the answers to `registry`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import KIB, MIB, REGISTRY_LIMIT_BYTES, REGISTRY_MODEL_LIMIT_BYTES
from yarnstore.core.names import model_dirname
from yarnstore.errors import FormatError, IntegrityError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread, lock, records
from yarnstore.store.layout import StoreLayout
from yarnstore.store.records import CheckedRecord, Damage

REGISTRY_FILE = "registry.json"
_RECORD_FILE = "fetched.json"
_SMALL_BYTES = 64 * KIB


class FetchRecord(CheckedRecord, frozen=True):
    """When and from where a registry was fetched; times are milliseconds since 1970."""

    url: str
    fetched_ms: int
    sha256: str
    etag: str = ""
    previous_sha256: str = ""


class CachedRegistry(msgspec.Struct, frozen=True):
    """A registry as it was fetched.  `etag` is empty if it is not known for these bytes."""

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
    """Check that a cache which cannot be used was never written, rather than lost.

    Raises: FormatError if one of the two files is missing.
    """
    # The file before its record, which is written first.
    there = fsread.stat_or_none(layout.registry(name) / REGISTRY_FILE) is not None
    record = read_record(layout, name)
    if record is not None and record.previous_sha256:
        raise FormatError(f"registries/{name}/{REGISTRY_FILE}", "is missing", hint=_REFRESH)
    if record is None and there:
        raise FormatError(f"registries/{name}/{_RECORD_FILE}", "is missing", hint=_REFRESH)


_REFRESH = "`ystore registry refresh` fetches it again"


def read_cached(layout: StoreLayout, name: str) -> CachedRegistry | None:
    """Return the cached registry, or None if there is no cache.

    Raises: IntegrityError (FormatError) if it is not what was fetched.
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
        if read_record(layout, name) != record:  # another process replaced both meanwhile
            return read_cached(layout, name)
        raise IntegrityError(
            f"registries/{name}/{REGISTRY_FILE}", expected=record.sha256, got=got, hint=_REFRESH
        )
    current = got == record.sha256
    return CachedRegistry(name, record.url, data, record.etag if current else "", record.fetched_ms)


def is_small(layout: StoreLayout, name: str) -> bool:
    """Whether a cached registry is as small as that of a split one."""
    found = fsread.stat_or_none(layout.registry(name) / REGISTRY_FILE)
    return found is not None and found.st_size <= _SMALL_BYTES


def changing(layout: StoreLayout, name: str) -> AbstractContextManager[None]:
    """Lock the cache of one registry, for a change that depends on what is cached.  Raises: StorageError."""
    return lock.hold_folder(layout.registry(name))


def write_cached(layout: StoreLayout, cached: CachedRegistry) -> None:
    """Store a registry's answer, under the lock of its folder: the record has both hashes of one change.

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
    """Return the SHA-256 of the cached answer, read in blocks, since the new one is in memory; empty for
    none.
    """
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
# `models/<model>.fetched` is one line of JSON, which says where the rest came from and what it hashes to, and
# then the bytes as the registry sent them.  One that cannot be read counts as absent.


class _Header(msgspec.Struct, frozen=True):
    """The first line; `sha256` is of what follows it, `fetched_ms` is 0 if an older release wrote it."""

    url: str
    etag: str
    sha256: str
    fetched_ms: int = 0


class CachedModel(msgspec.Struct, frozen=True):
    """The bytes of a `models/<model>.json`, and the ETag that came with them.

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
    """Remove a model that a registry no longer has."""
    path = _model_path(layout, registry, model)
    if fsread.stat_or_none(path) is not None:
        fsio.remove(path)


def _model_path(layout: StoreLayout, registry: str, model: str) -> Path:
    return layout.registry(registry) / "models" / f"{model_dirname(model)}.fetched"


# --- what versions would transfer, as planned last
# `outdated` then requests no manifest and no index again.  A plan counts as long as the store holds the same
# packs and files; one that cannot be read counts as absent.

PLANS_FILE = "plans.json"
# A machine has few models; more are not worth keeping.
_PLANS_LIMIT = 1000


class _Plan(msgspec.Struct, frozen=True):
    """A planned download; `given` is a hash of everything that the plan was made from."""

    given: str
    bytes: int


def plan_basis(layout: StoreLayout, offered: Iterable[str]) -> str:
    """Return what a plan is made from, as one digest: the content of the store, and the offered packs."""
    held = (*fsread.list_names(layout.root / "packs"), "", *fsread.list_names(layout.files))
    return Sha256.of("\n".join((*held, "", *offered)).encode()).hex


def read_plan(layout: StoreLayout, registry: str, manifest: Sha256, basis: str) -> int | None:
    """Return the planned bytes of a version; None if there is no plan, or one with another basis."""
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


# --- the newest state seen: what an older answer is recognised by
# A file of its own, so that a cached answer that is lost or damaged does not take it along.

NEWEST_FILE = "newest.json"
_REFRESH_MARK = "`ystore registry refresh` creates it again"


class HighWaterMark(CheckedRecord, frozen=True):
    """The latest `last_updated` of the registry at `url`; `seen_ms` is in milliseconds since 1970."""

    url: str
    last_updated: str
    seen_ms: int


def read_newest(layout: StoreLayout, name: str) -> HighWaterMark | None:
    """Return the newest state seen, None if unknown.  Raises: FormatError if the record is damaged."""
    what = f"registries/{name}/{NEWEST_FILE}"
    return records.read(
        layout.registry(name) / NEWEST_FILE, HighWaterMark, on_damage=Damage(what, _REFRESH_MARK)
    )


def write_newest(layout: StoreLayout, name: str, newest: HighWaterMark) -> None:
    """Store the newest state.  Raises: StorageError."""
    records.write(layout.registry(name) / NEWEST_FILE, newest, tmp_dir=layout.tmp)


# --- what was found wrong with mirrors: shown, and no decision depends on it

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
