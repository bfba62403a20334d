"""The values of a registry: frozen structs, as msgspec reads them from JSON.

Owns the keys and their types; docs/registry.md governs them.  Leaves reading to `schema` and the
rules that types do not say to `check`.  Pure.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, field

# What every JSON reader holds exactly: ECMAScript's Number.MAX_SAFE_INTEGER.
SIZE_LIMIT_BYTES: Final = 2**53 - 1

SizeBytes = Annotated[int, Meta(ge=0, le=SIZE_LIMIT_BYTES)]
Gigabytes = Annotated[float, Meta(ge=0)]


# Shared by all entries without any, of which a registry may have a million.  Nothing adds to it.
_NO_VARIANTS: Final[dict[str, VersionEntry]] = {}
_NO_ALIASES: Final[dict[str, str]] = {}


class FileEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One file of a version."""

    path: str
    size_bytes: SizeBytes
    sha256: str


class DeltaEntry(Struct, frozen=True, kw_only=True, gc=False):
    """A delta pack that leads from the version `base` to the one that lists it."""

    base: str
    base_manifest: str
    pack: str
    size_bytes: SizeBytes


class VersionEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One build of one version.  `variants` are further builds, by variant; they have none themselves."""

    model_id: str | None = None
    version: str | None = None
    variant: str | None = None
    checksum: str | None = None
    manifest: str | None = None
    download_url: str | None = None
    mirrors: tuple[str, ...] = ()
    size_bytes: SizeBytes | None = None
    files: tuple[FileEntry, ...] = ()
    packs: tuple[str, ...] = ()
    deltas: tuple[DeltaEntry, ...] = ()
    compatibility: tuple[str, ...] = ()
    release_date: str | None = None
    changelog: str | None = None
    security: bool = False
    yanked: bool = False
    deprecated: bool = False
    deprecated_reason: str | None = None
    replaced_by: str | None = None
    minimum_ram_gb: Gigabytes | None = None
    recommended_ram_gb: Gigabytes | None = None
    variants: dict[str, VersionEntry] = field(default_factory=lambda: _NO_VARIANTS)


class ModelEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One model and its versions.  `model_id` is filled in on reading where the registry leaves it out."""

    model_id: str = ""
    name: str | None = None
    description: str | None = None
    current_version: str | None = None
    tags: tuple[str, ...] = ()
    category: str | None = None
    license: str | None = None
    homepage: str | None = None
    aliases: dict[str, str] = field(default_factory=lambda: _NO_ALIASES)
    versions: dict[str, VersionEntry]


class RegistryDoc(Struct, frozen=True, kw_only=True, gc=False):
    """A whole `registry.json`.  If it is `split`, its models are in files of their own, and none in it."""

    registry_version: str | None = None
    last_updated: str | None = None
    mirrors: tuple[str, ...] = ()
    split: bool = False
    models: dict[str, ModelEntry]
