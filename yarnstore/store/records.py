"""Small JSON records that tell when they were damaged: each has the SHA-256 of itself in it.

docs/format/store.md governs them.  What they say is their owners'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, NotFoundError
from yarnstore.store import fsio, fsread


class CheckedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record; fields of its own come before the check."""

    check: str = ""  # SHA-256 of the record without it

    def sealed(self) -> Self:
        """The record with its check."""
        plain = msgspec.structs.replace(self, check="")
        return msgspec.structs.replace(self, check=Sha256.of(msgspec.json.encode(plain)).hex)


R = TypeVar("R", bound=CheckedRecord)


def read_sealed(path: Path, kind: type[R], what: str, hint: str) -> R | None:
    """The record at `path`, None where there is none.

    Raises: FormatError about `what` where it is damaged.
    """
    try:
        data = fsread.read_bytes(path, MIB)
        record = msgspec.json.decode(data, type=kind)
    except NotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FormatError(what, "is damaged", hint=hint) from None
    if msgspec.json.encode(record.sealed()) != data:
        raise FormatError(what, "fails its check", hint=hint)
    return record


def write_sealed(path: Path, record: CheckedRecord, *, tmp_dir: Path) -> None:
    """Replace the record at `path`.  Raises: StorageError."""
    fsio.write_atomic(path, msgspec.json.encode(record.sealed()), tmp_dir=tmp_dir)
