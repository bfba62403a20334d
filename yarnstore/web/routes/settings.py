"""Routes of settings, auto-update and registries."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, delete, get, patch, post, put
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from yarnstore.core.names import parse_registry_name
from yarnstore.errors import UsageError
from yarnstore.results import RegistryInfo, SettingInfo
from yarnstore.web import requests
from yarnstore.web.records import AutoUpdatePage
from yarnstore.web.routes.names import Segment, model_in
from yarnstore.web.schedule import auto_update_page
from yarnstore.web.service import Service

RegistryName = Annotated[str, PathParameter(description="The name of the registry.", max_length=100)]


@get("/settings", sync_to_thread=True, summary="List settings")
def get_settings(service: NamedDependency[Service]) -> list[SettingInfo]:
    """The settings that can be changed here, each with the place that sets it."""
    return service.store.list_settings()


@patch("/settings", sync_to_thread=True, summary="Change settings")
def change_settings(
    service: NamedDependency[Service], data: JSONBody[dict[str, str | int | float | bool | None]]
) -> list[SettingInfo]:
    """Change the given settings; null resets one.  Either all are changed or none."""
    changed = service.store.change_settings(data)
    service.scheduler.wake()
    return changed


@get("/auto-update", sync_to_thread=True, summary="Show the auto-update settings")
def get_auto_update(service: NamedDependency[Service]) -> AutoUpdatePage:
    """The settings of all models, and the time of the next check."""
    return auto_update_page(service.store.auto_update_status())


@put("/auto-update", sync_to_thread=True, summary="Change the auto-update settings")
def set_auto_update(
    service: NamedDependency[Service], data: JSONBody[requests.AutoUpdateRequest]
) -> AutoUpdatePage:
    """Change auto-update for all models, or for the named ones; omitted fields stay as they are."""
    store = service.store
    store.set_auto_update(
        *data.models, enabled=data.enabled, policy=data.policy, windows=data.windows, jitter=data.jitter
    )
    service.scheduler.wake()
    return auto_update_page(service.store.auto_update_status())


@delete(
    "/auto-update/models/{model:str}",
    sync_to_thread=True,
    status_code=200,
    summary="Remove the auto-update rule of a model",
)
def reset_auto_update(service: NamedDependency[Service], model: Segment) -> AutoUpdatePage:
    """Remove the rule of one model, which then follows the settings of all models."""
    service.store.reset_auto_update(model_in(model))
    service.scheduler.wake()
    return auto_update_page(service.store.auto_update_status())


@get("/registries", sync_to_thread=True, summary="List registries")
def list_registries(service: NamedDependency[Service]) -> list[RegistryInfo]:
    """The configured registries with their mirrors, in order of priority."""
    return service.store.list_registries()


@post("/registries", sync_to_thread=True, summary="Add a registry")
def add_registry(service: NamedDependency[Service], data: JSONBody[requests.RegistryRequest]) -> RegistryInfo:
    """Add a registry on a web server, if it can be reached."""
    _require_web_address(data.url, "`ystore registry add` adds a folder on this machine")
    return service.store.add_registry(data.name, data.url)


@put("/registries/{name:str}/mirrors", sync_to_thread=True, summary="Change the mirrors of a registry")
def set_mirrors(
    service: NamedDependency[Service], name: RegistryName, data: JSONBody[requests.MirrorsRequest]
) -> RegistryInfo:
    """Replace the mirrors that were added to a registry; those that it names itself stay."""
    for url in data.mirrors:
        _require_web_address(url, "a mirror in a folder is set in `config.toml`")
    return service.store.set_mirrors(parse_registry_name(name), data.mirrors)


@delete("/registries/{name:str}", sync_to_thread=True, summary="Remove a registry")
def remove_registry(service: NamedDependency[Service], name: RegistryName) -> None:
    """Remove a registry; its downloaded models stay."""
    service.store.remove_registry(parse_registry_name(name))


@post("/registries/{name:str}/refresh", sync_to_thread=True, status_code=200, summary="Refresh a registry")
def refresh_registry(service: NamedDependency[Service], name: RegistryName) -> RegistryInfo:
    """Fetch the newest index of a registry."""
    return service.store.refresh_registries(parse_registry_name(name))[0]


def _require_web_address(url: str, hint: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise UsageError("a registry or a mirror added here needs an https:// or http:// address", hint=hint)


router = Router(
    "/",
    route_handlers=[
        get_settings, change_settings, get_auto_update, set_auto_update,
        reset_auto_update, list_registries, add_registry, set_mirrors, remove_registry, refresh_registry,
    ],
    tags=["settings"],
)  # fmt: skip
