"""Small JSON records with a common way of reading: missing, complete, or damaged.

A `CheckedRecord` contains the SHA-256 of itself, so that damage is noticed.  docs/format/store.md governs
them; their modules own the content.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self, TypeVar

import msgspec

from yarnstore.core.digest import Sha256
from yarnstore.core.limits import MIB
from yarnstore.errors import FormatError, NotFoundError, StorageError
from yarnstore.store import fsio, fsread
from yarnstore.store.filepath import Path


class CheckedRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record; subclasses add fields before the check."""

    check: str = ""  # SHA-256 of the record without this field

    def sealed(self) -> Self:
        """Return the record with its check."""
        plain = msgspec.structs.replace(self, check="")
        return msgspec.structs.replace(self, check=Sha256.of(msgspec.json.encode(plain)).hex)


T = TypeVar("T")


class Damage(NamedTuple):
    """How to report a damaged record: its name in the error, and the hint."""

    what: str
    hint: str


def read(path: Path, kind: type[T], *, on_damage: Literal["absent"] | Damage) -> T | None:
    """Return the record at `path`, None if it does not exist; a `CheckedRecord` must pass its check.

    With `on_damage` None, a damaged or unreadable record counts as missing. Raises: FormatError, StorageError
    otherwise.
    """
    try:
        data = fsread.read_bytes(path, MIB)
        record = msgspec.json.decode(data, type=kind)
    except NotFoundError:
        return None
    except (FormatError, StorageError):
        if on_damage == "absent":
            return None
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        why = "is damaged"
    else:
        if not isinstance(record, CheckedRecord) or msgspec.json.encode(record.sealed()) == data:
            return record
        why = "does not match its checksum"
    if on_damage == "absent":
        return None
    raise FormatError(on_damage.what, why, hint=on_damage.hint)


def write(path: Path, record: object, *, tmp_dir: Path) -> None:
    """Replace the record at `path`; a `CheckedRecord` gets its check.  Raises: StorageError."""
    sealed = record.sealed() if isinstance(record, CheckedRecord) else record
    fsio.write_atomic(path, msgspec.json.encode(sealed), tmp_dir=tmp_dir)
