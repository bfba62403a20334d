"""What was found wrong with a registry's mirrors: kept to be shown, and to be decided by nobody.

docs/format/store.md governs `registries/<name>/health.json`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import StoreLayout

HEALTH_FILE = "health.json"


class MirrorHealth(msgspec.Struct, frozen=True):
    """A mirror that failed: `kind` is `lied`, `stalled` or `unreachable`, `at_ms` the last time, in
    milliseconds since 1970, `count` how many sessions it failed in."""

    url: str
    kind: str
    why: str
    at_ms: int
    count: int = 1


def read_health(layout: StoreLayout, name: str) -> list[MirrorHealth]:
    """What is known of a registry's mirrors; nothing where the record is missing or damaged."""
    try:
        data = fsread.read_bytes(layout.registry(name) / HEALTH_FILE, MIB)
        return msgspec.json.decode(data, type=list[MirrorHealth])
    except (
        NotFoundError,
        FormatError,
        StorageError,
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
    ):
        return []


def write_health(layout: StoreLayout, name: str, found: Sequence[MirrorHealth]) -> None:
    """Keep what is known now.  Raises: StorageError."""
    path = layout.registry(name) / HEALTH_FILE
    if found:
        fsio.write_atomic(path, msgspec.json.encode(list(found)), tmp_dir=layout.tmp)
    else:
        fsio.remove(path)
