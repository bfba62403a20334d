"""Checks that a registry's JSON can be decoded within a memory limit that depends on its size.

docs/registry.md states the limit; `core/jsoncost` estimates the memory.  Pure.
"""

from __future__ import annotations

from typing import Final

from yarnstore.core.jsoncost import JsonShape, count_pairs, measure, most_bytes
from yarnstore.core.limits import (
    MIB,
    REGISTRY_EDIT_LIMIT_MEMORY_FACTOR,
    REGISTRY_LIMIT_MEMORY_BYTES,
    REGISTRY_LIMIT_MEMORY_FACTOR,
)
from yarnstore.errors import FormatError

# `VersionEntry` is the largest struct that is the value of a key, `BasedDeltaEntry` the largest in an array.
_KEYED_BYTES: Final = 232
_LISTED_BYTES: Final = 80
_HINT: Final = "its publisher can store each model's entry in its own file: `--split` of `ystore publish`"


def check_memory(data: bytes, what: str, *, source: str = "") -> None:
    """Refuse a document that takes too much memory as entries.  Raises: FormatError."""
    limit_bytes = max(REGISTRY_LIMIT_MEMORY_BYTES, REGISTRY_LIMIT_MEMORY_FACTOR * len(data))
    if most_bytes(data) <= limit_bytes:
        return
    pairs = count_pairs(data, "aliases")

    def too_much(shape: JsonShape) -> bool:
        taken = shape.typed_bytes(keyed_bytes=_KEYED_BYTES, listed_bytes=_LISTED_BYTES, pairs=pairs)
        return taken > limit_bytes

    if too_much(measure(data, too_much, fields=("versions", "variants", "aliases"))):
        raise _error(what, len(data), limit_bytes, source)


def fits_untyped(data: bytes, *, factor: int = REGISTRY_LIMIT_MEMORY_FACTOR) -> bool:
    """Whether a document can be decoded to dicts and lists, which take more memory."""
    limit_bytes = _untyped_limit(data, factor)

    def too_much(shape: JsonShape) -> bool:
        return shape.untyped_bytes() > limit_bytes

    return most_bytes(data) <= limit_bytes or not too_much(measure(data, too_much))


def check_untyped(data: bytes, what: str) -> None:
    """Refuse a document that takes too much memory as dicts and lists.  Raises: FormatError."""
    if not fits_untyped(data, factor=REGISTRY_EDIT_LIMIT_MEMORY_FACTOR):
        raise _error(what, len(data), _untyped_limit(data, REGISTRY_EDIT_LIMIT_MEMORY_FACTOR), "")


def _untyped_limit(data: bytes, factor: int) -> int:
    return max(REGISTRY_LIMIT_MEMORY_BYTES, factor * len(data))


def _error(what: str, size_bytes: int, limit_bytes: int, source: str) -> FormatError:
    return FormatError(
        what,
        f"would need more than {limit_bytes // MIB} MiB of memory to read, "
        f"since its {size_bytes / MIB:.1f} MiB are very small values",
        source=source,
        hint=_HINT,
    )
