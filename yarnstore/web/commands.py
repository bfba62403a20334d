"""The seven commands that applications know by name, with their established fields.  Needs no extra."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from yarnstore import Store
from yarnstore.errors import NotFoundError
from yarnstore.results import CheckoutResult, InstalledModel, UpdateResult, VersionDetails
from yarnstore.store.state import format_iso

COMMANDS = (
    "check_model_updates",
    "update_model",
    "rollback_model",
    "get_model_version_history",
    "list_installed_models",
    "get_model_registry",
    "enable_auto_updates",
)
_FACTS = (
    *("checksum", "download_url", "size_bytes", "compatibility", "release_date", "changelog", "deprecated"),
    *("minimum_ram_gb", "recommended_ram_gb"),
)


@dataclass(frozen=True)
class PublishedVersion:
    """One published or stored version."""

    model_id: str  #: The id of the model.
    version: str
    variant: str
    checksum: str | None
    download_url: str | None  #: Where the plain file can be downloaded.
    size_bytes: int | None
    compatibility: tuple[str, ...]
    release_date: str | None
    changelog: str | None
    deprecated: bool
    minimum_ram_gb: float | None
    recommended_ram_gb: float | None
    installed: bool = False  #: Whether it is installed.


@dataclass(frozen=True)
class ModelUpdate:
    """An update of an installed model."""

    model_id: str  #: The id of the model.
    current_version: str  #: The installed version.
    latest_version: str  #: The version that `update_model` would install.
    update_type: str | None  #: `major`, `minor`, `patch`, `prerelease` or `security`.
    download_bytes: int | None  #: How many bytes would be downloaded; None if unknown.
    variant: str
    checksum: str | None
    download_url: str | None  #: Where the plain file can be downloaded.
    size_bytes: int | None
    compatibility: tuple[str, ...]
    release_date: str | None
    changelog: str | None
    deprecated: bool
    minimum_ram_gb: float | None
    recommended_ram_gb: float | None


@dataclass(frozen=True)
class InstalledEntry:
    """One installed model."""

    model_id: str  #: The id of the model.
    version: str
    variant: str
    installed_at: str | None  #: When it was installed, ISO 8601 in UTC.
    last_used: str | None  #: When it was last used, ISO 8601 in UTC.
    file_path: str  #: The path to open: the file, or the folder of several files.
    checksum: str  #: The SHA-256 of the file, or of the manifest if the version has several files.
    size_bytes: int


@dataclass(frozen=True)
class ModelChanged:
    """The result of `update_model` or `rollback_model`."""

    model_id: str  #: The id of the model.
    version: str  #: The version that is installed now.
    variant: str
    previous_version: str | None  #: The version that was installed before.
    changed: bool  #: Whether another version was installed.
    file_path: str  #: The path to open: the file, or the folder of several files.
    size_bytes: int | None


@dataclass(frozen=True)
class RegistryModel:
    """One model that a registry offers."""

    model_id: str  #: The id of the model.
    name: str | None  #: The name of the model, for people.
    description: str | None
    category: str | None
    registry: str | None
    versions: list[PublishedVersion] = field(default_factory=list)  #: The versions, the newest first.
    current_version: str | None = None  #: The version that `latest` means.


@dataclass(frozen=True)
class RegistryContents:
    """What the registries offer."""

    last_updated: str | None  #: The latest `last_updated` of the registries, ISO 8601.
    models: dict[str, RegistryModel]  #: The models by id.


def check_model_updates(store: Store, model_id: str | None, *, refresh: bool) -> list[ModelUpdate]:
    """Return the installed models that have an update; with `refresh` the registries are queried."""
    found = []
    for item in store.check_for_updates(*([model_id] if model_id else []), refresh=refresh):
        if item.wanted == item.installed and not item.wanted_variant:
            continue
        variant = item.wanted_variant or item.variant
        said = store.show(f"{item.model}:{variant}@{item.wanted}")
        found.append(
            ModelUpdate(
                model_id=item.model,
                current_version=item.installed,
                latest_version=item.wanted,
                update_type=item.kind,
                download_bytes=item.download_bytes,
                variant=variant,
                **{**_facts(said), "changelog": item.changelog or said.changelog},
            )
        )
    return found


def changed(result: CheckoutResult | UpdateResult) -> ModelChanged:
    """Return the result of an update or a rollback."""
    return ModelChanged(
        model_id=result.model,
        version=result.version,
        variant=result.variant,
        previous_version=result.previous,
        changed=result.changed,
        file_path=result.path,
        size_bytes=result.size_bytes,
    )


def get_model_version_history(store: Store, model_id: str) -> list[PublishedVersion]:
    """Return all versions of a model, published or stored, the newest first."""
    history = store.get_version_history(model_id)
    try:
        offered = {(row.variant, row.version): row for row in _offered(store, model_id)}
    except NotFoundError:  # no registry
        offered = {}
    stored = {(row.variant, row.version): row for row in store.list_versions(model_id)}
    found = []
    for row in history.versions:
        key = (row.variant, row.version)
        if key in offered:
            found.append(_entry(offered[key], installed=row.installed))
            continue
        here = stored.get(key)
        found.append(
            PublishedVersion(
                model_id=model_id,
                version=row.version,
                variant=row.variant,
                checksum=here.checksum if here else None,
                download_url=None,
                size_bytes=here.size_bytes if here else row.size_bytes,
                compatibility=(),
                release_date=row.release_date,
                changelog=row.changelog,
                deprecated=row.deprecated,
                minimum_ram_gb=None,
                recommended_ram_gb=None,
                installed=row.installed,
            )
        )
    return found


def list_installed_models(store: Store) -> list[InstalledEntry]:
    """Return the installed models."""
    return [_installed(item) for item in store.list_installed_models()]


def get_model_registry(store: Store) -> RegistryContents:
    """Return every version that the registries offer."""
    models: dict[str, RegistryModel] = {}
    offers = {offer.model: offer for offer in store.search()}
    installed = {(item.model, item.variant, item.version) for item in store.list_installed_models()}
    for row in store.list_offered():
        if row.model not in models:
            offer = offers.get(row.model)
            models[row.model] = RegistryModel(
                model_id=row.model,
                name=row.name,
                description=row.description,
                category=row.category,
                registry=row.registry,
                current_version=offer.latest if offer else None,
            )
        here = (row.model, row.variant, row.version) in installed
        models[row.model].versions.append(_entry(row, installed=here))
    updated = [info.last_updated for info in store.list_registries() if info.last_updated]
    return RegistryContents(max(updated, default=None), models)


def _offered(store: Store, model_id: str) -> list[VersionDetails]:
    return [row for row in store.list_offered(model_id) if row.model == model_id]


def _entry(row: VersionDetails, *, installed: bool) -> PublishedVersion:
    return PublishedVersion(
        model_id=row.model,
        version=row.version,
        variant=row.variant,
        installed=installed,
        **_facts(row),
    )


def _facts(row: VersionDetails) -> dict[str, Any]:
    """Return a registry's information about a version, under the established names."""
    return {name: getattr(row, name) for name in _FACTS}


def _installed(item: InstalledModel) -> InstalledEntry:
    return InstalledEntry(
        model_id=item.model,
        version=item.version,
        variant=item.variant,
        installed_at=format_iso(item.installed_ms),
        last_used=format_iso(item.last_used_ms),
        file_path=item.path,
        checksum=item.checksum,
        size_bytes=item.size_bytes,
    )
