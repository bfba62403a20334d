"""The newest state that was ever seen of each registry: what an older answer is told by.

docs/format/store.md governs `registries/<name>/newest.json`.  It is a file of its own, so that a cached
answer that is lost or damaged does not take it along.
"""

from __future__ import annotations

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, NotFoundError
from yarnstore.store import fsio, fsread
from yarnstore.store.layout import StoreLayout

NEWEST_FILE = "newest.json"


class Newest(msgspec.Struct, frozen=True):
    """The latest `last_updated` of the registry at `url`; `seen_ms` is in milliseconds since 1970."""

    url: str
    last_updated: str
    seen_ms: int
    check: str = ""  # SHA-256 of the record without it

    def sealed(self) -> Newest:
        """The record with its check."""
        plain = msgspec.structs.replace(self, check="")
        return msgspec.structs.replace(self, check=Sha256.of(msgspec.json.encode(plain)).hex)


def read_newest(layout: StoreLayout, name: str) -> Newest | None:
    """None where nothing is known.  Raises: FormatError where the record is damaged."""
    try:
        data = fsread.read_bytes(layout.registry(name) / NEWEST_FILE, MIB)
        newest = msgspec.json.decode(data, type=Newest)
    except NotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FormatError(f"registries/{name}/{NEWEST_FILE}", "is damaged", hint=_REFRESH) from None
    if msgspec.json.encode(newest.sealed()) != data:
        raise FormatError(f"registries/{name}/{NEWEST_FILE}", "fails its check", hint=_REFRESH)
    return newest


_REFRESH = "`ystore registry refresh` makes it anew"


def write_newest(layout: StoreLayout, name: str, newest: Newest) -> None:
    """Keep what is the newest now.  Raises: StorageError."""
    path = layout.registry(name) / NEWEST_FILE
    fsio.write_atomic(path, msgspec.json.encode(newest.sealed()), tmp_dir=layout.tmp)
