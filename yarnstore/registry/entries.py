"""The entries of a registry: frozen structs that msgspec decodes from JSON.

Owns the keys and their types; docs/registry.md governs them.  `schema` reads them, `check` has the further
rules.  Pure.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, field

# The largest integer that every JSON reader represents exactly: ECMAScript's Number.MAX_SAFE_INTEGER.
SIZE_LIMIT_BYTES: Final = 2**53 - 1

SizeBytes = Annotated[int, Meta(ge=0, le=SIZE_LIMIT_BYTES)]
Gigabytes = Annotated[float, Meta(ge=0)]

# The keys of deltas in the entry of a version: for all releases, with entries of encoding 5, with entries of
# encoding 6, with and against entries of encoding 7, from versions of other models.
PLAIN: Final = "deltas"
MAPPED: Final = "mapped_deltas"
DEFLATED: Final = "deflated_deltas"
TRANSPOSED: Final = "transposed_deltas"
BASED: Final = "based_deltas"
DELTA_KEYS: Final = (PLAIN, MAPPED, DEFLATED, TRANSPOSED, BASED)


# Shared by all entries without any, of which a registry may have a million; never changed.
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
    #: Of the entries in `deltas` from the same base for which this pack has smaller ones.
    replaced_bytes: SizeBytes = 0
    #: What made the streams of `deflated_deltas`; a reader needs one that makes the same bytes.
    compressor: str = ""

    @property
    def net_bytes(self) -> int:
        """What the pack adds to a download of all deltas from its base; negative if it makes it smaller."""
        return self.size_bytes - self.replaced_bytes

    @property
    def label(self) -> str:
        """The version that the pack leads from, with its model if that is another one."""
        return self.base


class TransposedDeltaEntry(DeltaEntry, frozen=True, kw_only=True, gc=False):
    """A delta pack with parts of transposed tensors of `base`, or with deltas against such parts."""

    transposes: bool = False  #: Whether the pack has the parts: entries of encoding 7.


class BasedDeltaEntry(DeltaEntry, frozen=True, kw_only=True, gc=False):
    """A delta pack that leads from a version of the other model `base_model`."""

    base_model: str
    mapped: bool = False  #: Whether the pack has entries of encoding 5 or 6.

    @property
    def label(self) -> str:
        return f"{self.base_model}@{self.base}"


class VersionEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One build of one version.

    `variants` are further builds by variant, which have no `variants` themselves.
    """

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
    mapped_deltas: tuple[DeltaEntry, ...] = ()
    deflated_deltas: tuple[DeltaEntry, ...] = ()
    transposed_deltas: tuple[TransposedDeltaEntry, ...] = ()
    based_deltas: tuple[BasedDeltaEntry, ...] = ()
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
    requires: tuple[str, ...] = ()
    variants: dict[str, VersionEntry] = field(default_factory=lambda: _NO_VARIANTS)

    @property
    def delta_lists(self) -> tuple[tuple[str, tuple[DeltaEntry, ...]], ...]:
        """The lists of deltas, each with its key."""
        lists = (
            self.deltas,
            self.mapped_deltas,
            self.deflated_deltas,
            self.transposed_deltas,
            self.based_deltas,
        )
        return tuple(zip(DELTA_KEYS, lists, strict=True))

    @property
    def all_deltas(self) -> tuple[DeltaEntry, ...]:
        """The deltas of all lists."""
        return tuple(delta for _, deltas in self.delta_lists for delta in deltas)


class ModelEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One model and its versions.  If the registry omits `model_id`, the reader adds it."""

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
    """A whole `registry.json`.  If it is `split`, each model is in a file of its own."""

    registry_version: str | None = None
    last_updated: str | None = None
    mirrors: tuple[str, ...] = ()
    split: bool = False
    models: dict[str, ModelEntry]
