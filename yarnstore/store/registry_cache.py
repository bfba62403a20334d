"""The cached registries of a store: what each said last, and when.

`registries/<name>/registry.json` is what the registry sent, byte for byte; `fetched.json` beside it
has its address, its ETag, its hash and when it came.  The record names the hash before and after
a change, so that a crash between the two files leaves both readable.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import KIB, REGISTRY_LIMIT_BYTES
from yarnstore.errors import FormatError, IntegrityError, NotFoundError
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import StoreLayout
from yarnstore.store.records import CheckedRecord, read_sealed, write_sealed

REGISTRY_FILE = "registry.json"
_RECORD_FILE = "fetched.json"
_SMALL_BYTES = 64 * KIB


class FetchRecord(CheckedRecord, frozen=True):
    """When and from where a registry came; times are milliseconds since 1970."""

    url: str
    fetched_ms: int
    sha256: str
    etag: str = ""
    previous_sha256: str = ""


class CachedRegistry(msgspec.Struct, frozen=True):
    """A registry as it was fetched.  `etag` is empty where it is not known for these bytes."""

    name: str
    url: str
    data: bytes
    etag: str
    fetched_ms: int


def read_record(layout: StoreLayout, name: str) -> FetchRecord | None:
    """Raises: FormatError where the record is damaged."""
    what = f"registries/{name}/{_RECORD_FILE}"
    return read_sealed(layout.registry(name) / _RECORD_FILE, FetchRecord, what, _REFRESH)


def check_absent(layout: StoreLayout, name: str) -> None:
    """Whether a cache that cannot be used never came, rather than was lost.

    Raises: FormatError where one of the two files is gone.
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
    """The cached registry, or None where there is none.

    Raises: IntegrityError (FormatError) where it is not what was fetched.
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
    """Whether a cached registry is as small as that of a split one is."""
    found = fsread.stat_or_none(layout.registry(name) / REGISTRY_FILE)
    return found is not None and found.st_size <= _SMALL_BYTES


def write_cached(layout: StoreLayout, cached: CachedRegistry) -> None:
    """Keep what a registry sent."""
    folder = layout.registry(cached.name)
    path = folder / REGISTRY_FILE
    before = _hash_of(path)
    after = Sha256.of(cached.data).hex
    record = FetchRecord(cached.url, cached.fetched_ms, after, cached.etag, before)
    write_sealed(folder / _RECORD_FILE, record, tmp_dir=layout.tmp)
    if before != after:
        fsio.write_atomic(path, cached.data, tmp_dir=layout.tmp)


def _hash_of(path: Path) -> str:
    """The SHA-256 of what is cached, in blocks, since the new answer is in memory; empty for none."""
    digest = hashlib.sha256()
    try:
        for block in fsread.iter_blocks(path):
            digest.update(block)
    except (NotFoundError, FormatError):
        return ""
    return digest.hexdigest()


def remove_cached(layout: StoreLayout, name: str) -> None:
    """Forget what a registry said."""
    fsio.remove_tree(layout.registry(name))
