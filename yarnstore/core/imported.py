"""Where an imported version was, so that an export to the same tool gives it the same names there.

A field of the manifest; docs/format/manifest.md governs it.  Pure.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

FIELD: Final = "imported_from"


class ImportedFrom(msgspec.Struct, frozen=True, omit_defaults=True):
    """The tool that had a version, and what cannot be derived from its files."""

    kind: str  # `hf`, `ollama`, `lmstudio` or `oci`
    name: str  # of the model there
    revision: str = ""  # 40 or 64 hex digits
    git: tuple[str, ...] = ()  # in the Hugging Face cache: the paths whose content has the name of git
    manifest: str = ""  # of Ollama and OCI: the text of the manifest
    config: str = ""  # … and that of its configuration


def as_field(imported: ImportedFrom | None) -> dict[str, Any]:
    """Return the field of a manifest; empty for a version that was imported from plain files."""
    return {} if imported is None else {FIELD: msgspec.to_builtins(imported)}


def imported_from(fields: Mapping[str, Any]) -> ImportedFrom | None:
    """Return the field among the optional fields of a manifest; None if it is missing or not understood."""
    with contextlib.suppress(msgspec.ValidationError):
        if FIELD in fields:
            return msgspec.convert(fields[FIELD], ImportedFrom)
    return None
