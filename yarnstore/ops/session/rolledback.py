"""Whether a registry, or a mirror of it, says less than what it has said before: an older state of it.

Owns the comparison with what was kept, and the error.  What is kept, and where, is
`store/registry_cache`'s to know; it is kept once the answer was read and checked, and never before.
docs/decisions/0016 has the reasons.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from yarnstore.backends.urls import shown
from yarnstore.errors import BackendError, FormatError, RolledBackError
from yarnstore.ops.session.sources import RegistrySource
from yarnstore.registry.schema import RegistryDoc, parse_registry
from yarnstore.registry.timestamps import is_believable, is_older, parse_timestamp
from yarnstore.store.layout import StoreLayout
from yarnstore.store.registry_cache import (
    CachedRegistry,
    HighWaterMark,
    changing,
    read_newest,
    write_newest,
)


def known_time(layout: StoreLayout, source: RegistrySource, cached: CachedRegistry | None) -> str:
    """The latest `last_updated` that was ever seen of a registry at its address; empty for none."""
    try:
        newest = read_newest(layout, source.name)
    except FormatError:
        newest = None  # reported by fsck
    if newest is not None and newest.url == source.url:
        return newest.last_updated
    if cached is None:
        return ""
    try:  # a store of an older release has the registry alone
        said = parse_registry(cached.data).last_updated or ""
    except FormatError:
        return ""
    return said if is_believable(said, _time(cached.fetched_ms)) else ""


def refuse_rollback(
    source: RegistrySource,
    doc: RegistryDoc,
    known: str,
    *,
    mirror: str | None,
    accept: bool,
    note: Callable[[str], None],
) -> None:
    """Refuse an answer that is older than what is known; with `accept` only a mirror's.

    `mirror` is who gave it, None for the registry's own address.  Raises: RolledBackError, BackendError.
    """
    if parse_timestamp(known) is None:
        return
    said = doc.last_updated or ""
    if mirror is not None:
        if parse_timestamp(said) is None or is_older(said, known):
            raise BackendError(mirror, "has an older index than the cached one")
        return
    if parse_timestamp(said) is None:
        note(f"{source.name} no longer has a last_updated, which was {known} last time")
    elif is_older(said, known):
        if not accept:
            raise RolledBackError(shown(source.url, folder=True), source.name, known, said)
        note(f"{source.name}: accepted an older index, from {said} instead of {known}")


def keep_newest(
    layout: StoreLayout, source: RegistrySource, doc: RegistryDoc, *, accept: bool, now_ms: int
) -> None:
    """Remember the latest `last_updated`, or with `accept` this one.  Raises: StorageError."""
    if not is_believable(doc.last_updated, _time(now_ms)):
        return
    # Read again under the lock: another process may have seen a newer one meanwhile.
    with changing(layout, source.name):
        known = known_time(layout, source, None)
        if known != doc.last_updated and (accept or not is_older(doc.last_updated, known)):
            mark = HighWaterMark(url=source.url, last_updated=str(doc.last_updated), seen_ms=now_ms)
            write_newest(layout, source.name, mark)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
